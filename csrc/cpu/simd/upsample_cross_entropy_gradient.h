/* upsample_cross_entropy.h and its gradient in one walk, for a training step on the CPU: the exponentials of one vector of
   cells stay in cache from the loss to the gradient, nothing per pixel is saved, and each is computed once.
   Math     gradient of the SUM of the losses; the caller divides by the denominator when it knows it
   Shapes   gradient (N, C, h, w) contiguous in the arithmetic type
   Cost     per pixel and class: two blends, a maximum, an exponential, two selects, two multiply-adds
   Order    a task owns rows of cells. The bottom corners of its last row go to `edge`, and the caller adds them to the row
            of samples that the next task began: the same two sums as in upsample_cross_entropy_backward.h */
// SPDX-License-Identifier: Apache-2.0
#pragma once
#include "cpu/simd/upsample_cross_entropy_backward.h"

namespace segfast {
namespace {

constexpr int64_t kKeptBytes = 256 << 10;  // exponentials kept at once: part of L2

// Factors of one vector of cells, each pixel's times the weight of its left and its right sample: (rows, slots, lanes).
template <class T>
struct SideFactors {
  T *k_left, *k_right, *label_left, *label_right;
  static int64_t bytes(int64_t size) { return 4 * Scratch::bytes<T>(size); }
  static SideFactors take(Scratch* scratch, int64_t size) {
    return {scratch->take<T>(size), scratch->take<T>(size), scratch->take<T>(size),
            scratch->take<T>(size)};
  }
};

// Scratch of a task: statistics of one vector of cells, and factors, exponentials and labels of a group of output rows.
template <class T>
struct StepScratch {
  int64_t group_rows;
  Cells<T> cells;
  LossRow<T> loss;
  RowFactors<T> factors;
  SideFactors<T> sides;
  T *kept, *below, *values;
  int32_t* classes;

