/* Many tensors into one buffer of bytes, so that a batch crosses the bus in a single copy.
   Traffic  reads and writes each byte once; a batch of 16 images of 512x512x3 and their labels is 17 MB
   Mapping  the buffer is dealt to threads in blocks of 256 bytes, whatever tensors they lie in; a block holds one tensor
   Threads  at most 4 of torch's pool, at least 256 KB each: a few fill the memory bus, and the others have work of their
            own while a batch is packed. torch.ops releases the interpreter lock around the call */
// SPDX-License-Identifier: Apache-2.0
#include "ops/pack_tensors.h"

#include <torch/csrc/stable/library.h>

#include <cstring>

namespace segfast {
namespace {

constexpr int64_t kBlocksPerThread = 1024, kThreads = 4;

// `count` elements, `stride` elements apart, to consecutive ones, at any address. T has the element's size; bits are moved,
// not interpreted.
template <class T>
void gather(const char* from, int64_t stride, int64_t count, char* to) {
  constexpr int64_t kBytes = sizeof(T);
  for (int64_t i = 0; i < count; ++i)
    std::memcpy(to + i * kBytes, from + i * stride * kBytes, kBytes);
}

struct Complex128 {
  double parts[2];
};

void gather_elements(int64_t element_size, const char* from, int64_t stride, int64_t count,
                     char* to) {
  switch (element_size) {
    case 1:
      return gather<uint8_t>(from, stride, count, to);
    case 2:
      return gather<uint16_t>(from, stride, count, to);
    case 4:
      return gather<uint32_t>(from, stride, count, to);
    case 8:
      return gather<uint64_t>(from, stride, count, to);
    default:
      return gather<Complex128>(from, stride, count, to);
  }
}

// A tensor as rows: the longest runs that are consecutive in the source too, or else single lines of strided elements.
struct Rows {
  explicit Rows(const PackedTensor& tensor) : tensor(tensor), outer(tensor.sizes.size()) {
    while (outer > 0) {
      const int64_t size = tensor.sizes[outer - 1];
      if (size != 1 && tensor.source_strides[outer - 1] != length) break;
      length *= size;
      --outer;
    }
    if (length == 1 && outer > 0) {
      --outer;
      length = tensor.sizes[outer];
      stride = tensor.source_strides[outer];
    }
  }

  const char* row(int64_t index) const {
    int64_t element = 0;
    for (size_t d = outer; d-- > 0;) {
      element += index % tensor.sizes[d] * tensor.source_strides[d];
      index /= tensor.sizes[d];
    }
    return tensor.data + element * tensor.element_size;
  }

  // Bytes [begin, end) of the packed copy, whole elements, to `to`.
  void copy(int64_t begin, int64_t end, char* to) const {
    const int64_t row_bytes = length * tensor.element_size;
    while (begin < end) {
      const int64_t column = begin % row_bytes, count = std::min(row_bytes - column, end - begin);
      const char* from = row(begin / row_bytes) + column * stride;
      if (stride == 1) {
        std::memcpy(to, from, static_cast<size_t>(count));
      } else {
        gather_elements(tensor.element_size, from, stride, count / tensor.element_size, to);
      }
      begin += count;
      to += count;
    }
  }

  const PackedTensor& tensor;
  size_t outer;                    // dimensions outside of the rows
  int64_t length = 1, stride = 1;  // of a row, in elements
};

// -> int64: bytes of the buffer, then for each tensor its offset in bytes and its strides in elements.
Tensor packed_layout(std::vector<Tensor> tensors) {
  const PackedList list(tensors);
  std::vector<int64_t> layout{list.bytes};
  for (const PackedTensor& tensor : list.tensors) {
    layout.push_back(tensor.offset);
    layout.insert(layout.end(), tensor.strides.begin(), tensor.strides.end());
  }
  Tensor out = torch::stable::empty({static_cast<int64_t>(layout.size())}, ScalarType::Long);
  std::memcpy(out.mutable_data_ptr(), layout.data(), layout.size() * sizeof(int64_t));
  return out;
}

void pack_tensors_(Tensor buffer, std::vector<Tensor> tensors) {
  STD_TORCH_CHECK(buffer.is_cpu(), "segfast::pack_tensors_: expected tensors on the CPU");
  const PackedList list(tensors);
  STD_TORCH_CHECK(buffer.dim() == 1 && buffer.scalar_type() == ScalarType::Byte &&
                      (buffer.size(0) <= 1 || buffer.stride(0) == 1),
                  "segfast::pack_tensors_: expected buffer (B,) uint8, contiguous");
  STD_TORCH_CHECK(buffer.size(0) >= list.bytes,
                  "segfast::pack_tensors_: expected a buffer of at least ", list.bytes,
                  " bytes, got ", buffer.size(0));
  char* out = static_cast<char*>(buffer.mutable_data_ptr());
  std::vector<Rows> rows(list.tensors.begin(), list.tensors.end());
  const int64_t blocks = list.bytes / kPackAlignment;
  torch::stable::parallel_for(
      0, blocks, std::max(kBlocksPerThread, (blocks + kThreads - 1) / kThreads),
      [&](int64_t first, int64_t last) {
        const int64_t begin = first * kPackAlignment, end = last * kPackAlignment;
        for (const Rows& r : rows) {
          const int64_t offset = r.tensor.offset, from = std::max(begin, offset),
                        to = std::min(end, offset + r.tensor.bytes);
          if (from < to) r.copy(from - offset, to - offset, out + from);
        }
      });
}

}  // namespace
}  // namespace segfast

STABLE_TORCH_LIBRARY_IMPL(segfast, CPU, m) {
  m.impl("packed_layout", TORCH_BOX(&segfast::packed_layout));
  m.impl("pack_tensors_", TORCH_BOX(&segfast::pack_tensors_));
}
