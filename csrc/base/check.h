/* From torch tensors to plain views, and the checks both backends share. Typed errors (ValueError, TypeError) are raised
   in segfast/ops before an op is called; these checks are the last guard for callers of torch.ops.segfast itself. */
// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>
#include <torch/headeronly/core/ScalarType.h>

#include <optional>
#include <stdexcept>
#include <string>
#include <vector>

#include "base/element.h"

namespace segfast {

using torch::headeronly::ScalarType;
using torch::stable::Tensor;

inline Element element_of(const Tensor& t) {
  switch (t.scalar_type()) {
    case ScalarType::Float:
      return Element::kFloat;
    case ScalarType::Double:
      return Element::kDouble;
    case ScalarType::Half:
      return Element::kHalf;
    case ScalarType::BFloat16:
      return Element::kBFloat16;
    case ScalarType::Byte:
      return Element::kUInt8;
    case ScalarType::Char:
      return Element::kInt8;
    case ScalarType::UInt16:
      return Element::kUInt16;
    case ScalarType::Short:
      return Element::kInt16;
    case ScalarType::Int:
      return Element::kInt32;
    case ScalarType::Long:
      return Element::kInt64;
    default:
      return Element::kUnsupported;
  }
}

inline bool is_label_type(Element e) {
  return e == Element::kUInt8 || e == Element::kInt16 || e == Element::kInt32 ||
         e == Element::kInt64;
}
inline bool is_logit_type(Element e) { return e <= Element::kBFloat16; }

// The type the arithmetic runs in: float64 for float64, float32 for everything else.
inline ScalarType arithmetic_type(const Tensor& logits) {
  return logits.scalar_type() == ScalarType::Double ? ScalarType::Double : ScalarType::Float;
}

// Copies what lies at odd addresses, as torch.frombuffer(bytes, offset=1) may: typed loads are not defined there.
inline void align(Tensor* t) {
  const auto address = reinterpret_cast<uintptr_t>(t->const_data_ptr());
  if (address % static_cast<uintptr_t>(t->element_size())) *t = torch::stable::clone(*t);
}
inline void align(std::optional<Tensor>* t) {
  if (*t) align(&**t);
}
inline void align(std::vector<Tensor>* tensors) {
  for (Tensor& t : *tensors) align(&t);
}
template <class... Tensors>
void align_all(Tensors*... tensors) {
  (align(tensors), ...);
}

// Kernels read all tensors on one device, by loads of whole elements.
inline void check_memory(const char* op, const Tensor& first, const Tensor& t) {
  STD_TORCH_CHECK(t.device() == first.device(), "segfast::", op,
                  ": expected all tensors on one device");
  STD_TORCH_CHECK(
      reinterpret_cast<uintptr_t>(t.const_data_ptr()) % static_cast<uintptr_t>(t.element_size()) ==
          0,
      "segfast::", op, ": expected memory that is aligned for its elements (hint: tensor.clone())");
}
inline void check_memory(const char* op, const Tensor& first, const std::optional<Tensor>& t) {
  if (t) check_memory(op, first, *t);
}
template <class... Tensors>
void check_memory_of(const char* op, const Tensor& first, const Tensors&... others) {
  check_memory(op, first, first);
  (check_memory(op, first, others), ...);
}

inline std::string shape_text(const Tensor& t) {
  std::string text = "(";
  for (int64_t d = 0; d < t.dim(); ++d) text += (d ? ", " : "") + std::to_string(t.size(d));
  return text + (t.dim() == 1 ? ",)" : ")");
}

// One sentence for a batch of bad labels; segfast/ops/_labels.py turns it into a LabelError.
inline std::string label_fault_text(const char* op, const LabelFaults& faults, int64_t num_classes,
                                    int64_t ignore_index, const Tensor& target) {
  const int64_t dims = target.dim(), cols = dims > 1 ? target.size(dims - 1) : 1,
                rows = dims > 2 ? target.size(dims - 2) : 1;
  const int64_t index = faults.first_index;
  return std::string("segfast::") + op + ": " + std::to_string(faults.count) +
         " label(s) lie outside [0, " + std::to_string(num_classes) +
         ") and are not ignore_index=" + std::to_string(ignore_index) + "; the first is " +
         std::to_string(faults.first_value) + " at (n=" + std::to_string(index / (rows * cols)) +
         ", y=" + std::to_string(index / cols % rows) + ", x=" + std::to_string(index % cols) +
         ") (hint: is ignore_index the value your masks use for void? does the data set need "
         "reduce_zero_label? "
         "are the masks 0/255 instead of 0/1?)";
}

}  // namespace segfast
