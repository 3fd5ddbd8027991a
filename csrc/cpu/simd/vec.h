/* Vectors of float or double in the compiler's own vector types: the same source is SSE2, NEON, AVX2 or AVX-512.
   Everything here is in an anonymous namespace and includes no library header: an inline function with external linkage
   compiled for AVX-512 could be the copy the linker keeps for everybody. */
// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <stdint.h>
#if defined(__AVX512F__)  // masked forms below: gcc 12 warns falsely about the plain ones
#include <immintrin.h>
#endif

namespace segfast {
namespace {

#if defined(__AVX512F__)
constexpr int kVectorBytes = 64;
#elif defined(__AVX2__)
constexpr int kVectorBytes = 32;
#else
constexpr int kVectorBytes = 16;
#endif

template <class T, int kLanes>
struct VecOf {
  typedef T Type __attribute__((vector_size(sizeof(T) * kLanes)));
};
template <class T>
constexpr int kLanesOf = kVectorBytes / static_cast<int>(sizeof(T));
template <class T>
using Vec = typename VecOf<T, kLanesOf<T>>::Type;

template <class T>
struct IntOf;
template <>
struct IntOf<float> {
  using Type = int32_t;
};
template <>
struct IntOf<double> {
  using Type = int64_t;
};
template <class T>
using Int = typename IntOf<T>::Type;

template <class T>
inline Vec<T> load(const T* p) {
  Vec<T> v;
  __builtin_memcpy(&v, p, sizeof v);
  return v;
}
template <class T>
inline void store(T* p, Vec<T> v) {
  __builtin_memcpy(p, &v, sizeof v);
}
template <class T>
inline Vec<T> splat(T x) {
  return Vec<T>{} + x;
}

// NaN in the second argument survives, as in `a > b ? a : b`.
inline Vec<float> vmax(Vec<float> a, Vec<float> b) {
#if defined(__AVX512F__)
  return reinterpret_cast<Vec<float>>(
      _mm512_maskz_max_ps(0xffff, reinterpret_cast<__m512>(a), reinterpret_cast<__m512>(b)));
#else
  return a > b ? a : b;
#endif
}
inline Vec<double> vmax(Vec<double> a, Vec<double> b) { return a > b ? a : b; }

// Horizontal sum and maximum by halving: a fixed order, so the same bits every run.
template <class T, int kLanes>
inline T reduce_add(typename VecOf<T, kLanes>::Type v) {
  if constexpr (kLanes == 1) {
    return v[0];
  } else {
    typename VecOf<T, kLanes / 2>::Type low, high;
    __builtin_memcpy(&low, &v, sizeof low);
    __builtin_memcpy(&high, reinterpret_cast<const char*>(&v) + sizeof low, sizeof high);
    return reduce_add<T, kLanes / 2>(low + high);
  }
}
template <class T, int kLanes>
inline T reduce_max(typename VecOf<T, kLanes>::Type v) {
  if constexpr (kLanes == 1) {
    return v[0];
  } else {
    typename VecOf<T, kLanes / 2>::Type low, high;
    __builtin_memcpy(&low, &v, sizeof low);
    __builtin_memcpy(&high, reinterpret_cast<const char*>(&v) + sizeof low, sizeof high);
    return reduce_max<T, kLanes / 2>(low > high ? low : high);
  }
}

// exp, about 1 ulp: x = n ln 2 + r with |r| <= ln 2 / 2, a degree-7 polynomial in r, then a scaling by 2^n in two steps
// so that subnormal results come out right. NaN stays NaN, -inf gives 0, +inf gives +inf.
// Source: Cephes expf (S. Moshier), minimax coefficients.
inline Vec<float> vexp(Vec<float> x) {
  x = x > 89.0f ? splat(89.0f) : x;
  x = x < -105.0f ? splat(-105.0f) : x;
  const Vec<float> magic = splat(12582912.0f);  // 1.5 * 2^23: adding it rounds to an integer
  const Vec<float> shifted = x * 1.44269504088896341f + magic;
  const Vec<float> n = shifted - magic;
  const Vec<float> r = (x - n * 0.693359375f) + n * 2.12194440e-4f;
  Vec<float> p = splat(1.9875691500e-4f);
  p = p * r + 1.3981999507e-3f;
  p = p * r + 8.3334519073e-3f;
  p = p * r + 4.1665795894e-2f;
  p = p * r + 1.6666665459e-1f;
  p = p * r + 5.0000001201e-1f;
  p = p * (r * r) + r + 1.0f;
#if defined(__AVX512F__)
  return reinterpret_cast<Vec<float>>(
      _mm512_maskz_scalef_ps(0xffff, reinterpret_cast<__m512>(p), reinterpret_cast<__m512>(n)));
#else
  using I = Vec<int32_t>;
  const I exponent = reinterpret_cast<I>(shifted) - reinterpret_cast<I>(magic);
  const I half = exponent >> 1;
  const Vec<float> first = reinterpret_cast<Vec<float>>((half + 127) << 23);
  const Vec<float> second = reinterpret_cast<Vec<float>>((exponent - half + 127) << 23);
  return p * first * second;
#endif
}
inline Vec<double> vexp(Vec<double> x) {
  for (int i = 0; i < kLanesOf<double>; ++i) x[i] = __builtin_exp(x[i]);
  return x;
}

// log for finite x >= 2^-100, about 1 ulp: x = 2^e m with m in [sqrt(1/2), sqrt 2). NaN and +inf stay what they are.
// Source: Cephes logf (S. Moshier), minimax coefficients.
inline Vec<float> vlog(Vec<float> x) {
  using I = Vec<int32_t>;
  const I bits = reinterpret_cast<I>(x);
  I exponent = ((bits >> 23) & 255) - 126;
  Vec<float> m = reinterpret_cast<Vec<float>>((bits & 0x007fffff) | 0x3f000000);  // [1/2, 1)
  const I small = m < 0.70710678118f;
  exponent += small;  // a true comparison is -1
  m = small ? m + m : m;
  m = m - 1.0f;
  const Vec<float> e = __builtin_convertvector(exponent, Vec<float>);
  const Vec<float> z = m * m;
  Vec<float> p = splat(7.0376836292e-2f);
  p = p * m - 1.1514610310e-1f;
  p = p * m + 1.1676998740e-1f;
  p = p * m - 1.2420140846e-1f;
  p = p * m + 1.4249322787e-1f;
  p = p * m - 1.6668057665e-1f;
  p = p * m + 2.0000714765e-1f;
  p = p * m - 2.4999993993e-1f;
  p = p * m + 3.3333331174e-1f;
  Vec<float> y = p * m * z;
  y = y + e * -2.12194440e-4f - 0.5f * z;
  y = m + y + e * 0.693359375f;
  return x < 3.0e38f ? y : x;  // +inf and NaN
}
inline Vec<double> vlog(Vec<double> x) {
  for (int i = 0; i < kLanesOf<double>; ++i) x[i] = __builtin_log(x[i]);
  return x;
}

// Storage types: half and bfloat16 are converted in registers.
struct Half {
  uint16_t bits;
};
struct BFloat16 {
  uint16_t bits;
};
template <class S>
struct ArithmeticOf {
  using Type = S;
};
template <>
struct ArithmeticOf<Half> {
  using Type = float;
};
template <>
struct ArithmeticOf<BFloat16> {
  using Type = float;
};
template <class S>
using Arithmetic = typename ArithmeticOf<S>::Type;

inline float from_bits(uint32_t bits) {
  float x;
  __builtin_memcpy(&x, &bits, 4);
  return x;
}
inline uint32_t to_bits(float x) {
  uint32_t bits;
  __builtin_memcpy(&bits, &x, 4);
  return bits;
}

inline float widen(float x) { return x; }
inline double widen(double x) { return x; }
inline float widen(BFloat16 x) { return from_bits(static_cast<uint32_t>(x.bits) << 16); }
inline float widen(
    Half x) {  // shift into place, then rescale the exponent: also right for subnormals
  const uint32_t sign = static_cast<uint32_t>(x.bits & 0x8000) << 16,
                 magnitude = static_cast<uint32_t>(x.bits & 0x7fff) << 13;
  const uint32_t infinite = magnitude >= 0x0f800000 ? 0x7f800000 : 0;
  return from_bits(sign | infinite |
                   to_bits(from_bits(magnitude) * 5.192296858534828e33f));  // 2^112
}

// Round to nearest even, as torch does.
inline void narrow(float x, float* out) { *out = x; }
inline void narrow(double x, double* out) { *out = x; }
inline void narrow(float x, BFloat16* out) {
  const uint32_t bits = to_bits(x);
  const uint32_t rounded = (bits + 0x7fff + ((bits >> 16) & 1)) >> 16;
  out->bits = static_cast<uint16_t>((bits & 0x7fffffff) > 0x7f800000 ? 0x7fc0 : rounded);
}
inline void narrow(float x, Half* out) {
  const uint32_t bits = to_bits(x), sign = (bits >> 16) & 0x8000, magnitude = bits & 0x7fffffff;
  // Adding a power of two whose ulp is the half's ulp at this magnitude makes the hardware round for us.
  const uint32_t exponent = magnitude & 0x7f800000;
  const uint32_t base = (exponent < 0x38800000 ? 0x38800000u : exponent) + 0x06800000;
  const float sum = from_bits(magnitude) + from_bits(base);
  const uint32_t mantissa = to_bits(sum) - base;  // in units of the half's ulp, hidden bit included
  const uint32_t biased = exponent < 0x38800000 ? 0 : ((exponent - 0x38800000) >> 13);
  const uint32_t result = biased + mantissa;
  const uint32_t finite = magnitude >= 0x47800000 ? 0x7c00 : result;
  out->bits = static_cast<uint16_t>(sign | (magnitude > 0x7f800000 ? 0x7e00 : finite));
}

// A vector of arithmetic values from consecutive storage elements.
template <class S>
inline Vec<Arithmetic<S>> load_widen(const S* p) {
  using T = Arithmetic<S>;
  if constexpr (sizeof(S) == sizeof(T)) {
    return load<T>(reinterpret_cast<const T*>(p));
  } else {
    T lanes[kLanesOf<T>];
    for (int i = 0; i < kLanesOf<T>; ++i) lanes[i] = widen(p[i]);
    return load<T>(lanes);
  }
}
template <class S>
inline void store_narrow(S* p, Vec<Arithmetic<S>> v) {
  using T = Arithmetic<S>;
  if constexpr (sizeof(S) == sizeof(T)) {
    store<T>(reinterpret_cast<T*>(p), v);
  } else {
    T lanes[kLanesOf<T>];
    store<T>(lanes, v);
    for (int i = 0; i < kLanesOf<T>; ++i) narrow(lanes[i], p + i);
  }
}

}  // namespace
}  // namespace segfast
