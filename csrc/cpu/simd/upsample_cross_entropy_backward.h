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

// Slots of one vector of cells whose factors (four vectors each) are walked at once.
constexpr int64_t kFactorVectors = 64;

// Factors of some output rows in the order of the slots: (rows, slots.size); beta: sums of k_beta over the pixels of a vector
// of cells, (rows, vectors, [left, right], lanes), each pixel with the weight of the sample.
template <class T>
struct RowFactors {
  FactorRow<T> rows;
  T* beta;
};

// What the pixels of a row of cells add to the samples at its four corners, (C, pitch) each. `right_*` are stored one place
// further: the right sample of lane j is j + 1.
template <class T>
struct CornerSums {
  T *left_top, *right_top, *left_bottom, *right_bottom;
  void clear(int64_t size) const {
    T* const all[] = {left_top, right_top, left_bottom, right_bottom};
    for (T* sums : all) __builtin_memset(sums, 0, static_cast<unsigned long>(size) * sizeof(T));
  }
};

// The four sums of one class and one vector of cells, in registers while the pixels are walked.
template <class T>
struct Corners {
  Vec<T> left_top{}, right_top{}, left_bottom{}, right_bottom{};
  void load_from(const CornerSums<T>& sums, int64_t at) {
    left_top = load<T>(sums.left_top + at);
    right_top = load<T>(sums.right_top + at + 1);
    left_bottom = load<T>(sums.left_bottom + at);
    right_bottom = load<T>(sums.right_bottom + at + 1);
  }
  // Gradients of one output row's left and right samples, `below` of the way from the top to the bottom row.
  void add_row(Vec<T> left, Vec<T> right, T below) {
    const T above = T(1) - below;
    left_top += left * above;
    right_top += right * above;
    left_bottom += left * below;
    right_bottom += right * below;
  }
  void store_to(const CornerSums<T>& sums, int64_t at) const {
    store<T>(sums.left_top + at, left_top);
    store<T>(sums.right_top + at + 1, right_top);
    store<T>(sums.left_bottom + at, left_bottom);
    store<T>(sums.right_bottom + at + 1, right_bottom);
  }
};

template <class T>
inline void sum_beta(const ColumnSlots& slots, int64_t v, const T* k_beta, T* beta) {
  constexpr int L = kLanesOf<T>;
  Vec<T> left{}, right{};
  for (int64_t i = slots.first[v] * L; i < slots.first[v + 1] * L; i += L) {
    left += load<T>(k_beta + i) * load<T>(static_cast<const T*>(slots.left) + i);
    right += load<T>(k_beta + i) * load<T>(static_cast<const T*>(slots.right) + i);
  }
  store<T>(beta + 2 * v * L, left);
  store<T>(beta + (2 * v + 1) * L, right);
}

// Factors of output row Y; `classes` and `values` have W + 1 places, of which the last is what an empty place reads.
template <class T>
inline void load_factors(const CrossEntropyBackward& a, const ColumnSlots& slots, int64_t n,
                         int64_t Y, int64_t H, int64_t W, int32_t* classes, T* values,
                         const FactorRow<T>& f, T* beta) {
  constexpr int L = kLanesOf<T>;
  const PixelMap row_major{nullptr, Element::kUnsupported, H * W, W, 1};
  const auto gather = [&](const PixelMap& layout, const void* data, T* out) {
    PixelMap map = layout;
    map.data = data;
    read_values(map, n, Y, 0, W, values);
    to_slots<L>(slots, values, out);
  };
  load_labels(a.label, {n, Y, 0, W, H, W}, a.grid.C, a.ignore_index, classes, nullptr);
  to_slots<L>(slots, classes, f.label);
  gather(row_major, a.lse, f.shift);
  gather(row_major, static_cast<const T*>(a.lse) + a.grid.N * H * W, f.k);
  if (a.grad_loss) gather(row_major, a.grad_loss, f.k_label);
  if (a.pixel_weight.data) gather(a.pixel_weight, a.pixel_weight.data, f.pixel_weight);
  finish_factors(a, f, slots.size);
  for (int64_t i = 0; i < slots.size; i += L)  // the walk works in base 2
    store<T>(f.shift + i, load<T>(f.shift + i) * kLog2EOf<T>);
  if (a.tables.smooth)
    for (int64_t v = 0; v < slots.vectors; ++v) sum_beta(slots, v, f.k_beta, beta);
}

