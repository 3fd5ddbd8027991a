// Compares quotient() of csrc/base/quotient.h with the division it stands for, bit for bit. Prints how many divisors were
// accepted, how many pairs were compared, and how many differed.
// SPDX-License-Identifier: Apache-2.0
#include "base/quotient.h"

#include <cstdint>
#include <cstdio>
#include <cstring>
#include <random>

namespace {

int64_t accepted = 0, compared = 0, different = 0;

void compare(float x, const segfast::ChannelScale& s) {
  volatile float difference = x - s.mean;  // no wider intermediate, whatever the compiler prefers
  const float expected = difference / s.std, actual = segfast::quotient(x, s);
  ++compared;
  different += std::memcmp(&expected, &actual, 4) != 0;
}

template <class Random>
void compare_integers(const segfast::ChannelScale& s, Random& random) {
  if (!segfast::has_exact_quotient(s)) return;
  ++accepted;
  for (int x = -128; x < 256; ++x) compare(static_cast<float>(x), s);
  for (int i = 0; i < 64; ++i) {
    const int64_t x = static_cast<int64_t>(random()) >> (i % 63);
    compare(static_cast<float>(x), s);
  }
}

// The inverse of a modulo the odd number m.
int64_t inverse(int64_t a, int64_t m) {
  int64_t r = m, next_r = a % m, t = 0, next_t = 1;
  while (next_r) {
    const int64_t q = r / next_r;
    const int64_t old_r = r, old_t = t;
    r = next_r, next_r = old_r - q * next_r;
    t = next_t, next_t = old_t - q * next_t;
  }
  return t < 0 ? t + m : t;
}

// Quotients of 24-bit integers as close to the middle between two floats as they can be: x 2^k = y * odd +- 1.
template <class Random>
void compare_hard(Random& random) {
  const int64_t y = int64_t{1} << 23 | static_cast<int64_t>(random() >> 41) | 1;
  const segfast::ChannelScale s = segfast::scale_of(0.0f, static_cast<float>(y) / 8388608.0f);
  for (int64_t power : {int64_t{1} << 25, int64_t{1} << 24}) {
    const int64_t above = inverse(power % y, y);
    for (int64_t x : {above, y - above, above + y, 2 * y - above}) {
      if (x < int64_t{1} << 24) compare(static_cast<float>(x), s);
    }
  }
}

// The two largest significands, which the proof in quotient.h leaves out: every x.
void compare_largest() {
  for (int64_t y : {(int64_t{1} << 24) - 1, (int64_t{1} << 24) - 2}) {
    const segfast::ChannelScale s = segfast::scale_of(0.0f, static_cast<float>(y) / 8388608.0f);
    for (int64_t x = int64_t{1} << 23; x < int64_t{1} << 24; ++x) compare(static_cast<float>(x), s);
  }
}

float with_bits(uint32_t exponent, uint32_t mantissa) {
  const uint32_t bits = exponent << 23 | (mantissa & 0x7fffff);
  float x;
  std::memcpy(&x, &bits, 4);
  return x;
}

}  // namespace

int main() {
  std::mt19937_64 random(1);
  for (int i = 0; i < 20000; ++i) {  // statistics as they are: three digits
    const float mean = static_cast<float>(random() % 256000) / 1000.0f;
    compare_integers(segfast::scale_of(mean, static_cast<float>(random() % 90000 + 10) / 1000.0f),
                     random);
  }
  for (int i = 0; i < 20000;
       ++i) {  // any accepted exponent, and mantissas at the ends, where rounding is hardest
    const uint32_t ends[] = {
        0, 1, 2, 0x7fffff, 0x7ffffe, 0x400000, static_cast<uint32_t>(random())};
    const float std = with_bits(97 + random() % 61, ends[random() % 7]);
    const float mean = i % 5 ? with_bits(97 + random() % 61, ends[random() % 7]) : 0.0f;
    compare_integers(segfast::scale_of(i % 2 ? mean : -mean, std), random);
  }
  for (int i = 0; i < 1000000; ++i) compare_hard(random);
  compare_largest();
  for (float bad : {0.0f, -3.0f, 1e-30f, 1e30f, INFINITY, NAN}) {
    if (segfast::has_exact_quotient(segfast::scale_of(1.0f, bad))) ++different;
  }
  for (float bad : {1e-30f, 1e30f, -1e-40f, INFINITY, NAN}) {
    if (segfast::has_exact_quotient(segfast::scale_of(bad, 1.0f))) ++different;
  }
  std::printf("%lld %lld %lld\n", static_cast<long long>(accepted),
              static_cast<long long>(compared), static_cast<long long>(different));
}
