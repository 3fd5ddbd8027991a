/* The loss of one pixel, once its softmax is known: one truth for both backends.
   Math     loss = pixel_weight [ alpha_y (lse - x_y) + sum_c beta_c (lse - x_c) ],  lse = max + log_sum
            alpha_c = (1 - smoothing) weight_c,  beta_c = smoothing / C weight_c
   Numerics differences to the maximum only: logits of any size are safe, as long as float32 holds their differences in
            base 2, times log2 e: up to 2.3e38
   Source   torch.nn.functional.cross_entropy, definition of label_smoothing */
// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <stdint.h>

#include "base/bilinear.h"

namespace segfast {

template <class T>
struct ClassFactor {
  T alpha, beta;
};

template <class T>
SEGFAST_HOST_DEVICE static inline ClassFactor<T> class_factor(T weight, T smoothing,
                                                              int64_t num_classes) {
  return {(T(1) - smoothing) * weight, smoothing / static_cast<T>(num_classes) * weight};
}

// above_label = x_y - max (<= 0); beta_dot = sum_c beta_c (x_c - max); without smoothing both betas are 0.
template <class T>
SEGFAST_HOST_DEVICE static inline T pixel_loss(T alpha_y, T log_sum, T above_label, T beta_sum,
                                               T beta_dot, T pixel_weight) {
  return (alpha_y * (log_sum - above_label) + (beta_sum * log_sum - beta_dot)) * pixel_weight;
}

// grad_x[c] = softmax * for_softmax - [c == y] * for_label - beta_c * for_beta
template <class T>
struct GradientFactors {
  T for_softmax, for_label, for_beta;
};
template <class T>
SEGFAST_HOST_DEVICE static inline GradientFactors<T> gradient_factors(T grad_loss, T pixel_weight,
                                                                      T alpha_y, T beta_sum) {
  const T k = grad_loss * pixel_weight;
  return {k * (alpha_y + beta_sum), k * alpha_y, k};
}

}  // namespace segfast
