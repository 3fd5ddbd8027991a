/* Normalise, pad and stack a list of images.
   Math     out[n, c, y, x] = (float(image[n][c, y, x]) - mean[c]) / std[c] inside image n, else pad_value
   Shapes   N images (C, H_i, W_i) of any strides, u8|i8|u16|i16|i32|i64|f16|bf16|f32|f64 -> (N, C, H, W) f32|f16|bf16
   Traffic  reads 1 (uint8) and writes e bytes per output element; N=16 C=3 512x512 to f32: 63 MB, 15 us at 4.2 TB/s
   Mapping  a warp owns a row of the result in all channels, a lane 16 bytes of each in each step. It reads the same pixels of
            the source (images.cuh), three channels in flight, at once where they lie interleaved. channels_last with three
            channels: a lane's pixels are three vectors, exchanged in the warp so that neighbours store neighbours. Rows
            that start inside a vector, and other channel counts in channels_last: neighbours write single elements
   Launch   256 threads x 4 blocks (64 registers; 3 for elements of 8 bytes); y over rows, z over images, x over the parts of
            a row where rows are few
   Cost     counted in SASS for sm_90, uint8, rows of 512, set-up included: 16 instructions per element to f32 (planar sources
            18), 12 to f16 (14; channels_last 15). An H200 issues 30 and 18 while it moves their bytes at 4.8 TB/s
   Numerics rounded as a division: uint8 by base/quotient.h (5 instructions without a branch), others by division.
            Bit-identical to the eager chain (--use_fast_math must stay off)
   Order    every element is written by one thread
   Source   MMSegmentation's SegDataPreProcessor (semantics) */
// SPDX-License-Identifier: Apache-2.0
#include <type_traits>

#include "base/quotient.h"
#include "cuda/element.cuh"
#include "cuda/images.cuh"
#include "cuda/launch.cuh"

