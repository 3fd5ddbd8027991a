/* Pad integer maps to one size and stack them, dtype kept.
   Shapes   N maps (H_i, W_i), element of 1, 2, 4 or 8 bytes, any strides -> (N, H, W)
   Traffic  reads and writes the element's bytes once; N=16 512x512 uint8: 8 MB
   Mapping  a warp owns a row of the result, a lane 16 bytes of it in each step, aligned wherever the row starts; it reads the
            same columns of the source (images.cuh), two steps in flight. Only where a row begins or ends inside 16 bytes
            they are written one element at a time
   Launch   256 threads x 4 blocks (64 registers); y over rows, z over maps, x over the parts of a row where rows are few
   Cost     counted in SASS for sm_90, uint8, rows of 512, set-up included: 8 instructions per element; an H200 issues 12 while
            it moves its bytes at 4.8 TB/s
   Order    every element is written by one thread
   Source   MMSegmentation's stack_batch (semantics) */
// SPDX-License-Identifier: Apache-2.0
#include "cuda/images.cuh"
#include "cuda/launch.cuh"

namespace segfast {
namespace {

struct Output {
  int64_t stride_n, stride_h;
  int32_t height, width;
  uint4 padding;  // the pad value, repeated
};

// How far `p` lies behind a 16-byte boundary, in elements.
template <class T>
__device__ inline int32_t behind_boundary(const T* p) {
  return static_cast<int32_t>(reinterpret_cast<uintptr_t>(p) % kVectorBytes / sizeof(T));
}

// Puts padding behind the first `valid` bytes of a run of 16.
template <int kSize, int kCount>
__device__ inline void pad_behind(Run<kSize, kCount>& run, int32_t valid, const uint4& padding) {
  const uint32_t pads[4] = {padding.x, padding.y, padding.z, padding.w};
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    const int32_t bytes = valid - 4 * i;  // of this word
    const uint32_t mask = bytes <= 0 ? 0u : (bytes >= 4 ? ~0u : (1u << 8 * bytes) - 1);
    run.word[i] = (run.word[i] & mask) | (pads[i] & ~mask);
  }
}

// Columns [col, col + K) of a row, of which those outside [0, width) do not exist.
template <class T>
__device__ inline void store_run(const Run<sizeof(T), kElements<T>>& run, T* row, int32_t col,
                                 int32_t width) {
  if (col >= 0 && col + kElements<T> <= width) {
    store_vector(row + col, {run.word[0], run.word[1], run.word[2], run.word[3]});
  } else {
#pragma unroll
    for (int j = 0; j < kElements<T>; ++j)
      if (col + j >= 0 && col + j < width) row[col + j] = run.template get<T>(j);
  }
}

template <class T>
__global__ void __launch_bounds__(kImageThreads, 4)
    pad_stack_kernel(const __grid_constant__ SourceTable table, const __grid_constant__ Output o,
                     T* __restrict__ out) {
  constexpr int K = kElements<T>, kSteps = 2;
  const SourceImage& image = table.image[blockIdx.z];
  const int32_t step = column_step(K);
  for (int64_t y = first_row(); y < o.height; y += row_step()) {
    const SourceRow<sizeof(T)> source(image, y);
    T* row = out + blockIdx.z * o.stride_n + y * o.stride_h;
    for (int32_t begin = first_column(K) - behind_boundary(row); begin < o.width;
         begin += kSteps * step) {
      Run<sizeof(T), K> run[kSteps];
#pragma unroll
      for (int i = 0; i < kSteps; ++i) {
        const int32_t col = begin + i * step;
        if (col < source.width) source.read_channel(source.at(0, col), col, run[i], -col);
      }
#pragma unroll
      for (int i = 0; i < kSteps; ++i) {
        const int32_t col = begin + i * step;
        if (col >= o.width) break;
        run[i].settle();
        if (col + K > source.width)
          pad_behind(run[i], (source.width - col) * int32_t{sizeof(T)}, o.padding);
        store_run(run[i], row, col, o.width);
      }
    }
  }
}

template <class T>
void launch_pad_stack(const std::vector<Tensor>& maps, int64_t H, int64_t W, int64_t pad_value,
                      Tensor& out, cudaStream_t stream) {
  Output o{H * W, W, static_cast<int32_t>(H), static_cast<int32_t>(W), {}};
  T pads[kElements<T>];
  std::fill(pads, pads + kElements<T>, static_cast<T>(pad_value));
  memcpy(&o.padding, pads, sizeof o.padding);
  const int64_t total = static_cast<int64_t>(maps.size());
  for (int64_t n = 0; n < total; n += kImagesPerLaunch) {
    const int64_t count = std::min<int64_t>(kImagesPerLaunch, total - n);
    const dim3 grid = image_grid(count, H, W, 32 * kElements<T>);
    pad_stack_kernel<T><<<grid, kImageThreads, 0, stream>>>(
        source_table(maps, n, count, 0, 0), o, static_cast<T*>(out.mutable_data_ptr()) + n * H * W);
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
