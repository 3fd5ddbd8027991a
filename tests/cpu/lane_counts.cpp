// Counts more pixels in each lane than 32 bits hold, a row at a time, as the kernels count them.
// Prints 1 if all were counted.
// SPDX-License-Identifier: Apache-2.0
#include <cstdio>
#include <cstdlib>

#include "cpu/simd/loss_row.h"

namespace segfast {
void scratch_refused(int64_t) { std::abort(); }
}  // namespace segfast

int main() {
  using namespace segfast;
  constexpr int64_t kRows = 300, kRow = 1 << 24;  // of pixels in every lane: the longest row of one cell
  LaneSums<float> lanes;
  for (int64_t row = 0; row < kRows; ++row) {
    lanes.valid += splat<int32_t>(kRow);
    lanes.correct += splat<int32_t>(kRow / 2);
    lanes.settle(kRow * kLanesOf<float>);
  }
  LossSums sums;
  lanes.add_to(LossTables{}, &sums);
  const int64_t pixels = kRows * kRow * kLanesOf<float>;
  std::printf("%d\n", sums.valid == pixels && sums.correct == pixels / 2 &&
                          sums.weight == static_cast<double>(pixels));
}
