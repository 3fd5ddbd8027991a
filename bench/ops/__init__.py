"""One file per operator: `CASES`, a table of named cases, and `setup`, which makes one ready."""

# SPDX-License-Identifier: Apache-2.0
