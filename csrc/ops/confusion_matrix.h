/* Contract of confusion_matrix_: counts (C, C) int64 contiguous, pred and target integer tensors of one shape. */
// SPDX-License-Identifier: Apache-2.0
#pragma once
#include "base/check.h"

namespace segfast {

inline int64_t check_confusion_matrix(const Tensor& counts, const Tensor& pred,
                                      const Tensor& target) {
  STD_TORCH_CHECK(counts.dim() == 2 && counts.size(0) == counts.size(1) && counts.is_contiguous() &&
                      counts.scalar_type() == ScalarType::Long,
                  "segfast::confusion_matrix_: expected counts (C, C) contiguous int64, got ",
                  shape_text(counts));
  STD_TORCH_CHECK(
      is_label_type(element_of(pred)) && is_label_type(element_of(target)),
      "segfast::confusion_matrix_: expected pred and target uint8, int16, int32 or int64");
  STD_TORCH_CHECK(shape_text(pred) == shape_text(target),
                  "segfast::confusion_matrix_: expected pred and target of one shape, got ",
                  shape_text(pred), " and ", shape_text(target));
  return counts.size(0);
}

}  // namespace segfast
