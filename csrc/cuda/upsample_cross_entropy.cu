/* Cross-entropy of bilinearly resized logits, without the resized logits.
   Math     z_p blends the four samples around p (base/bilinear.h); loss and gradient as base/loss.h
   Shapes   logits (N, C, h, w) f32|f16|bf16 of any strides; label (N, H, W) u8|i16|i32|i64; stats (2, N, H, W) f32
   Traffic  forward: the samples from L2, t + 8 bytes per pixel; N=16 C=150 128x128 -> 512x512 bf16: 0.12 GB, 25 us at
            4.8 TB/s, against 630 M exponentials, about 0.17 ms on 132 SMs: bound by exp, not by memory
   Mapping  forward: a thread owns one column X and up to four rows of one row of cells: four loads serve four pixels.
            backward: a lane owns one column of cells and four classes and walks down the rows; what a cell gives to its
            right-hand samples goes to the next lane by shuffle, what it gives downwards stays in registers for the next
            row of cells. A warp owns 31 sample columns and visits 32 cells, so no sum leaves a warp
   Launch   128 threads x 4 blocks forward (128 registers), x 3 backward (170); backward has 4 warps of different classes over the same pixels (shared through L1)
   Numerics float32; vertical blend, then horizontal; maximum and log-sum saved apart; ex2.approx
   Order    every sample's gradient is summed by one lane in row order: no atomics, the same bits every run
   Source   the cell formulation is ours; softmax as arXiv:1805.02867 */
// SPDX-License-Identifier: Apache-2.0
#include "cuda/bilinear_cells.cuh"
#include "cuda/launch.cuh"
#include "cuda/loss_sums.cuh"

