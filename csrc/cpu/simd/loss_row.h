/* The loss and the gradient's factors of a row of pixels whose softmax is known: shared by the plain and the resized
   cross-entropy, whole vectors at a time. The order of the pixels is the caller's; a place without a pixel has label -1.
   Math     base/loss.h, with the softmax in base 2: t = (x - max) log2 e */
// SPDX-License-Identifier: Apache-2.0
#pragma once
#include "base/loss.h"
#include "cpu/kernels.h"
#include "cpu/simd/labels.h"

namespace segfast {
namespace {

// table[label] per lane; anything where the label does not count.
template <class T>
inline Vec<T> class_values(const LossTables& tables, const void* table, const Int<T>* label) {
  const T* values = static_cast<const T*>(table);
  if (!tables.weighted) return splat(values[0]);
  T lanes[kLanesOf<T>];
  for (int i = 0; i < kLanesOf<T>; ++i) lanes[i] = values[label[i] < 0 ? 0 : label[i]];
  return load<T>(lanes);
}

template <class I>
inline bool any_class(const I* label, int64_t count) {
  I all = -1;
  for (int64_t i = 0; i < count; ++i) all &= label[i];  // -1 & y = y
  return all != -1;
}

// What the walk over the classes leaves of each pixel, and its label. at_label and beta_dot are in base 2.
template <class T>
struct LossRow {
  T *max, *sum, *at_label, *beta_dot, *loss, *pixel_weight;
  Int<T>*argmax, *label;

  static int64_t bytes(int64_t size) {
    return 6 * Scratch::bytes<T>(size) + 2 * Scratch::bytes<Int<T>>(size);
  }
  static LossRow take(Scratch* scratch, int64_t size) {
    return {scratch->take<T>(size),      scratch->take<T>(size),     scratch->take<T>(size),
            scratch->take<T>(size),      scratch->take<T>(size),     scratch->take<T>(size),
            scratch->take<Int<T>>(size), scratch->take<Int<T>>(size)};
  }
};

// Sums over pixels, one per lane. Lanes count in as many bits as T has: before 32 are full, `settle` moves the counts on.
template <class T>
struct LaneSums {
  double loss[kLanesOf<T>] = {}, weight[kLanesOf<T>] = {};
  Vec<Int<T>> correct{}, valid{};
  int64_t counted = 0, all_correct = 0, all_valid = 0;  // counted: places since the last move

  // After every `places` pixels or empty places that were counted, a row of fewer than 2^30 in a lane.
  void settle(int64_t places) {
    counted += places;
    if (counted / kLanesOf<T> >= int64_t{1} << 30) move_counts();
  }
  void move_counts() {
    for (int i = 0; i < kLanesOf<T>; ++i) {
      all_correct += correct[i];
      all_valid += valid[i];
    }
    correct = valid = Vec<Int<T>>{};
    counted = 0;
  }
  void add_to(const LossTables& tables, LossSums* sums) {
    move_counts();
    double all_weight = 0;
    for (int i = 0; i < kLanesOf<T>; ++i) {
      sums->loss += loss[i];
      all_weight += weight[i];
    }
    sums->weight += tables.weighted ? all_weight : static_cast<double>(all_valid);
    sums->correct += all_correct;
    sums->valid += all_valid;
  }
};

constexpr int64_t kPart = 4;  // vectors of losses summed in T before they are added in double

// The losses of pixels of equal weight, when nobody asks for them one by one: sum of ln s = ln of the product, one
// logarithm for kPart vectors. s lies in [1, C], so the product is far from overflow.
template <class T>
inline void add_equal_losses(const LossRow<T>& row, bool accuracy, int64_t size,
                             LaneSums<T>* sums) {
  constexpr int L = kLanesOf<T>;
  Vec<T> product = splat(T(1)), at_label{};
  for (int64_t i = 0; i < size; i += L) {
    const Vec<Int<T>> y = load<Int<T>>(row.label + i), counts = y >= 0;
    product *= counts ? load<T>(row.sum + i) : splat(T(1));
    at_label += counts ? load<T>(row.at_label + i) : Vec<T>{};
    sums->valid -= counts;
    if (accuracy) sums->correct -= (y == load<Int<T>>(row.argmax + i)) & counts;
    if (i / L % kPart == kPart - 1 || i + L >= size) {
      add_to_doubles<T>(vlog(product) - at_label * kLn2Of<T>, sums->loss);
      product = splat(T(1));
      at_label = Vec<T>{};
    }
  }
  sums->settle(size);
}

// From softmax to loss, in place: sum becomes the log-sum, +inf where the pixel does not count. `weighted`: by pixel_weight.
template <class T>
inline void finish_row(const LossTables& tables, bool weighted, bool accuracy,
                       const LossRow<T>& row, int64_t size, LaneSums<T>* sums) {
  constexpr int L = kLanesOf<T>;
  const Vec<T> beta_sum = splat(static_cast<T>(tables.beta_sum)), one = splat(T(1));
  Vec<T> part{};
  for (int64_t i = 0; i < size; i += L) {
    const Vec<Int<T>> y = load<Int<T>>(row.label + i), counts = y >= 0;
    const Vec<T> log_sum = vlog(load<T>(row.sum + i));
    Vec<T> beta_dot{};
    if (tables.smooth) beta_dot = load<T>(row.beta_dot + i) * kLn2Of<T>;
    Vec<T> loss = pixel_loss<Vec<T>>(class_values<T>(tables, tables.alpha, row.label + i), log_sum,
                                     load<T>(row.at_label + i) * kLn2Of<T>, beta_sum, beta_dot,
                                     weighted ? load<T>(row.pixel_weight + i) : one);
    loss = counts ? loss : Vec<T>{};
    store<T>(row.loss + i, loss);
    store<T>(row.max + i, counts ? load<T>(row.max + i) : Vec<T>{});
    store<T>(row.sum + i, counts ? log_sum : splat(kInfinity<T>));
    part += loss;
    if (i / L % kPart == kPart - 1 || i + L >= size) {
      add_to_doubles<T>(part, sums->loss);
      part = Vec<T>{};
    }
    sums->valid -= counts;
    if (tables.weighted) {
      const Vec<T> weight = class_values<T>(tables, tables.class_weight, row.label + i);
      add_to_doubles<T>(counts ? weight : Vec<T>{}, sums->weight);
    }
    if (accuracy) sums->correct -= (y == load<Int<T>>(row.argmax + i)) & counts;
  }
  sums->settle(size);
}

// Factors of the gradient: grad[c] = e^(x - shift) k - [c == label] k_label - beta_c k_beta.
template <class T>
struct FactorRow {
  T *shift, *k, *k_label, *k_beta, *pixel_weight;
  Int<T>* label;

