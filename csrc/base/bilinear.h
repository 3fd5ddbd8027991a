/* Where an output pixel of a bilinear resize samples its input: one truth for both backends.
   Math     align_corners=false: s(X) = (X + 1/2) * in / out - 1/2;   true: s(X) = X * (in - 1) / (out - 1)
   A *cell* is the gap between two neighbouring input samples: cell j lies between samples j and j + 1. Pixel X belongs
   to cell floor(s(X)), which runs from -1 (left of the first sample) to in - 1 (right of the last). Outside the samples
   the value is constant, so cell -1 has lambda 1 and cell in - 1 has lambda 0.
   All pixels of a cell blend the same two samples: that is what the fused kernels exploit.
   Numerics s(X) is a ratio of integers, so cell and lambda come out exact (one rounding in the last division), unlike
            the float chain of torch's own kernel, whose error grows with X.
   Source   torch.nn.functional.interpolate, mode="bilinear", definition of align_corners */
// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <stdint.h>

#if defined(__CUDACC__)
#define SEGFAST_HOST_DEVICE __host__ __device__
#else
#define SEGFAST_HOST_DEVICE
#endif

namespace segfast {

// static: a copy per translation unit, so that no instruction-set variant can leak into another by the linker's choice.
SEGFAST_HOST_DEVICE static inline int64_t floor_div(int64_t a, int64_t b) {  // b > 0
  const int64_t q = a / b;
  return q * b > a ? q - 1 : q;
}

struct BilinearAxis {
  int64_t in, out;
  bool align_corners;
};

struct BilinearSample {
  int64_t cell;  // in [-1, in - 1]
  float lambda;  // weight of the sample after the cell; 1 - lambda goes to the sample before it
};

SEGFAST_HOST_DEVICE static inline int64_t bilinear_denominator(const BilinearAxis& a) {
  if (!a.align_corners) return 2 * a.out;
  return a.out > 1 ? a.out - 1 : 1;
}

SEGFAST_HOST_DEVICE static inline int64_t bilinear_numerator(const BilinearAxis& a, int64_t x) {
  if (!a.align_corners) return (2 * x + 1) * a.in - a.out;
  return a.out > 1 ? x * (a.in - 1) : 0;
}

SEGFAST_HOST_DEVICE static inline BilinearSample bilinear_sample(const BilinearAxis& a, int64_t x) {
  const int64_t numerator = bilinear_numerator(a, x), denominator = bilinear_denominator(a);
  const int64_t cell = floor_div(numerator, denominator);
  if (cell < 0) return {-1, 1.0f};
  if (cell >= a.in - 1) return {a.in - 1, 0.0f};
  return {cell,
          static_cast<float>(numerator - cell * denominator) / static_cast<float>(denominator)};
}

// The first pixel of a cell, clamped to [0, out]: the pixels of cell j are [first_pixel(j), first_pixel(j + 1)).
SEGFAST_HOST_DEVICE static inline int64_t first_pixel(const BilinearAxis& a, int64_t cell) {
  if (cell <= -1) return 0;
  if (cell >= a.in) return a.out;
  int64_t x;
  if (a.align_corners) {
    if (a.in == 1 || a.out == 1) return cell <= 0 ? 0 : a.out;
    x = -floor_div(-cell * (a.out - 1), a.in - 1);
  } else {
    x = -floor_div(-(a.out * (2 * cell + 1) - a.in), 2 * a.in);
  }
  return x < 0 ? 0 : (x > a.out ? a.out : x);
}

}  // namespace segfast
