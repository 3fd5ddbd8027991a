/* Counting (target, prediction) pairs on the CPU: a private histogram per task, runs of equal pairs counted once. */
// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <stdexcept>
#include <string>
#include <vector>

#include "base/check.h"

namespace segfast {

inline void note(LabelFaults* f, int64_t index, int64_t value, int64_t run) {
  f->count += run;
  if (index < f->first_index) {
    f->first_index = index;
    f->first_value = value;
  }
}

// One task's share: counts (C, C) row = target, and what did not fit.
struct PairCounts {
  int64_t num_classes, ignore_index;
  std::vector<int64_t> counts;
  LabelFaults bad_target, bad_pred;

  PairCounts(int64_t num_classes, int64_t ignore_index)
      : num_classes(num_classes),
        ignore_index(ignore_index),
        counts(static_cast<size_t>(num_classes * num_classes)) {}

  // Pixels [0, size), of which the first has flat index `first`. Neighbouring pixels nearly always repeat the pair, so the
  // histogram is touched once per run.
  template <class P, class T>
  void add(const P* pred, const T* target, int64_t size, int64_t first) {
    for (int64_t i = 0; i < size;) {
      const T t = target[i];
      const P p = pred[i];
      int64_t j = i + 1;
      while (j < size && target[j] == t && pred[j] == p) ++j;
      const auto label = static_cast<int64_t>(t), guess = static_cast<int64_t>(p);
      if (label != ignore_index) {
        const bool label_ok = label >= 0 && label < num_classes,
                   guess_ok = guess >= 0 && guess < num_classes;
        if (label_ok && guess_ok)
          counts[label * num_classes + guess] += j - i;
        else if (!label_ok)
          note(&bad_target, first + i, label, j - i);
        else
          note(&bad_pred, first + i, guess, j - i);
      }
      i = j;
    }
  }
};

// Adds the tasks' shares to `out`, or throws and leaves it as it was.
inline void merge(const std::vector<PairCounts>& tasks, const char* op, const Tensor& target,
                  int64_t* out) {
  LabelFaults bad_target, bad_pred;
  for (const PairCounts& task : tasks) {
    if (task.bad_target.count)
      note(&bad_target, task.bad_target.first_index, task.bad_target.first_value,
           task.bad_target.count);
    if (task.bad_pred.count)
      note(&bad_pred, task.bad_pred.first_index, task.bad_pred.first_value, task.bad_pred.count);
  }
  const int64_t num_classes = tasks.front().num_classes;
  if (bad_target.count)
    throw std::invalid_argument(
        label_fault_text(op, bad_target, num_classes, tasks.front().ignore_index, target));
  if (bad_pred.count) {
    throw std::invalid_argument(
        std::string("segfast::") + op + ": " + std::to_string(bad_pred.count) +
        " prediction(s) lie outside [0, " + std::to_string(num_classes) + "); the first is " +
        std::to_string(bad_pred.first_value) + " at flat index " +
        std::to_string(bad_pred.first_index) + " (hint: does num_classes match the model?)");
  }
  for (const PairCounts& task : tasks)
    for (size_t i = 0; i < task.counts.size(); ++i) out[i] += task.counts[i];
}

// Calls f with a zero of the label's type.
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

}  // namespace segfast
