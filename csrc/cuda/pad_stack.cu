/* Pad integer maps to one size and stack them, dtype kept.
   Shapes   N maps (H_i, W_i), element of 1, 2, 4 or 8 bytes, any strides -> (N, H, W)
   Traffic  reads and writes the element's bytes once
   Mapping  a thread owns one output element; x over columns, y over rows, z over maps: coalesced
   Launch   256 threads
   Order    every element is written by one thread
   Source   MMSegmentation's stack_batch (semantics) */
// SPDX-License-Identifier: Apache-2.0
#include "cuda/images.cuh"
#include "cuda/launch.cuh"

namespace segfast {
namespace {

constexpr int kThreads = 256;

template <class T>
__global__ void __launch_bounds__(kThreads)
    pad_stack_kernel(const SourceTable table, int32_t height, int32_t width, T pad_value,
                     T* __restrict__ out) {
  const SourceImage& map = table.image[blockIdx.z];
  const int x = static_cast<int>(blockIdx.x * kThreads + threadIdx.x);
  if (x >= width) return;
  for (int y = static_cast<int>(blockIdx.y); y < height; y += static_cast<int>(gridDim.y)) {
    const bool inside = y < map.height && x < map.width;
    out[(static_cast<int64_t>(blockIdx.z) * height + y) * width + x] =
        inside ? static_cast<const T*>(map.data)[y * map.stride_h + x * map.stride_w] : pad_value;
  }
}

template <class T>
void launch_pad_stack(const std::vector<Tensor>& maps, int64_t H, int64_t W, int64_t pad_value,
                      Tensor& out, cudaStream_t stream) {
  const int64_t total = static_cast<int64_t>(maps.size());
  for (int64_t n = 0; n < total; n += kImagesPerLaunch) {
    const int64_t count = std::min<int64_t>(kImagesPerLaunch, total - n);
    const dim3 grid(static_cast<unsigned>((W + kThreads - 1) / kThreads),
                    static_cast<unsigned>(std::min<int64_t>(H, 65535)),
                    static_cast<unsigned>(count));
    pad_stack_kernel<T><<<grid, kThreads, 0, stream>>>(
        source_table(maps, n, count, 0), static_cast<int32_t>(H), static_cast<int32_t>(W),
        static_cast<T>(pad_value), static_cast<T*>(out.mutable_data_ptr()) + n * H * W);
    STD_CUDA_KERNEL_LAUNCH_CHECK();
  }
}

Tensor pad_stack(std::vector<Tensor> maps, std::vector<int64_t> size, int64_t pad_value) {
  const BatchSize batch = check_images("pad_stack", maps, size, 0);
  const DeviceGuard guard(maps[0].get_device_index());
  Tensor out =
      torch::stable::new_empty(maps[0], {static_cast<int64_t>(maps.size()), batch.H, batch.W});
  if (out.numel() == 0) return out;
  const cudaStream_t stream = current_stream(out);
  switch (out.element_size()) {  // bits are moved, never interpreted
    case 1:
      launch_pad_stack<uint8_t>(maps, batch.H, batch.W, pad_value, out, stream);
      break;
    case 2:
      launch_pad_stack<uint16_t>(maps, batch.H, batch.W, pad_value, out, stream);
      break;
    case 4:
      launch_pad_stack<uint32_t>(maps, batch.H, batch.W, pad_value, out, stream);
      break;
    default:
      launch_pad_stack<uint64_t>(maps, batch.H, batch.W, pad_value, out, stream);
  }
  return out;
}

}  // namespace
}  // namespace segfast

STABLE_TORCH_LIBRARY_IMPL(segfast, CUDA, m) { m.impl("pad_stack", TORCH_BOX(&segfast::pad_stack)); }
