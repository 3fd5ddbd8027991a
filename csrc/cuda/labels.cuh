/* Reading the class of a pixel: the ignored label and bad ones are told apart in one place. */
// SPDX-License-Identifier: Apache-2.0
#pragma once
#include "base/check.h"
#include "cuda/element.cuh"
#include "cuda/label_faults.cuh"

namespace segfast {

// A class as kernels keep it; kNoClass where a pixel does not count.
using Class = uint16_t;
constexpr int kNoClass = 0xffff;

inline void check_classes(const char* op, int64_t num_classes) {
  STD_TORCH_CHECK(num_classes <= kNoClass, "segfast::", op, ": expected at most ", kNoClass,
                  " classes on CUDA, got ", num_classes);
}

struct Labels {
  PixelMap map;
  int64_t num_classes, ignore_index;

  // The class of a pixel, or -1 where it does not count; a bad label is reported to `tally` if there is one.
  __device__ int class_at(int64_t n, int64_t h, int64_t w, int64_t index, FaultTally* tally) const {
    return class_of(
        read_integer(map.data, map.type, n * map.stride_n + h * map.stride_h + w * map.stride_w),
        index, tally);
  }
  // The same for a label already read.
  __device__ int class_of(int64_t y, int64_t index, FaultTally* tally) const {
    if (y == ignore_index) return -1;
    if (y >= 0 && y < num_classes) return static_cast<int>(y);
    if (tally) report_fault(tally, index, y, num_classes);
    return -1;
  }
};

}  // namespace segfast
