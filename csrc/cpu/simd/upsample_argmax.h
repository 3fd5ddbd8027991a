/* The class of every pixel of bilinearly resized logits: running (maximum, index) in registers, lanes are cells.
   Math     argmax_c of the blend of four corner samples; the first class on a tie, the first NaN before everything
   Shapes   logits (N, C, h, w); one row of W classes at a time to the caller
   Cost     per pixel and class a blend, a comparison and two selects; scratch: two low-resolution rows, one vector of cells
   Numerics rows with an infinite or NaN sample take the careful blend: see ops/upsample_argmax.h */
// SPDX-License-Identifier: Apache-2.0
#pragma once
#include "cpu/simd/cells.h"

namespace segfast {
namespace {

template <class T, int kSlots, bool kCareful>
inline void argmax_slots(const Cells<T>& cells, int64_t num_classes, const ColumnSlots& slots,
                         int64_t at, Int<T>* out) {
  constexpr int L = kLanesOf<T>;
  Vec<T> left[kSlots], right[kSlots], max[kSlots];
  Vec<Int<T>> argmax[kSlots] = {};
  for (int k = 0; k < kSlots; ++k) {
    left[k] = load<T>(static_cast<const T*>(slots.left) + at + k * L);
    right[k] = load<T>(static_cast<const T*>(slots.right) + at + k * L);
    max[k] = splat(-kInfinity<T>);
  }
  for (int64_t c = 0; c < num_classes; ++c) {
    const Vec<T> a = load<T>(cells.left + c * L), b = load<T>(cells.right + c * L);
    const Vec<Int<T>> here = splat<Int<T>>(static_cast<Int<T>>(c));
    for (int k = 0; k < kSlots; ++k) {
      const Vec<T> z = blend<kCareful, T>(a, left[k], b, right[k]);
      Vec<Int<T>> better = z > max[k];
      if constexpr (kCareful) better |= (z != z) & (max[k] == max[k]);
      argmax[k] = better ? here : argmax[k];
      max[k] = better ? z : max[k];
    }
  }
  for (int k = 0; k < kSlots; ++k) store<Int<T>>(out + at + k * L, argmax[k]);
}

template <class T, bool kCareful>
inline void argmax_row(const T* top, const T* bottom, int64_t pitch, T below, int64_t num_classes,
                       const ColumnSlots& slots, const Cells<T>& cells, Int<T>* out) {
  constexpr int L = kLanesOf<T>;
  for (int64_t v = 0; v < slots.vectors; ++v) {
    blend_rows<kCareful>(top, bottom, pitch, v * L, below, num_classes, cells);
    for (int64_t k = slots.first[v]; k < slots.first[v + 1]; k += kGroup) {
      const int64_t left = slots.first[v + 1] - k;
      with_group(left < kGroup ? left : kGroup, [&](auto size) {
        argmax_slots<T, decltype(size)::value, kCareful>(cells, num_classes, slots, k * L, out);
      });
    }
  }
}

// x - x is 0 for finite x only.
template <class T>
inline bool all_finite(const T* x, int64_t count) {
  Vec<T> sum{};
  for (int64_t i = 0; i < count; i += kLanesOf<T>) sum += load<T>(x + i) - load<T>(x + i);
  return reduce_add<T, kLanesOf<T>>(sum) == T(0);
}

template <class S>
void upsample_argmax(const UpsampleArgmax& u, const RowBlock& block, void* context) {
  using T = Arithmetic<S>;
  constexpr int L = kLanesOf<T>;
  const PixelGrid& g = u.grid;
  const ColumnSlots& slots = u.slots;
  const int64_t W = u.cols.out, pitch = sample_pitch<T>(slots);
  Scratch scratch(SampleRows<S>::bytes(g, pitch) + 2 * Scratch::bytes<T>(g.C * L) +
                  Scratch::bytes<Int<T>>(slots.size) + Scratch::bytes<int32_t>(W));
  SampleRows<S> samples(u.logits, g, block.n, pitch, &scratch);
  const Cells<T> cells{scratch.take<T>(g.C * L), scratch.take<T>(g.C * L)};
  Int<T>* argmax = scratch.take<Int<T>>(slots.size);
  int32_t* classes = scratch.take<int32_t>(W);
  for (int64_t cell_y = block.y_begin; cell_y < block.y_end; ++cell_y) {
    const int64_t y_first = first_pixel(u.rows, cell_y), y_last = first_pixel(u.rows, cell_y + 1);
    if (y_first == y_last) continue;
    samples.move_to(cell_y);
    const bool finite =
        all_finite(samples.top, g.C * pitch) && all_finite(samples.bottom, g.C * pitch);
    const auto row = finite ? argmax_row<T, false> : argmax_row<T, true>;
    for (int64_t Y = y_first; Y < y_last; ++Y) {
      row(samples.top, samples.bottom, pitch, static_cast<T>(bilinear_sample(u.rows, Y).lambda),
          g.C, slots, cells, argmax);
      to_pixels<L>(slots, argmax, W, classes);
      u.consume(context, block.n, Y, classes);
    }
  }
}

}  // namespace
}  // namespace segfast
