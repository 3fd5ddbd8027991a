/* Count (target, class) pairs of bilinearly resized logits: neither the resized logits nor a prediction is written.
   Math     counts[t, argmax_c z_p[c]] += 1 for every pixel p with target t != ignore_index; z as in upsample_argmax.cu
   Shapes   logits (N, C, h, w) f32|f16|bf16 and target (N, H, W) u8|i16|i32|i64 of any strides; counts (C, C) i64
   Traffic  the samples from L2 and t bytes per pixel; bound by the arithmetic of upsample_argmax.cu
   Mapping  a thread owns one column X and up to four rows of one row of cells; a thread without a valid label skips its
            classes. Runs of one pair down the rows are one addition into pair_counts.cuh
   Launch   128 threads x 4 blocks (128 registers); about 2048 blocks at most, so that clearing and flushing stay small; the grid depends on the shape only
   Numerics the choice as upsample_argmax.cu; counts are exact
   Order    integer additions commute: the same counts every run
   Source   the cell formulation is ours */
// SPDX-License-Identifier: Apache-2.0
#include "cuda/labels.cuh"
#include "cuda/launch.cuh"
#include "cuda/pair_counts.cuh"
#include "cuda/upsample_argmax.cuh"
#include "ops/upsample_argmax.h"

namespace segfast {
namespace {

constexpr int kThreads = 128;
constexpr unsigned kMostBlocks = 2048;

template <bool kResize, bool kPrivate, class S>
__device__ inline void count_chunk(const S* __restrict__ logits, const CellGrid& a,
                                   const Labels& labels, const RowChunk& chunk, int64_t X,
                                   const PairCounts<kPrivate>& counts, FaultTally* tally) {
  const int rows = chunk.rows();
  int y[kRows];
  bool any = false;
#pragma unroll
  for (int r = 0; r < kRows; ++r) {
    const int64_t Y = chunk.first + r;
    y[r] = r < rows ? labels.class_at(chunk.n, Y, X, a.pixel(chunk.n, Y, X), tally) : -1;
    any |= y[r] >= 0;
  }
  if (!any) return;
  RunningArgmax best[kRows];
  argmax_rows<kResize>(logits, a, chunk, rows, X, best);
  unsigned run = 0;
#pragma unroll
  for (int r = 0; r < kRows; ++r) {
    ++run;
    if (r + 1 < kRows && y[r + 1] == y[r] && best[r + 1].index == best[r].index) continue;
    if (y[r] >= 0) counts.add(y[r], best[r].index, run);
    run = 0;
  }
}

template <bool kResize, bool kPrivate, class S>
__global__ void __launch_bounds__(kThreads, 4)
    upsample_confusion_matrix_kernel(const S* __restrict__ logits, const CellGrid a,
                                     const Labels labels, unsigned long long* __restrict__ out,
                                     FaultTally* tally) {
  extern __shared__ unsigned block_counts[];
  const PairCounts<kPrivate> counts{block_counts, out, labels.num_classes};
  counts.clear();
  const int64_t X = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  for (int64_t work = blockIdx.y; X < a.cols.out && work < a.chunks(); work += gridDim.y)
    count_chunk<kResize>(logits, a, labels, a.chunk(work), X, counts, tally);
  counts.flush();
}

template <class S>
auto kernel_for(bool resize, bool has_private) {
  if (resize)
    return has_private ? upsample_confusion_matrix_kernel<true, true, S>
                       : upsample_confusion_matrix_kernel<true, false, S>;
  return has_private ? upsample_confusion_matrix_kernel<false, true, S>
                     : upsample_confusion_matrix_kernel<false, false, S>;
}

void upsample_confusion_matrix_(const Tensor& counts, const Tensor& logits, const Tensor& target,
                                int64_t ignore_index, bool align_corners) {
  const int64_t num_classes = check_upsample_confusion_matrix(counts, logits, target);
  const DeviceGuard guard(counts.get_device_index());
  if (target.numel() == 0) return;
  const CellGrid cells = cell_grid(logits, target.size(1), target.size(2), align_corners);
  const Labels labels{map_of(target), num_classes, ignore_index};
  const unsigned columns = blocks_for(target.size(2), kThreads, 1 << 30);
  const dim3 grid(columns, blocks_for(cells.chunks(), 1, std::max(1u, kMostBlocks / columns)));
  const size_t bytes = private_bytes(num_classes);
  with_logit_type(logits, [&](auto zero) {
    using S = decltype(zero);
    const auto kernel = kernel_for<S>(!same_size(cells), bytes > 0);
    kernel<<<grid, kThreads, bytes, current_stream(logits)>>>(
        static_cast<const S*>(logits.const_data_ptr()), cells, labels,
        static_cast<unsigned long long*>(counts.mutable_data_ptr()), fault_tally());
    STD_CUDA_KERNEL_LAUNCH_CHECK();
  });
}

}  // namespace
}  // namespace segfast

STABLE_TORCH_LIBRARY_IMPL(segfast, CUDA, m) {
  m.impl("upsample_confusion_matrix_", TORCH_BOX(&segfast::upsample_confusion_matrix_));
}
