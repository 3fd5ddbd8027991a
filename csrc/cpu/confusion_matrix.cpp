// confusion_matrix_ on the CPU: one private histogram per task, runs of equal (target, pred) pairs counted once.
// SPDX-License-Identifier: Apache-2.0
#include "ops/confusion_matrix.h"

#include <torch/csrc/stable/library.h>

#include <algorithm>

namespace segfast {
namespace {

struct Bad {
  LabelFaults target, pred;
};

void note(LabelFaults* f, int64_t index, int64_t value, int64_t run) {
  f->count += run;
  if (index < f->first_index) {
    f->first_index = index;
    f->first_value = value;
  }
}

// Neighbouring pixels nearly always repeat the pair, so the histogram is touched once per run.
template <class P, class T>
void count_range(const P* pred, const T* target, int64_t begin, int64_t end, int64_t num_classes,
                 int64_t ignore_index, int64_t* counts, Bad* bad) {
  for (int64_t i = begin; i < end;) {
    const T t = target[i];
    const P p = pred[i];
    int64_t j = i + 1;
    while (j < end && target[j] == t && pred[j] == p) ++j;
    const auto label = static_cast<int64_t>(t), guess = static_cast<int64_t>(p);
    if (label != ignore_index) {
      const bool label_ok = label >= 0 && label < num_classes,
                 guess_ok = guess >= 0 && guess < num_classes;
      if (label_ok && guess_ok)
        counts[label * num_classes + guess] += j - i;
      else if (!label_ok)
        note(&bad->target, i, label, j - i);
      else
        note(&bad->pred, i, guess, j - i);
    }
    i = j;
  }
}

template <class P, class T>
void count_all(const Tensor& pred, const Tensor& target, int64_t num_classes, int64_t ignore_index,
               int64_t* counts, Bad* bad) {
  const P* p = static_cast<const P*>(pred.const_data_ptr());
  const T* t = static_cast<const T*>(target.const_data_ptr());
  const int64_t pixels = target.numel(), cells = num_classes * num_classes;
  const int64_t tasks = std::clamp<int64_t>(pixels / 65536, 1, torch::stable::get_num_threads());
  std::vector<int64_t> histograms(static_cast<size_t>(tasks * cells));
  std::vector<Bad> bads(static_cast<size_t>(tasks));
  torch::stable::parallel_for(0, tasks, 1, [&](int64_t begin, int64_t end) {
    for (int64_t k = begin; k < end; ++k) {
      count_range(p, t, pixels * k / tasks, pixels * (k + 1) / tasks, num_classes, ignore_index,
                  &histograms[k * cells], &bads[k]);
    }
  });
  for (const Bad& b : bads) {
    if (b.target.count)
      note(&bad->target, b.target.first_index, b.target.first_value, b.target.count);
    if (b.pred.count) note(&bad->pred, b.pred.first_index, b.pred.first_value, b.pred.count);
  }
  if (bad->target.count || bad->pred.count) return;  // the caller's counts stay untouched
  for (int64_t k = 0; k < tasks; ++k)
    for (int64_t i = 0; i < cells; ++i) counts[i] += histograms[k * cells + i];
}

template <class F>
void with_label_type(Element e, F&& f) {
  switch (e) {
    case Element::kUInt8:
      return f(uint8_t{});
    case Element::kInt16:
      return f(int16_t{});
    case Element::kInt32:
      return f(int32_t{});
    default:
      return f(int64_t{});
  }
}

void confusion_matrix_(const Tensor& counts, const Tensor& pred, const Tensor& target,
                       int64_t ignore_index) {
  const int64_t num_classes = check_confusion_matrix(counts, pred, target);
  const Tensor p = torch::stable::contiguous(pred), t = torch::stable::contiguous(target);
  Bad bad;
  auto* out = static_cast<int64_t*>(counts.mutable_data_ptr());
  with_label_type(element_of(p), [&](auto pred_zero) {
    with_label_type(element_of(t), [&](auto target_zero) {
      count_all<decltype(pred_zero), decltype(target_zero)>(p, t, num_classes, ignore_index, out,
                                                            &bad);
    });
  });
  if (bad.target.count)
    throw std::invalid_argument(
        label_fault_text("confusion_matrix", bad.target, num_classes, ignore_index, target));
  if (bad.pred.count) {
    throw std::invalid_argument("segfast::confusion_matrix: " + std::to_string(bad.pred.count) +
                                " prediction(s) lie outside [0, " + std::to_string(num_classes) +
                                "); the first is " + std::to_string(bad.pred.first_value) +
                                " at flat index " + std::to_string(bad.pred.first_index) +
                                " (hint: does num_classes match the model?)");
  }
}

}  // namespace
}  // namespace segfast

STABLE_TORCH_LIBRARY_IMPL(segfast, CPU, m) {
  m.impl("confusion_matrix_", TORCH_BOX(&segfast::confusion_matrix_));
}
