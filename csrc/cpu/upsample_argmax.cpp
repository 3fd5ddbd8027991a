// upsample_argmax on the CPU: rows of cells in parallel, each output row written once in its dtype.
// SPDX-License-Identifier: Apache-2.0
#include "ops/upsample_argmax.h"

#include <torch/csrc/stable/library.h>

#include "cpu/large_pages.h"
#include "cpu/pair_counts.h"
#include "cpu/row_blocks.h"

namespace segfast {
namespace {

struct Prediction {
  void* data;
  int64_t H, W;
};

template <class O>
void write_row(void* context, int64_t n, int64_t Y, const int32_t* classes) {
  const auto* out = static_cast<const Prediction*>(context);
  O* row = static_cast<O*>(out->data) + (n * out->H + Y) * out->W;
  for (int64_t x = 0; x < out->W; ++x) row[x] = static_cast<O>(classes[x]);
}

Tensor upsample_argmax(Tensor logits, std::vector<int64_t> size, bool align_corners,
                       int64_t dtype) {
  align(&logits);
  Tensor out = on_large_pages(empty_prediction(logits, size, dtype));
  if (out.numel() == 0) return out;
  const PixelGrid g = grid_of(logits);
  const BilinearAxis rows{g.H, size[0], align_corners}, cols{g.W, size[1], align_corners};
  Prediction prediction{out.mutable_data_ptr(), size[0], size[1]};
  const UpsampleArgmaxKernel kernel =
      kernels().upsample_argmax[static_cast<int>(element_of(logits))];
  const RowBlocks blocks(g.N, -1, g.H, 4);
  with_label_type(element_of(out), [&](auto zero) {
    with_column_slots(logits, cols, [&](const ColumnSlots& slots) {
      const UpsampleArgmax args{logits.const_data_ptr(),  g, rows, cols, slots,
                                write_row<decltype(zero)>};
      torch::stable::parallel_for(0, blocks.count, 1, [&](int64_t begin, int64_t end) {
        for (int64_t i = begin; i < end; ++i) kernel(args, blocks.at(i), &prediction);
      });
    });
  });
  return out;
}

}  // namespace
}  // namespace segfast

STABLE_TORCH_LIBRARY_IMPL(segfast, CPU, m) {
  m.impl("upsample_argmax", TORCH_BOX(&segfast::upsample_argmax));
}
