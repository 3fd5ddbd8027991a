/* The classes of one thread's pixels: running (maximum, index) in registers, four samples per class for up to kRows rows.
   Contract ops/upsample_argmax.h: first index on ties, first NaN wins, samples of weight 0 take no part */
// SPDX-License-Identifier: Apache-2.0
#pragma once
#include "cuda/bilinear_cells.cuh"

namespace segfast {

// A pixel on a sample has no use for that sample's neighbour, where 0 * inf would be NaN: the sample stands for both, in halves.
__device__ inline bool on_sample(float lambda) { return lambda == 0.0f || lambda == 1.0f; }
__device__ inline float safe_lambda(float lambda) { return on_sample(lambda) ? 0.5f : lambda; }

struct RunningArgmax {
  float max = -INFINITY;
  int index = 0;

  __device__ void add(float z, int c) {
    if (!(z <= max) && max == max) {  // larger, or the first NaN
      max = z;
      index = c;
    }
  }
};

// best[r] for the rows of a chunk that exist, `rows` of them; kResize = false: equal sizes, a cell is its top left sample.
template <bool kResize, class S>
__device__ inline void argmax_rows(const S* __restrict__ logits, const CellGrid& a,
                                   const RowChunk& chunk, int rows, int64_t X,
                                   RunningArgmax (&best)[kRows]) {
  constexpr int kGroup = 4;  // classes whose loads are in flight together
  const BilinearSample column = bilinear_sample(a.cols, X);
  Corners<S> corners(logits, a.grid, chunk.n, chunk.cell_y, column.cell);
  if (on_sample(column.lambda)) {  // weight 1 is on the right only where both sides are one sample
    corners.top_right = corners.top_left;
    corners.bottom_right = corners.bottom_left;
  }
  const float lx = safe_lambda(column.lambda);
  float ly[kRows];
#pragma unroll
  for (int r = 0; r < kRows; ++r)
    ly[r] = r < rows ? bilinear_sample(a.rows, chunk.first + r).lambda : 0.0f;
  const bool first_on_top = on_sample(ly[0]);  // between two samples only a cell's first row can
#pragma unroll
  for (int r = 0; r < kRows; ++r) ly[r] = safe_lambda(ly[r]);
  const int num_classes = static_cast<int>(a.grid.C);
  for (int first = 0; first < num_classes; first += kGroup) {
    float tl[kGroup], tr[kGroup], bl[kGroup], br[kGroup];
    int c[kGroup];
#pragma unroll
    for (int i = 0; i < kGroup; ++i) {  // beyond the last class the last one again: it never wins
      c[i] = first + i < num_classes ? first + i : num_classes - 1;
      const int64_t at = c[i] * corners.stride_c;
      tl[i] = widen(corners.top_left[at]);
      if (!kResize) continue;
      tr[i] = widen(corners.top_right[at]);
      bl[i] = widen(corners.bottom_left[at]);
      br[i] = widen(corners.bottom_right[at]);
    }
#pragma unroll
    for (int r = 0; r < (kResize ? kRows : 1); ++r) {
      if (r >= rows) break;  // the same for the whole block
#pragma unroll
      for (int i = 0; i < kGroup; ++i) {
        if (!kResize) {
          best[0].add(tl[i], c[i]);
          continue;
        }
        const bool top_only = r == 0 && first_on_top;
        const float below_left = top_only ? tl[i] : bl[i], below_right = top_only ? tr[i] : br[i];
        const float left = tl[i] * (1.0f - ly[r]) + below_left * ly[r],
                    right = tr[i] * (1.0f - ly[r]) + below_right * ly[r];
        best[r].add(left * (1.0f - lx) + right * lx, c[i]);
      }
    }
  }
}

}  // namespace segfast
