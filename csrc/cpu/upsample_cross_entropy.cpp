// upsample_cross_entropy on the CPU: blocks of cells (forward) or of low-resolution samples (backward) in parallel.
// SPDX-License-Identifier: Apache-2.0
#include <torch/csrc/stable/library.h>

#include "cpu/large_pages.h"
#include "cpu/loss_tables.h"
#include "cpu/row_blocks.h"

namespace segfast {
namespace {

// The options of one call, as the operators take them.
struct Options {
  const char* op;
  int64_t ignore_index;
  double label_smoothing;
  bool accuracy, align_corners;
};

// Fills the views and tables of one call and runs f(arguments, rows of cells per image, sums, faults); then the errors and totals.
template <class F>
LossSums forward(const Tensor& logits, const Tensor& target, const std::optional<Tensor>& weight,
                 const std::optional<Tensor>& pixel_weight, const Options& o, void* loss,
                 void* stats, void* gradient, F&& f) {
  const PixelGrid g = grid_of(logits);
  const ClassFactors factors(logits, weight, g.C, o.label_smoothing);
  const BilinearAxis rows{g.H, target.size(1), o.align_corners},
      cols{g.W, target.size(2), o.align_corners};
  LossSums sum;
  LabelFaults fault;
  if (target.numel() == 0) return sum;
  with_column_slots(logits, cols, [&](const ColumnSlots& slots) {
    const UpsampleForward args{{logits.const_data_ptr(), g, map_of(target),
                                pixel_weight ? map_of(*pixel_weight) : PixelMap{}, o.ignore_index,
                                factors.tables, o.accuracy, loss, stats},
                               rows,
                               cols,
                               slots,
                               gradient};
    std::vector<LossSums> sums(g.N * (g.H + 1));
    std::vector<LabelFaults> faults(sums.size());
    f(args, RowBlocks(g.N, -1, g.H, 2), sums.data(), faults.data());
    total(sums, faults, &sum, &fault);
  });
  if (fault.count)
    throw std::invalid_argument(label_fault_text(o.op, fault, g.C, o.ignore_index, target));
  return sum;
}

std::tuple<Tensor, Tensor, Tensor, Tensor> upsample_cross_entropy(
    Tensor logits, Tensor target, std::optional<Tensor> weight, std::optional<Tensor> pixel_weight,
    int64_t ignore_index, int64_t reduction_code, double label_smoothing, bool accuracy,
    bool align_corners) {
  align_all(&logits, &target, &weight, &pixel_weight);
  check_cross_entropy("upsample_cross_entropy", logits, target, weight, pixel_weight);
  check_upsample("upsample_cross_entropy", logits, target);
  const Reduction reduction = check_reduction("upsample_cross_entropy", reduction_code);
  LossOutputs out(logits, target, reduction, stats_shape(target));
  const UpsampleForwardKernel kernel =
      kernels().upsample_forward[static_cast<int>(element_of(logits))];
  const LossSums sum =
      forward(logits, target, weight, pixel_weight,
              {"upsample_cross_entropy", ignore_index, label_smoothing, accuracy, align_corners},
              reduction == Reduction::kNone ? out.loss.mutable_data_ptr() : nullptr,
              out.stats.mutable_data_ptr(), nullptr,
              [&](const UpsampleForward& args, const RowBlocks& blocks, LossSums* sums,
                  LabelFaults* faults) {
                torch::stable::parallel_for(0, blocks.count, 1, [&](int64_t begin, int64_t end) {
                  for (int64_t i = begin; i < end; ++i)
                    kernel(args, blocks.at(i), sums + blocks.first(i), faults + blocks.first(i));
                });
              });
  return out.finish(sum, reduction);
}

// gradient[n, c, y, :] += edge[c, :] for the row of samples below a block.
template <class T>
void add_edge(const PixelGrid& g, const RowBlock& block, const T* edge, T* gradient) {
  for (int64_t c = 0; c < g.C; ++c) {
    T* row = gradient + ((block.n * g.C + c) * g.H + block.y_end) * g.W;
    for (int64_t x = 0; x < g.W; ++x) row[x] += edge[c * g.W + x];
  }
}

std::tuple<Tensor, Tensor, Tensor, Tensor> upsample_cross_entropy_with_gradient(
    Tensor logits, Tensor target, std::optional<Tensor> weight, std::optional<Tensor> pixel_weight,
    int64_t ignore_index, int64_t reduction_code, double label_smoothing, bool accuracy,
    bool align_corners) {
  const char* op = "upsample_cross_entropy_with_gradient";
  align_all(&logits, &target, &weight, &pixel_weight);
  check_cross_entropy(op, logits, target, weight, pixel_weight);
  check_upsample(op, logits, target);
  const Reduction reduction = check_reduction(op, reduction_code);
  STD_TORCH_CHECK(reduction != Reduction::kNone, "segfast::", op,
                  ": expected reduction 1 (mean) or 2 (sum)");
  const PixelGrid g = grid_of(logits);
  LossOutputs out(logits, target, reduction, shape_of(logits));
  Tensor& gradient = out.stats;
  if (target.numel() == 0) torch::stable::zero_(gradient);
  const UpsampleGradientKernel kernel =
      kernels().upsample_gradient[static_cast<int>(element_of(logits))];
  const LossSums sum =
      forward(logits, target, weight, pixel_weight,
              {"upsample_cross_entropy", ignore_index, label_smoothing, accuracy, align_corners},
              nullptr, nullptr, gradient.mutable_data_ptr(),
              [&](const UpsampleForward& args, const RowBlocks& blocks, LossSums* sums,
                  LabelFaults* faults) {
                const int64_t edge_bytes = g.C * g.W * gradient.element_size();
                std::vector<char> edges(blocks.count * edge_bytes);
                torch::stable::parallel_for(0, blocks.count, 1, [&](int64_t begin, int64_t end) {
                  for (int64_t i = begin; i < end; ++i)
                    kernel(args, blocks.at(i), sums + blocks.first(i), faults + blocks.first(i),
                           &edges[i * edge_bytes]);
                });
                for (int64_t i = 0; i < blocks.count; ++i) {
                  const RowBlock block = blocks.at(i);
                  if (block.y_end >= g.H) continue;
                  const char* edge = &edges[i * edge_bytes];
                  if (gradient.scalar_type() == ScalarType::Double)
                    add_edge(g, block, reinterpret_cast<const double*>(edge),
                             static_cast<double*>(gradient.mutable_data_ptr()));
                  else
                    add_edge(g, block, reinterpret_cast<const float*>(edge),
                             static_cast<float*>(gradient.mutable_data_ptr()));
                }
              });
  return out.finish(sum, reduction);
}

// The gradient of the summed loss, times upstream gradient over denominator, in the logits' dtype and strides.
Tensor scale_gradient(Tensor grad_loss, const Tensor& logits, const Tensor& gradient,
                      const Tensor& weight_sum, int64_t reduction_code) {
  const char* op = "scale_gradient";
  align(&grad_loss);
  STD_TORCH_CHECK(is_logit_type(element_of(logits)) && logits.dim() == 4, "segfast::", op,
                  ": expected floating-point logits (N, C, h, w), got ", shape_text(logits));
  STD_TORCH_CHECK(shape_text(gradient) == shape_text(logits) && gradient.is_contiguous() &&
                      gradient.scalar_type() == arithmetic_type(logits),
                  "segfast::", op, ": expected a contiguous gradient of logits' shape ",
                  shape_text(logits), " in the arithmetic type, got ", shape_text(gradient));
  check_memory(op, logits, gradient);
  const Reduction reduction = check_reduction(op, reduction_code);
  STD_TORCH_CHECK(reduction != Reduction::kNone, "segfast::", op,
                  ": expected reduction 1 (mean) or 2 (sum)");
  check_upstream(op, logits, logits, grad_loss, weight_sum, reduction);
  Tensor grad = on_large_pages(torch::stable::empty_like(logits));
  const PixelGrid g = grid_of(grad);
  const double scale = gradient_scale(grad_loss, weight_sum, reduction);
  const ScaleRowKernel kernel = kernels().scale_row[static_cast<int>(element_of(logits))];
  const char* src = static_cast<const char*>(gradient.const_data_ptr());
  char* dst = static_cast<char*>(grad.mutable_data_ptr());
  const int64_t src_bytes = gradient.element_size(), dst_bytes = grad.element_size();
  torch::stable::parallel_for(
      0, g.N * g.C * g.H, std::max<int64_t>(1, 32768 / std::max<int64_t>(1, g.W)),
      [&](int64_t begin, int64_t end) {
        for (int64_t r = begin; r < end; ++r) {
          const int64_t n = r / g.H / g.C, c = r / g.H % g.C, y = r % g.H;
          kernel({src + r * g.W * src_bytes,
                  dst + (n * g.stride_n + c * g.stride_c + y * g.stride_h) * dst_bytes, g.stride_w,
                  g.W, scale});
        }
      });
  return grad;
}

Tensor upsample_cross_entropy_backward(Tensor grad_loss, Tensor logits, Tensor target,
                                       std::optional<Tensor> weight,
                                       std::optional<Tensor> pixel_weight, const Tensor& stats,
                                       const Tensor& weight_sum, int64_t ignore_index,
                                       int64_t reduction_code, double label_smoothing,
                                       bool align_corners) {
  const char* op = "upsample_cross_entropy_backward";
  align_all(&grad_loss, &logits, &target, &weight, &pixel_weight);
  check_cross_entropy(op, logits, target, weight, pixel_weight);
  check_upsample(op, logits, target);
  const Reduction reduction = check_reduction(op, reduction_code);
  check_upstream(op, logits, target, grad_loss, weight_sum, reduction);
  check_stats(op, logits, stats, stats_shape(target));
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
  m.impl("upsample_cross_entropy_with_gradient",
         TORCH_BOX(&segfast::upsample_cross_entropy_with_gradient));
  m.impl("scale_gradient", TORCH_BOX(&segfast::scale_gradient));
}
