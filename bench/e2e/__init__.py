"""A whole training step, eager against segfast: `train_step` measures it, both sides drive the same network."""

# SPDX-License-Identifier: Apache-2.0
