/* What every resizing entry prepares on the CPU: the column slots of its arithmetic type, and rows dealt to tasks. */
// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <torch/csrc/stable/ops.h>

#include <algorithm>

#include "base/check.h"
#include "cpu/column_slots.h"

namespace segfast {

// Rows [begin, end) of every image dealt to tasks of equal size. Kernels whose results depend on the deal are wrong.
struct RowBlocks {
  int64_t begin, rows, height, per_image, count;
  RowBlocks(int64_t images, int64_t begin, int64_t end, int64_t tasks_per_thread)
      : begin(begin), height(end - begin) {
    const int64_t tasks = tasks_per_thread * static_cast<int64_t>(torch::stable::get_num_threads());
    rows = std::max<int64_t>(1, ceil_div(images * height, tasks));
    rows = ceil_div(height, ceil_div(height, rows));
    per_image = ceil_div(height, rows);
    count = images * per_image;
  }
  RowBlock at(int64_t i) const {
    const int64_t y = i % per_image * rows;
    return {i / per_image, begin + y, begin + std::min(height, y + rows)};
  }
  // Row of the batch, counted from each image's first, that block i begins with.
  int64_t first(int64_t i) const { return i / per_image * height + i % per_image * rows; }
  static int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }
};

// Calls f with the column slots of the logits' arithmetic type.
template <class F>
void with_column_slots(const Tensor& logits, const BilinearAxis& cols, F&& f) {
  if (logits.scalar_type() == ScalarType::Double)
    f(ColumnSlotsOf<double>(cols, kernels().vector_bytes).view());
  else
    f(ColumnSlotsOf<float>(cols, kernels().vector_bytes).view());
}

}  // namespace segfast
