// normalize_pad_stack on the CPU: rows of the batch in parallel, each written once (image, then padding).
// SPDX-License-Identifier: Apache-2.0
#include <torch/csrc/stable/library.h>

#include "cpu/kernels.h"
#include "cpu/large_pages.h"
#include "ops/images.h"

namespace segfast {
namespace {

// `pad_value` arrives as float and is rounded once, by the same kernel that rounds the pixels.
void fill_row(const KernelTable& table, int out_type, void* dst, int64_t dst_stride, int64_t count,
              float pad_value) {
  const NormalizeRow fill{&pad_value, dst, 0, dst_stride, count, 0.0f, 1.0f, false};
  table.normalize_row[0][out_type](fill);
}

Tensor normalize_pad_stack(std::vector<Tensor> images, std::vector<double> mean,
                           std::vector<double> std, std::vector<int64_t> size, double pad_value,
                           bool reverse_channels, int64_t dtype, bool channels_last) {
  align(&images);
  const BatchSize batch = check_images("normalize_pad_stack", images, size, 1);
  const int64_t N = static_cast<int64_t>(images.size()), C = batch.C, H = batch.H, W = batch.W;
  const bool normalize = !mean.empty();
  const ScalarType out_scalar = check_normalization(mean, std, C, dtype);
  const auto format = channels_last ? torch::headeronly::MemoryFormat::ChannelsLast
                                    : torch::headeronly::MemoryFormat::Contiguous;
  Tensor out = on_large_pages(torch::stable::empty({N, C, H, W}, out_scalar, std::nullopt,
                                                   std::nullopt, std::nullopt, format));
  const Element out_element = element_of(out);
  const int out_type = out_element == Element::kFloat ? 0 : (out_element == Element::kHalf ? 1 : 2);
  const int64_t in_bytes = images[0].element_size(), out_bytes = out.element_size();
  const int64_t row_stride = channels_last ? W * C : W, channel_stride = channels_last ? 1 : H * W,
                pixel_stride = channels_last ? C : 1;
  if (out.numel() == 0) return out;  // of any height: there may be 2^60 rows of nothing
  char* base = static_cast<char*>(out.mutable_data_ptr());
  const KernelTable& table = kernels();
  const NormalizeRowKernel kernel =
      table.normalize_row[static_cast<int>(element_of(images[0]))][out_type];

  torch::stable::parallel_for(
      0, N * H, std::max<int64_t>(1, 16384 / std::max<int64_t>(1, W * C)),
      [&](int64_t begin, int64_t end) {
        for (int64_t r = begin; r < end; ++r) {
          const int64_t n = r / H, y = r % H;
          const Tensor& image = images[n];
          const int64_t w = y < image.size(1) ? image.size(2) : 0;
          for (int64_t c = 0; c < C; ++c) {
            char* dst = base + (n * C * H * W + y * row_stride + c * channel_stride) * out_bytes;
            if (w > 0) {
              const int64_t source = reverse_channels ? C - 1 - c : c;
              const char* src = static_cast<const char*>(image.const_data_ptr()) +
                                (source * image.stride(0) + y * image.stride(1)) * in_bytes;
              kernel({src, dst, image.stride(2), pixel_stride, w,
                      normalize ? static_cast<float>(mean[c]) : 0.0f,
                      normalize ? static_cast<float>(std[c]) : 1.0f, normalize});
            }
            if (w < W)
              fill_row(table, out_type, dst + w * pixel_stride * out_bytes, pixel_stride, W - w,
                       static_cast<float>(pad_value));
          }
        }
      });
  return out;
}

}  // namespace
}  // namespace segfast

STABLE_TORCH_LIBRARY_IMPL(segfast, CPU, m) {
  m.impl("normalize_pad_stack", TORCH_BOX(&segfast::normalize_pad_stack));
}
