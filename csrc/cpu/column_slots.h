/* Which pixels of an output row each vector of cells computes: built once per call, read by every row.
   Lanes are neighbouring cells of the low-resolution row (lane j blends samples j and j + 1); slot k of a vector holds the
   k-th pixel of each of its cells. For an integer scale s that is the split of the row into its s phases; any other scale
   leaves some (slot, lane) places empty. A row has ceil(cells / lanes) vectors and a vector as many slots as its fullest cell.
   The pixels outside the first and last sample (cells -1 and w - 1) do not get vectors of their own: with half-pixel
   centres they share lane w - 1, whose right sample is sample 0 again; with align_corners the one pixel on the
   last sample belongs to lane w - 2. In that shared lane a NaN or infinite sample meets a weight of 0: one in the last
   column also makes the first column's border pixels NaN in the losses (upsample_argmax skips weights of 0). */
// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <algorithm>
#include <vector>

#include "cpu/kernels.h"

namespace segfast {

// Owns the arrays that ColumnSlots points to. T is the arithmetic type: it decides the number of lanes.
template <class T>
class ColumnSlotsOf {
 public:
  ColumnSlotsOf(const BilinearAxis& axis, int64_t vector_bytes) {
    const int64_t lanes = vector_bytes / static_cast<int64_t>(sizeof(T)), last = axis.in - 1;
    const int64_t cells = axis.align_corners ? std::max<int64_t>(last, 1) : axis.in;
    const int64_t vectors = (cells + lanes - 1) / lanes;
    struct Place {
      int64_t cell;
      T right;
    };
    std::vector<Place> places(axis.out);
    std::vector<int64_t> filled(vectors * lanes, 0);
    for (int64_t x = 0; x < axis.out; ++x) {
      const BilinearSample s = bilinear_sample(axis, x);
      places[x] = {s.cell, static_cast<T>(s.lambda)};
      if (s.cell < 0) places[x] = {last, T(1)};
      if (s.cell == cells) places[x] = {cells - 1, T(1)};
      ++filled[places[x].cell];
    }
    first_.assign(1, 0);
    for (int64_t v = 0; v < vectors; ++v) {
      const auto begin = filled.begin() + v * lanes;
      most_ = std::max(most_, *std::max_element(begin, begin + lanes));
      first_.push_back(first_.back() + *std::max_element(begin, begin + lanes));
    }
    pixel_.assign(first_.back() * lanes, static_cast<int32_t>(axis.out));
    left_.assign(pixel_.size(),
                 T(0.5));  // in an empty place no weight of 0 meets an infinite sample
    right_.assign(pixel_.size(), T(0.5));
    std::fill(filled.begin(), filled.end(), 0);
    for (int64_t x = 0; x < axis.out; ++x) {
      const Place& p = places[x];
      const int64_t i = (first_[p.cell / lanes] + filled[p.cell]++) * lanes + p.cell % lanes;
      pixel_[i] = static_cast<int32_t>(x);
      left_[i] = T(1) - p.right;
      right_[i] = p.right;
    }
    for (int64_t v = 0; v < vectors; ++v) start_.push_back(start_of(v, lanes));
  }
  ColumnSlots view() const {
    const int64_t vectors = static_cast<int64_t>(first_.size()) - 1;
    return {vectors,       most_,        first_.data(), pixel_.data(),
            start_.data(), left_.data(), right_.data(), static_cast<int64_t>(pixel_.size())};
  }

 private:
  int64_t start_of(int64_t v, int64_t lanes) const {
    const int64_t slots = first_[v + 1] - first_[v], begin = first_[v] * lanes;
    for (int64_t j = 0; j < lanes; ++j)
      for (int64_t k = 0; k < slots; ++k)
        if (pixel_[begin + k * lanes + j] != pixel_[begin] + j * slots + k) return -1;
    return slots ? pixel_[begin] : -1;
  }
  std::vector<int64_t> first_, start_;
  std::vector<int32_t> pixel_;
  std::vector<T> left_, right_;
  int64_t most_ = 0;
};

}  // namespace segfast