namespace segfast {
namespace {

constexpr int kThreads = 128;
constexpr int kGroup = 4;            // classes per step
constexpr int kSamplesPerWarp = 31;  // sample columns a backward warp owns
constexpr int kSampleRows =
    16;  // sample rows a backward warp walks; one more row of cells is visited twice
constexpr int64_t kMostBlocks = 65535;

struct Forward {
  CellGrid cells;
  LossInputs in;
  float *loss, *stats;
};

template <class S, bool kArgmax>
__device__ inline void reduce_classes(const Corners<S>& corners, const float (&ly)[kRows], float lx,
                                      int num_classes, OnlineSoftmax (&softmax)[kRows]) {
  for (int c = 0; c < num_classes; c += kGroup) {
    float z[kRows][kGroup];
#pragma unroll
    for (int i = 0; i < kGroup; ++i) {
      const bool real = c + i < num_classes;
      const int64_t at = (real ? c + i : 0) * corners.stride_c;
      const float tl = widen(corners.top_left[at]), tr = widen(corners.top_right[at]);
      const float bl = widen(corners.bottom_left[at]), br = widen(corners.bottom_right[at]);
#pragma unroll
      for (int r = 0; r < kRows; ++r) {
        const float left = tl * (1.0f - ly[r]) + bl * ly[r],
                    right = tr * (1.0f - ly[r]) + br * ly[r];
        z[r][i] = real ? left * (1.0f - lx) + right * lx : -INFINITY;
      }
    }
#pragma unroll
    for (int r = 0; r < kRows; ++r) softmax[r].template add<kGroup, kArgmax>(z[r], c);
  }
}

// Loss, statistics and sums of one pixel whose softmax is known.
template <class S, bool kArgmax>
__device__ inline void finish_pixel(const Forward& a, const Corners<S>& corners,
                                    const OnlineSoftmax& softmax, int y, int64_t n, int64_t Y,
                                    int64_t X, float ly, float lx, float beta_sum,
                                    LossPartial* mine) {
  const int64_t p = a.cells.pixel(n, Y, X);
  float loss = 0, max = 0, log_sum = INFINITY;
  if (y >= 0) {
    max = softmax.max;
    log_sum = logf(softmax.sum);
    float beta_dot = 0;
    for (int64_t c = 0; a.in.smoothing != 0.0f && c < a.cells.grid.C; ++c)
      beta_dot += a.in.factor_of(c).beta * (corners.blend(c, ly, lx) - max);
    loss = pixel_loss(a.in.factor_of(y).alpha, log_sum, corners.blend(y, ly, lx) - max, beta_sum,
                      beta_dot, a.in.pixel_weight_at(n, Y, X));
    mine->loss += static_cast<double>(loss);
    mine->weight += static_cast<double>(a.in.weight_of(y));
    mine->valid += 1;
    mine->correct += kArgmax && softmax.argmax == y;
  }
  a.stats[p] = max;
  a.stats[a.cells.pixel(a.cells.grid.N, 0, 0) + p] = log_sum;
  if (a.loss) a.loss[p] = loss;
}

template <class S, bool kArgmax>
__global__ void __launch_bounds__(kThreads, 4)
    forward_kernel(const S* __restrict__ logits, const Forward a, LossPartial* partials,
                   FaultTally* tally) {
  const float beta_sum = a.in.beta_sum();
  const int64_t X = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  LossPartial mine;
  for (int64_t work = blockIdx.y; work < a.cells.chunks(); work += gridDim.y) {
    const RowChunk chunk = a.cells.chunk(work);
    if (chunk.first >= chunk.last || X >= a.cells.cols.out) continue;
    const BilinearSample column = bilinear_sample(a.cells.cols, X);
    const Corners<S> corners(logits, a.cells.grid, chunk.n, chunk.cell_y, column.cell);
    float ly[kRows];
    int y[kRows];
    bool any = false;
#pragma unroll
    for (int r = 0; r < kRows; ++r) {
      const int64_t Y = chunk.first + r;
      ly[r] = Y < chunk.last ? bilinear_sample(a.cells.rows, Y).lambda : 0.0f;
      y[r] = Y < chunk.last
                 ? a.in.label.class_at(chunk.n, Y, X, a.cells.pixel(chunk.n, Y, X), tally)
                 : -1;
      any |= y[r] >= 0;
    }
    OnlineSoftmax softmax[kRows];
    if (any)
      reduce_classes<S, kArgmax>(corners, ly, column.lambda, static_cast<int>(a.cells.grid.C),
                                 softmax);
#pragma unroll
    for (int r = 0; r < kRows; ++r) {
      if (chunk.first + r < chunk.last)
        finish_pixel<S, kArgmax>(a, corners, softmax[r], y[r], chunk.n, chunk.first + r, X, ly[r],
                                 column.lambda, beta_sum, &mine);
    }
  }
  const LossPartial sum = block_sum<kThreads>(mine);
  if (threadIdx.x == 0) partials[static_cast<int64_t>(blockIdx.y) * gridDim.x + blockIdx.x] = sum;
}

struct Backward {
  PixelGrid grid, grad_grid;
  BilinearAxis rows, cols;
  LossInputs in;
  LossGradient gradient;
  const float* stats;
  int64_t column_tiles, row_tiles;
};

// One lane's column of cells: its pixels [begin, end) and how their lambda advances, without a division per pixel.
struct CellColumn {
  int64_t begin, end, cell;
  float remainder, step, inverse;

