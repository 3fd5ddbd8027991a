/* Counting (label, class) pairs: a private histogram per block in shared memory, added to the result once; too large a C
   adds to the result directly. Integer additions commute: the same counts every run.
   Source   privatised histograms, CUB DeviceHistogram (idea) */
// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <cuda_runtime.h>
#include <stdint.h>

namespace segfast {

constexpr int64_t kPrivateBytes = 48
                                  << 10;  // what every architecture grants without asking: C <= 110

// Dynamic shared memory for C classes; 0: no private histogram.
inline size_t private_bytes(int64_t num_classes) {
  const int64_t bytes = num_classes * num_classes * static_cast<int64_t>(sizeof(unsigned));
  return static_cast<size_t>(bytes <= kPrivateBytes ? bytes : 0);
}

// All threads of a block call clear, then add as they like, then flush. A block may count up to 2^32 - 1 pixels.
template <bool kPrivate>
struct PairCounts {
  unsigned* block_counts;
  unsigned long long* counts;
  int64_t num_classes;

  __device__ void clear() const {
    if (kPrivate) {
      for (int64_t i = threadIdx.x; i < num_classes * num_classes; i += blockDim.x)
        block_counts[i] = 0;
      __syncthreads();  // or a fast warp would count into cells not yet cleared
    }
  }
  __device__ void add(int64_t label, int64_t guess, unsigned run) const {
    const int64_t cell = label * num_classes + guess;
    if (kPrivate)
      atomicAdd(block_counts + cell, run);
    else
      atomicAdd(counts + cell, static_cast<unsigned long long>(run));
  }
  __device__ void flush() const {
    if (kPrivate) {
      __syncthreads();  // or the sums below would miss another warp's last runs
      for (int64_t i = threadIdx.x; i < num_classes * num_classes; i += blockDim.x) {
        if (block_counts[i])
          atomicAdd(counts + i, static_cast<unsigned long long>(block_counts[i]));
      }
    }
  }
};

}  // namespace segfast
