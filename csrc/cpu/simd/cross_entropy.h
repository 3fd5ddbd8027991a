/* Softmax cross-entropy over channels: lanes are pixels, channels are walked.
   Math     loss_p = pw_p [ alpha_y (lse - x_y) + sum_c beta_c (lse - x_c) ]
            grad_p[c] = k_p [ (alpha_y + B) softmax(x_p)[c] - alpha_y [c == y] - beta_c ],  B = sum_c beta_c, k_p = g_p pw_p
   Traffic  each logit is read once from memory and its gradient written once. A strip of pixels is copied into a tile,
            because plane strides are often powers of two: planes would push each other out of the cache, and a load
            behind a store at the same offset of another page waits for it
   Numerics the exponent is (x - max) log2 e: exactly 0 for the largest logit; maximum and log-sum are kept apart, because
            x - lse would carry the rounding of lse into every probability of the pixel
   Order    one pixel's sums run over c in order, a run's over pixels per lane; the caller adds runs in a fixed order */
// SPDX-License-Identifier: Apache-2.0
#pragma once
#include "cpu/simd/loss_row.h"

namespace segfast {
namespace {

constexpr int64_t kStrip = 512;  // pixels whose labels, statistics and factors lie in L1 together
constexpr int64_t kTile = 64;    // pixels whose logits lie in L1 or L2 together, as (C, kTile)

// Reads the logits of `count` <= kTile pixels, whole vectors of them, and asks for those of the next tile.
template <class S>
inline void load_tile(const S* p, const PixelGrid& g, int64_t count, Arithmetic<S>* tile) {
  constexpr int L = kLanesOf<Arithmetic<S>>;
  constexpr int64_t kLine = 64 / static_cast<int64_t>(sizeof(S));
  // Pixels outside where they are far apart (channels_last), so that their lines are read once for all classes.
  const int64_t block = g.stride_w == 1 ? kTile : L;
  for (int64_t begin = 0; begin < count; begin += block) {
    for (int64_t c = 0; c < g.C; ++c) {
      for (int64_t i = begin; i < begin + block && i < count; i += L) {
        store<Arithmetic<S>>(tile + c * kTile + i,
                             load_pixels(p + c * g.stride_c + i * g.stride_w, g.stride_w,
                                         static_cast<int>(count - i < L ? count - i : L)));
      }
      if (g.stride_w == 1)
        for (int64_t i = kTile; i < 2 * kTile; i += kLine)
          __builtin_prefetch(p + c * g.stride_c + i, 0, 2);
    }
  }
}

// Softmax statistics of kVectors vectors of pixels, at place `at` of the row.
template <class T, int kVectors, bool kAccuracy, bool kSmooth>
inline void softmax_pixels(const T* tile, int64_t num_classes, const T* beta, int64_t at,
                           const LossRow<T>& row) {
  constexpr int L = kLanesOf<T>;
  Vec<T> max[kVectors], sum[kVectors] = {}, at_label[kVectors] = {}, beta_dot[kVectors] = {};
  Vec<Int<T>> argmax[kVectors] = {};
  for (int k = 0; k < kVectors; ++k) max[k] = splat(-kInfinity<T>);
  for (int64_t c = 0; c < num_classes; ++c) {
    for (int k = 0; k < kVectors; ++k) {
      const Vec<T> x = load<T>(tile + c * kTile + k * L);
      if constexpr (kAccuracy)
        argmax[k] = x > max[k] ? splat<Int<T>>(static_cast<Int<T>>(c)) : argmax[k];
      max[k] = vmax(max[k], x);
    }
  }
  for (int64_t c = 0; c < num_classes; ++c) {
    const Vec<Int<T>> here = splat<Int<T>>(static_cast<Int<T>>(c));
    for (int k = 0; k < kVectors; ++k) {
      const Vec<T> t = (load<T>(tile + c * kTile + k * L) - max[k]) * kLog2EOf<T>;
      sum[k] += vexp2(t);
      at_label[k] = load<Int<T>>(row.label + at + k * L) == here ? t : at_label[k];
      if constexpr (kSmooth) beta_dot[k] += beta[c] * t;
    }
  }
  for (int k = 0; k < kVectors; ++k) {
    store<T>(row.max + at + k * L, max[k]);
    store<T>(row.sum + at + k * L, sum[k]);
    store<T>(row.at_label + at + k * L, at_label[k]);
    if constexpr (kSmooth) store<T>(row.beta_dot + at + k * L, beta_dot[k]);
    if constexpr (kAccuracy) store<Int<T>>(row.argmax + at + k * L, argmax[k]);
  }
}

// The labels of a strip, whole vectors of them.
template <class T>
inline void strip_labels(const PixelMap& map, const LabelRow& strip, int64_t num_classes,
                         int64_t ignore_index, int32_t* classes, Int<T>* label,
                         LabelFaults* faults) {
  load_labels(map, strip, num_classes, ignore_index, classes, faults);
  for (int64_t i = 0; i < strip.count; ++i) label[i] = classes[i];
  for (int64_t i = strip.count; i < whole_vectors<T>(strip.count); ++i) label[i] = -1;
}

// All pixels of a tile; groups without a pixel that counts are left as they are.
template <class T, bool kAccuracy, bool kSmooth>
inline void softmax_tile(const T* tile, int64_t num_classes, const T* beta, int64_t count,
                         int64_t at, const LossRow<T>& row) {
  constexpr int L = kLanesOf<T>;
  for (int64_t i = 0; i < count; i += kGroup * L) {
    const int64_t left = (count - i + L - 1) / L, vectors = left < kGroup ? left : kGroup;
    if (!any_class(row.label + at + i, vectors * L)) continue;
    with_group(vectors, [&](auto size) {
      softmax_pixels<T, decltype(size)::value, kAccuracy, kSmooth>(tile + i, num_classes, beta,
                                                                   at + i, row);
    });
  }
}

template <class S>
void cross_entropy_forward(const CrossEntropyForward& a, const PixelRun& run, LossSums* sums,
                           LabelFaults* faults) {
  using T = Arithmetic<S>;
  const PixelGrid& g = a.grid;
  const S* p = static_cast<const S*>(a.logits) + run.n * g.stride_n + run.h * g.stride_h;
  const T* beta = static_cast<const T*>(a.tables.beta);
  const auto softmax =
      a.tables.smooth ? (a.accuracy ? softmax_tile<T, true, true> : softmax_tile<T, false, true>)
                      : (a.accuracy ? softmax_tile<T, true, false> : softmax_tile<T, false, false>);
  Scratch scratch(Scratch::bytes<T>(g.C * kTile) + LossRow<T>::bytes(kStrip) +
                  Scratch::bytes<int32_t>(kStrip));
  T* tile = scratch.take<T>(g.C * kTile);
  const LossRow<T> row = LossRow<T>::take(&scratch, kStrip);
  int32_t* classes = scratch.take<int32_t>(kStrip);
  LaneSums<T> lane_sums;
  for (int64_t w = run.begin; w < run.begin + run.count; w += kStrip) {
    const int64_t left = run.begin + run.count - w, count = left < kStrip ? left : kStrip;
    strip_labels<T>(a.label, {run.n, run.h, w, count, g.H, g.W}, g.C, a.ignore_index, classes,
                    row.label, faults);
    for (int64_t i = 0; i < count; i += kTile) {
      const int64_t pixels = count - i < kTile ? count - i : kTile;
      if (!any_class(row.label + i, pixels)) continue;
      load_tile(p + (w + i) * g.stride_w, g, pixels, tile);
      softmax(tile, g.C, beta, pixels, i, row);
    }
    if (a.pixel_weight.data) read_values(a.pixel_weight, run.n, run.h, w, count, row.pixel_weight);
    finish_row(a.tables, a.pixel_weight.data != nullptr, a.accuracy, row, whole_vectors<T>(count),
               &lane_sums);
    const int64_t out = (run.n * g.H + run.h) * g.W + w;
    copy(row.max, count, static_cast<T*>(a.lse) + out);
    copy(row.sum, count, static_cast<T*>(a.lse) + g.N * g.H * g.W + out);
    if (a.loss) copy(row.loss, count, static_cast<T*>(a.loss) + out);
  }
  lane_sums.add_to(a.tables, sums);
}

// Gradient of the tile's pixels with factors `f`.
template <class S, bool kSmooth>
inline void gradient_tile(const Arithmetic<S>* tile, const PixelGrid& g, int64_t count,
                          const Arithmetic<S>* beta, const FactorRow<Arithmetic<S>>& f, S* out) {
  using T = Arithmetic<S>;
  constexpr int L = kLanesOf<T>;
  const int64_t block = g.stride_w == 1 ? kTile : L;
  for (int64_t begin = 0; begin < count; begin += block) {
    for (int64_t c = 0; c < g.C; ++c) {
      const Vec<Int<T>> here = splat<Int<T>>(static_cast<Int<T>>(c));
      for (int64_t i = begin; i < begin + block && i < count; i += L) {
        const Vec<T> x = load<T>(tile + c * kTile + i);
        Vec<T> grad = vexp2((x - load<T>(f.shift + i)) * kLog2EOf<T>) * load<T>(f.k + i);
        grad = load<Int<T>>(f.label + i) == here ? grad - load<T>(f.k_label + i) : grad;
        if constexpr (kSmooth) grad -= load<T>(f.k_beta + i) * beta[c];
        store_pixels(out + c * g.stride_c + i * g.stride_w, g.stride_w,
                     static_cast<int>(count - i < L ? count - i : L), grad);
      }
    }
  }
}

template <class S>
void cross_entropy_backward(const CrossEntropyBackward& a, const PixelRun& run) {
  using T = Arithmetic<S>;
  const PixelGrid &g = a.grid, &gg = a.grad_grid;
  const S* p = static_cast<const S*>(a.logits) + run.n * g.stride_n + run.h * g.stride_h;
  S* grad = static_cast<S*>(a.grad) + run.n * gg.stride_n + run.h * gg.stride_h;
  const T* beta = static_cast<const T*>(a.tables.beta);
  const auto gradient = a.tables.smooth ? gradient_tile<S, true> : gradient_tile<S, false>;
  Scratch scratch(Scratch::bytes<T>(g.C * kTile) + FactorRow<T>::bytes(kStrip) +
                  Scratch::bytes<int32_t>(kStrip));
  T* tile = scratch.take<T>(g.C * kTile);
  const FactorRow<T> row = FactorRow<T>::take(&scratch, kStrip);
  int32_t* classes = scratch.take<int32_t>(kStrip);
  for (int64_t w = run.begin; w < run.begin + run.count; w += kStrip) {
    const int64_t left = run.begin + run.count - w, count = left < kStrip ? left : kStrip,
                  at = (run.n * g.H + run.h) * g.W + w;
    strip_labels<T>(a.label, {run.n, run.h, w, count, g.H, g.W}, g.C, a.ignore_index, classes,
                    row.label, nullptr);
    copy(static_cast<const T*>(a.lse) + at, count, row.shift);
    copy(static_cast<const T*>(a.lse) + g.N * g.H * g.W + at, count, row.k);
    if (a.grad_loss) copy(static_cast<const T*>(a.grad_loss) + at, count, row.k_label);
    if (a.pixel_weight.data) read_values(a.pixel_weight, run.n, run.h, w, count, row.pixel_weight);
    finish_factors(a, row, whole_vectors<T>(count));
    for (int64_t i = 0; i < count; i += kTile) {
      const int64_t pixels = count - i < kTile ? count - i : kTile;
      load_tile(p + (w + i) * g.stride_w, g, pixels, tile);
      gradient(tile, gg, pixels, beta, row.from(i), grad + (w + i) * gg.stride_w);
    }
  }
}

}  // namespace
}  // namespace segfast
