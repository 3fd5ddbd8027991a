/* What the gradient of resized logits needs of each pixel, in the order in which its lanes read it.
   Math     grad z_p[c] = k_p 2^(z_p[c] log2 e - lse2_p) - [c == y_p] l_p - beta_c b_p, with k, l, b of base/loss.h
   Shapes   lse2 (N, H, W) f32 and label (N, H, W) -> per (n, Y, chunk, lane) kSlots neighbouring pixels of a lane
            (cuda/cell_lanes.cuh): lse2 f32, infinite where a pixel does not count or a slot is empty; label u16; k and l f32
            where they are not 1; the sums of b over the slots where there is smoothing; and one word `present`, a bit for each residue of label / kClassesPerLane, so that a
            walk of a few classes reads labels only in rows that hold one of them
   Traffic  t + 4 bytes read and 6 written per pixel, 4 or 8 more with weights; N=16 512x512 u8: 46 MB, 10 us at 4.8 TB/s
   Mapping  a thread makes the slots of one (row, chunk, lane): neighbours write neighbouring 16 bytes
   Launch   256 threads x 3 blocks (80 registers); x over lanes and chunks, y over rows
   Order    every value is written by one thread */
// SPDX-License-Identifier: Apache-2.0
#pragma once
#include "cuda/resized_loss.cuh"

namespace segfast {

constexpr int kClassesPerLane = 4;  // of the gradient kernel

struct PixelFactors {
  float* lse2;
  Class* label;
  unsigned* present;
  float *softmax, *one_hot;  // k and l; null where all are 1
  float*
      smooth;  // sum of b and of b times the weight of the right sample, per place; null without smoothing
};

struct SlotLanes {
  int lanes, chunks;

  __device__ int64_t row(int64_t n, int64_t H, int64_t Y) const {
    return (n * H + Y) * chunks * lanes;
  }
};

struct FactorInputs {
  PixelFactors to;
  SlotLanes lanes;
  BilinearAxis rows, cols;
  int64_t N;
  LossInputs in;
  const float* lse2;
  const float* grad_loss;  // (N, H, W) for reduction none, else null
};

// Two or four neighbouring values, up to 16 bytes a store.
template <int kPart>
__device__ inline void store_part(float* to, const float (&v)[kPart]) {
  if constexpr (kPart == 2)
    *reinterpret_cast<float2*>(to) = float2{v[0], v[1]};
  else
    *reinterpret_cast<float4*>(to) = float4{v[0], v[1], v[2], v[3]};
}
template <int kPart>
__device__ inline void store_part(Class* to, const Class (&v)[kPart]) {
  if constexpr (kPart == 2)
    *reinterpret_cast<ushort2*>(to) = ushort2{v[0], v[1]};
  else
    *reinterpret_cast<ushort4*>(to) = ushort4{v[0], v[1], v[2], v[3]};
}

template <int kSlots>
static __global__ void __launch_bounds__(256, 3)
    pixel_factors_kernel(const __grid_constant__ FactorInputs a) {
  constexpr int kPart = kSlots < 4 ? kSlots : 4;
  const float beta_sum = a.in.beta_sum();
  const int x = static_cast<int>(blockIdx.x * 256 + threadIdx.x);
  if (x >= a.lanes.lanes * a.lanes.chunks) return;
  const int first_slot = x / a.lanes.lanes * kSlots;
  const LaneColumn column(a.cols, x % a.lanes.lanes);
  for (int64_t row = blockIdx.y; row < a.N * a.rows.out; row += gridDim.y) {
    const int64_t n = row / a.rows.out, Y = row % a.rows.out;
    const int64_t place = row * a.lanes.chunks * a.lanes.lanes + x;
    unsigned present = 0;
    float smooth = 0, smooth_right = 0;
#pragma unroll 1
    for (int part = 0; part < kSlots; part += kPart) {
      float lse2[kPart], softmax[kPart], one_hot[kPart];
      Class label[kPart];
#pragma unroll
      for (int k = 0; k < kPart; ++k) {
        const int slot = first_slot + part + k;
        const int64_t X = column.pixel(slot), p = row * a.cols.out + X;
        const int y = slot < column.count ? a.in.label.class_at(n, Y, X, p, nullptr) : -1;
        label[k] = static_cast<Class>(y < 0 ? kNoClass : y);
        lse2[k] = y < 0 ? INFINITY : a.lse2[p];
        softmax[k] = one_hot[k] = 0;
        if (y < 0) continue;
        present |= 1u << (y / kClassesPerLane % 32);
        if (a.to.softmax == nullptr) continue;
        const float b = a.in.pixel_weight_at(n, Y, X) * (a.grad_loss ? a.grad_loss[p] : 1.0f);
        one_hot[k] = b * a.in.factor_of(y).alpha;
        softmax[k] = one_hot[k] + b * beta_sum;
        smooth += b;
        smooth_right += b * column.lambda(slot);
      }
      const int64_t to = place * kSlots + part;
      store_part<kPart>(a.to.lse2 + to, lse2);
      store_part<kPart>(a.to.label + to, label);
      if (a.to.softmax) {
        store_part<kPart>(a.to.softmax + to, softmax);
        store_part<kPart>(a.to.one_hot + to, one_hot);
      }
    }
    a.to.present[place] = present;
    if (a.to.smooth) {
      const float sums[2] = {smooth, smooth_right};
      store_part<2>(a.to.smooth + 2 * place, sums);
    }
  }
}

// Memory for the factors of a target whose rows are resized along `cols`.
struct FactorTensors {
  int64_t
      slots;  // 2, 4 or 8; not 8 with factors, whose registers the gradient kernel does not have
  SlotLanes lanes;
  Tensor lse2, label, present, softmax, one_hot, smooth;

