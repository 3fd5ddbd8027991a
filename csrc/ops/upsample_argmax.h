/* Contract of upsample_argmax and upsample_confusion_matrix_: the class of every pixel of bilinearly resized logits.
   Shapes   logits (N, C, h, w) of any strides; prediction (N, H, W) contiguous; target (N, H, W); counts (C, C) int64
   Choice   the largest blend; the first class on a tie; a NaN is larger than everything, the first NaN wins (torch.argmax)
   Numerics samples as base/bilinear.h, vertical blend, then horizontal, in the arithmetic type, not rounded in between.
            A sample whose weight is 0 takes no part: a class masked by -inf never turns into the NaN of 0 * inf, and
            equal sizes are logits.argmax(1) exactly */
// SPDX-License-Identifier: Apache-2.0
#pragma once
#include "ops/confusion_matrix.h"
#include "ops/cross_entropy.h"

namespace segfast {

inline void check_argmax_logits(const char* op, const Tensor& logits) {
  STD_TORCH_CHECK(is_logit_type(element_of(logits)), "segfast::", op,
                  ": expected floating-point logits");
  STD_TORCH_CHECK(
      logits.dim() == 4 && logits.size(1) > 0 && logits.size(2) > 0 && logits.size(3) > 0,
      "segfast::", op, ": expected logits (N, C, h, w) with C, h, w >= 1, got ",
      shape_text(logits));
  STD_TORCH_CHECK(
      logits.size(1) <= kMostClasses && std::max(logits.size(2), logits.size(3)) <= kLongestResized,
      "segfast::", op, ": expected at most ", kMostClasses, " classes and sides of at most ",
      kLongestResized, ", got logits ", shape_text(logits));
  check_memory(op, logits, logits);
}

// How many classes a prediction of this type can name.
inline int64_t most_classes(Element prediction) {
  switch (prediction) {
    case Element::kUInt8:
      return 256;
    case Element::kInt16:
      return 32768;
    default:
      return INT32_MAX;
  }
}

// The prediction to fill, (N, H, W) in torch's ScalarType number `dtype`, on logits' device.
inline Tensor empty_prediction(const Tensor& logits, const std::vector<int64_t>& size,
                               int64_t dtype) {
  check_argmax_logits("upsample_argmax", logits);
  STD_TORCH_CHECK(size.size() == 2 && std::min(size[0], size[1]) >= 1 &&
                      std::max(size[0], size[1]) <= kLongestResized,
                  "segfast::upsample_argmax: expected size (H, W) with H, W from 1 to ",
                  kLongestResized);
  Tensor out = torch::stable::new_empty(logits, {logits.size(0), size[0], size[1]},
                                        static_cast<ScalarType>(dtype));
  const Element element = element_of(out);
  STD_TORCH_CHECK(is_label_type(element) && logits.size(1) <= most_classes(element),
                  "segfast::upsample_argmax: expected dtype uint8, int16, int32 or int64 with room "
                  "for all classes of logits ",
                  shape_text(logits));
  return out;
}

// Returns C.
inline int64_t check_upsample_confusion_matrix(const Tensor& counts, const Tensor& logits,
                                               const Tensor& target) {
  const char* op = "upsample_confusion_matrix";
  check_argmax_logits(op, logits);
  check_upsample(op, logits, target);
  STD_TORCH_CHECK(is_label_type(element_of(target)), "segfast::", op,
                  ": expected target uint8, int16, int32 or int64");
  check_counts(op, counts, logits.size(1));
  check_memory_of(op, logits, counts, target);
  return logits.size(1);
}

}  // namespace segfast