  __device__ CellColumn(const BilinearAxis& axis, int64_t cell) : cell(cell) {
    begin = first_pixel(axis, cell);
    end = first_pixel(axis, cell + 1);
    const int64_t denominator = bilinear_denominator(axis);
    remainder = static_cast<float>(bilinear_numerator(axis, begin) - cell * denominator);
    step =
        static_cast<float>(bilinear_numerator(axis, begin + 1) - bilinear_numerator(axis, begin));
    inverse = 1.0f / static_cast<float>(denominator);
    if (cell < 0 || cell >= axis.in - 1) {  // constant beyond the first and the last sample
      remainder = cell < 0 ? static_cast<float>(denominator) : 0.0f;
      step = 0;
    }
  }
  __device__ float lambda(int64_t x) const {
    return (remainder + static_cast<float>(x - begin) * step) * inverse;
  }
};

// Gradients of kGroup classes with respect to one side's samples.
struct Side {
  float left[kGroup] = {}, right[kGroup] = {};
};

// Adds the pixels of one output row within one cell: d loss / d(row-blended left and right samples).
__device__ inline Side row_gradient(const Backward& a, const CellColumn& column,
                                    const float (&left)[kGroup], const float (&right)[kGroup],
                                    int64_t n, int64_t Y, int first_class, float beta_sum) {
  Side sum;
  const int64_t row = (n * a.rows.out + Y) * a.cols.out, plane = a.grid.N * a.rows.out * a.cols.out;
  for (int64_t X = column.begin; X < column.end; ++X) {
    const int y = a.in.label.class_at(n, Y, X, 0, nullptr);
    if (y < 0) continue;
    const float lx = column.lambda(X), max = a.stats[row + X], log_sum = a.stats[plane + row + X];
    const GradientFactors<float> f = gradient_factors(
        a.gradient.at(row + X), a.in.pixel_weight_at(n, Y, X), a.in.factor_of(y).alpha, beta_sum);
#pragma unroll
    for (int i = 0; i < kGroup; ++i) {
      const float z = left[i] * (1.0f - lx) + right[i] * lx;
      float value = __expf((z - max) - log_sum) * f.for_softmax;
      if (first_class + i == y) value -= f.for_label;
      if (a.in.smoothing != 0.0f && first_class + i < a.grid.C)
        value -= a.in.factor_of(first_class + i).beta * f.for_beta;
      sum.left[i] += value * (1.0f - lx);
      sum.right[i] += value * lx;
    }
  }
  return sum;
}

template <class S>
__global__ void __launch_bounds__(kThreads, 3)
    backward_kernel(const S* __restrict__ logits, const Backward a, S* __restrict__ grad) {
  const float beta_sum = a.in.beta_sum();
  const int lane = static_cast<int>(threadIdx.x % 32);
  const int first_class =
      static_cast<int>((blockIdx.y * (kThreads / 32) + threadIdx.x / 32) * kGroup);
  if (first_class >= a.grid.C) return;  // a whole warp leaves: the shuffles below stay complete
  const PixelGrid &g = a.grid, &gg = a.grad_grid;
  const int64_t tiles = a.column_tiles * a.row_tiles;
  for (int64_t work = blockIdx.x; work < g.N * tiles; work += gridDim.x) {
    const int64_t n = work / tiles, x_begin = work % a.column_tiles * kSamplesPerWarp,
                  y_begin = work % tiles / a.column_tiles * kSampleRows;
    const int64_t y_end = y_begin + kSampleRows < g.H ? y_begin + kSampleRows : g.H;
    const int64_t cell_x =
        x_begin - 1 +
        lane;  // this lane's cell; its left sample is the lane's to write, but for lane 0
    const bool inside = cell_x < g.W;
    const CellColumn column(a.cols, inside ? cell_x : g.W - 1);
    const bool writes = lane > 0 && inside;
    float from_above[kGroup] = {};
    int64_t Y = first_pixel(a.rows, y_begin - 1);
    const int64_t row_denominator = bilinear_denominator(a.rows);
    for (int64_t cell_y = y_begin - 1; cell_y < y_end; ++cell_y) {
      const Corners<S> corners(logits, g, n, cell_y, column.cell);
      float tl[kGroup], tr[kGroup], bl[kGroup], br[kGroup];
#pragma unroll
      for (int i = 0; i < kGroup; ++i) {
        const int64_t at = (first_class + i < g.C ? first_class + i : first_class) * g.stride_c;
        tl[i] = widen(corners.top_left[at]);
        tr[i] = widen(corners.top_right[at]);
        bl[i] = widen(corners.bottom_left[at]);
        br[i] = widen(corners.bottom_right[at]);
      }
      Side top, bottom;
      for (; Y < a.rows.out; ++Y) {  // the rows of this cell, found by walking: no division
        const int64_t remainder = bilinear_numerator(a.rows, Y) - cell_y * row_denominator;
        if (remainder >= row_denominator && cell_y < g.H - 1) break;
        const float inner = static_cast<float>(remainder) / static_cast<float>(row_denominator);
        const float ly = cell_y < 0 ? 1.0f : (cell_y >= g.H - 1 ? 0.0f : inner);
        if (!inside) continue;
        float left[kGroup], right[kGroup];
#pragma unroll
        for (int i = 0; i < kGroup; ++i) {
          left[i] = tl[i] * (1.0f - ly) + bl[i] * ly;
          right[i] = tr[i] * (1.0f - ly) + br[i] * ly;
        }
        const Side row = row_gradient(a, column, left, right, n, Y, first_class, beta_sum);
#pragma unroll
        for (int i = 0; i < kGroup; ++i) {
          top.left[i] += row.left[i] * (1.0f - ly);
          top.right[i] += row.right[i] * (1.0f - ly);
          bottom.left[i] += row.left[i] * ly;
          bottom.right[i] += row.right[i] * ly;
        }
      }
#pragma unroll
      for (int i = 0; i < kGroup; ++i) {
        const float here =
            from_above[i] + (top.left[i] + __shfl_up_sync(0xffffffffu, top.right[i], 1));
        from_above[i] = bottom.left[i] + __shfl_up_sync(0xffffffffu, bottom.right[i], 1);
        if (writes && cell_y >= y_begin && first_class + i < g.C) {
          narrow(here, grad + n * gg.stride_n + (first_class + i) * gg.stride_c +
                           cell_y * gg.stride_h + cell_x * gg.stride_w);
        }
      }
    }
  }
}

LossInputs loss_inputs(const Tensor& target, const std::optional<Tensor>& pixel_weight,
                       const std::optional<Tensor>& weight, double smoothing, int64_t num_classes,
                       int64_t ignore_index) {
  return {{map_of(target), num_classes, ignore_index},
          pixel_weight ? map_of(*pixel_weight) : PixelMap{},
          weight ? static_cast<const float*>(weight->const_data_ptr()) : nullptr,
          static_cast<float>(smoothing)};
}

std::tuple<Tensor, Tensor, Tensor, Tensor> upsample_cross_entropy(
    const Tensor& logits, const Tensor& target, std::optional<Tensor> weight,
    std::optional<Tensor> pixel_weight, int64_t ignore_index, int64_t reduction,
    double label_smoothing, bool accuracy, bool align_corners) {
  check_cross_entropy("upsample_cross_entropy", logits, target, weight, pixel_weight);
  check_upsample("upsample_cross_entropy", logits, target);
  const DeviceGuard guard(logits.get_device_index());
  const int64_t H = target.size(1), W = target.size(2);
  const bool per_pixel = reduction == static_cast<int64_t>(Reduction::kNone);
  Tensor loss = torch::stable::new_empty(
      logits, per_pixel ? shape_of(target) : std::vector<int64_t>{}, ScalarType::Float);
  Tensor stats = torch::stable::new_empty(logits, stats_shape(target), ScalarType::Float);
  Tensor weight_sum = torch::stable::new_empty(logits, {}, ScalarType::Float);
  Tensor tally = torch::stable::new_empty(logits, {2}, ScalarType::Long);
  const CellGrid cells = cell_grid(logits, H, W, align_corners);
  const dim3 grid(blocks_for(W, kThreads, kMostBlocks), blocks_for(cells.chunks(), 1, 16384));
  const int64_t blocks = static_cast<int64_t>(grid.x) * grid.y;
  Tensor partials = torch::stable::new_empty(logits, {blocks * 4}, ScalarType::Double);
  auto* parts = static_cast<LossPartial*>(partials.mutable_data_ptr());
  const Forward args{
      cells, loss_inputs(target, pixel_weight, weight, label_smoothing, cells.grid.C, ignore_index),
      per_pixel ? static_cast<float*>(loss.mutable_data_ptr()) : nullptr,
      static_cast<float*>(stats.mutable_data_ptr())};
  STD_TORCH_CHECK(W <= kMostBlocks * kThreads,
                  "segfast::upsample_cross_entropy: expected W <= 8388480, got ", W);
  const cudaStream_t stream = current_stream(logits);
  with_logit_type(logits, [&](auto zero) {
    using S = decltype(zero);
    const auto kernel = accuracy ? forward_kernel<S, true> : forward_kernel<S, false>;
    kernel<<<grid, kThreads, 0, stream>>>(static_cast<const S*>(logits.const_data_ptr()), args,
                                          parts, fault_tally());
    STD_CUDA_KERNEL_LAUNCH_CHECK();
  });
  finish_loss_kernel<<<1, 256, 0, stream>>>(
      parts, blocks, reduction,
      LossResult{static_cast<float*>(loss.mutable_data_ptr()),
                 static_cast<float*>(weight_sum.mutable_data_ptr()),
                 static_cast<int64_t*>(tally.mutable_data_ptr())});
  STD_CUDA_KERNEL_LAUNCH_CHECK();
  return {loss, stats, weight_sum, tally};
}

Tensor upsample_cross_entropy_backward(const Tensor& grad_loss, const Tensor& logits,
                                       const Tensor& target, std::optional<Tensor> weight,
                                       std::optional<Tensor> pixel_weight, const Tensor& stats,
                                       const Tensor& weight_sum, int64_t ignore_index,
                                       int64_t reduction, double label_smoothing,
                                       bool align_corners) {
  check_cross_entropy("upsample_cross_entropy_backward", logits, target, weight, pixel_weight);
  check_upsample("upsample_cross_entropy_backward", logits, target);
  const DeviceGuard guard(logits.get_device_index());
  const PixelGrid g = grid_of(logits);
  Tensor grad = torch::stable::empty_like(logits);
  if (grad.numel() == 0) return grad;
  if (target.numel() == 0) return torch::stable::zero_(grad);
  const Tensor upstream = torch::stable::contiguous(grad_loss);
  const Backward args{g,
                      grid_of(grad),
                      {g.H, target.size(1), align_corners},
                      {g.W, target.size(2), align_corners},
                      loss_inputs(target, pixel_weight, weight, label_smoothing, g.C, ignore_index),
                      {static_cast<const float*>(upstream.const_data_ptr()),
                       static_cast<const float*>(weight_sum.const_data_ptr()), reduction},
                      static_cast<const float*>(stats.const_data_ptr()),
                      (g.W + kSamplesPerWarp - 1) / kSamplesPerWarp,
                      (g.H + kSampleRows - 1) / kSampleRows};
  const int64_t class_blocks = (g.C + kGroup * (kThreads / 32) - 1) / (kGroup * (kThreads / 32));
  STD_TORCH_CHECK(class_blocks <= 65535,
                  "segfast::upsample_cross_entropy: too many classes: ", g.C);
  const dim3 grid(blocks_for(g.N * args.column_tiles * args.row_tiles, 1, int64_t{1} << 30),
                  static_cast<unsigned>(class_blocks));
  with_logit_type(logits, [&](auto zero) {
    using S = decltype(zero);
    backward_kernel<S><<<grid, kThreads, 0, current_stream(logits)>>>(
        static_cast<const S*>(logits.const_data_ptr()), args,
        static_cast<S*>(grad.mutable_data_ptr()));
    STD_CUDA_KERNEL_LAUNCH_CHECK();
  });
  return grad;
}

}  // namespace
}  // namespace segfast

STABLE_TORCH_LIBRARY_IMPL(segfast, CUDA, m) {
  m.impl("upsample_cross_entropy", TORCH_BOX(&segfast::upsample_cross_entropy));
  m.impl("upsample_cross_entropy_backward", TORCH_BOX(&segfast::upsample_cross_entropy_backward));
}
