/* Cross-entropy of bilinearly resized logits, without the resized logits: lanes are cells, slots are their pixels.
   Math     z_p = blend of four corner samples; loss as in cross_entropy.h, in base 2: t = (z - max) log2 e
   Shapes   logits (N, C, h, w); labels, max and log-sum (N, H, W)
   Cost     per pixel and class: a blend and a maximum, then a blend, an exponential and two selects; nothing is written
            but the saved maximum and log-sum. Scratch: two low-resolution rows, one vector of cells, one output row
   Order    the slots of a row of cells are summed per lane, then over lanes: independent of the number of threads
   Numerics cpu/simd/cells.h, cpu/simd/vec.h; t is one rounding away from the blended logit's own */
// SPDX-License-Identifier: Apache-2.0
#pragma once
#include "cpu/simd/cells.h"
#include "cpu/simd/loss_row.h"

namespace segfast {
namespace {

// Where the walk leaves its exponentials for the gradient: class c of slot k at values[c * pitch + k * lanes].
template <class T>
struct Kept {
  T* values;
  int64_t pitch;
};

// Slots at `at` of the tables, to place `to` of the row.
template <class T, int kSlots, bool kAccuracy, bool kSmooth, bool kKeep>
inline void softmax_slots(const Cells<T>& cells, int64_t num_classes, const T* beta,
                          const ColumnSlots& slots, int64_t at, const LossRow<T>& row, int64_t to,
                          const Kept<T>& kept) {
  constexpr int L = kLanesOf<T>;
  Vec<T> left[kSlots], right[kSlots], max[kSlots], shift[kSlots];
  Vec<Int<T>> argmax[kSlots] = {};
  for (int k = 0; k < kSlots; ++k) {
    left[k] = load<T>(static_cast<const T*>(slots.left) + at + k * L);
    right[k] = load<T>(static_cast<const T*>(slots.right) + at + k * L);
    max[k] = splat(-kInfinity<T>);  // where it stays, the sum is NaN, as in torch
  }
  for (int64_t c = 0; c < num_classes; ++c) {
    const Vec<T> a = load<T>(cells.left + c * L), b = load<T>(cells.right + c * L);
    for (int k = 0; k < kSlots; ++k) {
      const Vec<T> z = a * left[k] + b * right[k];
      if constexpr (kAccuracy)
        argmax[k] = z > max[k] ? splat<Int<T>>(static_cast<Int<T>>(c)) : argmax[k];
      max[k] = vmax(max[k], z);
    }
  }
  Vec<T> sum[kSlots] = {}, at_label[kSlots] = {}, beta_dot[kSlots] = {};
  for (int k = 0; k < kSlots; ++k) shift[k] = max[k] * kLog2EOf<T>;
  for (int64_t c = 0; c < num_classes; ++c) {
    const Vec<T> a = load<T>(cells.left + c * L) * kLog2EOf<T>,
                 b = load<T>(cells.right + c * L) * kLog2EOf<T>;
    const Vec<Int<T>> here = splat<Int<T>>(static_cast<Int<T>>(c));
    for (int k = 0; k < kSlots; ++k) {
      const Vec<T> t = (a * left[k] - shift[k]) + b * right[k];
      const Vec<T> exponential = vexp2(t);
      if constexpr (kKeep) store<T>(kept.values + c * kept.pitch + k * L, exponential);
      sum[k] += exponential;
      at_label[k] = load<Int<T>>(row.label + to + k * L) == here ? t : at_label[k];
      if constexpr (kSmooth) beta_dot[k] += beta[c] * t;
    }
  }
  for (int k = 0; k < kSlots; ++k) {
    store<T>(row.max + to + k * L, max[k]);
    store<T>(row.sum + to + k * L, sum[k]);
    store<T>(row.at_label + to + k * L, at_label[k]);
    if constexpr (kSmooth) store<T>(row.beta_dot + to + k * L, beta_dot[k]);
    if constexpr (kAccuracy) store<Int<T>>(row.argmax + to + k * L, argmax[k]);
  }
}

// All slots of vector v of cells, in groups, from place `to` of the row on. A group without a pixel that counts is left as it
// is; its exponentials are 0.
template <class T, bool kAccuracy, bool kSmooth, bool kKeep>
inline void softmax_cells(const Cells<T>& cells, int64_t num_classes, const T* beta,
                          const ColumnSlots& slots, int64_t v, const LossRow<T>& row, int64_t to,
                          const Kept<T>& kept) {
  constexpr int L = kLanesOf<T>;
  const int64_t first = slots.first[v], end = slots.first[v + 1];
  for (int64_t k = first; k < end; k += kGroup) {
    const int64_t count = end - k < kGroup ? end - k : kGroup, place = to + (k - first) * L;
    const Kept<T> group{kept.values + (k - first) * L, kept.pitch};
    if (any_class(row.label + place, count * L)) {
      with_group(count, [&](auto size) {
        softmax_slots<T, decltype(size)::value, kAccuracy, kSmooth, kKeep>(
            cells, num_classes, beta, slots, k * L, row, place, group);
      });
    } else if constexpr (kKeep) {
      for (int64_t c = 0; c < num_classes; ++c)
        for (int64_t i = 0; i < count * L; i += L)
          store<T>(group.values + c * group.pitch + i, Vec<T>{});
    }
  }
}
// The walk for these options.
template <class T, bool kKeep>
inline auto softmax_walk(const LossTables& tables, bool accuracy) {
  if (tables.smooth)
    return accuracy ? softmax_cells<T, true, true, kKeep> : softmax_cells<T, false, true, kKeep>;
  return accuracy ? softmax_cells<T, true, false, kKeep> : softmax_cells<T, false, false, kKeep>;
}

template <class S>
void upsample_forward(const UpsampleForward& u, const RowBlock& block, LossSums* sums,
                      LabelFaults* faults) {
  using T = Arithmetic<S>;
  constexpr int L = kLanesOf<T>;
  const CrossEntropyForward& a = u.ce;
  const PixelGrid& g = a.grid;
  const ColumnSlots& slots = u.slots;
  const int64_t H = u.rows.out, W = u.cols.out, pitch = sample_pitch<T>(slots), size = slots.size;
  Scratch scratch(SampleRows<S>::bytes(g, pitch) + 2 * Scratch::bytes<T>(g.C * L) +
                  LossRow<T>::bytes(size) + Scratch::bytes<int32_t>(W + 1) +
                  Scratch::bytes<T>(W + 1));
  SampleRows<S> samples(a.logits, g, block.n, pitch, &scratch);
  const Cells<T> cells{scratch.take<T>(g.C * L), scratch.take<T>(g.C * L)};
  const LossRow<T> row = LossRow<T>::take(&scratch, size);
  T* pixel_weights = scratch.take<T>(W + 1);
  int32_t* classes = scratch.take<int32_t>(W + 1);
  classes[W] = -1;
  const T* beta = static_cast<const T*>(a.tables.beta);
  const auto softmax = softmax_walk<T, false>(a.tables, a.accuracy);
  for (int64_t cell_y = block.y_begin; cell_y < block.y_end; ++cell_y, ++sums, ++faults) {
    const int64_t y_first = first_pixel(u.rows, cell_y), y_last = first_pixel(u.rows, cell_y + 1);
    if (y_first == y_last) continue;
    samples.move_to(cell_y);
    LaneSums<T> lane_sums;
    for (int64_t Y = y_first; Y < y_last; ++Y) {
      load_labels(a.label, {block.n, Y, 0, W, H, W}, g.C, a.ignore_index, classes, faults);
      to_slots<L>(slots, classes, row.label);
      const T below = static_cast<T>(bilinear_sample(u.rows, Y).lambda);
      for (int64_t v = 0; v < slots.vectors; ++v) {
        blend_rows<false>(samples.top, samples.bottom, pitch, v * L, below, g.C, cells);
        softmax(cells, g.C, beta, slots, v, row, slots.first[v] * L, {});
      }
      if (a.pixel_weight.data) {
        read_values(a.pixel_weight, block.n, Y, 0, W, pixel_weights);
        to_slots<L>(slots, pixel_weights, row.pixel_weight);
      }
      finish_row(a.tables, a.pixel_weight.data != nullptr, a.accuracy, row, size, &lane_sums);
      const int64_t out_row = (block.n * H + Y) * W;
      T* out_max = static_cast<T*>(a.lse) + out_row;
      to_pixels<L>(slots, row.max, W, out_max);
      to_pixels<L>(slots, row.sum, W, out_max + g.N * H * W);
      if (a.loss) to_pixels<L>(slots, row.loss, W, static_cast<T*>(a.loss) + out_row);
    }
    lane_sums.add_to(a.tables, sums);
  }
}

}  // namespace
}  // namespace segfast
