/* A batch of source images as one kernel parameter, and how a lane reads neighbouring pixels of a row from any address.
   Parameters are copied with the launch: no table is sent to the device, so nothing waits and a CUDA graph keeps it.
   Reading  a run of neighbouring elements comes in words of 32 bits: by loads of 16, 8 or 4 bytes where it starts at such a
            boundary, else by the aligned words around it, shifted. Where those would reach beyond the image's bytes, and
            where the elements are no neighbours in memory, one element at a time. Nothing outside an image is read */
// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <cuda_runtime.h>
#include <stdint.h>
#include <string.h>

#include "ops/images.h"

namespace segfast {

constexpr int kVectorBytes = 16;
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

template <int kSize>
struct BitsOf;
template <>
struct BitsOf<1> {
  using type = unsigned char;
};
template <>
struct BitsOf<2> {
  using type = unsigned short;
};
template <>
struct BitsOf<4> {
  using type = unsigned;
};
template <>
struct BitsOf<8> {
  using type = unsigned long long;
};

// kCount elements of kSize bytes in registers. All indices must be constants once loops are unrolled.
template <int kSize, int kCount>
struct Run {
  using Bits = typename BitsOf<kSize>::type;
  static constexpr int kBytes = kSize * kCount, kWords = kBytes / 4;
  static constexpr int kWidest = kBytes % 16 == 0 ? 16 : (kBytes % 8 == 0 ? 8 : 4);
  static_assert(kBytes % 4 == 0, "whole words");

  uint32_t word[kWords + 1] = {};
  unsigned shift = 0;  // bits in front of the first element; `settle` takes them out

  // Elements [skipped, needed) of those that lie `stride` apart from `from` on; none outside [begin, end) is touched.
  __device__ void load(const char* from, int64_t stride, int32_t skipped, int32_t needed,
                       const char* begin, const char* end) {
    const unsigned lead = static_cast<unsigned>(reinterpret_cast<uintptr_t>(from) % 4);
    const uint32_t* words = reinterpret_cast<const uint32_t*>(from - lead);
    if (stride == 1 && skipped <= 0 && needed >= kCount &&
        reinterpret_cast<uintptr_t>(from) % kWidest == 0) {
      load_vectors(words);
    } else if (stride == 1 && from - lead >= begin && from - lead + kBytes + 4 <= end) {
#pragma unroll
      for (int i = 0; i < kWords; ++i) word[i] = __ldg(words + i);
      if (lead > 0) word[kWords] = __ldg(words + kWords);
      shift = 8 * lead;
    } else {
#pragma unroll
      for (int i = 0; i < kCount; ++i) {
        if (i >= skipped && i < needed)
          put(i, __ldg(reinterpret_cast<const Bits*>(from + i * stride * kSize)));
      }
    }
  }
  __device__ void settle() {
    if constexpr (kSize < 4) {  // wider elements start at words
#pragma unroll
      for (int i = 0; i < kWords; ++i) word[i] = __funnelshift_r(word[i], word[i + 1], shift);
    }
  }
  template <class S>
  __device__ S get(int i) const {
    S value;
    const uint32_t pair[2] = {word[i * kSize / 4] >> (i * kSize % 4 * 8), word[i * kSize / 4 + 1]};
    memcpy(&value, pair, kSize);
    return value;
  }

 private:
  __device__ void load_vectors(const uint32_t* words) {
#pragma unroll
    for (int i = 0; i < kWords; i += kWidest / 4) {
      if (kWidest == 16) {
        const uint4 v = __ldg(reinterpret_cast<const uint4*>(words + i));
        word[i] = v.x, word[i + 1] = v.y, word[i + 2] = v.z, word[i + 3] = v.w;
      } else if (kWidest == 8) {
        const uint2 v = __ldg(reinterpret_cast<const uint2*>(words + i));
        word[i] = v.x, word[i + 1] = v.y;
      } else {
        word[i] = __ldg(words + i);
      }
    }
  }
  __device__ void put(int i, Bits bits) {
    const int at = i * kSize / 4;
    word[at] |= static_cast<uint32_t>(bits) << (i * kSize % 4 * 8);
    if (kSize == 8) word[at + 1] = static_cast<uint32_t>(static_cast<uint64_t>(bits) >> 32);
  }
};

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
