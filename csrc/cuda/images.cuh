/* A batch of source images as one kernel parameter, and how warps walk their rows.
   Parameters are copied with the launch: no table is sent to the device, so nothing waits and a CUDA graph keeps it. */
// SPDX-License-Identifier: Apache-2.0
#pragma once
#include "cuda/runs.cuh"
#include "ops/images.h"

namespace segfast {

constexpr int kWarpsPerBlock = 8;  // a row each
constexpr int kImageThreads = 32 * kWarpsPerBlock;
// 64 x 48 bytes: parameters of a launch are 4 KB for every driver. 64 images are work enough for one.
constexpr int kImagesPerLaunch = 64;

struct SourceImage {
  const char *data, *end;  // the first element's first byte, the last element's last byte + 1
  int64_t stride_c, stride_h, stride_w;
  int32_t height, width;
};

struct SourceTable {
  SourceImage image[kImagesPerLaunch];
};

// Images [begin, begin + count) of the list from channel `first_channel` on; `leading` = 1 for (C, H, W), 0 for (H, W).
inline SourceTable source_table(const std::vector<Tensor>& images, int64_t begin, int64_t count,
                                int64_t leading, int64_t first_channel) {
  SourceTable table{};
  for (int64_t i = 0; i < count; ++i) {
    const Tensor& t = images[begin + i];
    if (t.numel() == 0) continue;  // no rows
    const int64_t size = t.element_size();
    const char* data = static_cast<const char*>(t.const_data_ptr());
    int64_t last = 0;
    for (int64_t d = 0; d < t.dim(); ++d) last += (t.size(d) - 1) * t.stride(d);
    const int64_t stride_c = leading ? t.stride(0) : 0;
    table.image[i] = {data + first_channel * stride_c * size,
                      data + (last + 1) * size,
                      stride_c,
                      t.stride(leading),
                      t.stride(leading + 1),
                      static_cast<int32_t>(t.size(leading)),
                      static_cast<int32_t>(t.size(leading + 1))};
  }
  return table;
}

// y over rows, a warp each, z over images. A warp walks its row in steps of `step` columns; where rows are few, several warps
// of neighbouring blocks in x share one.
inline dim3 image_grid(int64_t images, int64_t height, int64_t width, int64_t step) {
  constexpr int64_t kEnoughWarps = 8192;
  const int64_t steps = (width + step - 1) / step;
  const int64_t shares = std::clamp<int64_t>(kEnoughWarps / (images * height), 1, steps);
  const int64_t rows = (height + kWarpsPerBlock - 1) / kWarpsPerBlock;
  return dim3(static_cast<unsigned>(shares), static_cast<unsigned>(std::min<int64_t>(rows, 65535)),
              static_cast<unsigned>(images));
}

__device__ inline int64_t first_row() {
  return static_cast<int64_t>(blockIdx.y) * kWarpsPerBlock + threadIdx.x / 32;
}
__device__ inline int64_t row_step() { return static_cast<int64_t>(gridDim.y) * kWarpsPerBlock; }
// Of a lane that owns `elements` neighbouring columns in each step.
__device__ inline int32_t first_column(int elements) {
  return static_cast<int32_t>(blockIdx.x * 32 + threadIdx.x % 32) * elements;
}
__device__ inline int32_t column_step(int elements) {
  return static_cast<int32_t>(gridDim.x) * 32 * elements;
}

// Elements in 16 bytes of the result.
template <class D>
constexpr int kElements = kVectorBytes / static_cast<int>(sizeof(D));

// One store, spelled out: left to itself the compiler takes some of them apart into four.
template <class D>
__device__ inline void store_vector(D* to, uint4 v) {
#if defined(__CUDA_ARCH__)
  asm volatile("st.global.v4.b32 [%0], {%1, %2, %3, %4};" ::"l"(to), "r"(v.x), "r"(v.y), "r"(v.z),
               "r"(v.w));
#else
  *reinterpret_cast<uint4*>(to) = v;
#endif
}

// Row y of an image; below the image it has width 0. Elements are asked for where col < width.
template <int kSize>
struct SourceRow {
  const SourceImage& image;
  const char* start;
  int32_t width;

  __device__ SourceRow(const SourceImage& image, int64_t y)
      : image(image),
        start(image.data + y * image.stride_h * kSize),
        width(y < image.height ? image.width : 0) {}

  __device__ const char* at(int c, int32_t col) const {
    return start + (c * image.stride_c + col * image.stride_w) * kSize;
  }
  // Columns from `from` = at(c, col) on; the first `skipped` of them lie left of the row.
  template <int kCount>
  __device__ void read_channel(const char* from, int32_t col, Run<kSize, kCount>& run,
                               int32_t skipped = 0) const {
    run.load(from, image.stride_w, skipped, width - col, image.data, image.end);
  }
  __device__ bool interleaved(int channels) const {
    return image.stride_c == 1 && image.stride_w == channels;
  }
  // Whole pixels from `from` = at(0, col) on, `channels` elements side by side.
  template <int kCount>
  __device__ void read_pixels(const char* from, int32_t col, int channels,
                              Run<kSize, kCount>& run) const {
    run.load(from, 1, 0, (width - col) * channels, image.data, image.end);
  }
};

}  // namespace segfast
