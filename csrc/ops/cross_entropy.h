/* Contract of cross_entropy and upsample_cross_entropy: shapes, views and per-class factors, shared by both backends.
   Shapes   logits (N, C, d1, ..., dk) or (N, C) or (C,); target the same without C. With upsampling: (N, C, h, w) and (N, H, W). */
// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <algorithm>
#include <utility>

#include "base/check.h"

namespace segfast {

enum class Reduction : int64_t { kNone = 0, kMean = 1, kSum = 2 };  // torch's own numbering

// A task keeps a row of every class, and the product of two sides has to fit into 62 bits. As in segfast/ops/_checks.py.
constexpr int64_t kLongestResized = 1 << 24;

struct PixelView {
  Tensor
      tensor;  // the caller's, or a contiguous copy where its strides do not fold into rows and columns
  PixelGrid grid;
};

// Folds (N, C, d1, ..., dk) into (N, C, H, W): as few rows as the strides allow, because kernels walk rows.
inline bool fold_pixels(const Tensor& t, int64_t channel_dim, PixelGrid* grid) {
  const int64_t dims = t.dim();
  std::vector<int64_t> sizes, strides;
  int64_t n = 1, stride_n = 0, c = 1, stride_c = 0;
  for (int64_t d = 0; d < dims; ++d) {
    if (d == channel_dim) {
      c = t.size(d);
      stride_c = t.stride(d);
    } else if (d == 0 && dims > 2) {
      n = t.size(0);
      stride_n = t.stride(0);
    } else if (t.size(d) != 1) {
      if (!sizes.empty() && strides.back() == t.size(d) * t.stride(d)) {
        sizes.back() *= t.size(d);
        strides.back() = t.stride(d);
      } else {
        sizes.push_back(t.size(d));
        strides.push_back(t.stride(d));
      }
    }
  }
  if (sizes.size() > 2) return false;
  while (sizes.size() < 2) {
    sizes.insert(sizes.begin(), 1);
    strides.insert(strides.begin(), 0);
  }
  *grid = {n, c, sizes[0], sizes[1], stride_n, stride_c, strides[0], strides[1]};
  return true;
}

inline PixelView view_logits(const Tensor& logits) {
  const int64_t channel_dim = logits.dim() == 1 ? 0 : 1;
  PixelView view{logits, {}};
  if (!fold_pixels(logits, channel_dim, &view.grid)) {
    view.tensor = torch::stable::contiguous(logits);
    fold_pixels(view.tensor, channel_dim, &view.grid);
  }
  return view;
}

// Logits and their gradient lie in memory each in its own way: the gradient has no gaps, and may order its dimensions
// otherwise. Where one of them folds into one row and the other does not, that row is cut as the other is.
inline void cut_alike(PixelGrid* a, PixelGrid* b) {
  const auto cut = [](PixelGrid* row, const PixelGrid& rows) {
    row->H = rows.H;
    row->W = rows.W;
    row->stride_h = rows.W * row->stride_w;
  };
  if (a->H == 1 && b->H != 1) cut(a, *b);
  if (b->H == 1 && a->H != 1) cut(b, *a);
}

// Whether the elements fill one piece of memory, each place once, in any order of the dimensions.
inline bool is_dense(const Tensor& t) {
  if (t.numel() == 0) return true;
  std::vector<std::pair<int64_t, int64_t>> sides;  // stride, size
  for (int64_t d = 0; d < t.dim(); ++d)
    if (t.size(d) != 1) sides.emplace_back(t.stride(d), t.size(d));
  std::sort(sides.begin(), sides.end());
  int64_t elements = 1;
  for (const auto& [stride, size] : sides) {
    if (stride != elements) return false;
    elements *= size;
  }
  return true;
}

struct MapView {
  Tensor tensor;
  PixelMap map;
};

// One value per pixel of `grid`, which may have folded rows differently: then a contiguous copy (one value a pixel) is taken.
inline MapView view_map(const Tensor& t, const PixelGrid& grid) {
  const bool batched = t.dim() >= 2;
  PixelGrid own{};
  Tensor held = t;
  const auto fits = [&] { return own.H == grid.H && own.W == grid.W; };
  // A map has no channel dimension; a (N,) target is one row of N pixels, as (N, C) logits are.
  const auto fold = [&](const Tensor& m) {
    std::vector<int64_t> sizes, strides;
    for (int64_t d = batched ? 1 : 0; d < m.dim(); ++d) {
      sizes.push_back(m.size(d));
      strides.push_back(m.stride(d));
    }
    if (sizes.size() == 2 && sizes[0] == grid.H && sizes[1] == grid.W) {
      own = {0, 1, grid.H, grid.W, 0, 0, strides[0], strides[1]};
    } else if (m.is_contiguous()) {
      own = {0, 1, grid.H, grid.W, 0, 0, grid.W, 1};
    }
  };
  fold(held);
  if (!fits()) {
    held = torch::stable::contiguous(t);
    fold(held);
  }
  const int64_t stride_n = batched ? held.stride(0) : 0;
  return {held, {held.const_data_ptr(), element_of(held), stride_n, own.stride_h, own.stride_w}};
}

// (N, C, h, w) and (N, H, W) tensors as they lie: resizing needs rows and columns apart.
inline PixelGrid grid_of(const Tensor& t) {
  return {t.size(0),   t.size(1),   t.size(2),   t.size(3),
          t.stride(0), t.stride(1), t.stride(2), t.stride(3)};
}
inline PixelMap map_of(const Tensor& t) {
  return {t.const_data_ptr(), element_of(t), t.stride(0), t.stride(1), t.stride(2)};
}

inline void check_cross_entropy(const char* op, const Tensor& logits, const Tensor& target,
                                const std::optional<Tensor>& weight,
                                const std::optional<Tensor>& pixel_weight) {
  STD_TORCH_CHECK(is_logit_type(element_of(logits)), "segfast::", op,
                  ": expected floating-point logits");
  STD_TORCH_CHECK(is_label_type(element_of(target)), "segfast::", op,
                  ": expected target uint8, int16, int32 or int64");
  const int64_t classes = logits.dim() == 0 ? 0 : logits.size(logits.dim() == 1 ? 0 : 1);
  STD_TORCH_CHECK(classes > 0 && classes <= kMostClasses, "segfast::", op,
                  ": expected logits with at least one class and at most ", kMostClasses, ", got ",
                  shape_text(logits));
  STD_TORCH_CHECK(
      !weight || (weight->dim() == 1 && weight->size(0) == classes && weight->is_contiguous() &&
                  weight->scalar_type() == arithmetic_type(logits)),
      "segfast::", op,
      ": expected contiguous weight of one value per class in the arithmetic type");
  STD_TORCH_CHECK(!pixel_weight || (shape_text(*pixel_weight) == shape_text(target) &&
                                    pixel_weight->scalar_type() == arithmetic_type(logits)),
                  "segfast::", op,
                  ": expected pixel_weight of target's shape in the arithmetic type");
  check_memory_of(op, logits, target, weight, pixel_weight);
}

// For logits and target of one size: target has logits' shape without the classes.
inline void check_pixels(const char* op, const Tensor& logits, const Tensor& target) {
  bool fits = target.dim() == logits.dim() - 1;
  for (int64_t d = 0; fits && d < target.dim(); ++d)
    fits = target.size(d) == logits.size(d == 0 ? 0 : d + 1);
  STD_TORCH_CHECK(fits, "segfast::", op, ": expected logits (N, C, ...) and target (N, ...), got ",
                  shape_text(logits), " and ", shape_text(target));
}

inline Reduction check_reduction(const char* op, int64_t code) {
  STD_TORCH_CHECK(code >= 0 && code <= 2, "segfast::", op,
                  ": expected reduction 0 (none), 1 (mean) or 2 (sum), got ", code);
  return static_cast<Reduction>(code);
}

// What a backward pass gets from outside: the upstream gradient, and what the forward pass saved.
inline void check_upstream(const char* op, const Tensor& logits, const Tensor& target,
                           const Tensor& grad_loss, const Tensor& weight_sum, Reduction reduction) {
  const ScalarType type = arithmetic_type(logits);
  const bool fits = reduction == Reduction::kNone ? shape_text(grad_loss) == shape_text(target)
                                                  : grad_loss.numel() == 1;
  STD_TORCH_CHECK(fits && grad_loss.scalar_type() == type, "segfast::", op,
                  ": expected grad_loss of the loss's shape in the arithmetic type, got ",
                  shape_text(grad_loss));
  STD_TORCH_CHECK(weight_sum.numel() == 1 && weight_sum.scalar_type() == type, "segfast::", op,
                  ": expected weight_sum as the forward pass gave it, got ",
                  shape_text(weight_sum));
  // Not the logits themselves: scale_gradient takes no more than their shape.
  check_memory(op, logits, grad_loss);
  check_memory(op, logits, weight_sum);
}
inline void check_stats(const char* op, const Tensor& logits, const Tensor& stats,
                        const std::vector<int64_t>& shape) {
  bool fits = stats.dim() == static_cast<int64_t>(shape.size());
  for (size_t d = 0; fits && d < shape.size(); ++d)
    fits = stats.size(static_cast<int64_t>(d)) == shape[d];
  STD_TORCH_CHECK(fits && stats.is_contiguous() && stats.scalar_type() == arithmetic_type(logits),
                  "segfast::", op, ": expected stats as the forward pass gave them, got ",
                  shape_text(stats));
  check_memory(op, logits, stats);
}

inline void check_upsample(const char* op, const Tensor& logits, const Tensor& target) {
  STD_TORCH_CHECK(logits.dim() == 4 && target.dim() == 3 && logits.size(0) == target.size(0),
                  "segfast::", op, ": expected logits (N, C, h, w) and target (N, H, W), got ",
                  shape_text(logits), " and ", shape_text(target));
  STD_TORCH_CHECK(logits.numel() > 0 || logits.size(0) == 0, "segfast::", op,
                  ": expected h, w >= 1, got ", shape_text(logits));
  const int64_t longest =
      std::max({logits.size(2), logits.size(3), target.size(1), target.size(2)});
  STD_TORCH_CHECK(longest <= kLongestResized, "segfast::", op, ": expected sides of at most ",
                  kLongestResized, ", got ", shape_text(logits), " and ", shape_text(target));
}

// Per-pixel statistics saved for backward: (2, target's shape), the maximum and the log of the sum of exponentials.
inline std::vector<int64_t> stats_shape(const Tensor& target) {
  std::vector<int64_t> shape{2};
  for (int64_t d = 0; d < target.dim(); ++d) shape.push_back(target.size(d));
  return shape;
}

inline std::vector<int64_t> shape_of(const Tensor& t) {
  std::vector<int64_t> shape;
  for (int64_t d = 0; d < t.dim(); ++d) shape.push_back(t.size(d));
  return shape;
}

}  // namespace segfast
