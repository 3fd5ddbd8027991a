/* The columns of a bilinear resize as lanes: a lane is a cell (base/bilinear.h), a slot one of its pixels in a row.
   Every pixel of a row belongs to exactly one (lane, slot), and a row has no more lanes than samples, so a row of 128 samples
   fills four warps:
     align_corners=false  `in` lanes. Lane j has the pixels between samples j and j + 1. Lane in - 1 has those right of the last
                          sample, and after them, from slot `split` on, those left of the first, whose sample 0 is its `right`.
     align_corners=true   max(in - 1, 1) lanes. The pixel on the last sample belongs to the last lane, with weight 1 on `right`.
   In the shared lane a NaN or infinite sample of the last column meets a weight of 0 in the first column's border pixels and
   makes them NaN too; the CPU's lanes (cpu/column_slots.h) do the same. */
// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <algorithm>

#include "base/bilinear.h"
#include "cuda/element.cuh"
#include "cuda/fast_math.cuh"
#include "ops/cross_entropy.h"

namespace segfast {

__host__ __device__ inline int64_t lanes_of(const BilinearAxis& axis) {
  if (!axis.align_corners) return axis.in;
  return axis.in > 1 ? axis.in - 1 : 1;
}

// A bound on the pixels of one lane.
inline int64_t most_slots(const BilinearAxis& axis) {
  if (!axis.align_corners) return (axis.out + axis.in - 1) / axis.in;
  if (axis.in == 1) return axis.out;
  return (axis.out - 1 + axis.in - 2) / (axis.in - 1) + 1;
}

// A bound on the pixels across one cell, where the pixel on the last sample has a cell of its own.
inline int64_t most_pixels(const BilinearAxis& axis) {
  if (axis.align_corners && axis.in > 1) return std::max<int64_t>(1, most_slots(axis) - 1);
  return most_slots(axis);
}

constexpr int64_t kMostPixels =
    1 << 22;  // in a row or column: their positions are exact in float32

struct CellWeights {
  float remainder, step, inverse;

  // `first`: the first pixel that counts, of cell `cell`; constant beyond the first and the last sample.
  __device__ CellWeights(const BilinearAxis& axis, int64_t cell, int64_t first) {
    const int64_t denominator = bilinear_denominator(axis);
    inverse = 1.0f / static_cast<float>(denominator);
    remainder = static_cast<float>(bilinear_numerator(axis, first) - cell * denominator);
    step = static_cast<float>(bilinear_numerator(axis, 1) - bilinear_numerator(axis, 0));
    if (cell < 0 || cell >= axis.in - 1) {
      remainder = cell < 0 ? static_cast<float>(denominator) : 0.0f;
      step = 0;
    }
  }
  __device__ float at(int pixel) const {
    return (remainder + static_cast<float>(pixel) * step) * inverse;
  }
};

struct LaneColumn {
  int left, right;          // the two sample columns
  int first, split, count;  // slots [0, count): pixel first + k, from `split` on pixel k - split
  CellWeights weights;

  __device__ LaneColumn(const BilinearAxis& axis, int lane)
      : left(lane),
        right(lane + 1 < axis.in ? lane + 1 : 0),
        first(static_cast<int>(first_pixel(axis, lane))),
        weights(axis, lane, first) {
    const bool last = lane == lanes_of(axis) - 1;
    split = static_cast<int>(last ? axis.out : first_pixel(axis, lane + 1)) - first;
    count = split + (last && !axis.align_corners ? static_cast<int>(first_pixel(axis, 0)) : 0);
  }
  __device__ int pixel(int slot) const { return slot < split ? first + slot : slot - split; }
  // The weight of `right`.
  __device__ float lambda(int slot) const { return slot < split ? weights.at(slot) : 1.0f; }
};

// One class at the four samples of a cell. What lies below -2^30, -inf with it, becomes -2^30, which has no share in a softmax
// either: differences of samples are taken below, and a class masked by -inf must not turn into NaN. A power of two, because its
// product with log2 e is then exact, and masked classes do not differ by a rounding error of 2^6. NaN and +inf pass.
struct CellValues {
  float top_left, top_right, down_left, down_right;  // down: bottom minus top

  static constexpr float kLowest = -1073741824.0f;
  __device__ CellValues(float tl, float tr, float bl, float br)
      : top_left(at_least(tl, kLowest)),
        top_right(at_least(tr, kLowest)),
        down_left(at_least(bl, kLowest) - top_left),
        down_right(at_least(br, kLowest) - top_right) {}
  __device__ float left(float ly) const { return fmaf(ly, down_left, top_left); }
  __device__ float right(float ly) const { return fmaf(ly, down_right, top_right); }
  // No blend of them is larger; NaN where a sample is NaN.
  __device__ float highest() const {
    return at_least(at_least(top_left, top_left + down_left),
                    at_least(top_right, top_right + down_right));
  }
};

// Logits whose class planes are dense, as lanes read them. channels_last logits are copied: they are 1 / s^2 of the pixels,
// so the copy moves far fewer bytes than scattered reads would cost.
inline Tensor by_class(const Tensor& logits) {
  const bool dense = logits.stride(3) == 1 || logits.size(3) == 1;
  return dense && logits.stride(1) < INT32_MAX / 4 ? logits : torch::stable::contiguous(logits);
}

}  // namespace segfast
