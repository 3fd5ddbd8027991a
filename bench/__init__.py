"""The benchmarks: cases in `ops`, one file per operator; `harness` measures them, `segfast bench` shows them."""

# SPDX-License-Identifier: Apache-2.0
