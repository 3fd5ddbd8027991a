/* What the loss of resized logits and its gradient share on the host. */
// SPDX-License-Identifier: Apache-2.0
#pragma once
#include "cuda/cell_lanes.cuh"
#include "cuda/launch.cuh"
#include "cuda/loss_sums.cuh"

namespace segfast {

inline LossInputs loss_inputs(const Tensor& target, const std::optional<Tensor>& pixel_weight,
                              const std::optional<Tensor>& weight, double smoothing,
                              int64_t num_classes, int64_t ignore_index) {
  return {{map_of(target), num_classes, ignore_index},
          pixel_weight ? map_of(*pixel_weight) : PixelMap{},
          weight ? static_cast<const float*>(weight->const_data_ptr()) : nullptr,
          static_cast<float>(smoothing)};
}

}  // namespace segfast
