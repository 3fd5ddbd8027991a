/* Bad labels on the device: counted, never asserted. One tally per device, read by take_label_faults (segfast/ops/_labels.py).
   `first` packs the smallest pixel index with its value and the number of classes, so that one integer minimum orders
   them and the report is the same on every run: 34 bits index | 16 bits value + 2^15 | 14 bits classes, clamped. */
// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <stdint.h>

#include "base/check.h"

namespace segfast {

struct FaultTally {
  unsigned long long count, first;
};

// This device's tally; its address is valid in kernels of every file of this library.
FaultTally* fault_tally();

#if defined(__CUDACC__)
__device__ inline void report_fault(FaultTally* tally, int64_t index, int64_t value,
                                    int64_t num_classes) {
  const int64_t clamped = value < -32768 ? -32768 : (value > 32767 ? 32767 : value);
  const int64_t classes = num_classes > 16383 ? 16383 : num_classes;
  const int64_t place = index > (int64_t{1} << 34) - 1 ? (int64_t{1} << 34) - 1 : index;
  atomicAdd(&tally->count, 1ull);
  atomicMin(&tally->first,
            static_cast<unsigned long long>(place << 30 | (clamped + 32768) << 14 | classes));
}
#endif

}  // namespace segfast
