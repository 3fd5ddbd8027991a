/* Single instructions of the device that C++ has no name for; on the host, in emulation, their plain meaning. */
// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <math.h>

namespace segfast {

constexpr float kLog2E = 1.4426950408889634f, kLn2 = 0.6931471805599453f;

// 2^x, relative error below 2^-22; below 2^-126 it is 0.
__device__ inline float exp2_approx(float x) {
#if defined(__CUDA_ARCH__)
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
#else
  return exp2f(x);
#endif
}

// The larger one; NaN where either is NaN.
__device__ inline float at_least(float x, float low) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800
  float y;
  asm("max.NaN.f32 %0, %1, %2;" : "=f"(y) : "f"(x), "f"(low));
  return y;
#else
  return x > low || x != x ? x : low;
#endif
}

}  // namespace segfast