  static int64_t bytes(int64_t size) {
    return 5 * Scratch::bytes<T>(size) + Scratch::bytes<Int<T>>(size);
  }
  static FactorRow take(Scratch* scratch, int64_t size) {
    return {scratch->take<T>(size), scratch->take<T>(size), scratch->take<T>(size),
            scratch->take<T>(size), scratch->take<T>(size), scratch->take<Int<T>>(size)};
  }
  FactorRow from(int64_t i) const {
    return {shift + i, k + i, k_label + i, k_beta + i, pixel_weight + i, label + i};
  }
};

// Turns the saved maximum (in shift), log-sum (in k) and upstream gradient (in k_label, if there is one per pixel) into the
// factors. A pixel that does not count has shift +inf: its exponential is 0.
template <class T>
inline void finish_factors(const CrossEntropyBackward& a, const FactorRow<T>& f, int64_t size) {
  const Vec<T> beta_sum = splat(static_cast<T>(a.tables.beta_sum)), zero{}, one = splat(T(1));
  for (int64_t i = 0; i < size; i += kLanesOf<T>) {
    const GradientFactors<Vec<T>> k = gradient_factors<Vec<T>>(
        a.grad_loss ? load<T>(f.k_label + i) : splat(static_cast<T>(a.scale)),
        a.pixel_weight.data ? load<T>(f.pixel_weight + i) : one,
        class_values<T>(a.tables, a.tables.alpha, f.label + i), beta_sum);
    const Vec<Int<T>> counts = load<Int<T>>(f.label + i) >= 0;
    const Vec<T> scale = vexp2(load<T>(f.k + i) * -kLog2EOf<T>);  // 1 / sum of exponentials
    store<T>(f.shift + i, counts ? load<T>(f.shift + i) : splat(kInfinity<T>));
    store<T>(f.k + i, counts ? k.for_softmax * scale : zero);
    store<T>(f.k_label + i, counts ? k.for_label : zero);
    if (a.tables.smooth) store<T>(f.k_beta + i, counts ? k.for_beta : zero);
  }
}

// The factors of an upstream gradient of 1, straight from the softmax (before finish_row), for kept exponentials.
template <class T>
inline void softmax_factors(const LossTables& tables, bool weighted, const LossRow<T>& row,
                            const FactorRow<T>& f, int64_t size) {
  const Vec<T> beta_sum = splat(static_cast<T>(tables.beta_sum)), zero{}, one = splat(T(1));
  for (int64_t i = 0; i < size; i += kLanesOf<T>) {
    const GradientFactors<Vec<T>> k =
        gradient_factors<Vec<T>>(one, weighted ? load<T>(row.pixel_weight + i) : one,
                                 class_values<T>(tables, tables.alpha, row.label + i), beta_sum);
    const Vec<Int<T>> counts = load<Int<T>>(row.label + i) >= 0;
    store<T>(f.k + i, counts ? k.for_softmax / load<T>(row.sum + i) : zero);
    store<T>(f.k_label + i, counts ? k.for_label : zero);
    if (tables.smooth) store<T>(f.k_beta + i, counts ? k.for_beta : zero);
  }
}

}  // namespace
}  // namespace segfast
