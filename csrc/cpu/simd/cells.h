/* Low-resolution logits as the fused kernels read them: lanes are neighbouring cells, classes are walked.
   Shapes   samples (C, pitch): one low-resolution row in the arithmetic type, whatever the dtype and strides of the logits;
            cells: left and right (C, lanes), one vector of cells of a row of samples blended to one output row
   Numerics a blend is left w_left + right w_right: an infinite sample is what it is in torch, NaN where its weight is 0 */
// SPDX-License-Identifier: Apache-2.0
#pragma once
#include "base/bilinear.h"
#include "cpu/kernels.h"
#include "cpu/simd/labels.h"

namespace segfast {
namespace {

// Room for every cell's two samples: one vector more than the cells.
template <class T>
inline int64_t sample_pitch(const ColumnSlots& slots) {
  return (slots.vectors + 1) * kLanesOf<T>;
}

// Samples of low-resolution row y (clamped at the borders) of image n; sample w is sample 0 again.
template <class S>
inline void load_samples(const void* logits, const PixelGrid& g, int64_t n, int64_t y,
                         int64_t pitch, Arithmetic<S>* out) {
  using T = Arithmetic<S>;
  constexpr int L = kLanesOf<T>;
  const int64_t row = y < 0 ? 0 : (y >= g.H ? g.H - 1 : y);
  const S* p = static_cast<const S*>(logits) + n * g.stride_n + row * g.stride_h;
  // Blocks of columns outside, so that the lines of channels_last logits are read once for all classes.
  const int64_t block = g.stride_w == 1 ? g.W : L;
  for (int64_t x_begin = 0; x_begin < g.W; x_begin += block) {
    for (int64_t c = 0; c < g.C; ++c) {
      for (int64_t x = x_begin; x < x_begin + block && x < g.W; x += L) {
        const int count = static_cast<int>(g.W - x < L ? g.W - x : L);
        store<T>(out + c * pitch + x,
                 load_pixels(p + c * g.stride_c + x * g.stride_w, g.stride_w, count));
      }
    }
  }
  for (int64_t c = 0; c < g.C; ++c) out[c * pitch + g.W] = out[c * pitch];
}

template <class T>
struct Cells {
  T *left, *right;  // (C, lanes)
};

// left w_left + right w_right. With kCareful a side of weight 0 takes no part, so that an infinite sample there is no NaN.
template <bool kCareful, class T, class W>
inline Vec<T> blend(Vec<T> left, W w_left, Vec<T> right, W w_right) {
  if constexpr (kCareful) {
    const Vec<T> zero{}, wl = zero + w_left, wr = zero + w_right;
    return (wl == zero ? zero : left * wl) + (wr == zero ? zero : right * wr);
  } else {
    return left * w_left + right * w_right;
  }
}

// The cells of one vector, first at sample `x`, on an output row `below` of the way from the row `top` to the row `bottom`.
template <bool kCareful, class T>
inline void blend_rows(const T* top, const T* bottom, int64_t pitch, int64_t x, T below,
                       int64_t num_classes, const Cells<T>& cells) {
  constexpr int L = kLanesOf<T>;
  const T above = T(1) - below;
  for (int64_t c = 0; c < num_classes; ++c) {
    const T *p = top + c * pitch + x, *q = bottom + c * pitch + x;
    store<T>(cells.left + c * L, blend<kCareful, T>(load<T>(p), above, load<T>(q), below));
    store<T>(cells.right + c * L, blend<kCareful, T>(load<T>(p + 1), above, load<T>(q + 1), below));
  }
}

// Calls f(Count<S>) where a vector with that many slots of consecutive pixels is a plain S x lanes transpose.
template <class F>
inline bool with_phases(const ColumnSlots& slots, int64_t v, F&& f) {
  if (slots.start[v] < 0) return false;
  switch (slots.first[v + 1] - slots.first[v]) {
    case 2:
      return f(Count<2>{}), true;
    case 3:
      return f(Count<3>{}), true;
    case 4:
      return f(Count<4>{}), true;
    case 8:
      return f(Count<8>{}), true;
    case 16:
      return f(Count<16>{}), true;
    default:
      return false;
  }
}

// One value per pixel of a row, moved between the order of the pixels and that of the slots. An empty place reads values[W].
template <int L, class V, class O>
inline void to_slots(const ColumnSlots& slots, const V* __restrict values, O* __restrict out) {
  for (int64_t v = 0; v < slots.vectors; ++v) {
    const int64_t begin = slots.first[v] * L, end = slots.first[v + 1] * L;
    const bool done = with_phases(slots, v, [&](auto phases) {
      constexpr int kPhases = decltype(phases)::value;
      for (int j = 0; j < L; ++j)
        for (int k = 0; k < kPhases; ++k)
          out[begin + k * L + j] = static_cast<O>(values[slots.start[v] + j * kPhases + k]);
    });
    if (done) continue;
    for (int64_t i = begin; i < end; ++i) out[i] = static_cast<O>(values[slots.pixel[i]]);
  }
}
template <int L, class V, class O>
inline void to_pixels(const ColumnSlots& slots, const V* __restrict values, int64_t W,
                      O* __restrict out) {
  for (int64_t v = 0; v < slots.vectors; ++v) {
    const int64_t begin = slots.first[v] * L, end = slots.first[v + 1] * L;
    const bool done = with_phases(slots, v, [&](auto phases) {
      constexpr int kPhases = decltype(phases)::value;
      for (int j = 0; j < L; ++j)
        for (int k = 0; k < kPhases; ++k)
          out[slots.start[v] + j * kPhases + k] = static_cast<O>(values[begin + k * L + j]);
    });
    if (done) continue;
    for (int64_t i = begin; i < end; ++i)
      if (slots.pixel[i] < W) out[slots.pixel[i]] = static_cast<O>(values[i]);
  }
}

// The two low-resolution rows around a row of cells; walking down loads each row once.
template <class S>
class SampleRows {
  using T = Arithmetic<S>;

