/* Softmax cross-entropy over channels: lanes are pixels, channels are walked.
   Math     loss_p = pw_p [ alpha_y (lse - x_y) + sum_c beta_c (lse - x_c) ]
            grad_p[c] = k_p [ (alpha_y + B) softmax(x_p)[c] - alpha_y [c == y] - beta_c ],  B = sum_c beta_c, k_p = g_p pw_p
   Traffic  forward reads each logit once from memory (a tile of C x lanes is kept in L1 for the second pass: plane
            strides are often powers of two, where the cache could not hold it); backward reads once and writes once
   Numerics the maximum and log-sum are kept apart: (x - max) - logsum is as exact as torch's log_softmax, where
            x - lse would carry the rounding of lse into every probability of the pixel
   Order    one pixel's sums run over c in order; the caller adds run sums in a fixed order */
// SPDX-License-Identifier: Apache-2.0
#pragma once
#include "base/loss.h"
#include "cpu/kernels.h"
#include "cpu/simd/labels.h"

namespace segfast {
namespace {

template <class T>
struct TileStats {
  Vec<T> max, log_sum, beta_dot;  // beta_dot = sum_c beta_c (x_c - max)
  Vec<Int<T>> argmax;
};

// Reads one tile into `tile` (C x lanes) and reduces it over channels.
template <class S, bool kAccuracy>
inline TileStats<Arithmetic<S>> reduce_tile(const S* p, const PixelGrid& g, int count,
                                            const LossTables& tables, Arithmetic<S>* tile) {
  using T = Arithmetic<S>;
  constexpr int L = kLanesOf<T>;
  TileStats<T> stats{load_pixels(p, g.stride_w, count), {}, {}, {}};
  store<T>(tile, stats.max);
  for (int64_t c = 1; c < g.C; ++c) {
    const Vec<T> x = load_pixels(p + c * g.stride_c, g.stride_w, count);
    store<T>(tile + c * L, x);
    if constexpr (kAccuracy)
      stats.argmax = x > stats.max ? splat<Int<T>>(static_cast<Int<T>>(c)) : stats.argmax;
    stats.max = vmax(stats.max, x);
  }
  Vec<T> sum{};
  for (int64_t c = 0; c < g.C; ++c) sum += vexp2((load<T>(tile + c * L) - stats.max) * kLog2EOf<T>);
  stats.log_sum = vlog(sum);
  if (tables.smooth) {
    const T* beta = static_cast<const T*>(tables.beta);
    for (int64_t c = 0; c < g.C; ++c)
      stats.beta_dot += beta[c] * (load<T>(tile + c * L) - stats.max);
  }
  return stats;
}

template <class S>
void cross_entropy_forward(const CrossEntropyForward& a, const PixelRun& run, LossSums* sums,
                           LabelFaults* faults) {
  using T = Arithmetic<S>;
  constexpr int L = kLanesOf<T>;
  const PixelGrid& g = a.grid;
  const S* row = static_cast<const S*>(a.logits) + run.n * g.stride_n + run.h * g.stride_h;
  const T *alpha = static_cast<const T*>(a.tables.alpha),
          *class_weight = static_cast<const T*>(a.tables.class_weight);
  const T beta_sum = static_cast<T>(a.tables.beta_sum);
  const int64_t out_row = (run.n * g.H + run.h) * g.W, plane = g.N * g.H * g.W;
  T *out_max = static_cast<T*>(a.lse) + out_row, *out_log_sum = out_max + plane;
  T* out_loss = a.loss ? static_cast<T*>(a.loss) + out_row : nullptr;
  Scratch scratch(Scratch::bytes<T>(g.C * L));
  T* tile = scratch.take<T>(g.C * L);
  for (int64_t w = run.begin; w < run.begin + run.count; w += L) {
    const int count =
        static_cast<int>(run.begin + run.count - w < L ? run.begin + run.count - w : L);
    int32_t classes[L];
    load_labels(a.label, {run.n, run.h, w, count, g.H, g.W}, g.C, a.ignore_index, classes, faults);
    bool any = false;
    for (int i = 0; i < count; ++i) any |= classes[i] >= 0;
    TileStats<T> stats{};
    if (any) {
      stats = a.accuracy ? reduce_tile<S, true>(row + w * g.stride_w, g, count, a.tables, tile)
                         : reduce_tile<S, false>(row + w * g.stride_w, g, count, a.tables, tile);
    }
    for (int i = 0; i < count; ++i) {
      const int32_t y = classes[i];
      T loss = 0;
      if (y >= 0) {
        const T above_label = tile[static_cast<int64_t>(y) * L + i] - stats.max[i];
        loss = pixel_loss(alpha[y], stats.log_sum[i], above_label, beta_sum, stats.beta_dot[i],
                          pixel_value<T>(a.pixel_weight, run.n, run.h, w + i, T(1)));
        sums->loss += static_cast<double>(loss);
        sums->weight += static_cast<double>(class_weight[y]);
        sums->valid += 1;
        sums->correct += a.accuracy && stats.argmax[i] == y;
      }
      out_max[w + i] = y >= 0 ? stats.max[i] : T(0);
      out_log_sum[w + i] = y >= 0 ? stats.log_sum[i] : kInfinity<T>;
      if (out_loss) out_loss[w + i] = loss;
    }
  }
}

template <class S>
void cross_entropy_backward(const CrossEntropyBackward& a, const PixelRun& run) {
  using T = Arithmetic<S>;
  constexpr int L = kLanesOf<T>;
  const PixelGrid &g = a.grid, &gg = a.grad_grid;
  const S* row = static_cast<const S*>(a.logits) + run.n * g.stride_n + run.h * g.stride_h;
  S* grad_row = static_cast<S*>(a.grad) + run.n * gg.stride_n + run.h * gg.stride_h;
  const T *alpha = static_cast<const T*>(a.tables.alpha),
          *beta = static_cast<const T*>(a.tables.beta);
  const T beta_sum = static_cast<T>(a.tables.beta_sum);
  const int64_t out_row = (run.n * g.H + run.h) * g.W, plane = g.N * g.H * g.W;
  const T *in_max = static_cast<const T*>(a.lse) + out_row, *in_log_sum = in_max + plane;
  const T* grad_loss = a.grad_loss ? static_cast<const T*>(a.grad_loss) + out_row : nullptr;
  for (int64_t w = run.begin; w < run.begin + run.count; w += L) {
    const int count =
        static_cast<int>(run.begin + run.count - w < L ? run.begin + run.count - w : L);
    int32_t classes[L];
    load_labels(a.label, {run.n, run.h, w, count, g.H, g.W}, g.C, a.ignore_index, classes, nullptr);
    // Lanes past the end stay ignored: log_sum +inf and factor 0.
    Vec<T> max{}, log_sum = splat(kInfinity<T>), k{}, k_softmax{}, k_label{};
    Vec<Int<T>> y = splat<Int<T>>(-1);
    for (int i = 0; i < count; ++i) {
      if (classes[i] < 0) continue;
      const T g_p = grad_loss ? grad_loss[w + i] : static_cast<T>(a.scale);
      const GradientFactors<T> f =
          gradient_factors(g_p, pixel_value<T>(a.pixel_weight, run.n, run.h, w + i, T(1)),
                           alpha[classes[i]], beta_sum);
      max[i] = in_max[w + i];
      log_sum[i] = in_log_sum[w + i];
      k[i] = f.for_beta;
      k_softmax[i] = f.for_softmax;
      k_label[i] = f.for_label;
      y[i] = classes[i];
    }
    for (int64_t c = 0; c < g.C; ++c) {
      const Vec<T> x = load_pixels(row + w * g.stride_w + c * g.stride_c, g.stride_w, count);
      const Vec<T> e = vexp2(((x - max) - log_sum) * kLog2EOf<T>);
      Vec<T> grad = e * k_softmax - (y == static_cast<Int<T>>(c) ? k_label : Vec<T>{});
      if (a.tables.smooth) grad -= k * beta[c];
      store_pixels(grad_row + w * gg.stride_w + c * gg.stride_c, gg.stride_w, count, grad);
    }
  }
}

}  // namespace
}  // namespace segfast