// Output rows of one row of cells whose factors are loaded together.
template <class T>
struct RowGroup {
  int64_t count;
  const T* below;  // weight of the bottom samples
  bool first;      // of its row of cells: the sums start here
};

// Walks the classes of vector v of cells.
template <class T, bool kSmooth>
inline void backward_cells(const T* top, const T* bottom, int64_t pitch, int64_t v,
                           int64_t num_classes, const T* beta, const RowGroup<T>& rows,
                           const ColumnSlots& slots, const RowFactors<T>& f,
                           const CornerSums<T>& out) {
  constexpr int L = kLanesOf<T>;
  const int64_t begin = slots.first[v] * L, end = slots.first[v + 1] * L;
  const T *w_left = static_cast<const T*>(slots.left),
          *w_right = static_cast<const T*>(slots.right);
  for (int64_t c = 0; c < num_classes; ++c) {
    const int64_t o = c * pitch + v * L;
    const Vec<T> top0 = load<T>(top + o), top1 = load<T>(top + o + 1),
                 bottom0 = load<T>(bottom + o), bottom1 = load<T>(bottom + o + 1);
    const Vec<Int<T>> here = splat<Int<T>>(static_cast<Int<T>>(c));
    Corners<T> corners;
    if (!rows.first) corners.load_from(out, o);
    for (int64_t r = 0; r < rows.count; ++r) {
      const T below = rows.below[r], above = T(1) - below;
      const Vec<T> a = (top0 * above + bottom0 * below) * kLog2EOf<T>,
                   b = (top1 * above + bottom1 * below) * kLog2EOf<T>;
      const FactorRow<T> p = f.rows.from(r * slots.size);
      Vec<T> left{}, right{};
      for (int64_t i = begin; i < end; i += L) {
        const Vec<T> wl = load<T>(w_left + i), wr = load<T>(w_right + i);
        Vec<T> grad = vexp2((a * wl - load<T>(p.shift + i)) + b * wr) * load<T>(p.k + i);
        grad = load<Int<T>>(p.label + i) == here ? grad - load<T>(p.k_label + i) : grad;
        left += grad * wl;
        right += grad * wr;
      }
      if constexpr (kSmooth) {
        const T* sums = f.beta + 2 * (r * slots.vectors + v) * L;
        left -= beta[c] * load<T>(sums);
        right -= beta[c] * load<T>(sums + L);
      }
      corners.add_row(left, right, rows.below[r]);
    }
    corners.store_to(out, o);
  }
}

// What walking a row of cells needs besides the rows of samples.
template <class T>
struct RowScratch {
  int64_t group_rows;
  int32_t* classes;
  T *values, *below;
  RowFactors<T> factors;
};

// All output rows of one row of cells, group by group.
template <class S>
inline void backward_row(const UpsampleBackward& u, int64_t n, int64_t cell_y,
                         const SampleRows<S>& samples, int64_t pitch,
                         const RowScratch<Arithmetic<S>>& scratch,
                         const CornerSums<Arithmetic<S>>& out) {
  using T = Arithmetic<S>;
  const CrossEntropyBackward& a = u.ce;
  const ColumnSlots& slots = u.slots;
  const int64_t y_first = first_pixel(u.rows, cell_y), y_last = first_pixel(u.rows, cell_y + 1);
  const auto walk = a.tables.smooth ? backward_cells<T, true> : backward_cells<T, false>;
  const RowFactors<T>& f = scratch.factors;
  for (int64_t Y = y_first; Y < y_last; Y += scratch.group_rows) {
    const int64_t left = y_last - Y;
    const RowGroup<T> rows{left < scratch.group_rows ? left : scratch.group_rows, scratch.below,
                           Y == y_first};
    for (int64_t r = 0; r < rows.count; ++r) {
      scratch.below[r] = static_cast<T>(bilinear_sample(u.rows, Y + r).lambda);
      load_factors<T>(a, slots, n, Y + r, u.rows.out, u.cols.out, scratch.classes, scratch.values,
                      f.rows.from(r * slots.size), f.beta + 2 * r * slots.vectors * kLanesOf<T>);
    }
    for (int64_t v = 0; v < slots.vectors; ++v)
      walk(samples.top, samples.bottom, pitch, v, a.grid.C, static_cast<const T*>(a.tables.beta),
           rows, slots, f, out);
  }
}