 public:
  SampleRows(const void* logits, const PixelGrid& g, int64_t n, int64_t pitch, Scratch* scratch)
      : logits_(logits), g_(g), n_(n), pitch_(pitch) {
    top = scratch->take<T>(g.C * pitch);
    bottom = scratch->take<T>(g.C * pitch);
  }
  static int64_t bytes(const PixelGrid& g, int64_t pitch) {
    return 2 * Scratch::bytes<T>(g.C * pitch);
  }
  void move_to(int64_t cell_y) {
    if (bottom_row_ == cell_y) {
      T* swap = top;
      top = bottom;
      bottom = swap;
    } else {
      load_samples<S>(logits_, g_, n_, cell_y, pitch_, top);
    }
    load_samples<S>(logits_, g_, n_, cell_y + 1, pitch_, bottom);
    bottom_row_ = cell_y + 1;
    if (cell_y + 2 < g_.H) prefetch(cell_y + 2);
  }
  T *top, *bottom;

 private:
  // The row after the next arrives while this one is worked on.
  void prefetch(int64_t y) const {
    const S* row = static_cast<const S*>(logits_) + n_ * g_.stride_n + y * g_.stride_h;
    const int64_t line = 64 / static_cast<int64_t>(sizeof(S));
    const bool classes_last = g_.stride_c == 1;
    const int64_t runs = classes_last ? 1 : g_.C, length = g_.W * (classes_last ? g_.C : 1);
    for (int64_t c = 0; c < runs; ++c)
      for (int64_t i = 0; i < length; i += line)
        __builtin_prefetch(row + c * g_.stride_c + i, 0, 2);
  }

  const void* logits_;
  const PixelGrid& g_;
  int64_t n_, pitch_, bottom_row_ = -2;
};

}  // namespace
}  // namespace segfast
