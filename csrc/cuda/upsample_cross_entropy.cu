/* Cross-entropy of bilinearly resized logits, without the resized logits: the loss. The gradient is in
   upsample_cross_entropy_backward.cu.
   Math     z_p blends the four samples around p (base/bilinear.h); loss as base/loss.h;
            lse2_p = log2 sum_c 2^(z_p[c] log2 e), saved for the gradient
   Shapes   logits (N, C, h, w) f32|f16|bf16 of any strides; label (N, H, W) u8|i16|i32|i64; lse2 (N, H, W) f32
   Traffic  the samples from L2, t + 4 bytes per pixel; N=16 C=150 128x128 -> 512x512 bf16: 0.1 GB, 21 us at 4.8 TB/s,
            against 630 M exponentials, 0.17 ms on 132 SMs (16 a clock and SM): bound by exp, not by memory (counted)
   Mapping  a thread owns a patch of one cell, 4 x 4 pixels (2 x 2 where the scale is at most 2), and walks all classes: four
            loads serve 16 pixels; a pixel and class cost one exponential and about six other instructions, where eight
            would fit beside it
   Launch   128 threads x 4 blocks (128 registers); one thread per patch; the grid depends on the shape only
   Numerics float32; each pixel has a reference r, the first class's z, and sums 2^((z - r) log2 e). The reference is raised to
            the largest z so far when a sample lies more than kHeadroom above the lowest reference of the patch, so logits up to
            2^30 are safe and a walk seldom rescales. The label's z comes from the same instructions as the sum's
   Order    loss_sums.cuh: no float atomics, the same bits every run
   Source   the cell formulation is ours; running sums with a reference as arXiv:1805.02867 */
// SPDX-License-Identifier: Apache-2.0
#include "cuda/patch_labels.cuh"
#include "cuda/resized_loss.cuh"

namespace segfast {
namespace {

constexpr int kThreads = kPatchThreads;
constexpr float kHeadroom = 16.0f;  // natural units: sums stay below C e^16

struct Forward {
  PatchGrid patches;
  LossInputs in;
  float *loss, *lse2;  // loss may be null
};

// Sums of 2^((z - reference) log2 e) of kSide x kSide pixels; references in base 2.
template <int kSide>
struct PatchSoftmax {
  float reference[kSide][kSide], sum[kSide][kSide];

  __device__ PatchSoftmax(const CellValues& v, const PatchWeights<kSide>& weights) {
    for_each_blend<kSide>(v, weights, [&](int r, int k, float z) {
      reference[r][k] = z * kLog2E;
      sum[r][k] = 0;
    });
  }
  // Samples up to this value need no new references.
  __device__ float limit() const {
    float lowest = reference[0][0];
#pragma unroll
    for (int i = 1; i < kSide * kSide; ++i) lowest = fminf(lowest, reference[i / kSide][i % kSide]);
    return lowest * kLn2 + kHeadroom;
  }
  __device__ void raise_references(const CellValues& v, const PatchWeights<kSide>& weights) {
    for_each_blend<kSide>(v, weights, [&](int r, int k, float z) {
      const float raised = fmaxf(reference[r][k], z * kLog2E);
      sum[r][k] *= exp2_approx(reference[r][k] - raised);
      reference[r][k] = raised;
    });
  }
};

// Which pixels of a patch some other class wins. `bar` is the largest z of the classes so far; at the label's own class it
// starts again from that z, so that the first class wins a tie: earlier ones with z >= it, later ones with z > it.
template <int kSide>
struct PatchAccuracy {
  float bar[kSide][kSide];
  unsigned beaten = 0;  // a bit per pixel: by an earlier class
  int next = kNoClass;  // the smallest label not yet passed

