// cross_entropy on the CPU: runs of pixels in parallel, summed in order.
// SPDX-License-Identifier: Apache-2.0
#include <torch/csrc/stable/library.h>

#include <algorithm>

#include "cpu/large_pages.h"
#include "cpu/loss_tables.h"

namespace segfast {
namespace {

constexpr int64_t kRunPixels =
    4096;  // fixed: the partial sums must not depend on the number of threads

struct Runs {
  int64_t per_row, count;
  explicit Runs(const PixelGrid& g)
      : per_row((g.W + kRunPixels - 1) / kRunPixels), count(g.N * g.H * per_row) {}
  PixelRun at(const PixelGrid& g, int64_t i) const {
    const int64_t begin = i % per_row * kRunPixels, row = i / per_row;
    return {row / g.H, row % g.H, begin, std::min(kRunPixels, g.W - begin)};
  }
  // Runs per task: enough exponentials to be worth a thread.
  int64_t grain(const PixelGrid& g) const {
    return std::max<int64_t>(1, 32768 / std::max<int64_t>(1, std::min(kRunPixels, g.W) * g.C));
  }
};

std::tuple<Tensor, Tensor, Tensor, Tensor> cross_entropy(
    Tensor logits, Tensor target, std::optional<Tensor> weight, std::optional<Tensor> pixel_weight,
    int64_t ignore_index, int64_t reduction_code, double label_smoothing, bool accuracy) {
  align_all(&logits, &target, &weight, &pixel_weight);
  check_cross_entropy("cross_entropy", logits, target, weight, pixel_weight);
  check_pixels("cross_entropy", logits, target);
  const Reduction reduction = check_reduction("cross_entropy", reduction_code);
  const PixelView view = view_logits(logits);
  const PixelGrid& g = view.grid;
  const MapView labels = view_map(target, g);
  const MapView weights = pixel_weight ? view_map(*pixel_weight, g) : MapView{};
  const ClassFactors factors(logits, weight, g.C, label_smoothing);
  LossOutputs out(logits, target, reduction, stats_shape(target));
  const CrossEntropyForward args{
      view.tensor.const_data_ptr(),
      g,
      labels.map,
      weights.map,
      ignore_index,
      factors.tables,
      accuracy,
      reduction == Reduction::kNone ? out.loss.mutable_data_ptr() : nullptr,
      out.stats.mutable_data_ptr()};
  const CrossEntropyForwardKernel kernel =
      kernels().cross_entropy_forward[static_cast<int>(element_of(logits))];
  const Runs runs(g);
  std::vector<LossSums> sums(runs.count);
  std::vector<LabelFaults> faults(runs.count);
  torch::stable::parallel_for(0, runs.count, runs.grain(g), [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) kernel(args, runs.at(g, i), &sums[i], &faults[i]);
  });
  LossSums sum;
  LabelFaults fault;
  total(sums, faults, &sum, &fault);
  if (fault.count)
    throw std::invalid_argument(
        label_fault_text("cross_entropy", fault, g.C, ignore_index, target));
  return out.finish(sum, reduction);
}

Tensor cross_entropy_backward(Tensor grad_loss, Tensor logits, Tensor target,
                              std::optional<Tensor> weight, std::optional<Tensor> pixel_weight,
                              const Tensor& stats, const Tensor& weight_sum, int64_t ignore_index,
                              int64_t reduction_code, double label_smoothing) {
  const char* op = "cross_entropy_backward";
  align_all(&grad_loss, &logits, &target, &weight, &pixel_weight);
  check_cross_entropy(op, logits, target, weight, pixel_weight);
  check_pixels(op, logits, target);
  const Reduction reduction = check_reduction(op, reduction_code);
  check_upstream(op, logits, target, grad_loss, weight_sum, reduction);
  check_stats(op, logits, stats, stats_shape(target));
  PixelView view = view_logits(logits);
  Tensor grad = on_large_pages(torch::stable::empty_like(view.tensor));
  PixelGrid grad_grid = view_logits(grad).grid;
  cut_alike(&view.grid, &grad_grid);
  const PixelGrid& g = view.grid;
  const MapView labels = view_map(target, g);
  const MapView weights = pixel_weight ? view_map(*pixel_weight, g) : MapView{};
  const ClassFactors factors(logits, weight, g.C, label_smoothing);
  const Tensor per_pixel = torch::stable::contiguous(grad_loss);
  const CrossEntropyBackward args{
      view.tensor.const_data_ptr(),
      g,
      labels.map,
      weights.map,
      ignore_index,
      factors.tables,
      stats.const_data_ptr(),
      reduction == Reduction::kNone ? per_pixel.const_data_ptr() : nullptr,
      gradient_scale(grad_loss, weight_sum, reduction),
      grad.mutable_data_ptr(),
      grad_grid};
  const CrossEntropyBackwardKernel kernel =
      kernels().cross_entropy_backward[static_cast<int>(element_of(logits))];
  const Runs runs(g);
  torch::stable::parallel_for(0, runs.count, runs.grain(g), [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) kernel(args, runs.at(g, i));
  });
  return grad;
}

}  // namespace
}  // namespace segfast

STABLE_TORCH_LIBRARY_IMPL(segfast, CPU, m) {
  m.impl("cross_entropy", TORCH_BOX(&segfast::cross_entropy));
  m.impl("cross_entropy_backward", TORCH_BOX(&segfast::cross_entropy_backward));
}
