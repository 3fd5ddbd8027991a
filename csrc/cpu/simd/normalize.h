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

template <class S>
constexpr bool kIsByte = false;
template <>
constexpr bool kIsByte<uint8_t> = true;

using Bytes = VecOf<uint8_t, 16>::Type;
inline Bytes load_bytes(const uint8_t* src) {
  Bytes bytes;
  __builtin_memcpy(&bytes, src, sizeof bytes);
  return bytes;
}
// The first `lanes` of 16 bytes; by way of 16 bits, because gcc 12 has no direct conversion.
inline Vec<float> to_floats(Bytes bytes) {
  typename VecOf<uint8_t, kLanesOf<float>>::Type first;
  __builtin_memcpy(&first, &bytes, sizeof first);
  using Words = typename VecOf<uint16_t, kLanesOf<float>>::Type;
  const Words words = __builtin_convertvector(first, Words);
  return __builtin_convertvector(__builtin_convertvector(words, Vec<int32_t>), Vec<float>);
}

// One vector of source values, kStride apart; 0: `stride` apart. Reads no byte beyond the last value.
template <class S, int kStride>
inline Vec<float> load_floats(const S* src, int64_t stride) {
  constexpr int L = kLanesOf<float>;
  constexpr bool kBytes = kIsByte<S>;
  if constexpr (kBytes && kStride == 1 && L == 16) {
    return to_floats(load_bytes(src));
  } else if constexpr (kBytes && kStride == 3 && L == 16) {  // every third byte of 46
    const Bytes x = load_bytes(src), y = load_bytes(src + 15), z = load_bytes(src + 30);
    const Bytes xy =
        __builtin_shuffle(x, y, Bytes{0, 3, 6, 9, 12, 15, 19, 22, 25, 28, 31, 0, 0, 0, 0, 0});
    return to_floats(
        __builtin_shuffle(xy, z, Bytes{0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 19, 22, 25, 28, 31}));
  } else if constexpr (kBytes && kStride == 3 && L == 8) {  // every third byte of 22
    const Bytes x = load_bytes(src), y = load_bytes(src + 6);
    return to_floats(
        __builtin_shuffle(x, y, Bytes{0, 3, 6, 9, 12, 15, 28, 31, 0, 0, 0, 0, 0, 0, 0, 0}));
  } else {
    const int64_t step = kStride ? kStride : stride;
    float lanes[L];
    for (int i = 0; i < L; ++i) lanes[i] = to_float(src[i * step]);
    return load<float>(lanes);
  }
}

// dst = value(src) over a row, a vector at a time; the last vector overlaps the one before it.
template <class S, class D, int kStride, class F>
inline void map_row(const NormalizeRow& a, F&& value) {
  constexpr int L = kLanesOf<float>;
  const S* src = static_cast<const S*>(a.src);
  D* dst = static_cast<D*>(a.dst);
  const int64_t step = kStride ? kStride : a.src_stride;
  if (a.count < L) {  // the same vector arithmetic, on fewer lanes
    float lanes[L];
    for (int64_t i = 0; i < L; ++i) lanes[i] = to_float(src[(i < a.count ? i : 0) * step]);
    store_pixels(dst, a.dst_stride, static_cast<int>(a.count), value(load<float>(lanes)));
    return;
  }
  for (int64_t i = 0; i < a.count; i += L) {
    const int64_t at = i + L <= a.count ? i : a.count - L;
    store_pixels(dst + at * a.dst_stride, a.dst_stride, L,
                 value(load_floats<S, kStride>(src + at * step, step)));
  }
}

template <class S, class D, int kStride>
inline void normalize_strided(const NormalizeRow& a) {
  const float mean = a.mean, std = a.std;
  if (a.normalize)
    map_row<S, D, kStride>(a, [=](auto x) { return (x - mean) / std; });
  else
    map_row<S, D, kStride>(a, [](auto x) { return x; });
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
