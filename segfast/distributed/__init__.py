"""Several processes: who they are, how they exchange small things, and how they end together."""

# SPDX-License-Identifier: Apache-2.0

from segfast.distributed.world import gather, is_first, mean_of_all, share, wait_for_all, world

__all__ = ["gather", "is_first", "mean_of_all", "share", "wait_for_all", "world"]
