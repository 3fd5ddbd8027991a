// The tally of bad labels and its reader: see label_faults.cuh.
// SPDX-License-Identifier: Apache-2.0
#include "cuda/label_faults.cuh"
#include "cuda/launch.cuh"

namespace segfast {
namespace {

__device__ FaultTally device_tally = {0, ~0ull};

// Moves the tally out and resets it, in stream order: the op itself does not wait.
__global__ void __launch_bounds__(1, 1) take_kernel(int64_t* out) {
  out[0] = static_cast<int64_t>(device_tally.count);
  out[1] = static_cast<int64_t>(device_tally.first);
  device_tally = {0, ~0ull};
}

// anchor: any CUDA tensor of the device -> (2,) int64: count, first
Tensor take_label_faults(const Tensor& anchor) {
  const DeviceGuard guard(anchor.get_device_index());
  Tensor out = torch::stable::new_empty(anchor, {2}, ScalarType::Long);
  take_kernel<<<1, 1, 0, current_stream(anchor)>>>(static_cast<int64_t*>(out.mutable_data_ptr()));
  STD_CUDA_KERNEL_LAUNCH_CHECK();
  return out;
}

}  // namespace

FaultTally* fault_tally() {
  void* address = nullptr;
  STD_CUDA_CHECK(cudaGetSymbolAddress(&address, device_tally));
  return static_cast<FaultTally*>(address);
}

}  // namespace segfast

STABLE_TORCH_LIBRARY_IMPL(segfast, CUDA, m) {
  m.impl("take_label_faults", TORCH_BOX(&segfast::take_label_faults));
}
