/* Contract of confusion_matrix_: counts (C, C) int64 contiguous, pred and target integer tensors of one shape. */
// SPDX-License-Identifier: Apache-2.0
#pragma once
#include "base/check.h"

namespace segfast {

inline void check_counts(const char* op, const Tensor& counts, int64_t num_classes) {
  STD_TORCH_CHECK(num_classes > 0 && num_classes <= INT32_MAX && counts.dim() == 2 &&
                      counts.size(0) == num_classes && counts.size(1) == num_classes &&
                      counts.is_contiguous() && counts.scalar_type() == ScalarType::Long &&
                      reinterpret_cast<uintptr_t>(counts.const_data_ptr()) % 8 == 0,
                  "segfast::", op, ": expected counts (", num_classes, ", ", num_classes,
                  ") contiguous int64, got ", shape_text(counts));
}

inline int64_t check_confusion_matrix(const Tensor& counts, const Tensor& pred,
                                      const Tensor& target) {
  check_counts("confusion_matrix_", counts, counts.dim() > 0 ? counts.size(0) : 0);
  STD_TORCH_CHECK(
      is_label_type(element_of(pred)) && is_label_type(element_of(target)),
      "segfast::confusion_matrix_: expected pred and target uint8, int16, int32 or int64");
  STD_TORCH_CHECK(shape_text(pred) == shape_text(target),
                  "segfast::confusion_matrix_: expected pred and target of one shape, got ",
                  shape_text(pred), " and ", shape_text(target));
  check_memory_of("confusion_matrix_", counts, pred, target);
  return counts.size(0);
}

}  // namespace segfast
