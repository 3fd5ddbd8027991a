/* A batch of source pointers as one kernel parameter: no table has to be copied to the device, so nothing waits. */
// SPDX-License-Identifier: Apache-2.0
#pragma once
#include "ops/images.h"

namespace segfast {

constexpr int kImagesPerLaunch =
    64;  // 64 x 48 bytes: within the 4 KB of parameters every architecture takes

struct SourceImage {
  const void* data;
  int64_t stride_c, stride_h, stride_w;
  int32_t height, width;
};

struct SourceTable {
  SourceImage image[kImagesPerLaunch];
};

// Images [begin, begin + count) of the list; `leading` = 1 for (C, H, W), 0 for (H, W).
inline SourceTable source_table(const std::vector<Tensor>& images, int64_t begin, int64_t count,
                                int64_t leading) {
  SourceTable table{};
  for (int64_t i = 0; i < count; ++i) {
    const Tensor& t = images[begin + i];
    table.image[i] = {t.const_data_ptr(),
                      leading ? t.stride(0) : 0,
                      t.stride(leading),
                      t.stride(leading + 1),
                      static_cast<int32_t>(t.size(leading)),
                      static_cast<int32_t>(t.size(leading + 1))};
  }
  return table;
}

}  // namespace segfast
