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

// A number as a type, for choosing an instantiation at run time.
template <int kCount>
struct Count {
  static constexpr int value = kCount;
};

// Vectors that share one walk over the classes: their running values stay in registers.
constexpr int kGroup = kVectorBytes == 64 ? 4 : 2;

// f(Count<n>) for 1 <= n <= kGroup.
template <class F>
inline void with_group(int64_t n, F&& f) {
  if (n == 1)
    f(Count<1>{});
  else if (n == 2)
    f(Count<2>{});
  else if (n == 3)
    f(Count < kGroup<3 ? kGroup : 3>{});
  else
    f(Count<kGroup>{});
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

// sums[i] += v[i] in double.
template <class T>
inline void add_to_doubles(Vec<T> v, double* sums) {
  constexpr int kHalf = kLanesOf<double>;
  using Part = typename VecOf<T, kHalf>::Type;
  for (int i = 0; i < kLanesOf<T>; i += kHalf) {
    Part part;
    __builtin_memcpy(&part, reinterpret_cast<const char*>(&v) + i * static_cast<int>(sizeof(T)),
                     sizeof part);
    store<double>(sums + i, load<double>(sums + i) + __builtin_convertvector(part, Vec<double>));
  }
}

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

// 2^t, at most 1.4 ulp (tests/cpu): t = n + f, a degree-6 polynomial in f, then a scaling by 2^n (in two steps without AVX-512) so that
// subnormal results come out right. 2^0 is exactly 1; NaN stays NaN, -inf gives 0, +inf gives +inf.
// Softmax in base 2 saves the range reduction of exp: e^(x - max) = 2^(x log2 e - max log2 e).
// Coefficients: minimax of the relative error (Remez exchange) with the constant held at 1, on [0, 1) and [-1/2, 1/2].
inline Vec<float> vexp2(Vec<float> t) {
#if defined(__AVX512F__)
  const Vec<float> f = reinterpret_cast<Vec<float>>(
      _mm512_maskz_reduce_ps(0xffff, reinterpret_cast<__m512>(t), _MM_FROUND_TO_NEG_INF));
  Vec<float> p = splat(2.161291486e-4f);
  p = p * f + 1.246784697e-3f;
  p = p * f + 9.675451554e-3f;
  p = p * f + 5.548528209e-2f;
  p = p * f + 2.402293086e-1f;
  p = p * f + 6.931470633e-1f;
  p = p * f + 1.0f;
  return reinterpret_cast<Vec<float>>(  // scalef takes the floor of its second operand
      _mm512_maskz_scalef_ps(0xffff, reinterpret_cast<__m512>(p), reinterpret_cast<__m512>(t)));
#else
  t = t > 129.0f ? splat(129.0f) : t;
  t = t < -151.0f ? splat(-151.0f) : t;
  const Vec<float> magic = splat(12582912.0f);  // 1.5 * 2^23: adding it rounds to an integer
  const Vec<float> shifted = t + magic;
  const Vec<float> f = t - (shifted - magic);
  Vec<float> p = splat(1.559467782e-4f);
  p = p * f + 1.340664341e-3f;
  p = p * f + 9.617692791e-3f;
  p = p * f + 5.550310388e-2f;
  p = p * f + 2.402265221e-1f;
  p = p * f + 6.931472421e-1f;
  p = p * f + 1.0f;
  using I = Vec<int32_t>;
  const I exponent = reinterpret_cast<I>(shifted) - reinterpret_cast<I>(magic);
  const I half = exponent >> 1;
  const Vec<float> first = reinterpret_cast<Vec<float>>((half + 127) << 23);
  const Vec<float> second = reinterpret_cast<Vec<float>>((exponent - half + 127) << 23);
  return p * first * second;
#endif
}
inline Vec<double> vexp2(Vec<double> t) {
  for (int i = 0; i < kLanesOf<double>; ++i) t[i] = __builtin_exp2(t[i]);
  return t;
}
template <class T>
constexpr T kLog2EOf = static_cast<T>(1.44269504088896340736);
template <class T>
constexpr T kLn2Of = static_cast<T>(0.69314718055994530942);

// log for finite x >= 2^-100, at most 0.8 ulp (tests/cpu): x = 2^e m with m in [sqrt(1/2), sqrt 2). NaN and +inf stay what they are.
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

// A vector of arithmetic values from consecutive storage elements: the scalar conversions above, on whole vectors.
using Bits16 = typename VecOf<uint16_t, kLanesOf<float>>::Type;
using Bits32 = typename VecOf<uint32_t, kLanesOf<float>>::Type;
inline Vec<float> load_widen(const float* p) { return load<float>(p); }
inline Vec<double> load_widen(const double* p) { return load<double>(p); }
inline Bits32 load_bits(const void* p) {
  Bits16 bits;
  __builtin_memcpy(&bits, p, sizeof bits);
  return __builtin_convertvector(bits, Bits32);
}
inline void store_bits(void* p, Bits32 v) {
  const Bits16 bits = __builtin_convertvector(v, Bits16);
  __builtin_memcpy(p, &bits, sizeof bits);
}
inline Vec<float> load_widen(const BFloat16* p) {
  return reinterpret_cast<Vec<float>>(load_bits(p) << 16);
}
inline Vec<float> load_widen(const Half* p) {
  const Bits32 bits = load_bits(p), magnitude = (bits & 0x7fff) << 13;
  const Bits32 scaled =
      reinterpret_cast<Bits32>(reinterpret_cast<Vec<float>>(magnitude) * 5.192296858534828e33f);
  const Bits32 infinite = magnitude >= 0x0f800000 ? Bits32{} + 0x7f800000 : Bits32{};
  return reinterpret_cast<Vec<float>>((bits & 0x8000) << 16 | infinite | scaled);
}
inline void store_narrow(float* p, Vec<float> v) { store<float>(p, v); }
inline void store_narrow(double* p, Vec<double> v) { store<double>(p, v); }
inline void store_narrow(BFloat16* p, Vec<float> v) {
  const Bits32 bits = reinterpret_cast<Bits32>(v);
  const Bits32 rounded = (bits + 0x7fff + ((bits >> 16) & 1)) >> 16;
  store_bits(p, (bits & 0x7fffffff) > 0x7f800000 ? Bits32{} + 0x7fc0 : rounded);
}
inline void store_narrow(Half* p, Vec<float> v) {
  for (int i = 0; i < kLanesOf<float>; ++i) narrow(v[i], p + i);
}

// Lanes of one channel at pixels p, p + stride, ...; lanes past `count` repeat the last pixel.
template <class S>
inline Vec<Arithmetic<S>> load_pixels(const S* p, int64_t stride, int count) {
  using T = Arithmetic<S>;
  constexpr int L = kLanesOf<T>;
  if (stride == 1 && count == L) return load_widen(p);
  T lanes[L];
  for (int i = 0; i < L; ++i) lanes[i] = widen(p[(i < count ? i : count - 1) * stride]);
  return load<T>(lanes);
}
template <class S>
inline void store_pixels(S* p, int64_t stride, int count, Vec<Arithmetic<S>> v) {
  using T = Arithmetic<S>;
  constexpr int L = kLanesOf<T>;
  if (stride == 1 && count == L) return store_narrow(p, v);
  T lanes[L];
  store<T>(lanes, v);
  for (int i = 0; i < count; ++i) narrow(lanes[i], p + i * stride);
}

}  // namespace
}  // namespace segfast
