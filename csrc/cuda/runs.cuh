/* Reading neighbouring elements from any address, as words in registers.
   Where the run starts at a multiple of 16, 8 or 4 bytes, by loads as wide; else by the aligned words around it, shifted.
   Where those would reach beyond the bytes that may be read, and where the elements are no neighbours in memory, one element
   at a time: nothing outside is read. */
// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <cuda_runtime.h>
#include <stdint.h>
#include <string.h>

namespace segfast {

constexpr int kVectorBytes = 16;

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

  // Elements from `from` on, where also the words around them may be read.
  __device__ void load(const char* from) {
    const unsigned lead = static_cast<unsigned>(reinterpret_cast<uintptr_t>(from) % 4);
    const uint32_t* words = reinterpret_cast<const uint32_t*>(from - lead);
    if (reinterpret_cast<uintptr_t>(from) % kWidest == 0) {
      load_vectors(words);
    } else {
#pragma unroll
      for (int i = 0; i < kWords; ++i) word[i] = __ldg(words + i);
      if (lead > 0) word[kWords] = __ldg(words + kWords);
      shift = 8 * lead;
    }
  }
  // Elements [skipped, needed) of those that lie `stride` apart from `from` on; none outside [begin, end) is touched.
  __device__ void load(const char* from, int64_t stride, int32_t skipped, int32_t needed,
                       const char* begin, const char* end) {
    const unsigned lead = static_cast<unsigned>(reinterpret_cast<uintptr_t>(from) % 4);
    const bool whole = skipped <= 0 && needed >= kCount;
    if (stride == 1 && ((whole && reinterpret_cast<uintptr_t>(from) % kWidest == 0) ||
                        (from - lead >= begin && from - lead + kBytes + 4 <= end))) {
      load(from);
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
    const uint32_t first = word[i * kSize / 4];
    uint32_t bits[2] = {first, word[i * kSize / 4 + 1]};
    if (kSize == 1) bits[0] = __byte_perm(first, 0, 0x4440 + i % 4);
    if (kSize == 2) bits[0] = __byte_perm(first, 0, i % 2 ? 0x4432 : 0x4410);
    memcpy(&value, bits, kSize);
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

}  // namespace segfast
