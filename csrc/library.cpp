// Every operator of segfast, one screen. Kernels register themselves from cpu/ and cuda/; fakes and autograd are in segfast/ops.
// SPDX-License-Identifier: Apache-2.0
#include <torch/csrc/stable/library.h>

STABLE_TORCH_LIBRARY(segfast, m) {
  // images: N x (C, H_i, W_i) -> (N, C, H, W); size empty: the batch maximum; dtype: torch's ScalarType number
  m.def(
      "normalize_pad_stack(Tensor[] images, float[] mean, float[] std, SymInt[] size, float "
      "pad_value, "
      "bool reverse_channels, int dtype, bool channels_last) -> Tensor");
  // maps: N x (H_i, W_i) -> (N, H, W), dtype kept
  m.def("pad_stack(Tensor[] maps, SymInt[] size, int pad_value) -> Tensor");
  // -> loss (0-d, or target's shape for reduction 0), stats (2, target's shape), weight_sum (0-d), tally (2,) = correct, valid
  m.def(
      "cross_entropy(Tensor logits, Tensor target, Tensor? weight, Tensor? pixel_weight, int "
      "ignore_index, int reduction, "
      "float label_smoothing, bool accuracy) -> (Tensor, Tensor, Tensor, Tensor)");
  m.def(
      "cross_entropy_backward(Tensor grad_loss, Tensor logits, Tensor target, Tensor? weight, "
      "Tensor? pixel_weight, Tensor stats, "
      "Tensor weight_sum, int ignore_index, int reduction, float label_smoothing) -> Tensor");
  // CUDA only, for a training step of float32 or bfloat16 and at most 640 classes: loss and gradient in one walk. -> loss (0-d),
  // the loss's gradient (logits' dtype and strides), weight_sum (0-d), tally (2,)
  m.def(
      "cross_entropy_with_gradient(Tensor logits, Tensor target, Tensor? weight, Tensor? "
      "pixel_weight, int ignore_index, int reduction, float label_smoothing, bool accuracy) -> "
      "(Tensor, Tensor, Tensor, Tensor)");
  // CUDA only: gradient *= grad_loss (0-d), in place; nothing is read or written where that is 1
  m.def("scale_gradient_(Tensor(a!) gradient, Tensor grad_loss) -> ()");
  m.def(
      "upsample_cross_entropy(Tensor logits, Tensor target, Tensor? weight, Tensor? pixel_weight, "
      "int ignore_index, int reduction, "
      "float label_smoothing, bool accuracy, bool align_corners) -> (Tensor, Tensor, Tensor, "
      "Tensor)");
  m.def(
      "upsample_cross_entropy_backward(Tensor grad_loss, Tensor logits, Tensor target, Tensor? "
      "weight, Tensor? pixel_weight, "
      "Tensor stats, Tensor weight_sum, int ignore_index, int reduction, float label_smoothing, "
      "bool align_corners) -> Tensor");
  // CPU only, for a training step: loss and gradient in one walk. -> loss (0-d), gradient of the summed loss (logits' shape,
  // contiguous, arithmetic dtype), weight_sum (0-d), tally (2,)
  m.def(
      "upsample_cross_entropy_with_gradient(Tensor logits, Tensor target, Tensor? weight, Tensor? "
      "pixel_weight, "
      "int ignore_index, int reduction, float label_smoothing, bool accuracy, bool align_corners) "
      "-> (Tensor, Tensor, Tensor, Tensor)");
  // CPU only: gradient * grad_loss / weight_sum (mean) or * grad_loss (sum), in logits' dtype and strides
  m.def(
      "scale_gradient(Tensor grad_loss, Tensor logits, Tensor gradient, Tensor weight_sum, int "
      "reduction) -> Tensor");
  // counts (C, C) int64 += one per pixel at [target, pred]
  m.def("confusion_matrix_(Tensor(a!) counts, Tensor pred, Tensor target, int ignore_index) -> ()");
  // -> (N, H, W) in dtype (torch's ScalarType number): the class of every pixel of the resized logits
  m.def("upsample_argmax(Tensor logits, SymInt[] size, bool align_corners, int dtype) -> Tensor");
  // both of the above in one pass; H, W from target
  m.def(
      "upsample_confusion_matrix_(Tensor(a!) counts, Tensor logits, Tensor target, int "
      "ignore_index, bool align_corners) -> ()");
  // CPU only, to send a batch in one copy: where each tensor lies in one buffer, as bytes of the buffer, then offset in bytes
  // and strides of each; and the copy into a buffer (B,) uint8, which may be pinned
  m.def("packed_layout(Tensor[] tensors) -> Tensor");
  m.def("pack_tensors_(Tensor(a!) buffer, Tensor[] tensors) -> ()");
  // CUDA only: (count, first) of the bad labels met on anchor's device since the last call, and a reset; see cuda/label_faults.cuh
  m.def("take_label_faults(Tensor anchor) -> Tensor");
}
