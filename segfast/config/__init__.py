"""Configs: read a file or dict, inherit, apply overrides, refuse misspelt keys, write the resolved result.

A Python config is executed; yaml, toml and json never execute anything while they are read.
"""

# SPDX-License-Identifier: Apache-2.0

from segfast.config.load import load_config
from segfast.config.merge import plain_copy
from segfast.config.text import dump_config, parse_override, pretty_text

__all__ = ["dump_config", "load_config", "parse_override", "plain_copy", "pretty_text"]
