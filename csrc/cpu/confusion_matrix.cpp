// confusion_matrix_ on the CPU: the pixels dealt to as many tasks as there are threads.
// SPDX-License-Identifier: Apache-2.0
#include "ops/confusion_matrix.h"

#include <torch/csrc/stable/library.h>

#include <algorithm>

#include "cpu/pair_counts.h"

namespace segfast {
namespace {

void confusion_matrix_(const Tensor& counts, Tensor pred, Tensor target, int64_t ignore_index) {
  align_all(&pred, &target);
  const int64_t num_classes = check_confusion_matrix(counts, pred, target);
  const Tensor p = torch::stable::contiguous(pred), t = torch::stable::contiguous(target);
  const int64_t pixels = t.numel();
  const int64_t tasks = std::clamp<int64_t>(pixels / 65536, 1, torch::stable::get_num_threads());
  std::vector<PairCounts> shares(tasks, PairCounts(num_classes, ignore_index));
  with_label_type(element_of(p), [&](auto pred_zero) {
    with_label_type(element_of(t), [&](auto target_zero) {
      const auto* preds = static_cast<const decltype(pred_zero)*>(p.const_data_ptr());
      const auto* targets = static_cast<const decltype(target_zero)*>(t.const_data_ptr());
      torch::stable::parallel_for(0, tasks, 1, [&](int64_t begin, int64_t end) {
        for (int64_t k = begin; k < end; ++k) {
          const int64_t first = pixels * k / tasks, last = pixels * (k + 1) / tasks;
          shares[k].add(preds + first, targets + first, last - first, first);
        }
      });
    });
  });
  merge(shares, "confusion_matrix", target, static_cast<int64_t*>(counts.mutable_data_ptr()));
}

}  // namespace
}  // namespace segfast

STABLE_TORCH_LIBRARY_IMPL(segfast, CPU, m) {
  m.impl("confusion_matrix_", TORCH_BOX(&segfast::confusion_matrix_));
}
