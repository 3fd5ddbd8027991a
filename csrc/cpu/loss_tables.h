/* What both cross-entropy entries prepare on the CPU: per-class factors, and the reduction of per-run sums. */
// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <cmath>
#include <tuple>

#include "base/loss.h"
#include "cpu/kernels.h"
#include "cpu/large_pages.h"
#include "ops/cross_entropy.h"

namespace segfast {

// Owns the three factor arrays that LossTables points to, in the logits' arithmetic type.
class ClassFactors {
 public:
  ClassFactors(const Tensor& logits, const std::optional<Tensor>& weight, int64_t num_classes,
               double smoothing) {
    const bool is_double = logits.scalar_type() == ScalarType::Double;
    double beta_sum = 0;
    for (int64_t c = 0; c < num_classes; ++c) {
      double w = 1;
      if (weight)
        w = is_double ? static_cast<const double*>(weight->const_data_ptr())[c]
                      : static_cast<const float*>(weight->const_data_ptr())[c];
      ClassFactor<double> factor = class_factor(w, smoothing, num_classes);
      if (smoothing == 0) factor.beta = 0;  // also of an infinite weight, whose class may be absent
      append(is_double, w, factor.alpha, factor.beta);
      beta_sum += factor.beta;
    }
    const auto at = [&](int i) -> const void* {
      return is_double ? static_cast<const void*>(doubles_[i].data()) : floats_[i].data();
    };
    tables = {at(0), at(1), at(2), beta_sum, weight.has_value(), smoothing != 0};
  }
  ClassFactors(const ClassFactors&) = delete;
  ClassFactors& operator=(const ClassFactors&) = delete;
  LossTables tables;

 private:
  void append(bool is_double, double weight, double alpha, double beta) {
    const double values[3] = {weight, alpha, beta};
    for (int i = 0; i < 3; ++i) {
      if (is_double)
        doubles_[i].push_back(values[i]);
      else
        floats_[i].push_back(static_cast<float>(values[i]));
    }
  }
  std::vector<float> floats_[3];
  std::vector<double> doubles_[3];
};

// Sums the runs in their order: the result does not depend on how many threads made them.
inline void total(const std::vector<LossSums>& sums, const std::vector<LabelFaults>& faults,
                  LossSums* sum, LabelFaults* fault) {
  for (const LossSums& s : sums) {
    sum->loss += s.loss;
    sum->weight += s.weight;
    sum->correct += s.correct;
    sum->valid += s.valid;
  }
  for (const LabelFaults& f : faults) {
    fault->count += f.count;
    if (f.first_index < fault->first_index) {
      fault->first_index = f.first_index;
      fault->first_value = f.first_value;
    }
  }
}

inline void write_scalar(Tensor& t, double value) {
  if (t.scalar_type() == ScalarType::Double)
    *static_cast<double*>(t.mutable_data_ptr()) = value;
  else
    *static_cast<float*>(t.mutable_data_ptr()) = static_cast<float>(value);
}
inline double read_scalar(const Tensor& t) {
  return t.scalar_type() == ScalarType::Double ? *static_cast<const double*>(t.const_data_ptr())
                                               : *static_cast<const float*>(t.const_data_ptr());
}

struct LossOutputs {
  Tensor loss, stats, weight_sum, tally;
  LossOutputs(const Tensor& logits, const Tensor& target, Reduction reduction,
              const std::vector<int64_t>& stats_shape)
      : loss(torch::stable::empty(
            reduction == Reduction::kNone ? shape_of(target) : std::vector<int64_t>{},
            arithmetic_type(logits))),
        stats(on_large_pages(torch::stable::empty(stats_shape, arithmetic_type(logits)))),
        weight_sum(torch::stable::empty({}, arithmetic_type(logits))),
        tally(torch::stable::empty({2}, ScalarType::Long)) {}

  std::tuple<Tensor, Tensor, Tensor, Tensor> finish(const LossSums& sum, Reduction reduction) {
    if (reduction == Reduction::kSum) write_scalar(loss, sum.loss);
    if (reduction == Reduction::kMean)
      write_scalar(loss, sum.loss / sum.weight);  // 0 / 0 = NaN when nothing counts, as in torch
    write_scalar(weight_sum, sum.weight);
    int64_t* counts = static_cast<int64_t*>(tally.mutable_data_ptr());
    counts[0] = sum.correct;
    counts[1] = sum.valid;
    return {loss, stats, weight_sum, tally};
  }
};

// The factor of every pixel's gradient when the loss was reduced. With a zero denominator nothing counted: gradient 0, not NaN.
inline double gradient_scale(const Tensor& grad_loss, const Tensor& weight_sum,
                             Reduction reduction) {
  if (reduction == Reduction::kNone) return 0;
  const double g = read_scalar(grad_loss);
  if (reduction == Reduction::kSum) return g;
  const double denominator = read_scalar(weight_sum);
  return denominator == 0 ? 0 : g / denominator;
}

}  // namespace segfast
