/* Counting (label, class) pairs: a private histogram per block in shared memory, added to the result once; where C is too
   large for one, pixels are added to the result directly.
   Memory   counters of 16 bits, two in a word: 44 KB for 150 classes, 215 KB for 331
   Mapping  lanes that add to the same cell at the same time add once (sm_80 and newer): all lanes of a warp in shared memory,
            where smooth maps agree and conflicts are cheap; any lanes in global memory, where they are not
   Order    integer additions commute: the same counts every run
   Source   privatised histograms, CUB DeviceHistogram (idea) */
// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <stdint.h>

#include <type_traits>

#include "cuda/launch.cuh"

namespace segfast {

// A counter of 16 bits can hold no more: launches see to it that a block has no more pixels.
constexpr int64_t kMostBlockPixels = 65535;

// Dynamic shared memory for the counts of C classes in a block that has `beside` bytes of its own, or 0 where fewer than `blocks`
// such blocks fit an SM: no private histogram then.
inline size_t private_bytes(int64_t num_classes, int64_t beside, int blocks) {
  const int64_t bytes = (std::min<int64_t>(num_classes, 1024) * num_classes + 7) / 8 * 16;
  return bytes + beside <= shared_bytes_for(blocks) ? static_cast<size_t>(bytes) : 0;
}

// All threads of a block call clear, then add as they like, then flush.
template <bool kPrivate>
struct PairCounts {
  uint4* block_counts;
  unsigned long long* counts;
  int num_classes;

  __device__ unsigned cells() const { return static_cast<unsigned>(num_classes * num_classes); }

  __device__ void clear() const {
    if (kPrivate) {
      for (unsigned i = threadIdx.x; i * 8 < cells(); i += blockDim.x)
        block_counts[i] = uint4{0, 0, 0, 0};
      __syncthreads();  // or a fast warp would count into cells not yet cleared
    }
  }
  // `run` pixels of one pair.
  __device__ void add(int label, int guess, unsigned run) const {
    using Cell = std::conditional_t<kPrivate, unsigned, unsigned long long>;
    const Cell cell = static_cast<Cell>(label) * static_cast<unsigned>(num_classes) + guess;
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800
    const unsigned here = __activemask();
    int all = 0;
    unsigned same = __match_all_sync(here, cell, &all);
    if (!kPrivate && !all) same = __match_any_sync(here, cell);
    if (!kPrivate || all) {
      run = __reduce_add_sync(same, run);
      if (static_cast<int>(threadIdx.x % 32) != __ffs(static_cast<int>(same)) - 1) return;
    }
#endif
    if (kPrivate)
      atomicAdd(reinterpret_cast<unsigned*>(block_counts) + cell / 2, run << (cell % 2 * 16));
    else
      atomicAdd(counts + cell, static_cast<unsigned long long>(run));
  }
  __device__ void flush() const {
    if (kPrivate) {
      __syncthreads();  // or the sums below would miss another warp's last runs
      for (unsigned i = threadIdx.x; i * 8 < cells(); i += blockDim.x) {
        const uint4 eight = block_counts[i];
        const unsigned words[4] = {eight.x, eight.y, eight.z, eight.w};
#pragma unroll
        for (unsigned k = 0; k < 8; ++k) {
          const unsigned count = words[k / 2] >> (k % 2 * 16) & 0xffffu;
          if (count) atomicAdd(counts + i * 8 + k, static_cast<unsigned long long>(count));
        }
      }
    }
  }
};

}  // namespace segfast
