/* Count (target, class) pairs of bilinearly resized logits: neither the resized logits nor a prediction is written.
   Math     counts[t, argmax_c z_p[c]] += 1 for every pixel p with target t != ignore_index; z as in upsample_argmax.cu
   Shapes   logits (N, C, h, w) f32|f16|bf16 and target (N, H, W) u8|i16|i32|i64 of any strides; counts (C, C) i64
   Traffic  the samples from L2 and t bytes per pixel; bound by the arithmetic of upsample_argmax.cu
   Mapping  a thread owns a patch of one cell, up to 4 x 4 pixels, and passes over it when none of its labels counts. Runs of one
            pair within a patch are one addition into pair_counts.cuh. Equal sizes: a thread owns a pixel
   Launch   128 threads x 4 blocks (128 registers); about 2048 blocks at most, so that clearing and flushing stay small; the grid
            depends on the shape only
   Numerics the choice as upsample_argmax.cu; counts are exact
   Order    integer additions commute: the same counts every run
   Source   the cell formulation is ours */
// SPDX-License-Identifier: Apache-2.0
#include "cuda/launch.cuh"
#include "cuda/pair_counts.cuh"
#include "cuda/patch_labels.cuh"
#include "cuda/upsample_argmax.cuh"
#include "ops/upsample_argmax.h"

namespace segfast {
namespace {

constexpr int kThreads = kPatchThreads;
constexpr int64_t kMostBlocks =
    2048;                           // unless a block would have more pixels than its counters hold
constexpr int kResidentBlocks = 2;  // per multiprocessor, at least, for a private histogram

// Blocks of kThreads threads for `work` items of up to `pixels` pixels each.
inline unsigned counting_blocks(int64_t work, int64_t pixels) {
  const int64_t most = kMostBlockPixels / (kThreads * pixels) * kThreads;  // items of a block
  return blocks_for(work, kThreads, std::max(kMostBlocks, (work + most - 1) / most));
}

template <class S, int kSide, bool kPrivate>
__device__ inline void count_patch(const S* __restrict__ logits, const PatchGrid& a,
                                   const Labels& labels, const Patch& at,
                                   Class (*classes)[kPatchThreads],
                                   const PairCounts<kPrivate>& counts, FaultTally* tally) {
  if (at.empty() || read_labels<kSide>(labels, a, at, classes, tally) == 0) return;
  const PatchWeights<kSide> weights(a, at);
  PatchArgmax<kSide> chosen(weights);
  choose_classes(logits, a, at, chosen, weights);
  int label = kNoClass, guess = 0;
  unsigned run = 0;
#pragma unroll
  for (int i = 0; i < kSide * kSide; ++i) {
    const int y = classes[i][threadIdx.x], c = chosen.index[i / kSide][i % kSide];
    if (y == kNoClass) continue;
    if (run > 0 && (y != label || c != guess)) {
      counts.add(label, guess, run);
      run = 0;
    }
    label = y;
    guess = c;
    ++run;
  }
  if (run > 0) counts.add(label, guess, run);
}

template <class S, int kSide, bool kPrivate>
__global__ void __launch_bounds__(kThreads, 4)
    upsample_confusion_matrix_kernel(const S* __restrict__ logits,
                                     const __grid_constant__ PatchGrid a, const Labels labels,
                                     unsigned long long* __restrict__ out, FaultTally* tally) {
  extern __shared__ uint4 block_counts[];
  __shared__ Class classes[kSide * kSide][kThreads];
  const PairCounts<kPrivate> counts{block_counts, out, static_cast<int>(labels.num_classes)};
  counts.clear();
  for (int64_t index = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x; index < a.patches;
       index += static_cast<int64_t>(gridDim.x) * kThreads)
    count_patch<S, kSide>(logits, a, labels, Patch(a, static_cast<unsigned>(index)), classes,
                          counts, tally);
  counts.flush();
}

template <class S, bool kPrivate>
__global__ void __launch_bounds__(kThreads, 8)
    plain_confusion_matrix_kernel(const S* __restrict__ logits, const __grid_constant__ PixelGrid g,
                                  const Labels labels, unsigned long long* __restrict__ out,
                                  FaultTally* tally) {
  extern __shared__ uint4 block_counts[];
  const PairCounts<kPrivate> counts{block_counts, out, static_cast<int>(labels.num_classes)};
  counts.clear();
  const int64_t pixels = g.N * g.H * g.W, stride = static_cast<int64_t>(gridDim.x) * kThreads;
  for (int64_t p = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x; p < pixels;
       p += stride) {
    const int64_t row = p / g.W, n = row / g.H, Y = row % g.H, X = p % g.W;
    const int y = labels.class_at(n, Y, X, p, tally);
    if (y < 0) continue;
    const S* pixel = logits + n * g.stride_n + Y * g.stride_h + X * g.stride_w;
    counts.add(y, choose_class(pixel, g.stride_c, static_cast<int>(g.C)), 1);
  }
  counts.flush();
}

template <class S>
auto kernel_for(int side, bool has_private) {
  if (side == 2)
    return has_private ? upsample_confusion_matrix_kernel<S, 2, true>
                       : upsample_confusion_matrix_kernel<S, 2, false>;
  return has_private ? upsample_confusion_matrix_kernel<S, 4, true>
                     : upsample_confusion_matrix_kernel<S, 4, false>;
}

void upsample_confusion_matrix_(const Tensor& counts, const Tensor& logits, const Tensor& target,
                                int64_t ignore_index, bool align_corners) {
  const int64_t num_classes = check_upsample_confusion_matrix(counts, logits, target);
  check_classes("upsample_confusion_matrix_", num_classes);
  const DeviceGuard guard(counts.get_device_index());
  if (target.numel() == 0) return;
  const Labels labels{map_of(target), num_classes, ignore_index};
  const size_t bytes = private_bytes(num_classes, sizeof(Class) * 16 * kThreads, kResidentBlocks);
  const cudaStream_t stream = current_stream(logits);
  auto* out = static_cast<unsigned long long*>(counts.mutable_data_ptr());
  const PixelGrid grid = grid_of(logits);
  if (grid.H == target.size(1) && grid.W == target.size(2)) {
    with_logit_type(logits, [&](auto zero) {
      using S = decltype(zero);
      const auto kernel = bytes > 0 ? plain_confusion_matrix_kernel<S, true>
                                    : plain_confusion_matrix_kernel<S, false>;
      allow_shared(kernel, bytes);
      kernel<<<counting_blocks(target.numel(), 1), kThreads, bytes, stream>>>(
          static_cast<const S*>(logits.const_data_ptr()), grid, labels, out, fault_tally());
      STD_CUDA_KERNEL_LAUNCH_CHECK();
    });
    return;
  }
  const Tensor samples = by_class(logits);
  const PatchGrid patches = patch_grid("upsample_confusion_matrix", grid_of(samples),
                                       target.size(1), target.size(2), align_corners);
  with_logit_type(logits, [&](auto zero) {
    using S = decltype(zero);
    const auto kernel = kernel_for<S>(patches.side, bytes > 0);
    allow_shared(kernel, bytes);
    kernel<<<counting_blocks(patches.patches, 16), kThreads, bytes, stream>>>(
        static_cast<const S*>(samples.const_data_ptr()), patches, labels, out, fault_tally());
    STD_CUDA_KERNEL_LAUNCH_CHECK();
  });
}

}  // namespace
}  // namespace segfast

STABLE_TORCH_LIBRARY_IMPL(segfast, CUDA, m) {
  m.impl("upsample_confusion_matrix_", TORCH_BOX(&segfast::upsample_confusion_matrix_));
}
