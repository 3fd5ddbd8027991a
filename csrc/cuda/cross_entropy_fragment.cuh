/* The logits that one lane of cross_entropy holds in registers, and how they come and go. */
// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <math.h>
#include <stdint.h>
#include <string.h>

#include <type_traits>

#include "cuda/element.cuh"

namespace segfast {

// planes: pixels of a class adjacent, rows cut by 16 bytes. staged: classes of a pixel adjacent, pixels dense, through shared
// memory. strided: everything else.
enum class Form { kPlanes, kStaged, kStrided };

// One of the two halves of a word, widened; and put in its place, rounded. kHigh is a constant after inlining.
__device__ inline float get_half(uint32_t word, bool high, __half) {
  __half pair[2];
  memcpy(pair, &word, 4);
  return widen(pair[high]);
}
__device__ inline float get_half(uint32_t word, bool high, __nv_bfloat16) {
  return __uint_as_float(high ? word & 0xffff0000u : word << 16);
}
// Pairs of halves from two floats; not one by one, for which the device has one unit for eight lanes only.
__device__ inline uint32_t pack_halves(float low, float high, __half) {
  const __half2 pair = __floats2half2_rn(low, high);
  uint32_t word;
  memcpy(&word, &pair, 4);
  return word;
}
__device__ inline uint32_t pack_halves(float low, float high, __nv_bfloat16) {
  const __nv_bfloat162 pair = __floats2bfloat162_rn(low, high);
  uint32_t word;
  memcpy(&word, &pair, 4);
  return word;
}
template <class S>
__device__ inline uint32_t put_half(uint32_t word, bool high, float x, S zero) {
  return high ? (word & 0xffffu) | pack_halves(0.0f, x, zero)
              : (word & 0xffff0000u) | pack_halves(x, 0.0f, zero);
}
// One element, rounded.
__device__ inline void put_element(float x, float* to) { *to = x; }
template <class S>
__device__ inline void put_element(float x, S* to) {
  const uint16_t bits = static_cast<uint16_t>(pack_halves(x, 0.0f, S{}));
  S half;
  memcpy(&half, &bits, sizeof half);
  *to = half;
}
// The larger of two halves, twice.
template <class S>
__device__ inline uint32_t max_halves(uint32_t some, uint32_t others, S) {
  std::conditional_t<std::is_same_v<S, __half>, __half2, __nv_bfloat162> x, y;
  memcpy(&x, &some, 4);
  memcpy(&y, &others, 4);
  x = __hmax2(x, y);
  memcpy(&some, &x, 4);
  return some;
}

// Calls f(k) for the slots in use and a few more; k is a constant after unrolling, so that slots stay in registers.
template <int kSlots, bool kAll, class Body>
__device__ inline void for_slots(int used, Body&& body) {
#pragma unroll
  for (int k = 0; k < kSlots; ++k) {
    if (!kAll && k % 4 == 0 && k >= used) break;
    body(k);
  }
}

// A word of classes that do not exist: -inf adds nothing to a sum.
__device__ constexpr uint32_t masked_word(float) { return 0xff800000u; }
__device__ constexpr uint32_t masked_word(__half) { return 0xfc00fc00u; }
__device__ constexpr uint32_t masked_word(__nv_bfloat16) { return 0xff80ff80u; }

// Planes: the registers of a lane, kSlots classes of kPixels neighbouring pixels as they are stored.
template <class S, int kSlots>
struct Fragment {
  static constexpr int kPixels = 16 / static_cast<int>(sizeof(S));
  uint32_t word[kSlots][4];

  // k and q are constants after unrolling.
  __device__ float get(int k, int q) const {
    if constexpr (sizeof(S) == 4)
      return __uint_as_float(word[k][q]);
    else
      return get_half(word[k][q / 2], q % 2 != 0, S{});
  }
  __device__ void put(int k, int q, float x) {
    if constexpr (sizeof(S) == 4)
      word[k][q] = __float_as_uint(x);
    else
      word[k][q / 2] = put_half(word[k][q / 2], q % 2 != 0, x, S{});
  }
  // The largest of all slots of pixel q; of halves, also of pixel q + 1.
  __device__ void largest(int q, float (&max)[2]) const {
    if constexpr (sizeof(S) == 4) {
      max[0] = -INFINITY;
#pragma unroll
      for (int k = 0; k < kSlots; ++k) max[0] = fmaxf(max[0], get(k, q));
    } else {
      uint32_t pair = masked_word(S{});
#pragma unroll
      for (int k = 0; k < kSlots; ++k) pair = max_halves(pair, word[k][q / 2], S{});
      max[0] = get_half(pair, false, S{});
      max[1] = get_half(pair, true, S{});
    }
  }
  // at: the lane's first class of its first pixel; classes: how many it has, never fewer than sure.
  __device__ void load(const S* at, int64_t step, int classes, int sure) {
    const uint32_t none = masked_word(S{});
#pragma unroll
    for (int k = 0; k < kSlots; ++k) {
      uint4 v = {none, none, none, none};
      if (k < sure || k < classes) v = *reinterpret_cast<const uint4*>(at);
      word[k][0] = v.x;
      word[k][1] = v.y;
      word[k][2] = v.z;
      word[k][3] = v.w;
      at += step;
    }
  }
  __device__ void store(S* at, int64_t step, int classes, int sure) const {
#pragma unroll
    for (int k = 0; k < kSlots; ++k) {
      if (k < sure || k < classes)
        *reinterpret_cast<uint4*>(at) = uint4{word[k][0], word[k][1], word[k][2], word[k][3]};
      at += step;
    }
  }
};

// A warp copies the logits of a staged tile into shared memory, or its gradients out of it, by 16 bytes wherever those are
// whole. The tile lies in shared memory as far from a multiple of 16 bytes as it does outside.
template <class S, bool kIn>
__device__ inline void copy_tile(std::conditional_t<kIn, const S, S>* global, S* tile, int total,
                                 int num_classes, int pad) {
  constexpr int kVector = 16 / static_cast<int>(sizeof(S));
  const int lead = static_cast<int>(reinterpret_cast<uintptr_t>(global) % 16 / sizeof(S));
#pragma unroll 4
  for (int i = threadIdx.x % 32; i < (lead + total + kVector - 1) / kVector; i += 32) {
    const int from = i * kVector - lead;
    if (from >= 0 && from + kVector <= total) {
      auto* outside = reinterpret_cast<std::conditional_t<kIn, const uint4, uint4>*>(global + from);
      if (pad == 0) {
        auto* inside = reinterpret_cast<uint4*>(tile) + i;
        if constexpr (kIn)
          *inside = *outside;
        else
          *outside = *inside;
      } else {  // pixels are whole vectors, but one word apart
        auto* inside = reinterpret_cast<uint32_t*>(tile + from + from / num_classes * pad);
        if constexpr (kIn) {
          const uint4 v = *outside;
          inside[0] = v.x;
          inside[1] = v.y;
          inside[2] = v.z;
          inside[3] = v.w;
        } else {
          *outside = uint4{inside[0], inside[1], inside[2], inside[3]};
        }
      }
    } else {
      for (int e = from < 0 ? 0 : from; e < total && e < from + kVector; ++e) {
        if constexpr (kIn)
          tile[lead + e] = global[e];
        else
          global[e] = tile[lead + e];
      }
    }
  }
}

}  // namespace segfast
