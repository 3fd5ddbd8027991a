/* The classes of a patch's pixels (patches.cuh), or of one pixel where nothing is resized.
   Contract ops/upsample_argmax.h: first index on ties, first NaN wins, samples of weight 0 take no part. As in CellValues,
            logits below -2^30 count as equal
   Cost     a class whose four samples are all below the largest z of every pixel so far is passed after some 25 instructions for
            16 pixels: from a trained network most are. Any other costs about six instructions per pixel */
// SPDX-License-Identifier: Apache-2.0
#pragma once
#include "cuda/patches.cuh"

namespace segfast {

template <int kSide>
struct PatchArgmax {
  float best[kSide][kSide];
  int index[kSide][kSide];
  // A pixel on a sample has no use for that sample's neighbour, which may be infinite or NaN; only a patch's first row and column
  // can lie on samples.
  bool first_row_on_sample, first_column_on_sample;

  __device__ explicit PatchArgmax(const PatchWeights<kSide>& weights)
      : first_row_on_sample(weights.y[0] == 0.0f), first_column_on_sample(weights.x[0] == 0.0f) {
#pragma unroll
    for (int i = 0; i < kSide * kSide; ++i) {
      best[i / kSide][i % kSide] = -INFINITY;
      index[i / kSide][i % kSide] = 0;
    }
  }
  // A class all of whose samples are at most this wins nowhere; NaN is no less than anything.
  __device__ float lowest() const {
    float low = best[0][0];
#pragma unroll
    for (int i = 1; i < kSide * kSide; ++i) low = fminf(low, best[i / kSide][i % kSide]);
    return low;
  }
  // Calls f(row, column, z) as for_each_blend does, but samples of weight 0 take no part.
  template <class F>
  __device__ void for_each_choice(const CellValues& v, const PatchWeights<kSide>& weights,
                                  F&& f) const {
#pragma unroll
    for (int r = 0; r < kSide; ++r) {
      const bool top_only = r == 0 && first_row_on_sample;
      const float left = top_only ? v.top_left : v.left(weights.y[r]),
                  across = (top_only ? v.top_right : v.right(weights.y[r])) - left;
#pragma unroll
      for (int k = 0; k < kSide; ++k) {
        const float z = fmaf(weights.x[k], across, left);
        f(r, k, k == 0 && first_column_on_sample ? left : z);
      }
    }
  }
  // Class c, none of whose samples is NaN or infinite.
  __device__ void add(const CellValues& v, const PatchWeights<kSide>& weights, int c) {
    for_each_choice(v, weights, [&](int r, int k, float z) {
      if (z > best[r][k]) {
        best[r][k] = z;
        index[r][k] = c;
      }
    });
  }
  __device__ void add_special(const CellValues& v, const PatchWeights<kSide>& weights, int c) {
    for_each_choice(v, weights, [&](int r, int k, float z) {
      if (!(z <= best[r][k]) && best[r][k] == best[r][k]) {  // larger, or the first NaN
        best[r][k] = z;
        index[r][k] = c;
      }
    });
  }
};

template <class S, int kSide>
__device__ inline void choose_classes(const S* __restrict__ logits, const PatchGrid& a,
                                      const Patch& at, PatchArgmax<kSide>& chosen,
                                      const PatchWeights<kSide>& weights) {
  constexpr int kGroup = 4;  // classes whose loads fly together
  const int num_classes = static_cast<int>(a.grid.C);
  Samples<S> walk(logits, a.grid, at);
  float low = -INFINITY;
  for (int first = 0; first < num_classes; first += kGroup) {
    RawValues<S> raw[kGroup];
#pragma unroll
    for (int i = 0; i < kGroup; ++i) {  // beyond the last class the last one again: it never wins
      raw[i] = walk.load();
      if (first + i + 1 < num_classes) walk.advance(1);
    }
#pragma unroll
    for (int i = 0; i < kGroup; ++i) {
      const CellValues v = raw[i].values();
      const float high = v.highest();
      if (high > low && high < INFINITY)
        chosen.add(v, weights, first + i);
      else if (!(high <= low))
        chosen.add_special(v, weights, first + i);
    }
    if (first % (2 * kGroup) == 0) low = chosen.lowest();
  }
}

// The class of one pixel: a walk over the classes, kGroup loads in flight.
template <class S>
__device__ inline int choose_class(const S* __restrict__ pixel, int64_t stride_c, int num_classes) {
  constexpr int kGroup = 8;
  float best = -INFINITY;
  int index = 0;
  for (int first = 0; first < num_classes; first += kGroup) {
    float x[kGroup];
#pragma unroll
    for (int i = 0; i < kGroup; ++i)  // beyond the last class the last one again: it never wins
      x[i] = widen(pixel[min(first + i, num_classes - 1) * stride_c]);
#pragma unroll
    for (int i = 0; i < kGroup; ++i) {
      if (!(x[i] <= best) && best == best) {  // larger, or the first NaN
        best = x[i];
        index = first + i;
      }
    }
  }
  return index;
}

}  // namespace segfast
