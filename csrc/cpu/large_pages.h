/* Asks the kernel for large pages under a large fresh tensor. The C library maps blocks of 32 MiB anew on every allocation
   and trims its heap now and then; touching such memory 4 KiB at a time costs more than filling it: 15 ms against 3 ms for
   40 MB. A hint, without effect where transparent large pages are off. */
// SPDX-License-Identifier: Apache-2.0
#pragma once
#if defined(__linux__)
#include <sys/mman.h>
#endif

#include <cstdint>

#include "base/check.h"

namespace segfast {

constexpr uint64_t kLargeBytes = 1 << 20;

inline Tensor on_large_pages(Tensor t) {
#if defined(__linux__)
  constexpr uint64_t kPage = 4096;
  const uint64_t begin = reinterpret_cast<uint64_t>(t.mutable_data_ptr()),
                 end = begin + static_cast<uint64_t>(t.numel()) * t.element_size();
  const uint64_t first = (begin + kPage - 1) / kPage * kPage;
  if (end - begin >= kLargeBytes)
    madvise(reinterpret_cast<void*>(first), (end - first) / kPage * kPage, MADV_HUGEPAGE);
#endif
  return t;
}

}  // namespace segfast
