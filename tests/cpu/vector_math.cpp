// Measures vexp2 and vlog of csrc/cpu/simd/vec.h against double precision, for the instruction set it is compiled for.
// Prints: largest error of vexp2 in ulp, largest error of vlog in ulp, and 1 if the special values are right.
// SPDX-License-Identifier: Apache-2.0
#include "cpu/simd/vec.h"

#include <cmath>
#include <cstdio>
#include <cstring>

namespace {

constexpr int kLanes = segfast::kLanesOf<float>;

template <class F>
void apply(F&& f, const float* x, float* y) {
  segfast::store<float>(y, f(segfast::load<float>(x)));
}

double ulps(float actual, double expected) {
  int exponent;
  std::frexp(expected, &exponent);
  const double ulp = std::ldexp(1.0, exponent < -125 ? -149 : exponent - 24);
  return std::fabs(actual - expected) / ulp;
}

// Largest error over every `step`-th float between two bit patterns.
template <class F, class R>
double worst(uint32_t begin, uint32_t end, uint32_t step, F&& f, R&& reference) {
  double most = 0;
  float x[kLanes], y[kLanes];
  for (uint64_t bits = begin; bits + kLanes * step < end; bits += kLanes * step) {
    for (int i = 0; i < kLanes; ++i) {
      const uint32_t b = static_cast<uint32_t>(bits + i * step);
      std::memcpy(&x[i], &b, 4);
    }
    apply(f, x, y);
    for (int i = 0; i < kLanes; ++i) most = std::fmax(most, ulps(y[i], reference(x[i])));
  }
  return most;
}

float at(segfast::Vec<float> (*f)(segfast::Vec<float>), float value) {
  float x[kLanes], y[kLanes];
  for (float& v : x) v = value;
  apply(f, x, y);
  return y[kLanes - 1];
}

uint32_t bits_of(float x) {
  uint32_t bits;
  std::memcpy(&bits, &x, 4);
  return bits;
}

}  // namespace

int main() {
  const auto exp2 = [](segfast::Vec<float> x) { return segfast::vexp2(x); };
  const auto log = [](segfast::Vec<float> x) { return segfast::vlog(x); };
  const auto exp2_of = [](float x) { return std::exp2(static_cast<double>(x)); };
  const auto log_of = [](float x) { return std::log(static_cast<double>(x)); };
  const double positive = worst(0, bits_of(127.9f), 211, exp2, exp2_of),
               negative = worst(bits_of(-0.0f), bits_of(-149.0f), 211, exp2, exp2_of),
               logs = worst(bits_of(7.9e-31f), bits_of(3e38f), 211, log, log_of);
  const float infinity = INFINITY;
  const bool special = at(exp2, 0.0f) == 1.0f && at(exp2, -infinity) == 0.0f &&
                       at(exp2, infinity) == infinity && std::isnan(at(exp2, NAN)) &&
                       at(exp2, -149.0f) == 1.4012985e-45f && at(exp2, -3e38f) == 0.0f &&
                       at(exp2, 200.0f) == infinity && at(log, infinity) == infinity &&
                       std::isnan(at(log, NAN)) && at(log, 1.0f) == 0.0f;
  std::printf("%.3f %.3f %d\n", std::fmax(positive, negative), logs, special);
}
