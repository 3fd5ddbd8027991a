"""Files that hold weights, read without running anything in them: checkpoints, state dicts, safetensors."""

# SPDX-License-Identifier: Apache-2.0

from segfast.weight_files.reading import load_checkpoint

__all__ = ["load_checkpoint"]
