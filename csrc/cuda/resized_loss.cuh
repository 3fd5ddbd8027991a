/* What the loss of resized logits and its gradient share on the host. */
// SPDX-License-Identifier: Apache-2.0
#pragma once
#include "cuda/cell_lanes.cuh"
#include "cuda/launch.cuh"
#include "cuda/loss_sums.cuh"

namespace segfast {

// Logits whose class planes are dense, as lanes read them. channels_last logits are copied: they are 1 / s^2 of the pixels,
// so the copy moves far fewer bytes than scattered reads would cost.
inline Tensor by_class(const Tensor& logits) {
  const bool dense = logits.stride(3) == 1 || logits.size(3) == 1;
  return dense && logits.stride(1) < INT32_MAX / 4 ? logits : torch::stable::contiguous(logits);
}

inline LossInputs loss_inputs(const Tensor& target, const std::optional<Tensor>& pixel_weight,
                              const std::optional<Tensor>& weight, double smoothing,
                              int64_t num_classes, int64_t ignore_index) {
  return {{map_of(target), num_classes, ignore_index},
          pixel_weight ? map_of(*pixel_weight) : PixelMap{},
          weight ? static_cast<const float*>(weight->const_data_ptr()) : nullptr,
          static_cast<float>(smoothing)};
}

}  // namespace segfast
