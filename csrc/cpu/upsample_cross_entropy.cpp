// upsample_cross_entropy on the CPU: blocks of cells (forward) or of low-resolution samples (backward) in parallel.
// SPDX-License-Identifier: Apache-2.0
#include <torch/csrc/stable/library.h>

#include <algorithm>

#include "cpu/loss_tables.h"

namespace segfast {
namespace {

constexpr int64_t kScratchBytes = 512 << 10;  // half of a typical L2: rows of a block stay there
constexpr int64_t kEnoughBlocks = 64;         // as many as a large machine has threads

// A fixed tiling of [begin, height) x [begin, width): by shape only, so the bits do not depend on the number of threads.
struct Blocks {
  int64_t origin, height, width, rows, cols, tiles_y, tiles_x, count;

  // origin -1 tiles cells (there is one before the first sample), origin 0 tiles samples; `buffers` rows of `C` live in scratch.
  Blocks(const PixelGrid& g, int64_t origin, int64_t max_rows, int64_t buffers, int64_t item_bytes)
      : origin(origin) {
    height = g.H - origin;
    width = g.W - origin;
    const int64_t column_bytes = buffers * (g.C + 16) * item_bytes;
    cols = std::clamp<int64_t>(kScratchBytes / column_bytes - 2, 8, 256);
    rows = max_rows;
    while (rows > 1 && g.N * ceil_div(height, rows) * ceil_div(width, cols) < kEnoughBlocks)
      rows /= 2;
    tiles_y = ceil_div(height, rows);
    tiles_x = ceil_div(width, cols);
    count = g.N * tiles_y * tiles_x;
  }
  CellBlock at(int64_t i) const {
    const int64_t x = i % tiles_x, y = i / tiles_x % tiles_y, n = i / tiles_x / tiles_y;
    return {n, origin + y * rows, origin + std::min(height, (y + 1) * rows), origin + x * cols,
            origin + std::min(width, (x + 1) * cols)};
  }
  static int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }
};

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
  const UpsampleForward args{
      {logits.const_data_ptr(), g, map_of(target),
       pixel_weight ? map_of(*pixel_weight) : PixelMap{}, ignore_index, factors.tables, accuracy,
       reduction == Reduction::kNone ? out.loss.mutable_data_ptr() : nullptr,
       out.stats.mutable_data_ptr()},
      {g.H, H, align_corners},
      {g.W, W, align_corners}};
  LossSums sum;
  LabelFaults fault;
  if (target.numel() > 0) {
    const UpsampleForwardKernel kernel =
        kernels().upsample_forward[static_cast<int>(element_of(logits))];
    const Blocks blocks(g, -1, 8, 3, out.stats.element_size());
    std::vector<LossSums> sums(blocks.count);
    std::vector<LabelFaults> faults(blocks.count);
    torch::stable::parallel_for(0, blocks.count, 1, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) kernel(args, blocks.at(i), &sums[i], &faults[i]);
    });
    total(sums, faults, &sum, &fault);
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
  Tensor grad = torch::stable::empty_like(logits);
  if (target.numel() == 0) return torch::stable::zero_(grad);
  const Tensor per_pixel = torch::stable::contiguous(grad_loss);
  const UpsampleBackward args{
      {logits.const_data_ptr(), g, map_of(target),
       pixel_weight ? map_of(*pixel_weight) : PixelMap{}, ignore_index, factors.tables,
       stats.const_data_ptr(), reduction == Reduction::kNone ? per_pixel.const_data_ptr() : nullptr,
       gradient_scale(grad_loss, weight_sum, reduction), grad.mutable_data_ptr(), grid_of(grad)},
      {g.H, target.size(1), align_corners},
      {g.W, target.size(2), align_corners}};
  const UpsampleBackwardKernel kernel =
      kernels().upsample_backward[static_cast<int>(element_of(logits))];
  const Blocks blocks(g, 0, 16, 7, stats.element_size());
  torch::stable::parallel_for(0, blocks.count, 1, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) kernel(args, blocks.at(i));
  });
  return grad;
}

}  // namespace
}  // namespace segfast

STABLE_TORCH_LIBRARY_IMPL(segfast, CPU, m) {
  m.impl("upsample_cross_entropy", TORCH_BOX(&segfast::upsample_cross_entropy));
  m.impl("upsample_cross_entropy_backward", TORCH_BOX(&segfast::upsample_cross_entropy_backward));
}
