// upsample_cross_entropy on the CPU: blocks of cells (forward) or of low-resolution samples (backward) in parallel.
// SPDX-License-Identifier: Apache-2.0
#include <torch/csrc/stable/library.h>

#include "cpu/large_pages.h"
#include "cpu/loss_tables.h"
#include "cpu/row_blocks.h"

namespace segfast {
namespace {

std::tuple<Tensor, Tensor, Tensor, Tensor> upsample_cross_entropy(
    const Tensor& logits, const Tensor& target, std::optional<Tensor> weight,
    std::optional<Tensor> pixel_weight, int64_t ignore_index, int64_t reduction_code,
    double label_smoothing, bool accuracy, bool align_corners) {
  check_cross_entropy("upsample_cross_entropy", logits, target, weight, pixel_weight);
  check_upsample("upsample_cross_entropy", logits, target);
  const auto reduction = static_cast<Reduction>(reduction_code);
  const PixelGrid g = grid_of(logits);
  const int64_t H = target.size(1), W = target.size(2);
  const ClassFactors factors(logits, weight, g.C, label_smoothing);
  LossOutputs out(logits, target, reduction);
  LossSums sum;
  LabelFaults fault;
  if (target.numel() > 0) {
    const BilinearAxis rows{g.H, H, align_corners}, cols{g.W, W, align_corners};
    with_column_slots(logits, cols, [&](const ColumnSlots& slots) {
      const UpsampleForward args{
          {logits.const_data_ptr(), g, map_of(target),
           pixel_weight ? map_of(*pixel_weight) : PixelMap{}, ignore_index, factors.tables,
           accuracy, reduction == Reduction::kNone ? out.loss.mutable_data_ptr() : nullptr,
           out.stats.mutable_data_ptr()},
          rows,
          cols,
          slots};
      const UpsampleForwardKernel kernel =
          kernels().upsample_forward[static_cast<int>(element_of(logits))];
      const RowBlocks blocks(g.N, -1, g.H, 4);
      std::vector<LossSums> sums(g.N * blocks.height);
      std::vector<LabelFaults> faults(sums.size());
      torch::stable::parallel_for(0, blocks.count, 1, [&](int64_t begin, int64_t end) {
        for (int64_t i = begin; i < end; ++i) {
          const RowBlock block = blocks.at(i);
          const int64_t first = block.n * blocks.height + block.y_begin - blocks.begin;
          kernel(args, block, &sums[first], &faults[first]);
        }
      });
      total(sums, faults, &sum, &fault);
    });
  }
  if (fault.count)
    throw std::invalid_argument(
        label_fault_text("upsample_cross_entropy", fault, g.C, ignore_index, target));
  return out.finish(sum, reduction);
}

Tensor upsample_cross_entropy_backward(const Tensor& grad_loss, const Tensor& logits,
                                       const Tensor& target, std::optional<Tensor> weight,
                                       std::optional<Tensor> pixel_weight, const Tensor& stats,
                                       const Tensor& weight_sum, int64_t ignore_index,
                                       int64_t reduction_code, double label_smoothing,
                                       bool align_corners) {
  check_cross_entropy("upsample_cross_entropy_backward", logits, target, weight, pixel_weight);
  check_upsample("upsample_cross_entropy_backward", logits, target);
  const auto reduction = static_cast<Reduction>(reduction_code);
  const PixelGrid g = grid_of(logits);
  const ClassFactors factors(logits, weight, g.C, label_smoothing);
  Tensor grad = on_large_pages(torch::stable::empty_like(logits));
  if (target.numel() == 0) return torch::stable::zero_(grad);
  const Tensor per_pixel = torch::stable::contiguous(grad_loss);
  const BilinearAxis rows{g.H, target.size(1), align_corners},
      cols{g.W, target.size(2), align_corners};
  with_column_slots(logits, cols, [&](const ColumnSlots& slots) {
    const UpsampleBackward args{
        {logits.const_data_ptr(), g, map_of(target),
         pixel_weight ? map_of(*pixel_weight) : PixelMap{}, ignore_index, factors.tables,
         stats.const_data_ptr(),
         reduction == Reduction::kNone ? per_pixel.const_data_ptr() : nullptr,
         gradient_scale(grad_loss, weight_sum, reduction), grad.mutable_data_ptr(), grid_of(grad)},
        rows,
        cols,
        slots};
    const UpsampleBackwardKernel kernel =
        kernels().upsample_backward[static_cast<int>(element_of(logits))];
    const RowBlocks blocks(g.N, 0, g.H, 4);
    torch::stable::parallel_for(0, blocks.count, 1, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) kernel(args, blocks.at(i));
    });
  });
  return grad;
}

}  // namespace
}  // namespace segfast

STABLE_TORCH_LIBRARY_IMPL(segfast, CPU, m) {
  m.impl("upsample_cross_entropy", TORCH_BOX(&segfast::upsample_cross_entropy));
  m.impl("upsample_cross_entropy_backward", TORCH_BOX(&segfast::upsample_cross_entropy_backward));
}