  static int64_t rows_for(const UpsampleForward& u, int64_t most) {
    const int64_t row_bytes = u.ce.grid.C * most * kVectorBytes,
                  cell_rows = u.rows.out / u.rows.in + 2;
    const int64_t fit = kKeptBytes / row_bytes < 1 ? 1 : kKeptBytes / row_bytes;
    return fit < cell_rows ? fit : cell_rows;
  }
};

// Labels and pixel weights of output row Y, at row r of the group.
template <class T>
inline void load_row(const UpsampleForward& u, int64_t n, int64_t Y, int64_t r,
                     const StepScratch<T>& s, LabelFaults* faults) {
  constexpr int L = kLanesOf<T>;
  const CrossEntropyForward& a = u.ce;
  const FactorRow<T> f = s.factors.rows.from(r * u.slots.size);
  s.below[r] = static_cast<T>(bilinear_sample(u.rows, Y).lambda);
  load_labels(a.label, {n, Y, 0, u.cols.out, u.rows.out, u.cols.out}, a.grid.C, a.ignore_index,
              s.classes, faults);
  to_slots<L>(u.slots, s.classes, f.label);
  if (a.pixel_weight.data == nullptr) return;
  read_values(a.pixel_weight, n, Y, 0, u.cols.out, s.values);
  to_slots<L>(u.slots, s.values, f.pixel_weight);
}

// Softmax, loss and factors of vector v of cells on row r of a group of `rows`.
template <class T>
inline void softmax_step(const UpsampleForward& u, int64_t v, int64_t r, int64_t rows, const T* top,
                         const T* bottom, int64_t pitch, const StepScratch<T>& s,
                         LaneSums<T>* sums) {
  constexpr int L = kLanesOf<T>;
  const CrossEntropyForward& a = u.ce;
  const ColumnSlots& slots = u.slots;
  const bool weighted = a.pixel_weight.data != nullptr;
  const int64_t first = slots.first[v] * L, size = slots.first[v + 1] * L - first;
  const FactorRow<T> f = s.factors.rows.from(r * slots.size + first);
  LossRow<T> row = s.loss;
  row.label = f.label;
  row.pixel_weight = f.pixel_weight;
  blend_rows<false>(top, bottom, pitch, v * L, s.below[r], a.grid.C, s.cells);
  softmax_walk<T, true>(a.tables, a.accuracy)(s.cells, a.grid.C,
                                              static_cast<const T*>(a.tables.beta), slots, v, row,
                                              0, {s.kept + r * size, rows * size});
  softmax_factors(a.tables, weighted, row, f, size);
  for (int64_t i = 0; i < size; i += L) {
    const Vec<T> left = load<T>(static_cast<const T*>(slots.left) + first + i),
                 right = load<T>(static_cast<const T*>(slots.right) + first + i);
    const int64_t at = r * size + i;
    store<T>(s.sides.k_left + at, load<T>(f.k + i) * left);
    store<T>(s.sides.k_right + at, load<T>(f.k + i) * right);
    store<T>(s.sides.label_left + at, load<T>(f.k_label + i) * left);
    store<T>(s.sides.label_right + at, load<T>(f.k_label + i) * right);
  }
  if (weighted || a.tables.weighted || a.tables.smooth)
    finish_row(a.tables, weighted, a.accuracy, row, size, sums);
  else
    add_equal_losses(row, a.accuracy, size, sums);
}

// Walks the classes of vector v of cells over the kept exponentials.
template <class T, bool kSmooth>
inline void gather_cells(const StepScratch<T>& s, const ColumnSlots& slots, int64_t v,
                         int64_t pitch, int64_t num_classes, const T* beta, const RowGroup<T>& rows,
                         const CornerSums<T>& out) {
  constexpr int L = kLanesOf<T>;
  const int64_t first = slots.first[v] * L, size = slots.first[v + 1] * L - first;
  for (int64_t c = 0; c < num_classes; ++c) {
    const int64_t o = c * pitch + v * L;
    const T* kept = s.kept + c * rows.count * size;
    const Vec<Int<T>> here = splat<Int<T>>(static_cast<Int<T>>(c));
    Corners<T> corners;
    if (!rows.first) corners.load_from(out, o);
    for (int64_t r = 0; r < rows.count; ++r) {
      const Int<T>* label = s.factors.rows.label + r * slots.size + first;
      Vec<T> left{}, right{};
      for (int64_t i = 0; i < size; i += L) {
        const int64_t at = r * size + i;
        const Vec<T> e = load<T>(kept + at);
        const Vec<Int<T>> is_label = load<Int<T>>(label + i) == here;
        left += e * load<T>(s.sides.k_left + at);
        right += e * load<T>(s.sides.k_right + at);
        left = is_label ? left - load<T>(s.sides.label_left + at) : left;
        right = is_label ? right - load<T>(s.sides.label_right + at) : right;
      }
      if constexpr (kSmooth) {
        const T* sums = s.factors.beta + 2 * (r * slots.vectors + v) * L;
        left -= beta[c] * load<T>(sums);
        right -= beta[c] * load<T>(sums + L);
      }
      corners.add_row(left, right, rows.below[r]);
    }
    corners.store_to(out, o);
  }
}

// All output rows of one row of cells, group by group.
template <class S>
inline void gradient_row(const UpsampleForward& u, int64_t n, int64_t cell_y,
                         const SampleRows<S>& samples, int64_t pitch,
                         const StepScratch<Arithmetic<S>>& s, const CornerSums<Arithmetic<S>>& out,
                         LaneSums<Arithmetic<S>>* sums, LabelFaults* faults) {
  using T = Arithmetic<S>;
  const CrossEntropyForward& a = u.ce;
  const ColumnSlots& slots = u.slots;
  const int64_t y_first = first_pixel(u.rows, cell_y), y_last = first_pixel(u.rows, cell_y + 1);
  const auto gather = a.tables.smooth ? gather_cells<T, true> : gather_cells<T, false>;
  for (int64_t Y = y_first; Y < y_last; Y += s.group_rows) {
    const int64_t left = y_last - Y;
    const RowGroup<T> rows{left < s.group_rows ? left : s.group_rows, s.below, Y == y_first};
    for (int64_t r = 0; r < rows.count; ++r) load_row(u, n, Y + r, r, s, faults);
    for (int64_t v = 0; v < slots.vectors; ++v) {
      for (int64_t r = 0; r < rows.count; ++r) {
        softmax_step(u, v, r, rows.count, samples.top, samples.bottom, pitch, s, sums);
        if (a.tables.smooth)
          sum_beta(slots, v, s.factors.rows.from(r * slots.size).k_beta,
                   s.factors.beta + 2 * r * slots.vectors * kLanesOf<T>);
      }
      gather(s, slots, v, pitch, a.grid.C, static_cast<const T*>(a.tables.beta), rows, out);
    }
  }
}

template <class S>
void upsample_gradient(const UpsampleForward& u, const RowBlock& block, LossSums* sums,
                       LabelFaults* faults, void* edge) {
  using T = Arithmetic<S>;
  constexpr int L = kLanesOf<T>;
  const PixelGrid& g = u.ce.grid;
  const ColumnSlots& slots = u.slots;
  const int64_t W = u.cols.out, pitch = sample_pitch<T>(slots), size = g.C * pitch + L,
                most = slots.most < 1 ? 1 : slots.most,
                group_rows = StepScratch<T>::rows_for(u, most), places = group_rows * slots.size,
                betas = 2 * group_rows * slots.vectors * L, kept = g.C * group_rows * most * L;
  Scratch scratch(SampleRows<S>::bytes(g, pitch) + 5 * Scratch::bytes<T>(size) +
                  2 * Scratch::bytes<T>(g.C * L) + LossRow<T>::bytes(most * L) +
                  FactorRow<T>::bytes(places) + Scratch::bytes<T>(betas) +
                  SideFactors<T>::bytes(group_rows * most * L) + Scratch::bytes<T>(kept) +
                  Scratch::bytes<T>(group_rows) + Scratch::bytes<T>(W + 1) +
                  Scratch::bytes<int32_t>(W + 1));
  SampleRows<S> samples(u.ce.logits, g, block.n, pitch, &scratch);
  const CornerSums<T> corners{scratch.take<T>(size), scratch.take<T>(size), scratch.take<T>(size),
                              scratch.take<T>(size)};
  T* above = scratch.take<T>(size);
  const StepScratch<T> step{group_rows,
                            {scratch.take<T>(g.C * L), scratch.take<T>(g.C * L)},
                            LossRow<T>::take(&scratch, most * L),
                            {FactorRow<T>::take(&scratch, places), scratch.take<T>(betas)},
                            SideFactors<T>::take(&scratch, group_rows * most * L),
                            scratch.take<T>(kept),
                            scratch.take<T>(group_rows),
                            scratch.take<T>(W + 1),
                            scratch.take<int32_t>(W + 1)};
  step.classes[W] = -1;
  const PixelGrid out{g.N, g.C, g.H, g.W, g.C * g.H * g.W, g.H * g.W, g.W, 1};
  T* gradient = static_cast<T*>(u.gradient) + block.n * out.stride_n;
  for (int64_t cell_y = block.y_begin; cell_y < block.y_end; ++cell_y, ++sums, ++faults) {
    if (first_pixel(u.rows, cell_y) < first_pixel(u.rows, cell_y + 1)) {
      LaneSums<T> lane_sums;
      samples.move_to(cell_y);
      gradient_row<S>(u, block.n, cell_y, samples, pitch, step, corners, &lane_sums, faults);
      lane_sums.add_to(u.ce.tables, sums);
    } else {
      corners.clear(size);
    }
    store_gradient<T>(out, cell_y < 0 ? nullptr : gradient + cell_y * g.W, !u.cols.align_corners,
                      pitch, corners, above);
  }
  for (int64_t c = 0; c < g.C; ++c) copy(above + c * pitch, g.W, static_cast<T*>(edge) + c * g.W);
}

// One row of the saved gradient into the logits' dtype and strides.
template <class S>
void scale_row(const ScaleRow& a) {
  using T = Arithmetic<S>;
  constexpr int L = kLanesOf<T>;
  const T* src = static_cast<const T*>(a.src);
  S* dst = static_cast<S*>(a.dst);
  const T scale = static_cast<T>(a.scale);
  int64_t i = 0;
  for (; i + L <= a.count; i += L)
    store_pixels(dst + i * a.dst_stride, a.dst_stride, L, load<T>(src + i) * scale);
  for (; i < a.count; ++i) narrow(src[i] * scale, dst + i * a.dst_stride);
}

}  // namespace
}  // namespace segfast
