/* Where each tensor of a list lies in one buffer of bytes: what packed_layout reports and pack_tensors_ fills. */
// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <algorithm>

#include "base/check.h"

namespace segfast {

// Tensors begin at multiples of this: loads of any width are aligned, and no block of this size holds two tensors.
constexpr int64_t kPackAlignment = 256;
constexpr int64_t kMostPackedBytes = int64_t{1} << 56;  // sums of such sizes stay far from overflow

struct PackedTensor {
  const char* data;
  int64_t offset, bytes, element_size;  // of the copy, which has no gaps
  std::vector<int64_t> strides;         // of the copy, by the tensor's own dimensions
  std::vector<int64_t> sizes,
      source_strides;  // from the slowest dimension of the copy to the fastest
};

// Dimensions of t from the fastest to the slowest. Broadcast dimensions decide nothing, and of equal strides the larger
// size lies outside: the order of torch's preserve_format. It is not transitive, hence an insertion and no std::sort.
inline std::vector<int64_t> memory_order(const Tensor& t) {
  const auto outside = [&t](int64_t a, int64_t b) {
    const int64_t stride_a = t.stride(a), stride_b = t.stride(b);
    if (stride_a == 0 || stride_b == 0) return false;
    return stride_a != stride_b ? stride_a > stride_b : t.size(a) > t.size(b);
  };
  std::vector<int64_t> order;
  for (int64_t d = t.dim() - 1; d >= 0; --d) {
    order.push_back(d);
    size_t at = order.size() - 1;
    for (size_t i = at; i-- > 0;) {
      if (outside(order[i], d)) {
        std::swap(order[i], order[at]);
        at = i;
      } else if (outside(d, order[i])) {
        break;
      }
    }
  }
  return order;
}

// The copy keeps the order of the tensor's dimensions in memory, so that a dense tensor keeps its strides.
inline PackedTensor packed_tensor(const Tensor& t, int64_t offset) {
  STD_TORCH_CHECK(t.is_cpu(), "segfast::pack_tensors: expected tensors on the CPU");
  PackedTensor packed{static_cast<const char*>(t.const_data_ptr()),
                      offset,
                      0,
                      static_cast<int64_t>(t.element_size()),
                      std::vector<int64_t>(static_cast<size_t>(t.dim())),
                      {},
                      {}};
  int64_t elements = t.numel() == 0 ? 0 : 1;  // a product of sizes of nothing could overflow
  bool dense = true;
  for (const int64_t d : memory_order(t)) {
    const int64_t size = t.size(d);
    dense = dense && (size == 1 || t.stride(d) == elements);
    packed.strides[d] = elements;
    packed.sizes.push_back(size);
    packed.source_strides.push_back(t.stride(d));
    STD_TORCH_CHECK(elements <= kMostPackedBytes / packed.element_size / std::max<int64_t>(1, size),
                    "segfast::pack_tensors: no buffer holds a tensor of shape ", shape_text(t));
    elements *= size;
  }
  packed.bytes = elements * packed.element_size;
  std::reverse(packed.sizes.begin(), packed.sizes.end());
  std::reverse(packed.source_strides.begin(), packed.source_strides.end());
  if (dense || elements == 0)  // also where a dimension of size 1 has a stride of its own
    for (int64_t d = 0; d < t.dim(); ++d) packed.strides[d] = t.stride(d);
  return packed;
}

struct PackedList {
  std::vector<PackedTensor> tensors;
  int64_t bytes = 0;  // of the whole buffer, a multiple of kPackAlignment

  explicit PackedList(const std::vector<Tensor>& list) {
    for (const Tensor& t : list) {
      tensors.push_back(packed_tensor(t, bytes));
      STD_TORCH_CHECK(bytes <= kMostPackedBytes,
                      "segfast::pack_tensors: no buffer holds so many tensors");
      bytes += (tensors.back().bytes + kPackAlignment - 1) / kPackAlignment * kPackAlignment;
    }
  }
};

}  // namespace segfast
