// upsample_confusion_matrix_ on the CPU: rows of cells in parallel, each output row counted while it lies in L1.
// SPDX-License-Identifier: Apache-2.0
#include <torch/csrc/stable/library.h>

#include "cpu/pair_counts.h"
#include "cpu/row_blocks.h"
#include "ops/upsample_argmax.h"

namespace segfast {
namespace {

// One task's counts and the labels it compares with, (N, H, W) contiguous.
struct RowCounter {
  const void* target;
  int64_t H, W;
  PairCounts* share;
};

template <class L>
void count_row(void* context, int64_t n, int64_t Y, const int32_t* classes) {
  const auto* c = static_cast<const RowCounter*>(context);
  const int64_t first = (n * c->H + Y) * c->W;
  c->share->add(classes, static_cast<const L*>(c->target) + first, c->W, first);
}

void upsample_confusion_matrix_(const Tensor& counts, Tensor logits, Tensor target,
                                int64_t ignore_index, bool align_corners) {
  align_all(&logits, &target);
  const int64_t num_classes = check_upsample_confusion_matrix(counts, logits, target);
  if (target.numel() == 0) return;
  const Tensor labels = torch::stable::contiguous(target);
  const PixelGrid g = grid_of(logits);
  const int64_t H = target.size(1), W = target.size(2);
  const BilinearAxis rows{g.H, H, align_corners}, cols{g.W, W, align_corners};
  const UpsampleArgmaxKernel kernel =
      kernels().upsample_argmax[static_cast<int>(element_of(logits))];
  const RowBlocks blocks(g.N, -1, g.H, 1);
  // Blocks are at least as many as images: a task counts several, into (C, C) counts of its own.
  const int64_t tasks = std::min<int64_t>(blocks.count, torch::stable::get_num_threads());
  std::vector<PairCounts> shares(tasks, PairCounts(num_classes, ignore_index));
  with_label_type(element_of(labels), [&](auto zero) {
    with_column_slots(logits, cols, [&](const ColumnSlots& slots) {
      const UpsampleArgmax args{logits.const_data_ptr(),  g, rows, cols, slots,
                                count_row<decltype(zero)>};
      torch::stable::parallel_for(0, tasks, 1, [&](int64_t begin, int64_t end) {
        for (int64_t k = begin; k < end; ++k) {
          RowCounter counter{labels.const_data_ptr(), H, W, &shares[k]};
          const int64_t last = blocks.count * (k + 1) / tasks;
          for (int64_t i = blocks.count * k / tasks; i < last; ++i)
            kernel(args, blocks.at(i), &counter);
        }
      });
    });
  });
  merge(shares, "upsample_confusion_matrix", target,
        static_cast<int64_t*>(counts.mutable_data_ptr()));
}

}  // namespace
}  // namespace segfast

STABLE_TORCH_LIBRARY_IMPL(segfast, CPU, m) {
  m.impl("upsample_confusion_matrix_", TORCH_BOX(&segfast::upsample_confusion_matrix_));
}