  __device__ explicit PatchAccuracy(const int (*classes)[kThreads]) {
#pragma unroll
    for (int i = 0; i < kSide * kSide; ++i) {
      next = min(next, static_cast<int>(classes[i][threadIdx.x]));
      bar[i / kSide][i % kSide] = -INFINITY;
    }
  }
  // Class c, whose values are v, is some pixels' label.
  __device__ void pass_label(const CellValues& v, const PatchWeights<kSide>& weights,
                             const int (*classes)[kThreads], int c) {
    next = kNoClass;
    for_each_blend<kSide>(v, weights, [&](int r, int k, float z) {
      const int y = classes[r * kSide + k][threadIdx.x];
      if (y > c) next = min(next, y);
      if (y != c) return;
      if (bar[r][k] >= z) beaten |= 1u << (r * kSide + k);
      bar[r][k] = z;
    });
  }
};

// Adds sum_c beta_c (lse - z_c) to the losses in shared memory: label smoothing, a second walk over the classes.
template <class S, int kSide>
__device__ inline void add_smoothing(const Forward& a, const Samples<S>& samples,
                                     const PatchSoftmax<kSide>& softmax,
                                     const PatchWeights<kSide>& weights, unsigned valid,
                                     float (*losses)[kThreads]) {
  float term[kSide][kSide] = {};
  Samples<S> walk = samples;
  for (int c = 0; c < static_cast<int>(a.patches.grid.C); ++c, walk.advance(1)) {
    const CellValues v = walk.values();
    const float beta = a.in.factor_of(c).beta;
    for_each_blend<kSide>(v, weights, [&](int r, int k, float z) {
      term[r][k] += beta * (softmax.sum[r][k] - fmaf(z, kLog2E, -softmax.reference[r][k]));
    });
  }
#pragma unroll
  for (int i = 0; i < kSide * kSide; ++i)
    if (valid >> i & 1) losses[i][threadIdx.x] += term[i / kSide][i % kSide] * kLn2;
}

// Turns a softmax into the losses of the label terms, over the labels in shared memory, and saves lse2. valid: a bit per pixel.
// Returns what the patch adds to the counts.
template <class S, int kSide, bool kAccuracy>
__device__ inline LossPartial label_losses(const Forward& a, const Patch& at,
                                           const Samples<S>& samples, PatchSoftmax<kSide>& softmax,
                                           PatchAccuracy<kSide>& accuracy, unsigned valid,
                                           const PatchWeights<kSide>& weights,
                                           int (*classes)[kThreads], float (*losses)[kThreads]) {
  float* lse2 = a.lse2 + a.patches.pixel(at.n, at.row, at.column);
  float weight_sum = 0;
  int last = 0;
  CellValues of_label = samples.values();  // neighbouring pixels mostly share their label
#pragma unroll
  for (int i = 0; i < kSide * kSide; ++i) {
    const int r = i / kSide, k = i % kSide;
    softmax.sum[r][k] = __log2f(softmax.sum[r][k]);
    float saved = INFINITY, loss = 0;
    if (valid >> i & 1) {
      const int y = classes[i][threadIdx.x];
      if (y != last) of_label = samples.of_class(y);
      last = y;
      const float left = of_label.left(weights.y[r]), across = of_label.right(weights.y[r]) - left;
      const float z = fmaf(weights.x[k], across, left);
      const float above = fmaf(z, kLog2E, -softmax.reference[r][k]);
      if (kAccuracy && accuracy.bar[r][k] > z) accuracy.beaten |= 1u << i;
      const float weight = a.in.weight_of(y);
      weight_sum += weight;
      loss = (1.0f - a.in.smoothing) * weight * (softmax.sum[r][k] - above) * kLn2;
      if (above < CellValues::kLowest) loss = INFINITY;  // the label's samples were -inf
      saved = softmax.reference[r][k] + softmax.sum[r][k];
    }
    losses[i][threadIdx.x] = loss;
    if (at.contains(r, k)) lse2[r * a.patches.cols.out + k] = saved;
  }
  return {0, static_cast<double>(weight_sum),
          static_cast<unsigned long long>(__popc(valid & ~accuracy.beaten)),
          static_cast<unsigned long long>(__popc(valid))};
}

// Calls f(index in the patch, row, column) for the pixels of a patch that exist.
template <int kSide, class F>
__device__ inline void for_each_pixel(const Patch& at, F&& f) {
  for (int i = 0; i < kSide * at.rows; ++i)
    if (i % kSide < at.columns) f(i, at.row + i / kSide, at.column + i % kSide);
}

// The sum of the losses in shared memory, times their pixels' weights; with reduction none they are written.
template <int kSide>
__device__ inline float sum_losses(const Forward& a, const Patch& at, float (*losses)[kThreads]) {
  if (a.in.pixel_weight.data != nullptr) {
    for_each_pixel<kSide>(at, [&](int i, int64_t Y, int64_t X) {
      float& loss = losses[i][threadIdx.x];
      if (loss != 0.0f) loss *= a.in.pixel_weight_at(at.n, Y, X);
    });
  }
  if (a.loss != nullptr) {
    for_each_pixel<kSide>(at, [&](int i, int64_t Y, int64_t X) {
      a.loss[a.patches.pixel(at.n, Y, X)] = losses[i][threadIdx.x];
    });
  }
  float sum = 0;
#pragma unroll
  for (int i = 0; i < kSide * kSide; ++i) sum += losses[i][threadIdx.x];
  return sum;
}

// A patch without a valid label: nothing to compute.
template <int kSide>
__device__ inline void skip_patch(const Forward& a, const Patch& at) {
  for_each_pixel<kSide>(at, [&](int, int64_t Y, int64_t X) {
    const int64_t p = a.patches.pixel(at.n, Y, X);
    a.lse2[p] = INFINITY;
    if (a.loss) a.loss[p] = 0;
  });
}

template <class S, int kSide, bool kAccuracy>
__device__ inline LossPartial patch_loss(const S* __restrict__ logits, const Forward& a,
                                         unsigned patch, int (*classes)[kThreads],
                                         float (*losses)[kThreads], FaultTally* tally) {
  const Patch at(a.patches, patch);
  if (at.empty()) return {};
  const unsigned valid = read_labels<kSide>(a.in.label, a.patches, at, classes, tally);
  if (valid == 0) {
    skip_patch<kSide>(a, at);
    return {};
  }
  const PatchWeights<kSide> weights(a.patches, at);
  const Samples<S> samples(logits, a.patches.grid, at);
  PatchAccuracy<kSide> accuracy(classes);
  PatchSoftmax<kSide> softmax(samples.values(), weights);
  float limit = softmax.limit();
  Samples<S> walk = samples;
  const int num_classes = static_cast<int>(a.patches.grid.C);
  RawValues<S> ahead = walk.load();
  for (int c = 0; c < num_classes; ++c) {
    const CellValues v = ahead.values();
    if (c + 1 < num_classes) walk.advance(1);  // the next class's loads fly while this one computes
    ahead = walk.load();
    if (v.highest() > limit) {
      softmax.raise_references(v, weights);
      limit = softmax.limit();
    }
    if (kAccuracy && c == accuracy.next) accuracy.pass_label(v, weights, classes, c);
    for_each_blend<kSide>(v, weights, [&](int r, int k, float z) {
      softmax.sum[r][k] += exp2_approx(fmaf(z, kLog2E, -softmax.reference[r][k]));
      if (kAccuracy) accuracy.bar[r][k] = fmaxf(accuracy.bar[r][k], z);
    });
  }
  LossPartial mine = label_losses<S, kSide, kAccuracy>(a, at, samples, softmax, accuracy, valid,
                                                       weights, classes, losses);
  if (a.in.smoothing != 0.0f) add_smoothing(a, samples, softmax, weights, valid, losses);
  mine.loss = static_cast<double>(sum_losses<kSide>(a, at, losses));
  return mine;
}

template <class S, int kSide, bool kAccuracy>
__global__ void __launch_bounds__(kThreads, 4)
    forward_kernel(const S* __restrict__ logits, const __grid_constant__ Forward a,
                   LossPartial* partials, FaultTally* tally) {
  __shared__ int classes[kSide * kSide][kThreads];
  __shared__ float losses[kSide * kSide][kThreads];
  const unsigned patch = blockIdx.x * kThreads + threadIdx.x;
  LossPartial mine;
  if (patch < a.patches.patches)
    mine = patch_loss<S, kSide, kAccuracy>(logits, a, patch, classes, losses, tally);
  const LossPartial sum = block_sum<kThreads>(mine);
  if (threadIdx.x == 0) partials[blockIdx.x] = sum;
}

template <class S>
auto kernel_for(int side, bool accuracy) {
  if (side == 2) return accuracy ? forward_kernel<S, 2, true> : forward_kernel<S, 2, false>;
  return accuracy ? forward_kernel<S, 4, true> : forward_kernel<S, 4, false>;
}

std::tuple<Tensor, Tensor, Tensor, Tensor> upsample_cross_entropy(
    const Tensor& logits, const Tensor& target, std::optional<Tensor> weight,
    std::optional<Tensor> pixel_weight, int64_t ignore_index, int64_t reduction,
    double label_smoothing, bool accuracy, bool align_corners) {
  check_cross_entropy("upsample_cross_entropy", logits, target, weight, pixel_weight);
  check_upsample("upsample_cross_entropy", logits, target);
  check_reduction("upsample_cross_entropy", reduction);
  check_classes("upsample_cross_entropy", logits.size(1));
  const DeviceGuard guard(logits.get_device_index());
  const bool per_pixel = reduction == static_cast<int64_t>(Reduction::kNone);
  Tensor loss = torch::stable::new_empty(
      logits, per_pixel ? shape_of(target) : std::vector<int64_t>{}, ScalarType::Float);
  Tensor lse2 = torch::stable::new_empty(logits, shape_of(target), ScalarType::Float);
  Tensor weight_sum = torch::stable::new_empty(logits, {}, ScalarType::Float);
  Tensor tally = torch::stable::new_empty(logits, {2}, ScalarType::Long);
  const Tensor samples = by_class(logits);
  const PatchGrid patches = patch_grid("upsample_cross_entropy", grid_of(samples), target.size(1),
                                       target.size(2), align_corners);
  const unsigned blocks = blocks_for(patches.patches, kThreads, INT32_MAX);
  Tensor partials = torch::stable::new_empty(logits, {blocks * int64_t{4}}, ScalarType::Double);
  auto* parts = static_cast<LossPartial*>(partials.mutable_data_ptr());
  const Forward args{
      patches,
      loss_inputs(target, pixel_weight, weight, label_smoothing, patches.grid.C, ignore_index),
      per_pixel ? static_cast<float*>(loss.mutable_data_ptr()) : nullptr,
      static_cast<float*>(lse2.mutable_data_ptr())};
  const cudaStream_t stream = current_stream(logits);
  with_logit_type(logits, [&](auto zero) {
    using S = decltype(zero);
    const auto kernel = kernel_for<S>(patches.side, accuracy);
    kernel<<<blocks, kThreads, 0, stream>>>(static_cast<const S*>(samples.const_data_ptr()), args,
                                            parts, fault_tally());
    STD_CUDA_KERNEL_LAUNCH_CHECK();
  });
  finish_loss_kernel<<<1, 256, 0, stream>>>(
      parts, blocks, reduction,
      LossResult{static_cast<float*>(loss.mutable_data_ptr()),
                 static_cast<float*>(weight_sum.mutable_data_ptr()),
                 static_cast<int64_t*>(tally.mutable_data_ptr())});
  STD_CUDA_KERNEL_LAUNCH_CHECK();
  return {loss, lse2, weight_sum, tally};
}

}  // namespace
}  // namespace segfast

STABLE_TORCH_LIBRARY_IMPL(segfast, CUDA, m) {
  m.impl("upsample_cross_entropy", TORCH_BOX(&segfast::upsample_cross_entropy));
}