namespace segfast {
namespace {

constexpr int kRgb = 3;  // the channel count with paths of its own
// Statistics travel as a parameter too (512 bytes); more channels take more launches.
constexpr int kChannelsPerLaunch = 32;

struct Statistics {
  ChannelScale channel[kChannelsPerLaunch];
};

// The result, its channels in the order of the source's: reversed, stride_c is negative.
struct Output {
  int64_t stride_n, stride_c, stride_h, stride_w;
  int32_t height, width, channels;
  float pad_value;
};

static_assert(sizeof(SourceTable) + sizeof(Statistics) + sizeof(Output) + 8 <= 4096,
              "parameters of a launch");

template <class S>
__device__ inline float to_float(S x) {
  return static_cast<float>(x);
}
template <>
__device__ inline float to_float(__half x) {
  return __half2float(x);
}
template <>
__device__ inline float to_float(__nv_bfloat16 x) {
  return __bfloat162float(x);
}

template <class S, int kCount>
__device__ inline float float_at(const Run<sizeof(S), kCount>& run, int i) {
  if constexpr (std::is_same<S, uint8_t>::value) {
    // The byte as the last bits of 2^23: a permutation and a sum; conversions run at a quarter of their rate.
    return __uint_as_float(__byte_perm(run.word[i / 4], 0x4b000000u, 0x7440 + i % 4)) - 8388608.0f;
  } else {
    return to_float(run.template get<S>(i));
  }
}

__device__ inline uint4 packed(const float (&x)[4], float) {
  return {__float_as_uint(x[0]), __float_as_uint(x[1]), __float_as_uint(x[2]),
          __float_as_uint(x[3])};
}
__device__ inline uint32_t pair(float a, float b, __half) {
  const __half2 both = __floats2half2_rn(a, b);
  uint32_t bits;
  memcpy(&bits, &both, sizeof bits);
  return bits;
}
__device__ inline uint32_t pair(float a, float b, __nv_bfloat16) {
  const __nv_bfloat162 both = __floats2bfloat162_rn(a, b);
  uint32_t bits;
  memcpy(&bits, &both, sizeof bits);
  return bits;
}
template <class D>
__device__ inline uint4 packed(const float (&x)[8], D type) {
  return {pair(x[0], x[1], type), pair(x[2], x[3], type), pair(x[4], x[5], type),
          pair(x[6], x[7], type)};
}

template <bool kQuotient>
__device__ inline float normalized(float x, const ChannelScale& s) {
  return kQuotient ? quotient(x, s) : __fdiv_rn(x - s.mean, s.std);
}

// One channel of K columns from `col` on, in place; those behind the image's `width` become padding.
template <bool kQuotient, int K>
__device__ inline void normalize_vector(const ChannelScale& s, int32_t col, int32_t width,
                                        float pad_value, float (&x)[K]) {
#pragma unroll
  for (int j = 0; j < K; ++j) x[j] = normalized<kQuotient>(x[j], s);
  if (col + K > width) {
#pragma unroll
    for (int j = 0; j < K; ++j)
      if (col + j >= width) x[j] = pad_value;
  }
}

// Three channels of K neighbouring pixels, which begin inside the row.
template <class S, int K>
__device__ inline void read_rgb(const SourceRow<sizeof(S)>& source, int32_t col,
                                float (&x)[kRgb][K]) {
  constexpr int kInFlight = sizeof(S) <= 2 ? kRgb : 1;  // more would take too many registers
  const char* from = source.at(0, col);
  if (kInFlight == kRgb && source.interleaved(kRgb)) {
    Run<sizeof(S), kRgb * K> run;
    source.read_pixels(from, col, kRgb, run);
    run.settle();
#pragma unroll
    for (int i = 0; i < kRgb * K; ++i) x[i % kRgb][i / kRgb] = float_at<S>(run, i);
    return;
  }
#pragma unroll
  for (int first = 0; first < kRgb; first += kInFlight) {
    Run<sizeof(S), K> run[kInFlight];
#pragma unroll
    for (int i = 0; i < kInFlight; ++i, from += source.image.stride_c * int64_t{sizeof(S)})
      source.read_channel(from, col, run[i]);
#pragma unroll
    for (int i = 0; i < kInFlight; ++i) {
      run[i].settle();
#pragma unroll
      for (int j = 0; j < K; ++j) x[first + i][j] = float_at<S>(run[i], j);
    }
  }
}

// All three planes' part of a row.
template <class S, bool kQuotient, class D>
__device__ inline void write_rgb(const SourceRow<sizeof(S)>& source, const Statistics& statistics,
                                 const Output& o, D* row) {
  constexpr int K = kElements<D>;
  for (int32_t col = first_column(K); col < o.width; col += column_step(K)) {
    float x[kRgb][K] = {};
    if (col < source.width) read_rgb<S>(source, col, x);
    D* to = row + col;
#pragma unroll
    for (int c = 0; c < kRgb; ++c, to += o.stride_c) {
      normalize_vector<kQuotient>(statistics.channel[c], col, source.width, o.pad_value, x[c]);
      store_vector(to, packed(x[c], D{}));
    }
  }
}

template <class S, bool kQuotient, class D>
__device__ inline void write_plane(const SourceRow<sizeof(S)>& source, int c, const ChannelScale& s,
                                   const Output& o, D* plane) {
  constexpr int K = kElements<D>;
  for (int32_t col = first_column(K); col < o.width; col += column_step(K)) {
    Run<sizeof(S), K> run;
    if (col < source.width) source.read_channel(source.at(c, col), col, run);
    run.settle();
    float x[K];
#pragma unroll
    for (int j = 0; j < K; ++j) x[j] = float_at<S>(run, j);
    normalize_vector<kQuotient>(s, col, source.width, o.pad_value, x);
    store_vector(plane + col, packed(x, D{}));
  }
}

// Eight elements of 8 bytes take a quarter of the registers.
template <class S>
constexpr int kBlocks = sizeof(S) == 8 ? 3 : 4;

template <class S, class D, bool kQuotient>
__global__ void __launch_bounds__(kImageThreads, kBlocks<S>)
    planes_kernel(const __grid_constant__ SourceTable table,
                  const __grid_constant__ Statistics statistics, const __grid_constant__ Output o,
                  D* __restrict__ out) {
  const SourceImage& image = table.image[blockIdx.z];
  for (int64_t y = first_row(); y < o.height; y += row_step()) {
    const SourceRow<sizeof(S)> source(image, y);
    D* row = out + blockIdx.z * o.stride_n + y * o.stride_h;
    if (o.channels == kRgb) {
      write_rgb<S, kQuotient>(source, statistics, o, row);
    } else {
      for (int c = 0; c < o.channels; ++c)
        write_plane<S, kQuotient>(source, c, statistics.channel[c], o, row + c * o.stride_c);
    }
  }
}

// channels_last with three channels: the 3 K elements of a lane's pixels are three vectors.
template <class S, class D, bool kQuotient>
__global__ void __launch_bounds__(kImageThreads, kBlocks<S>)
    pixels_kernel(const __grid_constant__ SourceTable table,
                  const __grid_constant__ Statistics statistics, const __grid_constant__ Output o,
                  D* __restrict__ out) {
  constexpr int K = kElements<D>;
  __shared__ uint4 exchange[kWarpsPerBlock][32 * kRgb];
  uint4* shared = exchange[threadIdx.x / 32];
  const int lane = threadIdx.x % 32;
  const SourceImage& image = table.image[blockIdx.z];
  const bool reverse = o.stride_c < 0;
  for (int64_t y = first_row(); y < o.height; y += row_step()) {
    const SourceRow<sizeof(S)> source(image, y);
    D* row = out + blockIdx.z * o.stride_n + y * o.stride_h - (reverse ? kRgb - 1 : 0);
    for (int32_t first = first_column(K) - lane * K; first < o.width; first += column_step(K)) {
      const int32_t col = first + lane * K;
      float x[kRgb][K] = {}, v[kRgb][K];
      if (col < source.width) read_rgb<S>(source, col, x);
#pragma unroll
      for (int c = 0; c < kRgb; ++c)
        normalize_vector<kQuotient>(statistics.channel[c], col, source.width, o.pad_value, x[c]);
#pragma unroll
      for (int i = 0; i < kRgb * K; ++i) {
        const int c = i % kRgb, j = i / kRgb;
        v[i / K][i % K] = reverse ? x[kRgb - 1 - c][j] : x[c][j];
      }
#pragma unroll
      for (int i = 0; i < kRgb; ++i) shared[lane * kRgb + i] = packed(v[i], D{});
      __syncwarp();  // or vectors would be read before their lane has written them
#pragma unroll
      for (int i = 0; i < kRgb; ++i) {
        const int32_t at = (i * 32 + lane) * K;  // in elements behind column `first`
        if (at < (o.width - first) * kRgb)
          store_vector(row + int64_t{kRgb} * first + at, shared[i * 32 + lane]);
      }
      __syncwarp();  // or the next step would overwrite vectors that another lane still reads
    }
  }
}

// What the other two do not write: rows that start inside a vector, and other channel counts in channels_last.
template <class S, class D>
__global__ void __launch_bounds__(kImageThreads, 4)
    elements_kernel(const __grid_constant__ SourceTable table,
                    const __grid_constant__ Statistics statistics, const __grid_constant__ Output o,
                    D* __restrict__ out) {
  constexpr int32_t kPixels = 32 * kElements<D>;
  const SourceImage& image = table.image[blockIdx.z];
  const bool planes = o.stride_w == 1;
  for (int64_t y = first_row(); y < o.height; y += row_step()) {
    const SourceRow<sizeof(S)> source(image, y);
    D* row = out + blockIdx.z * o.stride_n + y * o.stride_h;
    for (int32_t first = static_cast<int32_t>(blockIdx.x) * kPixels; first < o.width;
         first += static_cast<int32_t>(gridDim.x) * kPixels) {
      const int32_t pixels = o.width - first < kPixels ? o.width - first : kPixels;
      const unsigned inner = planes ? pixels : o.channels;  // neighbours in the result
#pragma unroll 4
      for (unsigned i = threadIdx.x % 32; i < static_cast<unsigned>(pixels * o.channels); i += 32) {
        const unsigned outer = i / inner, rest = i - outer * inner;
        const unsigned c = planes ? outer : rest;
        const int32_t col = first + static_cast<int32_t>(planes ? rest : outer);
        float x = o.pad_value;
        if (col < source.width) {
          const S element = *reinterpret_cast<const S*>(source.at(static_cast<int>(c), col));
          x = normalized<false>(to_float(element), statistics.channel[c]);
        }
        narrow(x, row + c * o.stride_c + col * o.stride_w);
      }
    }
  }
}

template <class F>
void with_image_type(Element e, F&& f) {
  switch (e) {
    case Element::kFloat:
      return f(float{});
    case Element::kDouble:
      return f(double{});
    case Element::kHalf:
      return f(__half{});
    case Element::kBFloat16:
      return f(__nv_bfloat16{});
    case Element::kUInt8:
      return f(uint8_t{});
    case Element::kInt8:
      return f(int8_t{});
    case Element::kUInt16:
      return f(uint16_t{});
    case Element::kInt16:
      return f(int16_t{});
    case Element::kInt32:
      return f(int32_t{});
    default:
      return f(int64_t{});
  }
}

template <class F>
void with_output_type(Element e, F&& f) {
  switch (e) {
    case Element::kFloat:
      return f(float{});
    case Element::kHalf:
      return f(__half{});
    default:
      return f(__nv_bfloat16{});
  }
}

// Of the source's channels from `first` on; without statistics the identity, which both ways of dividing keep exact.
Statistics statistics_of(const std::vector<double>& mean, const std::vector<double>& std,
                         int64_t channels, int64_t first, int64_t count, bool reverse) {
  Statistics statistics{};
  for (int64_t i = 0; i < count; ++i) {
    const int64_t c = reverse ? channels - 1 - (first + i) : first + i;
    statistics.channel[i] = mean.empty()
                                ? scale_of(0.0f, 1.0f)
                                : scale_of(static_cast<float>(mean[c]), static_cast<float>(std[c]));
  }
  return statistics;
}

template <class S, class D, bool kQuotient>
auto vector_kernel(bool planes) {
  return planes ? planes_kernel<S, D, kQuotient> : pixels_kernel<S, D, kQuotient>;
}

template <class S, class D>
auto kernel_for(const Output& o, int64_t channels, const Statistics& statistics) {
  const bool planes = o.stride_w == 1, aligned = o.width % kElements<D> == 0;
  if (!aligned || (!planes && channels != kRgb)) return elements_kernel<S, D>;
  if constexpr (std::is_same<S, uint8_t>::value) {
    bool exact = true;
    for (int c = 0; c < o.channels; ++c) exact &= has_exact_quotient(statistics.channel[c]);
    if (exact) return vector_kernel<S, D, true>(planes);
  }
  return vector_kernel<S, D, false>(planes);
}

struct Batch {
  const std::vector<Tensor>& images;
  const std::vector<double>&mean, &std;
  int64_t channels;
  bool reverse;
};

template <class S, class D>
void launch_normalize_pad_stack(const Batch& batch, Output o, D* out, cudaStream_t stream) {
  const int64_t total = static_cast<int64_t>(batch.images.size()), stride_c = o.stride_c;
  if (batch.reverse) o.stride_c = -stride_c;
  for (int64_t first = 0; first < batch.channels; first += kChannelsPerLaunch) {
    o.channels =
        static_cast<int32_t>(std::min<int64_t>(kChannelsPerLaunch, batch.channels - first));
    const Statistics statistics =
        statistics_of(batch.mean, batch.std, batch.channels, first, o.channels, batch.reverse);
    const auto kernel = kernel_for<S, D>(o, batch.channels, statistics);
    D* channel = out + (batch.reverse ? batch.channels - 1 - first : first) * stride_c;
    for (int64_t n = 0; n < total; n += kImagesPerLaunch) {
      const int64_t count = std::min<int64_t>(kImagesPerLaunch, total - n);
      const dim3 grid = image_grid(count, o.height, o.width, 32 * kElements<D>);
      kernel<<<grid, kImageThreads, 0, stream>>>(source_table(batch.images, n, count, 1, first),
                                                 statistics, o, channel + n * o.stride_n);
      STD_CUDA_KERNEL_LAUNCH_CHECK();
    }
  }
}

Tensor normalize_pad_stack(std::vector<Tensor> images, std::vector<double> mean,
                           std::vector<double> std, std::vector<int64_t> size, double pad_value,
                           bool reverse_channels, int64_t dtype, bool channels_last) {
  const BatchSize size_of = check_images("normalize_pad_stack", images, size, 1);
  const ScalarType out_scalar = check_normalization(mean, std, size_of.C, dtype);
  const DeviceGuard guard(images[0].get_device_index());
  const auto format = channels_last ? torch::headeronly::MemoryFormat::ChannelsLast
                                    : torch::headeronly::MemoryFormat::Contiguous;
  const torch::stable::Device device(torch::headeronly::DeviceType::CUDA,
                                     images[0].get_device_index());
  Tensor out =
      torch::stable::empty({static_cast<int64_t>(images.size()), size_of.C, size_of.H, size_of.W},
                           out_scalar, std::nullopt, device, std::nullopt, format);
  if (out.numel() == 0) return out;
  const Output o{out.stride(0),
                 out.stride(1),
                 out.stride(2),
                 out.stride(3),
                 static_cast<int32_t>(size_of.H),
                 static_cast<int32_t>(size_of.W),
                 0,
                 static_cast<float>(pad_value)};
  const Batch batch{images, mean, std, size_of.C, reverse_channels};
  const cudaStream_t stream = current_stream(out);
  with_image_type(element_of(images[0]), [&](auto source) {
    with_output_type(element_of(out), [&](auto result) {
      using D = decltype(result);
      launch_normalize_pad_stack<decltype(source)>(batch, o,
                                                   static_cast<D*>(out.mutable_data_ptr()), stream);
    });
  });
  return out;
}

}  // namespace
}  // namespace segfast

STABLE_TORCH_LIBRARY_IMPL(segfast, CUDA, m) {
  m.impl("normalize_pad_stack", TORCH_BOX(&segfast::normalize_pad_stack));
}