// grad[n, :, y, :] = what came from the cells above + what came from those below, unless grad is null; then the latter's
// bottom corners wait in `above`.
template <class S>
inline void store_gradient(const PixelGrid& g, S* grad, bool wraps, int64_t pitch,
                           const CornerSums<Arithmetic<S>>& sums, Arithmetic<S>* above) {
  using T = Arithmetic<S>;
  constexpr int L = kLanesOf<T>;
  for (int64_t c = 0; c < g.C; ++c) {
    const int64_t o = c * pitch;
    // The right sample of the last cell is sample 0 again; with align_corners there is no such cell and the sum is 0.
    sums.right_top[o] = wraps ? sums.right_top[o + g.W] : T(0);
    sums.right_bottom[o] = wraps ? sums.right_bottom[o + g.W] : T(0);
    for (int64_t x = 0; x < g.W; x += L) {
      const int count = static_cast<int>(g.W - x < L ? g.W - x : L);
      if (grad) {
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
  const PixelGrid &g = u.ce.grid, &gg = u.ce.grad_grid;
  const ColumnSlots& slots = u.slots;
  const int64_t W = u.cols.out, pitch = sample_pitch<T>(slots), size = g.C * pitch + L;
  const int64_t most = slots.most < 1 ? 1 : slots.most,
                fit = most < kFactorVectors ? kFactorVectors / most : 1,
                cell_rows = u.rows.out / u.rows.in + 2,  // a row of cells seldom has more
      group_rows = fit < cell_rows ? fit : cell_rows, places = group_rows * slots.size,
                betas = 2 * group_rows * slots.vectors * L;
  Scratch scratch(SampleRows<S>::bytes(g, pitch) + 5 * Scratch::bytes<T>(size) +
                  FactorRow<T>::bytes(places) + Scratch::bytes<T>(betas) +
                  Scratch::bytes<T>(group_rows) + Scratch::bytes<int32_t>(W + 1) +
                  Scratch::bytes<T>(W + 1));
  SampleRows<S> samples(u.ce.logits, g, block.n, pitch, &scratch);
  const CornerSums<T> sums{scratch.take<T>(size), scratch.take<T>(size), scratch.take<T>(size),
                           scratch.take<T>(size)};
  T* above = scratch.take<T>(size);
  const RowScratch<T> row{group_rows,
                          scratch.take<int32_t>(W + 1),
                          scratch.take<T>(W + 1),
                          scratch.take<T>(group_rows),
                          {FactorRow<T>::take(&scratch, places), scratch.take<T>(betas)}};
  row.classes[W] = -1;
  for (int64_t cell_y = block.y_begin - 1; cell_y < block.y_end; ++cell_y) {
    if (first_pixel(u.rows, cell_y) < first_pixel(u.rows, cell_y + 1)) {
      samples.move_to(cell_y);
      backward_row<S>(u, block.n, cell_y, samples, pitch, row, sums);
    } else {
      sums.clear(size);
    }
    S* grad = static_cast<S*>(u.ce.grad) + block.n * gg.stride_n + cell_y * gg.stride_h;
    store_gradient<S>(gg, cell_y < block.y_begin ? nullptr : grad, !u.cols.align_corners, pitch,
                      sums, above);
  }
}

}  // namespace
}  // namespace segfast
