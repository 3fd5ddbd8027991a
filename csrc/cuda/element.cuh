/* Reading and writing the storage types on the device. */
// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include "base/check.h"

namespace segfast {

__device__ inline float widen(float x) { return x; }
__device__ inline float widen(__half x) { return __half2float(x); }
__device__ inline float widen(__nv_bfloat16 x) { return __bfloat162float(x); }
__device__ inline void narrow(float x, float* out) { *out = x; }
__device__ inline void narrow(float x, __half* out) { *out = __float2half_rn(x); }
__device__ inline void narrow(float x, __nv_bfloat16* out) { *out = __float2bfloat16_rn(x); }

// A uniform branch on the stored label type: cheaper than four copies of every kernel.
__device__ inline int64_t read_integer(const void* data, Element type, int64_t offset) {
  switch (type) {
    case Element::kUInt8:
      return static_cast<const uint8_t*>(data)[offset];
    case Element::kInt16:
      return static_cast<const int16_t*>(data)[offset];
    case Element::kInt32:
      return static_cast<const int32_t*>(data)[offset];
    default:
      return static_cast<const int64_t*>(data)[offset];
  }
}

__device__ inline void write_integer(int64_t value, void* data, Element type, int64_t offset) {
  switch (type) {
    case Element::kUInt8:
      static_cast<uint8_t*>(data)[offset] = static_cast<uint8_t>(value);
      break;
    case Element::kInt16:
      static_cast<int16_t*>(data)[offset] = static_cast<int16_t>(value);
      break;
    case Element::kInt32:
      static_cast<int32_t*>(data)[offset] = static_cast<int32_t>(value);
      break;
    default:
      static_cast<int64_t*>(data)[offset] = value;
  }
}

// Calls f with a value of the logits' storage type.
template <class F>
void with_logit_type(const Tensor& logits, F&& f) {
  switch (element_of(logits)) {
    case Element::kFloat:
      return f(float{});
    case Element::kHalf:
      return f(__half{});
    case Element::kBFloat16:
      return f(__nv_bfloat16{});
    default:
      STD_TORCH_CHECK(false, "segfast: expected float32, float16 or bfloat16 logits on CUDA");
  }
}

}  // namespace segfast
