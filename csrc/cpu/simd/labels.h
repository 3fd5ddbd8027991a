/* Labels of any integer type, read as they are stored, into class indices: -1 stands for "does not count". */
// SPDX-License-Identifier: Apache-2.0
#pragma once
#include "base/element.h"
#include "cpu/kernels.h"
#include "cpu/simd/vec.h"

#if defined(__SANITIZE_ADDRESS__)
extern "C" void __asan_poison_memory_region(const volatile void*, decltype(sizeof 0));
#endif

namespace segfast {
namespace {

// Where pixels [begin, begin + count) of row (n, h) lie, and how a fault among them is numbered.
struct LabelRow {
  int64_t n, h, begin, count;
  int64_t rows, cols;  // H, W
};

template <class L>
inline void read_labels(const PixelMap& map, const LabelRow& row, int64_t num_classes,
                        int64_t ignore_index, int32_t* classes, LabelFaults* faults) {
  const L* p = static_cast<const L*>(map.data) + row.n * map.stride_n + row.h * map.stride_h +
               row.begin * map.stride_w;
  // The narrowest type that holds every label: narrow labels are compared sixteen at a time.
  using Wide = decltype(L{} + int32_t{});
  const Wide classes_end = static_cast<Wide>(num_classes),
             ignored = static_cast<Wide>(ignore_index);
  const bool may_ignore = static_cast<int64_t>(ignored) == ignore_index;
  const auto read = [&](int64_t stride) {
    int32_t bad = 0;
    for (int64_t i = 0; i < row.count; ++i) {
      const Wide label = p[i * stride];
      const bool ignore = may_ignore & (label == ignored);
      const bool inside = (label >= 0) & (label < classes_end);
      classes[i] = (inside & !ignore) ? static_cast<int32_t>(label) : -1;
      bad += !inside & !ignore;
    }
    return bad;
  };
  const int32_t bad = map.stride_w == 1 ? read(1) : read(map.stride_w);
  if (bad == 0 || faults == nullptr) return;
  faults->count += bad;
  for (int64_t i = 0; i < row.count; ++i) {
    const int64_t label = p[i * map.stride_w],
                  index = (row.n * row.rows + row.h) * row.cols + row.begin + i;
    if (label == ignore_index || (label >= 0 && label < num_classes)) continue;
    if (index < faults->first_index) {
      faults->first_index = index;
      faults->first_value = label;
    }
    return;
  }
}

inline void load_labels(const PixelMap& map, const LabelRow& row, int64_t num_classes,
                        int64_t ignore_index, int32_t* classes, LabelFaults* faults) {
  switch (map.type) {
    case Element::kUInt8:
      return read_labels<uint8_t>(map, row, num_classes, ignore_index, classes, faults);
    case Element::kInt16:
      return read_labels<int16_t>(map, row, num_classes, ignore_index, classes, faults);
    case Element::kInt32:
      return read_labels<int32_t>(map, row, num_classes, ignore_index, classes, faults);
    default:
      return read_labels<int64_t>(map, row, num_classes, ignore_index, classes, faults);
  }
}

// Values of pixels [begin, begin + count) of row (n, h).
template <class T>
inline void read_values(const PixelMap& map, int64_t n, int64_t h, int64_t begin, int64_t count,
                        T* out) {
  const T* p =
      static_cast<const T*>(map.data) + n * map.stride_n + h * map.stride_h + begin * map.stride_w;
  for (int64_t i = 0; i < count; ++i) out[i] = p[i * map.stride_w];
}

template <class T>
inline void copy(const T* from, int64_t count, T* to) {
  __builtin_memcpy(to, from, static_cast<unsigned long>(count) * sizeof(T));
}

template <class T>
constexpr T kInfinity = static_cast<T>(__builtin_inf());

// Rounds a count up to whole vectors.
template <class T>
inline int64_t whole_vectors(int64_t count) {
  return (count + kLanesOf<T> - 1) / kLanesOf<T> * kLanesOf<T>;
}

// One zero-initialised allocation cut into pieces that begin on cache lines; C's allocator because no C++ header may be
// included here. Running out of memory throws; taking more than was asked for ends the process instead of writing elsewhere.
// Under AddressSanitizer nothing behind a piece may be touched: each is followed by a line that belongs to nobody.
class Scratch {
  using size_t = decltype(sizeof 0);

 public:
  explicit Scratch(int64_t bytes)
      : base_(static_cast<char*>(__builtin_calloc(static_cast<size_t>(bytes) + 64, 1))) {
    if (base_ == nullptr) scratch_refused(bytes);
    next_ = base_ + (64 - reinterpret_cast<size_t>(base_) % 64);
    end_ = next_ + bytes;
  }
  ~Scratch() { __builtin_free(base_); }
  Scratch(const Scratch&) = delete;
  Scratch& operator=(const Scratch&) = delete;
  template <class T>
  T* take(int64_t count) {
    T* piece = reinterpret_cast<T*>(next_);
    next_ += bytes<T>(count);
    if (next_ > end_) __builtin_trap();
#if defined(__SANITIZE_ADDRESS__)
    __asan_poison_memory_region(
        piece + count, static_cast<size_t>(next_ - reinterpret_cast<char*>(piece + count)));
#endif
    return piece;
  }
  template <class T>
  static int64_t bytes(int64_t count) {
    return (count * static_cast<int64_t>(sizeof(T)) + 63) / 64 * 64 + kGap;
  }

 private:
#if defined(__SANITIZE_ADDRESS__)
  static constexpr int64_t kGap = 64;
#else
  static constexpr int64_t kGap = 0;
#endif
  char *base_, *next_, *end_;
};

}  // namespace
}  // namespace segfast
