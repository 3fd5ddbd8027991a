/* One row of one channel of an image: convert to float32, subtract the mean, divide by the deviation, round to the output.
   True division: bit-identical to torch's (x.float() - mean) / std, on every instruction set.
   The strides that matter (planar 1, interleaved RGB 3, RGBA 4) are constants, so that the compiler vectorises the gather. */
// SPDX-License-Identifier: Apache-2.0
#pragma once
#include "cpu/kernels.h"
#include "cpu/simd/vec.h"

namespace segfast {
namespace {

inline float to_float(float x) { return x; }
inline float to_float(double x) { return static_cast<float>(x); }
inline float to_float(Half x) { return widen(x); }
inline float to_float(BFloat16 x) { return widen(x); }
template <class I>
inline float to_float(I x) {
  return static_cast<float>(x);
}

template <class S, class D, int kStride>
inline void normalize_strided(const NormalizeRow& a) {
  const S* src = static_cast<const S*>(a.src);
  D* dst = static_cast<D*>(a.dst);
  const int64_t step = kStride ? kStride : a.src_stride;
  if (!a.normalize) {
    for (int64_t i = 0; i < a.count; ++i) narrow(to_float(src[i * step]), dst + i * a.dst_stride);
  } else if (a.dst_stride == 1) {
    for (int64_t i = 0; i < a.count; ++i)
      narrow((to_float(src[i * step]) - a.mean) / a.std, dst + i);
  } else {
    for (int64_t i = 0; i < a.count; ++i)
      narrow((to_float(src[i * step]) - a.mean) / a.std, dst + i * a.dst_stride);
  }
}

template <class S, class D>
void normalize_row(const NormalizeRow& a) {
  switch (a.src_stride) {
    case 1:
      return normalize_strided<S, D, 1>(a);
    case 3:
      return normalize_strided<S, D, 3>(a);
    case 4:
      return normalize_strided<S, D, 4>(a);
    default:
      return normalize_strided<S, D, 0>(a);
  }
}

}  // namespace
}  // namespace segfast
