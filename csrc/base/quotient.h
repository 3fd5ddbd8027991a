/* (x - mean) / std with one divisor for many x: the same bits as a division, in four multiplications and no branch.
   Math     d = x - mean;  q = d (reciprocal + residue), rounded;  r = d - std q, exactly;  result = q + r reciprocal
   Numerics scale d and std to [1, 2). q errs by at most (1/2 + 2^-23) ulp, the reciprocal by 2^-25, so q + r reciprocal
            errs by less than std 2^-50 (1 + 2^-22), or twice that where the quotient exceeds 1. A quotient of two 24-bit
            numbers lies at least 2^-48 / std (or twice that) from the middle between two floats: as std^2 < 4, rounding
            falls to the right side. The two largest significands of std, where that is too close to call, are tested
            with every d. r is exact while nothing over- or underflows: has_exact_quotient
   Source   the idea of Brisebarre, Muller and Raina, IEEE Trans. Computers 53(8), 2004 */
// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <math.h>

#include "base/bilinear.h"

namespace segfast {

struct alignas(16) ChannelScale {
  float mean, std;
  float reciprocal, residue;  // 1 / std = reciprocal + residue, each rounded once
};

static inline ChannelScale scale_of(float mean, float std) {
  const float reciprocal = 1.0f / std;
  return {mean, std, reciprocal, static_cast<float>(1.0 / std - reciprocal)};
}

// Whether `quotient` is exact for every x that is an integer of at most 64 bits: |x - mean| is 0 or lies in [2^-53, 2^64].
// A negative std would lose the sign of a zero.
static inline bool has_exact_quotient(const ChannelScale& s) {
  const float most = 1073741824.0f, least = 1.0f / most;  // 2^30
  const float mean = fabsf(s.mean);
  return s.std >= least && s.std <= most && (mean == 0.0f || (mean >= least && mean <= most));
}

SEGFAST_HOST_DEVICE static inline float quotient(float x, const ChannelScale& s) {
  const float d = x - s.mean;
  const float q = fmaf(d, s.reciprocal, d * s.residue);
  const float r = fmaf(-s.std, q, d);
  return fmaf(r, s.reciprocal, q);
}

}  // namespace segfast
