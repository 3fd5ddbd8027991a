"""`python bench/gpu_proof`: builds, tests, checks and measures the CUDA kernels on the GPU it finds; see `driver`.

`driver`, `building`, `testing`, `process`, `bars` and `report` import nothing but each other and the standard library:
they run before there is anything else to import. `operators`, `small_set` and segfast.bench.e2e run after the build, in
processes of their own.
"""

# SPDX-License-Identifier: Apache-2.0