  FactorTensors(const Tensor& logits, const Tensor& target, const BilinearAxis& cols,
                bool with_factors, bool smoothing)
      : slots(most_slots(cols) <= 2 ? 2 : (most_slots(cols) <= 4 || with_factors ? 4 : 8)),
        lanes{static_cast<int>(lanes_of(cols)),
              static_cast<int>((most_slots(cols) + slots - 1) / slots)} {
    const int64_t places = target.size(0) * target.size(1) * lanes.lanes * lanes.chunks;
    STD_TORCH_CHECK(places <= INT32_MAX, "segfast::upsample_cross_entropy: target ",
                    shape_text(target), " is too large for one call (hint: split the batch)");
    const auto make = [&](int64_t size, ScalarType type) {
      return torch::stable::new_empty(logits, {size}, type);
    };
    lse2 = make(places * slots, ScalarType::Float);
    label = make(places * slots, ScalarType::Short);
    present = make(places, ScalarType::Int);
    softmax = make(with_factors ? places * slots : 0, ScalarType::Float);
    one_hot = make(with_factors ? places * slots : 0, ScalarType::Float);
    smooth = make(smoothing ? places * 2 : 0, ScalarType::Float);
  }
  PixelFactors view() const {
    const auto floats = [](const Tensor& t) {
      return t.numel() ? static_cast<float*>(t.mutable_data_ptr()) : nullptr;
    };
    return {floats(lse2),
            static_cast<Class*>(label.mutable_data_ptr()),
            static_cast<unsigned*>(present.mutable_data_ptr()),
            floats(softmax),
            floats(one_hot),
            floats(smooth)};
  }
};

inline void make_factors(const FactorInputs& inputs, int64_t slots, cudaStream_t stream) {
  const dim3 grid(blocks_for(int64_t{inputs.lanes.lanes} * inputs.lanes.chunks, 256, INT32_MAX),
                  blocks_for(inputs.N * inputs.rows.out, 1, 65535));
  const auto kernel = slots == 2 ? pixel_factors_kernel<2>
                                 : (slots == 4 ? pixel_factors_kernel<4> : pixel_factors_kernel<8>);
  kernel<<<grid, 256, 0, stream>>>(inputs);
  STD_CUDA_KERNEL_LAUNCH_CHECK();
}

}  // namespace segfast
