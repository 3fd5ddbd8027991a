/* Element types and strided views as plain data: what the entries hand to the kernels, free of torch headers. */
// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <stdint.h>

namespace segfast {

// The longest side of an image or map, and the most classes or channels; as in segfast/ops/_checks.py. Columns are numbered in
// 32 bits, where there must be room for three strides beyond the last, and for the bytes of a row of 8-byte elements.
constexpr int64_t kLongestSide = 1 << 28, kMostClasses = 1 << 24;

enum class Element : int {
  kFloat,
  kDouble,
  kHalf,
  kBFloat16,
  kUInt8,
  kInt8,
  kUInt16,
  kInt16,
  kInt32,
  kInt64,
  kUnsupported
};

// A batch of pixels with channels: (N, C, H, W), strides in elements. (N, C) logits are one row of N pixels.
struct PixelGrid {
  int64_t N, C, H, W;
  int64_t stride_n, stride_c, stride_h, stride_w;
};

// One integer (or one weight) per pixel: (N, H, W), strides in elements.
struct PixelMap {
  const void* data;
  Element type;
  int64_t stride_n, stride_h, stride_w;
};

// Labels outside [0, C) that are not the ignore index: how many, and the first in (n, h, w) order.
struct LabelFaults {
  int64_t count = 0;
  int64_t first_index = INT64_MAX;
  int64_t first_value = 0;
};

}  // namespace segfast
