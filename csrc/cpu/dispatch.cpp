// Chooses the kernel table for this machine, once.
// SPDX-License-Identifier: Apache-2.0
#include <cstdlib>
#include <cstring>
#include <stdexcept>
#include <string>

#include "cpu/kernels.h"

namespace segfast {
namespace {

const KernelTable& choose() {
#if defined(SEGFAST_X86_TABLES)
  const char* asked = std::getenv("SEGFAST_CPU_CAPABILITY");
  const auto allowed = [&](const char* name) {
    return asked == nullptr || std::strcmp(asked, name) == 0;
  };
  // The named levels check the operating system's register state too.
  if (allowed("avx512") && __builtin_cpu_supports("x86-64-v4")) return kernels_avx512;
  if ((allowed("avx2") || allowed("avx512")) && __builtin_cpu_supports("x86-64-v3"))
    return kernels_avx2;
#endif
  return kernels_baseline;
}

}  // namespace

void scratch_refused(int64_t bytes) {
  throw std::runtime_error("segfast: out of memory: no " + std::to_string(bytes) +
                           " bytes for one task's working rows (hint: fewer classes, or narrower "
                           "images)");
}

const KernelTable& kernels() {
  static const KernelTable& table = choose();
  return table;
}

}  // namespace segfast

// For segfast._C, which shares no C++ types with this library.
extern "C" __attribute__((visibility("default"))) const char* segfast_cpu_capability() {
  return segfast::kernels().name;
}
