// pad_stack on the CPU: integer maps of different sizes become one batch, dtype kept.
// SPDX-License-Identifier: Apache-2.0
#include <torch/csrc/stable/library.h>

#include <cstring>

#include "ops/images.h"

namespace segfast {
namespace {

template <class T>
void stack_rows(const std::vector<Tensor>& maps, int64_t H, int64_t W, T pad_value, T* out) {
  torch::stable::parallel_for(
      0, static_cast<int64_t>(maps.size()) * H,
      std::max<int64_t>(1, 65536 / std::max<int64_t>(1, W)), [&](int64_t begin, int64_t end) {
        for (int64_t r = begin; r < end; ++r) {
          const Tensor& map = maps[r / H];
          const int64_t y = r % H, w = y < map.size(0) ? map.size(1) : 0, stride = map.stride(1);
          T* dst = out + r * W;
          if (w > 0) {
            const T* src = static_cast<const T*>(map.const_data_ptr()) + y * map.stride(0);
            if (stride == 1) {
              std::memcpy(dst, src, static_cast<size_t>(w) * sizeof(T));
            } else {
              for (int64_t x = 0; x < w; ++x) dst[x] = src[x * stride];
            }
          }
          std::fill(dst + w, dst + W, pad_value);
        }
      });
}

Tensor pad_stack(std::vector<Tensor> maps, std::vector<int64_t> size, int64_t pad_value) {
  align(&maps);
  const BatchSize batch = check_images("pad_stack", maps, size, 0);
  const int64_t N = static_cast<int64_t>(maps.size());
  Tensor out = torch::stable::empty({N, batch.H, batch.W}, maps[0].scalar_type());
  if (out.numel() == 0) return out;  // of any height: there may be 2^60 rows of nothing
  void* data = out.mutable_data_ptr();
  switch (
      out.element_size()) {  // bits are moved, never interpreted; pad_value was checked against the dtype in Python
    case 1:
      stack_rows<uint8_t>(maps, batch.H, batch.W, static_cast<uint8_t>(pad_value),
                          static_cast<uint8_t*>(data));
      break;
    case 2:
      stack_rows<uint16_t>(maps, batch.H, batch.W, static_cast<uint16_t>(pad_value),
                           static_cast<uint16_t*>(data));
      break;
    case 4:
      stack_rows<uint32_t>(maps, batch.H, batch.W, static_cast<uint32_t>(pad_value),
                           static_cast<uint32_t*>(data));
      break;
    default:
      stack_rows<uint64_t>(maps, batch.H, batch.W, static_cast<uint64_t>(pad_value),
                           static_cast<uint64_t*>(data));
  }
  return out;
}

}  // namespace
}  // namespace segfast

STABLE_TORCH_LIBRARY_IMPL(segfast, CPU, m) { m.impl("pad_stack", TORCH_BOX(&segfast::pad_stack)); }
