/* The labels of a patch of pixels (patches.cuh), all loads in flight together. */
// SPDX-License-Identifier: Apache-2.0
#pragma once
#include "cuda/labels.cuh"
#include "cuda/patches.cuh"

namespace segfast {

// Reads the labels of a patch into shared memory, [pixel][thread], kNoClass where a pixel does not count. Returns a bit for each that
// does; bad labels are reported to `tally`.
template <class T, int kSide, class Kept>
__device__ inline unsigned read_labels(const Labels& label, const PatchGrid& grid, const Patch& at,
                                       Kept (*classes)[kPatchThreads], FaultTally* tally) {
  const T* first = static_cast<const T*>(label.map.data) + at.n * label.map.stride_n +
                   at.row * label.map.stride_h + at.column * label.map.stride_w;
  T value[kSide][kSide];
#pragma unroll
  for (int i = 0; i < kSide * kSide; ++i) {  // beyond the patch its first pixel
    const int r = i / kSide < at.rows ? i / kSide : 0, k = i % kSide < at.columns ? i % kSide : 0;
    value[i / kSide][i % kSide] = first[r * label.map.stride_h + k * label.map.stride_w];
  }
  unsigned valid = 0, bad = 0;
#pragma unroll
  for (int i = 0; i < kSide * kSide; ++i) {
    const int64_t y = static_cast<int64_t>(value[i / kSide][i % kSide]);
    const bool counts = at.contains(i / kSide, i % kSide) && y != label.ignore_index;
    const bool known = y >= 0 && y < label.num_classes;
    valid |= counts && known ? 1u << i : 0u;
    bad |= counts && !known ? 1u << i : 0u;
    classes[i][threadIdx.x] = static_cast<Kept>(counts && known ? y : kNoClass);
  }
  for (; bad; bad &= bad - 1) {
    const int i = __ffs(static_cast<int>(bad)) - 1, r = i / kSide, k = i % kSide;
    label.class_of(static_cast<int64_t>(first[r * label.map.stride_h + k * label.map.stride_w]),
                   grid.pixel(at.n, at.row + r, at.column + k), tally);
  }
  return valid;
}

template <int kSide, class Kept>
__device__ inline unsigned read_labels(const Labels& label, const PatchGrid& grid, const Patch& at,
                                       Kept (*classes)[kPatchThreads], FaultTally* tally) {
  switch (label.map.type) {  // one uniform branch for all pixels
    case Element::kUInt8:
      return read_labels<uint8_t, kSide>(label, grid, at, classes, tally);
    case Element::kInt16:
      return read_labels<int16_t, kSide>(label, grid, at, classes, tally);
    case Element::kInt32:
      return read_labels<int32_t, kSide>(label, grid, at, classes, tally);
    default:
      return read_labels<int64_t, kSide>(label, grid, at, classes, tally);
  }
}

}  // namespace segfast
