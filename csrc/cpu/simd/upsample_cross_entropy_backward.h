/* Gradient of upsample_cross_entropy.h: each sample gathers from the pixels of the four cells around it.
   Math     g_p[c] = k_p softmax(z_p)[c] - [c == y_p] l_p - beta_c b_p  (base/loss.h);
            grad[c] of a sample = sum over the pixels of its cells of weight x g_p[c]
   Shapes   as upsample_cross_entropy.h; grad like the logits
   Cost     per pixel and class: a blend, an exponential, a select and two multiply-adds. A row of cells is read once for
            all its pixels; scratch: seven low-resolution rows and the factors of at most kFactorVectors slots
   Order    a task owns rows of samples. What a sample gets from the cells above it and from those below it are two sums of
            fixed order, added once: the bits do not depend on how rows are dealt to tasks. The cells on a task's upper
            rim are visited by both neighbours. */
// SPDX-License-Identifier: Apache-2.0
#pragma once
#include "cpu/simd/upsample_cross_entropy.h"

namespace segfast {
namespace {

constexpr int64_t kFactorVectors = 64;  // slots whose factors (four vectors each) stay in L1 while the classes are walked

// Factors of one vector of cells over some output rows, [row][slot][lane]; `beta` holds [row][left, right][lane].
template <class T>
struct SlotFactors {
  T *shift, *k, *k_label, *beta;
  Int<T>* label;
};

// What the pixels of a row of cells add to the samples at its four corners, (C, pitch) each. `right_*` are stored one place
// further: the right sample of lane j is j + 1.
template <class T>
struct CornerSums {
  T *left_top, *right_top, *left_bottom, *right_bottom;
};

// A pixel that does not count has shift +inf: its exponential is 0.
template <class T>
inline void load_factors(const CrossEntropyBackward& a, const ColumnSlots& slots, int64_t v,
                         const PixelRow& row, int64_t out_row, int64_t plane,
                         const SlotFactors<T>& f, int64_t r) {
  constexpr int L = kLanesOf<T>;
  const int64_t first = slots.first[v], count = slots.first[v + 1] - first;
  const T *in_max = static_cast<const T*>(a.lse) + out_row, *in_log_sum = in_max + plane;
  const T* grad_loss = a.grad_loss ? static_cast<const T*>(a.grad_loss) + out_row : nullptr;
  Vec<T> beta_left{}, beta_right{};
  for (int64_t s = 0; s < count; ++s) {
    const int32_t* pixel = slots.pixel + (first + s) * L;
    const int64_t at = (r * count + s) * L;
    slot_labels<T>(row, pixel, f.label + at);
    T max[L], log_sum[L], grad[L];
    for (int i = 0; i < L; ++i) {
      const int64_t x = pixel[i] < row.W ? pixel[i] : 0;
      max[i] = in_max[x];
      log_sum[i] = in_log_sum[x];
      grad[i] = grad_loss ? grad_loss[x] : static_cast<T>(a.scale);
    }
    const Vec<T> weight = slot_pixel_weight<T>(a.pixel_weight, row, pixel);
    const GradientFactors<Vec<T>> k = gradient_factors<Vec<T>>(
        load<T>(grad), weight, class_values(static_cast<const T*>(a.tables.alpha), f.label + at),
        splat(static_cast<T>(a.tables.beta_sum)));
    const Vec<Int<T>> counts = load<Int<T>>(f.label + at) >= 0;
    const Vec<T> zero{}, scale = vexp2(load<T>(log_sum) * -kLog2EOf<T>);
    store<T>(f.shift + at, counts ? load<T>(max) * kLog2EOf<T> : splat(kInfinity<T>));
    store<T>(f.k + at, counts ? k.for_softmax * scale : zero);
    store<T>(f.k_label + at, counts ? k.for_label : zero);
    const Vec<T> for_beta = counts ? k.for_beta : zero;
    beta_left += for_beta * load<T>(static_cast<const T*>(slots.left) + (first + s) * L);
    beta_right += for_beta * load<T>(static_cast<const T*>(slots.right) + (first + s) * L);
  }
  store<T>(f.beta + 2 * r * L, beta_left);
  store<T>(f.beta + (2 * r + 1) * L, beta_right);
}

// Output rows of one row of cells whose factors are loaded together.
template <class T>
struct RowGroup {
  int64_t count;
  const T* below;  // weight of the bottom samples
  bool first;      // of its row of cells: the sums start here
};

// Walks the classes of one vector of cells, first at sample x.
template <class T, bool kSmooth>
inline void backward_cells(const T* top, const T* bottom, int64_t pitch, int64_t x,
                           int64_t num_classes, const T* beta, const RowGroup<T>& rows,
                           int64_t count, const T* w_left, const T* w_right,
                           const SlotFactors<T>& f, const CornerSums<T>& out) {
  constexpr int L = kLanesOf<T>;
  for (int64_t c = 0; c < num_classes; ++c) {
    const T *p = top + c * pitch + x, *q = bottom + c * pitch + x;
    const Vec<T> p0 = load<T>(p), p1 = load<T>(p + 1), q0 = load<T>(q), q1 = load<T>(q + 1);
    const Vec<Int<T>> here = splat<Int<T>>(static_cast<Int<T>>(c));
    const int64_t o = c * pitch + x;
    Vec<T> left_top{}, right_top{}, left_bottom{}, right_bottom{};
    if (!rows.first) {
      left_top = load<T>(out.left_top + o);
      right_top = load<T>(out.right_top + o + 1);
      left_bottom = load<T>(out.left_bottom + o);
      right_bottom = load<T>(out.right_bottom + o + 1);
    }
    for (int64_t r = 0; r < rows.count; ++r) {
      const T below = rows.below[r], above = T(1) - below;
      const Vec<T> a = (p0 * above + q0 * below) * kLog2EOf<T>,
                   b = (p1 * above + q1 * below) * kLog2EOf<T>;
      Vec<T> left{}, right{};
      for (int64_t s = 0; s < count; ++s) {
        const int64_t at = (r * count + s) * L;
        const Vec<T> wl = load<T>(w_left + s * L), wr = load<T>(w_right + s * L);
        const Vec<T> t = (a * wl - load<T>(f.shift + at)) + b * wr;
        Vec<T> grad = vexp2(t) * load<T>(f.k + at);
        grad = load<Int<T>>(f.label + at) == here ? grad - load<T>(f.k_label + at) : grad;
        left += grad * wl;
        right += grad * wr;
      }
      if constexpr (kSmooth) {
        left -= beta[c] * load<T>(f.beta + 2 * r * L);
        right -= beta[c] * load<T>(f.beta + (2 * r + 1) * L);
      }
      left_top += left * above;
      right_top += right * above;
      left_bottom += left * below;
      right_bottom += right * below;
    }
    store<T>(out.left_top + o, left_top);
    store<T>(out.right_top + o + 1, right_top);
    store<T>(out.left_bottom + o, left_bottom);
    store<T>(out.right_bottom + o + 1, right_bottom);
  }
}

// All output rows of one row of cells, group by group.
template <class S>
inline void backward_row(const UpsampleBackward& u, int64_t n, int64_t cell_y,
                         const SampleRows<S>& samples, int64_t pitch, int64_t group_rows,
                         int32_t* classes, Arithmetic<S>* below,
                         const SlotFactors<Arithmetic<S>>& factors,
                         const CornerSums<Arithmetic<S>>& out) {
  using T = Arithmetic<S>;
  constexpr int L = kLanesOf<T>;
  const CrossEntropyBackward& a = u.ce;
  const ColumnSlots& slots = u.slots;
  const int64_t H = u.rows.out, W = u.cols.out, plane = a.grid.N * H * W;
  const int64_t y_first = first_pixel(u.rows, cell_y), y_last = first_pixel(u.rows, cell_y + 1);
  const auto walk = a.tables.smooth ? backward_cells<T, true> : backward_cells<T, false>;
  for (int64_t Y = y_first; Y < y_last; Y += group_rows) {
    const RowGroup<T> rows{y_last - Y < group_rows ? y_last - Y : group_rows, below, Y == y_first};
    for (int64_t r = 0; r < rows.count; ++r) {
      int32_t* row_classes = classes + r * (W + 1);
      load_labels(a.label, {n, Y + r, 0, W, H, W}, a.grid.C, a.ignore_index, row_classes, nullptr);
      row_classes[W] = -1;
      below[r] = static_cast<T>(bilinear_sample(u.rows, Y + r).lambda);
    }
    for (int64_t v = 0; v < slots.vectors; ++v) {
      const int64_t first = slots.first[v], count = slots.first[v + 1] - first;
      for (int64_t r = 0; r < rows.count; ++r) {
        load_factors<T>(a, slots, v, {n, Y + r, W, classes + r * (W + 1)}, (n * H + Y + r) * W,
                        plane, factors, r);
      }
      walk(samples.top, samples.bottom, pitch, v * L, a.grid.C,
           static_cast<const T*>(a.tables.beta), rows, count,
           static_cast<const T*>(slots.left) + first * L,
           static_cast<const T*>(slots.right) + first * L, factors, out);
    }
  }
}

// grad[n, :, y, :] = what came from the cells above + what came from those below; then the latter's bottom corners wait in `above`.
template <class S>
inline void store_gradient(const UpsampleBackward& u, int64_t n, int64_t y, int64_t pitch,
                           const CornerSums<Arithmetic<S>>& sums, Arithmetic<S>* above) {
  using T = Arithmetic<S>;
  constexpr int L = kLanesOf<T>;
  const PixelGrid& g = u.ce.grad_grid;
  S* grad = static_cast<S*>(u.ce.grad) + n * g.stride_n + y * g.stride_h;
  for (int64_t c = 0; c < g.C; ++c) {
    const int64_t o = c * pitch;
    // The right sample of the last cell is sample 0 again; with align_corners there is no such cell and the sum is 0.
    sums.right_top[o] = u.cols.align_corners ? T(0) : sums.right_top[o + g.W];
    sums.right_bottom[o] = u.cols.align_corners ? T(0) : sums.right_bottom[o + g.W];
    for (int64_t x = 0; x < g.W; x += L) {
      const int count = static_cast<int>(g.W - x < L ? g.W - x : L);
      if (y >= 0) {
        const Vec<T> total = load<T>(above + o + x) +
                             (load<T>(sums.left_top + o + x) + load<T>(sums.right_top + o + x));
        store_pixels(grad + c * g.stride_c + x * g.stride_w, g.stride_w, count, total);
      }
      store<T>(above + o + x,
               load<T>(sums.left_bottom + o + x) + load<T>(sums.right_bottom + o + x));
    }
  }
}

template <class S>
void upsample_backward(const UpsampleBackward& u, const RowBlock& block) {
  using T = Arithmetic<S>;
  constexpr int L = kLanesOf<T>;
  const PixelGrid& g = u.ce.grid;
  const ColumnSlots& slots = u.slots;
  const int64_t W = u.cols.out, pitch = sample_pitch<T>(slots), size = g.C * pitch + L;
  const int64_t most = slots.most < 1 ? 1 : slots.most,
                group_rows = most < kFactorVectors ? kFactorVectors / most : 1;
  const int64_t places = group_rows * most * L;
  Scratch scratch(SampleRows<S>::bytes(g, pitch) + 5 * Scratch::bytes<T>(size) +
                  3 * Scratch::bytes<T>(places) + Scratch::bytes<Int<T>>(places) +
                  Scratch::bytes<T>(2 * group_rows * L) + Scratch::bytes<T>(group_rows) +
                  Scratch::bytes<int32_t>(group_rows * (W + 1)));
  SampleRows<S> samples(u.ce.logits, g, block.n, pitch, &scratch);
  const CornerSums<T> sums{scratch.take<T>(size), scratch.take<T>(size), scratch.take<T>(size),
                           scratch.take<T>(size)};
  T* above = scratch.take<T>(size);
  const SlotFactors<T> factors{scratch.take<T>(places), scratch.take<T>(places),
                               scratch.take<T>(places), scratch.take<T>(2 * group_rows * L),
                               scratch.take<Int<T>>(places)};
  T* below = scratch.take<T>(group_rows);
  int32_t* classes = scratch.take<int32_t>(group_rows * (W + 1));
  for (int64_t cell_y = block.y_begin - 1; cell_y < block.y_end; ++cell_y) {
    if (first_pixel(u.rows, cell_y) < first_pixel(u.rows, cell_y + 1)) {
      samples.move_to(cell_y);
      backward_row<S>(u, block.n, cell_y, samples, pitch, group_rows, classes, below, factors,
                      sums);
    } else {
      __builtin_memset(sums.left_top, 0, static_cast<unsigned long>(4 * Scratch::bytes<T>(size)));
    }
    store_gradient<S>(u, block.n, cell_y < block.y_begin ? -1 : cell_y, pitch, sums, above);
  }
}

}  // namespace
}  // namespace segfast
