/* The output of a bilinear resize in patches: up to kSide x kSide pixels of one cell (base/bilinear.h), which blend the same
   four samples. One thread owns one patch and walks all classes: four loads a class serve all its pixels, and what a pixel
   carries from class to class stays in registers. A side is 4, or 2 where no cell has more than 2 pixels across or down. */
// SPDX-License-Identifier: Apache-2.0
#pragma once
#include "cuda/cell_lanes.cuh"
#include "cuda/launch.cuh"
#include "ops/cross_entropy.h"

namespace segfast {

constexpr int kPatchThreads = 128;

struct PatchGrid {
  PixelGrid grid;  // h x w
  BilinearAxis rows, cols;
  int side;
  unsigned row_chunks, column_chunks;  // patches that one cell may have, down and across
  unsigned patches;

  __device__ int64_t pixel(int64_t n, int64_t Y, int64_t X) const {
    return (n * rows.out + Y) * cols.out + X;
  }
};

inline PatchGrid patch_grid(const char* op, const PixelGrid& grid, int64_t H, int64_t W,
                            bool align_corners) {
  const BilinearAxis rows{grid.H, H, align_corners}, cols{grid.W, W, align_corners};
  const int side = std::max(most_pixels(rows), most_pixels(cols)) <= 2 ? 2 : 4;
  const int64_t down = (most_pixels(rows) + side - 1) / side,
                across = (most_pixels(cols) + side - 1) / side;
  // Of one image: sides are at most 2^24, and so are the patches of all cells down or across, but for a factor of 4.
  const int64_t of_image = H * W == 0 ? 0 : (grid.H + 1) * down * ((grid.W + 1) * across);
  STD_TORCH_CHECK(
      (of_image == 0 || grid.N <= INT32_MAX / of_image) && std::max(H, W) <= kMostPixels,
      "segfast::", op, ": a result of (N, H, W) = (", grid.N, ", ", H, ", ", W,
      ") is too large for one call (hint: split the batch)");
  return {grid,
          rows,
          cols,
          side,
          static_cast<unsigned>(down),
          static_cast<unsigned>(across),
          static_cast<unsigned>(grid.N * of_image)};
}

// Patch number `index`: the pixels [row, row + rows) x [column, column + columns) of image n, none or more.
struct Patch {
  int64_t n;
  int cell_y, cell_x, row, rows, column, columns;

  __device__ Patch(const PatchGrid& a, unsigned index) {
    const unsigned across = static_cast<unsigned>(a.grid.W + 1) * a.column_chunks,
                   down = static_cast<unsigned>(a.grid.H + 1) * a.row_chunks;
    const unsigned x = index % across, y = index / across;
    n = y / down;
    cell_y = static_cast<int>(y % down / a.row_chunks) - 1;
    cell_x = static_cast<int>(x / a.column_chunks) - 1;
    row = static_cast<int>(first_pixel(a.rows, cell_y) + y % a.row_chunks * a.side);
    column = static_cast<int>(first_pixel(a.cols, cell_x) + x % a.column_chunks * a.side);
    rows = min(a.side, static_cast<int>(first_pixel(a.rows, cell_y + 1)) - row);
    columns = min(a.side, static_cast<int>(first_pixel(a.cols, cell_x + 1)) - column);
  }
  __device__ bool empty() const { return rows <= 0 || columns <= 0; }
  __device__ bool contains(int r, int k) const { return r < rows && k < columns; }
};

// The weights of the lower and of the right samples in a patch's rows and columns.
template <int kSide>
struct PatchWeights {
  float y[kSide], x[kSide];

  __device__ PatchWeights(const PatchGrid& a, const Patch& at) {
    const CellWeights rows(a.rows, at.cell_y, at.row), columns(a.cols, at.cell_x, at.column);
#pragma unroll
    for (int i = 0; i < kSide; ++i) {
      y[i] = rows.at(i);
      x[i] = columns.at(i);
    }
  }
};

// Calls f(row, column, z) for the pixels of a patch, and for those it lacks.
template <int kSide, class F>
__device__ inline void for_each_blend(const CellValues& v, const PatchWeights<kSide>& weights,
                                      F&& f) {
#pragma unroll
  for (int r = 0; r < kSide; ++r) {
    const float left = v.left(weights.y[r]), across = v.right(weights.y[r]) - left;
#pragma unroll
    for (int k = 0; k < kSide; ++k) f(r, k, fmaf(weights.x[k], across, left));
  }
}

// Four samples as they lie in memory.
template <class S>
struct RawValues {
  S top_left, top_right, bottom_left, bottom_right;

  __device__ CellValues values() const {
    return {widen(top_left), widen(top_right), widen(bottom_left), widen(bottom_right)};
  }
};

// The four samples around a patch, of one class; `advance` goes on to a following one.
template <class S>
struct Samples {
  const S *top_left, *top_right, *bottom_left, *bottom_right;
  int64_t stride_c;

  __device__ Samples(const S* __restrict__ logits, const PixelGrid& g, const Patch& at)
      : stride_c(g.stride_c) {
    const S* image = logits + at.n * g.stride_n;
    const S *top = image + max(at.cell_y, 0) * g.stride_h,
            *bottom = image + min(at.cell_y + 1, static_cast<int>(g.H) - 1) * g.stride_h;
    const int64_t left = max(at.cell_x, 0) * g.stride_w,
                  right = min(at.cell_x + 1, static_cast<int>(g.W) - 1) * g.stride_w;
    top_left = top + left;
    top_right = top + right;
    bottom_left = bottom + left;
    bottom_right = bottom + right;
  }
  __device__ RawValues<S> load() const {
    return {*top_left, *top_right, *bottom_left, *bottom_right};
  }
  __device__ CellValues values() const { return load().values(); }
  __device__ void advance(int classes) {
    const int64_t step = classes * stride_c;
    top_left += step;
    top_right += step;
    bottom_left += step;
    bottom_right += step;
  }
  __device__ CellValues of_class(int c) const {
    Samples at = *this;
    at.advance(c);
    return at.values();
  }
};

}  // namespace segfast
