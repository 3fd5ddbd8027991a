/* Cross-entropy of bilinearly resized logits, without the resized logits: lanes are cells, slots are their pixels.
   Math     z_p = blend of four corner samples; loss as in cross_entropy.h, in base 2: t = (z - max) log2 e
   Shapes   logits (N, C, h, w); labels, max and log-sum (N, H, W)
   Cost     per pixel and class: a blend and a maximum, then a blend, an exponential and two selects; nothing is written
            but the saved maximum and log-sum. Scratch: two low-resolution rows, one vector of cells, one output row
   Order    the slots of a row of cells are summed per lane, then over lanes: independent of the number of threads
   Numerics cpu/simd/cells.h, cpu/simd/vec.h; t is one rounding away from the blended logit's own */
// SPDX-License-Identifier: Apache-2.0
#pragma once
#include "base/loss.h"
#include "cpu/simd/cells.h"

namespace segfast {
namespace {

// Slots that share one walk over the classes: their running values stay in registers.
constexpr int kGroup = kVectorBytes == 64 ? 4 : 2;

// What a walk over the classes leaves of one slot; t is in base 2, relative to the maximum.
template <class T>
struct SlotSoftmax {
  Vec<T> max, sum, at_label, beta_dot;
  Vec<Int<T>> argmax;
};

template <class T, int kSlots, bool kAccuracy, bool kSmooth>
inline void softmax_slots(const Cells<T>& cells, int64_t num_classes, const T* w_left,
                          const T* w_right, const Int<T>* label, const T* beta,
                          SlotSoftmax<T>* out) {
  constexpr int L = kLanesOf<T>;
  Vec<T> left[kSlots], right[kSlots], shift[kSlots];
  for (int k = 0; k < kSlots; ++k) {
    left[k] = load<T>(w_left + k * L);
    right[k] = load<T>(w_right + k * L);
    out[k].max = splat(-kInfinity<T>);  // where it stays, the sum is NaN, as in torch
    out[k].argmax = Vec<Int<T>>{};
  }
  for (int64_t c = 0; c < num_classes; ++c) {
    const Vec<T> a = load<T>(cells.left + c * L), b = load<T>(cells.right + c * L);
    for (int k = 0; k < kSlots; ++k) {
      const Vec<T> z = a * left[k] + b * right[k];
      if constexpr (kAccuracy)
        out[k].argmax =
            z > out[k].max ? splat<Int<T>>(static_cast<Int<T>>(c)) : out[k].argmax;
      out[k].max = vmax(out[k].max, z);
    }
  }
  for (int k = 0; k < kSlots; ++k) {
    shift[k] = out[k].max * kLog2EOf<T>;
    out[k].sum = out[k].at_label = out[k].beta_dot = Vec<T>{};
  }
  for (int64_t c = 0; c < num_classes; ++c) {
    const Vec<T> a = load<T>(cells.left + c * L) * kLog2EOf<T>,
                 b = load<T>(cells.right + c * L) * kLog2EOf<T>;
    const Vec<Int<T>> here = splat<Int<T>>(static_cast<Int<T>>(c));
    for (int k = 0; k < kSlots; ++k) {
      const Vec<T> t = (a * left[k] - shift[k]) + b * right[k];
      out[k].sum += vexp2(t);
      out[k].at_label = load<Int<T>>(label + k * L) == here ? t : out[k].at_label;
      if constexpr (kSmooth) out[k].beta_dot += beta[c] * t;
    }
  }
}

// Softmax of `slots` <= kGroup slots.
template <class T, bool kAccuracy, bool kSmooth>
inline void softmax_group(int64_t slots, const Cells<T>& cells, int64_t num_classes,
                          const T* w_left, const T* w_right, const Int<T>* label, const T* beta,
                          SlotSoftmax<T>* out) {
  const auto run = [&](auto count) {
    softmax_slots<T, decltype(count)::value, kAccuracy, kSmooth>(cells, num_classes, w_left,
                                                                  w_right, label, beta, out);
  };
  switch (slots) {
    case 1:
      return run(Count<1>{});
    case 2:
      return run(Count<2>{});
    case 3:
      return run(Count<kGroup < 3 ? kGroup : 3>{});
    default:
      return run(Count<kGroup>{});
  }
}

// One output row in the order of the slots.
template <class T>
struct SlotRow {
  T *max, *log_sum, *loss;
  Int<T>* label;
};

// Sums over the pixels of a row of cells, one per lane.
template <class T>
struct LaneSums {
  double loss[kLanesOf<T>] = {}, weight[kLanesOf<T>] = {};
  int64_t correct[kLanesOf<T>] = {}, valid[kLanesOf<T>] = {};
  void add_to(LossSums* sums) const {
    for (int i = 0; i < kLanesOf<T>; ++i) {
      sums->loss += loss[i];
      sums->weight += weight[i];
      sums->correct += correct[i];
      sums->valid += valid[i];
    }
  }
};

// Where the pixels of one output row are read: labels as classes, [W] = -1 for empty places.
struct PixelRow {
  int64_t n, Y, W;
  const int32_t* classes;
};

// The classes of a slot's lanes; true if any counts.
template <class T>
inline bool slot_labels(const PixelRow& row, const int32_t* pixel, Int<T>* label) {
  Int<T> any = -1;
  for (int i = 0; i < kLanesOf<T>; ++i) {
    label[i] = row.classes[pixel[i]];
    any &= label[i];
  }
  return any != -1;
}
template <class T>
inline Vec<T> class_values(const T* table, const Int<T>* label) {
  T lanes[kLanesOf<T>];
  for (int i = 0; i < kLanesOf<T>; ++i) lanes[i] = label[i] < 0 ? T(0) : table[label[i]];
  return load<T>(lanes);
}
template <class T>
inline Vec<T> slot_pixel_weight(const PixelMap& map, const PixelRow& row, const int32_t* pixel) {
  if (map.data == nullptr) return splat(T(1));
  T lanes[kLanesOf<T>];
  for (int i = 0; i < kLanesOf<T>; ++i)
    lanes[i] = pixel[i] < row.W ? pixel_value<T>(map, row.n, row.Y, pixel[i], T(0)) : T(0);
  return load<T>(lanes);
}

// From softmax to loss: one slot's lanes of the row, and their share of the sums.
template <class T>
inline void finish_slot(const CrossEntropyForward& a, const PixelRow& row, const int32_t* pixel,
                        const SlotSoftmax<T>& s, const SlotRow<T>& out, int64_t at,
                        LaneSums<T>* sums) {
  constexpr int L = kLanesOf<T>;
  const Int<T>* label = out.label + at;
  const Vec<Int<T>> y = load<Int<T>>(label);
  const Vec<T> log_sum = vlog(s.sum);
  Vec<T> loss = pixel_loss<Vec<T>>(class_values(static_cast<const T*>(a.tables.alpha), label),
                                   log_sum, s.at_label * kLn2Of<T>,
                                   splat(static_cast<T>(a.tables.beta_sum)),
                                   s.beta_dot * kLn2Of<T>,
                                   slot_pixel_weight<T>(a.pixel_weight, row, pixel));
  loss = y >= 0 ? loss : Vec<T>{};
  const Vec<T> weight = class_values(static_cast<const T*>(a.tables.class_weight), label);
  store<T>(out.max + at, y >= 0 ? s.max : Vec<T>{});
  store<T>(out.log_sum + at, y >= 0 ? log_sum : splat(kInfinity<T>));
  store<T>(out.loss + at, loss);
  const Vec<Int<T>> right = y == s.argmax;
  for (int i = 0; i < L; ++i) {
    sums->loss[i] += static_cast<double>(loss[i]);
    sums->weight[i] += static_cast<double>(weight[i]);
    sums->valid[i] += label[i] >= 0;
    sums->correct[i] -= right[i];
  }
}

// One vector of cells of one output row: all its slots.
template <class T>
inline void forward_cells(const CrossEntropyForward& a, const ColumnSlots& slots, int64_t v,
                          const PixelRow& row, const Cells<T>& cells, const SlotRow<T>& out,
                          LaneSums<T>* sums) {
  constexpr int L = kLanesOf<T>;
  const T *w_left = static_cast<const T*>(slots.left),
          *w_right = static_cast<const T*>(slots.right), *beta = static_cast<const T*>(a.tables.beta);
  for (int64_t k = slots.first[v]; k < slots.first[v + 1]; k += kGroup) {
    const int64_t count = slots.first[v + 1] - k < kGroup ? slots.first[v + 1] - k : kGroup;
    bool any = false;
    for (int64_t i = k; i < k + count; ++i)
      any |= slot_labels<T>(row, slots.pixel + i * L, out.label + i * L);
    SlotSoftmax<T> softmax[kGroup] = {};
    if (any) {
      const auto run = a.tables.smooth
                           ? (a.accuracy ? softmax_group<T, true, true> : softmax_group<T, false, true>)
                           : (a.accuracy ? softmax_group<T, true, false>
                                         : softmax_group<T, false, false>);
      run(count, cells, a.grid.C, w_left + k * L, w_right + k * L, out.label + k * L, beta, softmax);
    }
    if (!a.accuracy)
      for (SlotSoftmax<T>& s : softmax) s.argmax = splat<Int<T>>(-2);
    for (int64_t i = 0; i < count; ++i)
      finish_slot<T>(a, row, slots.pixel + (k + i) * L, softmax[i], out, (k + i) * L, sums);
  }
}

template <class S>
void upsample_forward(const UpsampleForward& u, const RowBlock& block, LossSums* sums,
                      LabelFaults* faults) {
  using T = Arithmetic<S>;
  constexpr int L = kLanesOf<T>;
  const CrossEntropyForward& a = u.ce;
  const PixelGrid& g = a.grid;
  const ColumnSlots& slots = u.slots;
  const int64_t H = u.rows.out, W = u.cols.out, pitch = sample_pitch<T>(slots);
  Scratch scratch(SampleRows<S>::bytes(g, pitch) + 2 * Scratch::bytes<T>(g.C * L) +
                  3 * Scratch::bytes<T>(slots.size) + Scratch::bytes<Int<T>>(slots.size) +
                  Scratch::bytes<int32_t>(W + 1));
  SampleRows<S> samples(a.logits, g, block.n, pitch, &scratch);
  const Cells<T> cells{scratch.take<T>(g.C * L), scratch.take<T>(g.C * L)};
  const SlotRow<T> row{scratch.take<T>(slots.size), scratch.take<T>(slots.size),
                       scratch.take<T>(slots.size), scratch.take<Int<T>>(slots.size)};
  int32_t* classes = scratch.take<int32_t>(W + 1);
  classes[W] = -1;
  for (int64_t cell_y = block.y_begin; cell_y < block.y_end; ++cell_y, ++sums, ++faults) {
    const int64_t y_first = first_pixel(u.rows, cell_y), y_last = first_pixel(u.rows, cell_y + 1);
    if (y_first == y_last) continue;
    samples.move_to(cell_y);
    LaneSums<T> lane_sums;
    for (int64_t Y = y_first; Y < y_last; ++Y) {
      load_labels(a.label, {block.n, Y, 0, W, H, W}, g.C, a.ignore_index, classes, faults);
      const T below = static_cast<T>(bilinear_sample(u.rows, Y).lambda);
      for (int64_t v = 0; v < slots.vectors; ++v) {
        blend_rows(samples.top, samples.bottom, pitch, v * L, below, g.C, cells);
        forward_cells<T>(a, slots, v, {block.n, Y, W, classes}, cells, row, &lane_sums);
      }
      const int64_t out_row = (block.n * H + Y) * W;
      T *out_max = static_cast<T*>(a.lse) + out_row, *out_log_sum = out_max + g.N * H * W;
      for (int64_t x = 0; x < W; ++x) {
        out_max[x] = row.max[slots.slot[x]];
        out_log_sum[x] = row.log_sum[slots.slot[x]];
      }
      if (a.loss == nullptr) continue;
      T* out_loss = static_cast<T*>(a.loss) + out_row;
      for (int64_t x = 0; x < W; ++x) out_loss[x] = row.loss[slots.slot[x]];
    }
    lane_sums.add_to(sums);
  }
}

}  // namespace
}  // namespace segfast
