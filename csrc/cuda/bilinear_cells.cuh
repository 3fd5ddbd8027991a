/* Walking the output of a bilinear resize by cells of the input (base/bilinear.h): a thread owns one column and up to
   kRows rows of one row of cells, so that four samples serve all its pixels. */
// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <algorithm>

#include "base/bilinear.h"
#include "cuda/element.cuh"
#include "ops/cross_entropy.h"

namespace segfast {

constexpr int kRows = 4;  // output rows a thread owns

__device__ inline int64_t clamp_index(int64_t i, int64_t size) {
  return i < 0 ? 0 : (i >= size ? size - 1 : i);
}

// The four samples around a column of a row of cells, all classes: pointers to class 0.
template <class S>
struct Corners {
  const S *top_left, *top_right, *bottom_left, *bottom_right;
  int64_t stride_c;

  __device__ Corners(const S* __restrict__ logits, const PixelGrid& g, int64_t n, int64_t cell_y,
                     int64_t cell_x)
      : stride_c(g.stride_c) {
    const S* image = logits + n * g.stride_n;
    const S *top = image + clamp_index(cell_y, g.H) * g.stride_h,
            *bottom = image + clamp_index(cell_y + 1, g.H) * g.stride_h;
    const int64_t left = clamp_index(cell_x, g.W) * g.stride_w,
                  right = clamp_index(cell_x + 1, g.W) * g.stride_w;
    top_left = top + left;
    top_right = top + right;
    bottom_left = bottom + left;
    bottom_right = bottom + right;
  }
  __device__ float blend(int64_t c, float ly, float lx) const {
    const int64_t at = c * stride_c;
    const float left = widen(top_left[at]) * (1.0f - ly) + widen(bottom_left[at]) * ly;
    const float right = widen(top_right[at]) * (1.0f - ly) + widen(bottom_right[at]) * ly;
    return left * (1.0f - lx) + right * lx;
  }
};

// Rows [first, last) of image n, all in the row of cells cell_y; of these a thread takes the first kRows.
struct RowChunk {
  int64_t n, cell_y, first, last;

  __device__ int rows() const {  // <= 0: none
    return static_cast<int>(last - first < kRows ? last - first : kRows);
  }
};

struct CellGrid {
  PixelGrid grid;  // h x w
  BilinearAxis rows, cols;
  int chunks_per_cell;  // groups of kRows rows that a row of cells may have

  __host__ __device__ int64_t chunks() const { return grid.N * (grid.H + 1) * chunks_per_cell; }
  // Empty (first >= last) where a row of cells has fewer rows than the fullest one.
  __device__ RowChunk chunk(int64_t work) const {
    const int64_t per_image = (grid.H + 1) * chunks_per_cell;
    const int64_t cell_y = work % per_image / chunks_per_cell - 1;
    return {work / per_image, cell_y, first_pixel(rows, cell_y) + work % chunks_per_cell * kRows,
            first_pixel(rows, cell_y + 1)};
  }
  __device__ int64_t pixel(int64_t n, int64_t Y, int64_t X) const {
    return (n * rows.out + Y) * cols.out + X;
  }
};

inline CellGrid cell_grid(const Tensor& logits, int64_t H, int64_t W, bool align_corners) {
  const PixelGrid g = grid_of(logits);
  const int64_t gaps = align_corners && g.H > 1 ? g.H - 1 : g.H,
                steps = align_corners && g.H > 1 ? H - 1 : H;
  const int64_t most_rows =
      std::max<int64_t>(1, (steps + gaps - 1) / gaps);  // that one row of cells can have
  return {g,
          {g.H, H, align_corners},
          {g.W, W, align_corners},
          static_cast<int>((most_rows + kRows - 1) / kRows)};
}

inline bool same_size(const CellGrid& cells) {
  return cells.grid.H == cells.rows.out && cells.grid.W == cells.cols.out;
}

}  // namespace segfast
