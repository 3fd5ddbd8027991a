// Compiled once per instruction set with SEGFAST_ISA = baseline | avx2 | avx512: see CMakeLists.txt.
// SPDX-License-Identifier: Apache-2.0
#include "cpu/kernels.h"
#include "cpu/simd/cross_entropy.h"
#include "cpu/simd/normalize.h"
#include "cpu/simd/upsample_argmax.h"
#include "cpu/simd/upsample_cross_entropy.h"
#include "cpu/simd/upsample_cross_entropy_backward.h"
#include "cpu/simd/upsample_cross_entropy_gradient.h"

#define SEGFAST_STRING_(x) #x
#define SEGFAST_STRING(x) SEGFAST_STRING_(x)
#define SEGFAST_JOIN_(a, b) a##b
#define SEGFAST_JOIN(a, b) SEGFAST_JOIN_(a, b)

namespace segfast {

// Rows in the order of Element, columns float, half, bfloat16.
extern const KernelTable SEGFAST_JOIN(kernels_, SEGFAST_ISA) = {
    SEGFAST_STRING(SEGFAST_ISA),
    kVectorBytes,
    {{normalize_row<float, float>, normalize_row<float, Half>, normalize_row<float, BFloat16>},
     {normalize_row<double, float>, normalize_row<double, Half>, normalize_row<double, BFloat16>},
     {normalize_row<Half, float>, normalize_row<Half, Half>, normalize_row<Half, BFloat16>},
     {normalize_row<BFloat16, float>, normalize_row<BFloat16, Half>,
      normalize_row<BFloat16, BFloat16>},
     {normalize_row<uint8_t, float>, normalize_row<uint8_t, Half>,
      normalize_row<uint8_t, BFloat16>},
     {normalize_row<int8_t, float>, normalize_row<int8_t, Half>, normalize_row<int8_t, BFloat16>},
     {normalize_row<uint16_t, float>, normalize_row<uint16_t, Half>,
      normalize_row<uint16_t, BFloat16>},
     {normalize_row<int16_t, float>, normalize_row<int16_t, Half>,
      normalize_row<int16_t, BFloat16>},
     {normalize_row<int32_t, float>, normalize_row<int32_t, Half>,
      normalize_row<int32_t, BFloat16>},
     {normalize_row<int64_t, float>, normalize_row<int64_t, Half>,
      normalize_row<int64_t, BFloat16>}},
    {cross_entropy_forward<float>, cross_entropy_forward<double>, cross_entropy_forward<Half>,
     cross_entropy_forward<BFloat16>},
    {cross_entropy_backward<float>, cross_entropy_backward<double>, cross_entropy_backward<Half>,
     cross_entropy_backward<BFloat16>},
    {upsample_forward<float>, upsample_forward<double>, upsample_forward<Half>,
     upsample_forward<BFloat16>},
    {upsample_backward<float>, upsample_backward<double>, upsample_backward<Half>,
     upsample_backward<BFloat16>},
    {upsample_gradient<float>, upsample_gradient<double>, upsample_gradient<Half>,
     upsample_gradient<BFloat16>},
    {scale_row<float>, scale_row<double>, scale_row<Half>, scale_row<BFloat16>},
    {upsample_argmax<float>, upsample_argmax<double>, upsample_argmax<Half>,
     upsample_argmax<BFloat16>},
};

}  // namespace segfast
