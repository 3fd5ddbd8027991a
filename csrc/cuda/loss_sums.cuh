/* Sums of a loss over the device in a fixed order: thread, block, one partial per block, one last block.
   No float atomics: the same bits on every run, and on every card, because the grid depends on the shape only. */
// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <cuda_runtime.h>

#include "base/loss.h"
#include "cuda/labels.cuh"
#include "ops/cross_entropy.h"

namespace segfast {

struct LossPartial {
  double loss = 0, weight = 0;
  unsigned long long correct = 0, valid = 0;
};

// What both forward kernels and both backward kernels read besides the logits.
struct LossInputs {
  Labels label;
  PixelMap pixel_weight;      // pixel_weight.data may be null
  const float* class_weight;  // (C,) or null
  float smoothing;

  __device__ float weight_of(int64_t c) const { return class_weight ? class_weight[c] : 1.0f; }
  __device__ ClassFactor<float> factor_of(int64_t c) const {
    return class_factor(weight_of(c), smoothing, label.num_classes);
  }
  __device__ float pixel_weight_at(int64_t n, int64_t h, int64_t w) const {
    if (pixel_weight.data == nullptr) return 1.0f;
    return static_cast<const float*>(
        pixel_weight.data)[n * pixel_weight.stride_n + h * pixel_weight.stride_h +
                           w * pixel_weight.stride_w];
  }
  // sum_c beta_c, by one warp, in a fixed order; every thread of the block gets it. Uses one float of shared memory.
  __device__ float beta_sum() const {
    __shared__ float shared;
    if (smoothing == 0.0f) return 0.0f;
    if (class_weight == nullptr) return smoothing;
    if (threadIdx.x < 32) {
      float sum = 0;
      for (int64_t c = threadIdx.x; c < label.num_classes; c += 32) sum += factor_of(c).beta;
      for (int offset = 16; offset > 0; offset /= 2)
        sum += __shfl_down_sync(0xffffffffu, sum, offset);
      if (threadIdx.x == 0) shared = sum;
    }
    __syncthreads();  // or other warps would read the sum before it is there
    return shared;
  }
};

template <class T>
__device__ inline T warp_sum(T value) {
  for (int offset = 16; offset > 0; offset /= 2)
    value += __shfl_down_sync(0xffffffffu, value, offset);
  return value;
}

// Adds the partials of at most kThreads threads; the result is thread 0's.
template <int kThreads>
__device__ inline LossPartial block_sum(LossPartial p) {
  constexpr int kWarps = kThreads / 32;
  __shared__ double loss[kWarps], weight[kWarps];
  __shared__ unsigned long long correct[kWarps], valid[kWarps];
  p = {warp_sum(p.loss), warp_sum(p.weight), warp_sum(p.correct), warp_sum(p.valid)};
  if (threadIdx.x % 32 == 0) {
    const int warp = static_cast<int>(threadIdx.x / 32);
    loss[warp] = p.loss;
    weight[warp] = p.weight;
    correct[warp] = p.correct;
    valid[warp] = p.valid;
  }
  __syncthreads();  // or thread 0 would add partials that are not written yet
  LossPartial sum;
  for (int i = 0; threadIdx.x == 0 && i < static_cast<int>(blockDim.x / 32); ++i) {
    sum.loss += loss[i];
    sum.weight += weight[i];
    sum.correct += correct[i];
    sum.valid += valid[i];
  }
  return sum;
}

struct LossResult {
  float *loss, *weight_sum;
  int64_t* tally;
};

// The last block: partials in order of their index, by at most 1024 strided threads and a tree.
constexpr int kFinishThreads = 1024;
static __global__ void __launch_bounds__(kFinishThreads)
    finish_loss_kernel(const LossPartial* partials, int64_t count, int64_t reduction,
                       LossResult out) {
  LossPartial mine;
#pragma unroll 4
  for (int64_t i = threadIdx.x; i < count; i += blockDim.x) {
    mine.loss += partials[i].loss;
    mine.weight += partials[i].weight;
    mine.correct += partials[i].correct;
    mine.valid += partials[i].valid;
  }
  const LossPartial sum = block_sum<kFinishThreads>(mine);
  if (threadIdx.x != 0) return;
  if (reduction == static_cast<int64_t>(Reduction::kSum)) *out.loss = static_cast<float>(sum.loss);
  if (reduction == static_cast<int64_t>(Reduction::kMean))
    *out.loss = static_cast<float>(sum.loss / sum.weight);
  *out.weight_sum = static_cast<float>(sum.weight);
  out.tally[0] = static_cast<int64_t>(sum.correct);
  out.tally[1] = static_cast<int64_t>(sum.valid);
}

// The gradient of pixel p's loss: grad_loss[p] for reduction none, else grad_loss / denominator; 0 where nothing counted.
struct LossGradient {
  const float *grad_loss, *weight_sum;
  int64_t reduction;

  __device__ float at(int64_t index) const {
    if (reduction == static_cast<int64_t>(Reduction::kNone)) return grad_loss[index];
    if (reduction == static_cast<int64_t>(Reduction::kSum)) return *grad_loss;
    return *weight_sum == 0.0f ? 0.0f : *grad_loss / *weight_sum;
  }
};

}  // namespace segfast
