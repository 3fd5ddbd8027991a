/* Contract of normalize_pad_stack and pad_stack: a list of images or maps becomes one padded batch. */
// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <algorithm>

#include "base/check.h"

namespace segfast {

struct BatchSize {
  int64_t C, H, W;
};

// `size` is (H, W), already at least as large as every image; empty means the batch maximum. leading = 1 for (C, H, W), 0 for (H, W).
inline BatchSize check_images(const char* op, const std::vector<Tensor>& images,
                              const std::vector<int64_t>& size, int64_t leading) {
  STD_TORCH_CHECK(!images.empty(), "segfast::", op, ": expected at least one image");
  BatchSize batch{leading ? images[0].size(0) : 1, 0, 0};
  for (const Tensor& image : images) {
    STD_TORCH_CHECK(image.dim() == leading + 2 && (leading == 0 || image.size(0) == batch.C),
                    "segfast::", op, ": expected images of one channel count, got ",
                    shape_text(image));
    STD_TORCH_CHECK(image.scalar_type() == images[0].scalar_type() &&
                        element_of(image) != Element::kUnsupported,
                    "segfast::", op, ": expected images of one supported dtype");
    check_memory(op, images[0], image);
    batch.H = std::max(batch.H, image.size(leading));
    batch.W = std::max(batch.W, image.size(leading + 1));
  }
  if (!size.empty()) {
    STD_TORCH_CHECK(size.size() == 2 && size[0] >= batch.H && size[1] >= batch.W, "segfast::", op,
                    ": expected size (H, W) >= the largest image");
    batch.H = size[0];
    batch.W = size[1];
  }
  STD_TORCH_CHECK(std::max(batch.H, batch.W) <= kLongestSide, "segfast::", op,
                  ": expected heights and widths of at most ", kLongestSide, ", got ",
                  std::max(batch.H, batch.W));
  STD_TORCH_CHECK(batch.C <= kMostClasses, "segfast::", op, ": expected at most ", kMostClasses,
                  " channels, got ", batch.C);
  return batch;
}

// The rest of normalize_pad_stack's arguments; `dtype` is torch's ScalarType number.
inline ScalarType check_normalization(const std::vector<double>& mean,
                                      const std::vector<double>& std, int64_t channels,
                                      int64_t dtype) {
  STD_TORCH_CHECK(
      mean.empty() || (static_cast<int64_t>(mean.size()) == channels && std.size() == mean.size()),
      "segfast::normalize_pad_stack: expected one mean and one std per channel");
  for (const ScalarType type : {ScalarType::Float, ScalarType::Half, ScalarType::BFloat16})
    if (dtype == static_cast<int64_t>(type)) return type;
  STD_TORCH_CHECK(false,
                  "segfast::normalize_pad_stack: expected dtype float32, float16 or bfloat16");
  return ScalarType::Undefined;
}

}  // namespace segfast
