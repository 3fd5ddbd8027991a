/* Host side of every launch: device, stream, grid size. */
// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <cuda_runtime.h>
#include <torch/csrc/inductor/aoti_torch/c/shim.h>
#include <torch/csrc/stable/accelerator.h>
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/macros.h>

#include <algorithm>

#include "base/check.h"

namespace segfast {

using torch::stable::accelerator::DeviceGuard;

inline cudaStream_t current_stream(const Tensor& t) {
  void* stream = nullptr;
  TORCH_ERROR_CODE_CHECK(aoti_torch_get_current_cuda_stream(t.get_device_index(), &stream));
  return static_cast<cudaStream_t>(stream);
}

// By work alone, never by device: partial sums, and so the bits of a result, do not depend on the card.
inline unsigned blocks_for(int64_t work, int64_t per_block, int64_t most) {
  return static_cast<unsigned>(std::clamp<int64_t>((work + per_block - 1) / per_block, 1, most));
}

// Shared memory that each of `blocks` blocks on one multiprocessor of the current device may have, static and dynamic together.
inline int64_t shared_bytes_for(int blocks) {
  int device = 0, all = 0, reserved = 0;
  STD_CUDA_CHECK(cudaGetDevice(&device));
  STD_CUDA_CHECK(cudaDeviceGetAttribute(&all, cudaDevAttrMaxSharedMemoryPerMultiprocessor, device));
  STD_CUDA_CHECK(
      cudaDeviceGetAttribute(&reserved, cudaDevAttrReservedSharedMemoryPerBlock, device));
  return all / blocks - reserved;
}

// Asks for a kernel's dynamic shared memory: without asking, static and dynamic may have 48 KB together.
template <class Kernel>
void allow_shared(Kernel* kernel, size_t bytes) {
  STD_CUDA_CHECK(cudaFuncSetAttribute(reinterpret_cast<const void*>(kernel),
                                      cudaFuncAttributeMaxDynamicSharedMemorySize,
                                      static_cast<int>(bytes)));
}

// Of the current device. Only for cutting work into blocks whose sums do not depend on the cut.
inline int multiprocessors() {
  int device = 0, count = 1;
  STD_CUDA_CHECK(cudaGetDevice(&device));
  STD_CUDA_CHECK(cudaDeviceGetAttribute(&count, cudaDevAttrMultiProcessorCount, device));
  return count;
}

}  // namespace segfast
