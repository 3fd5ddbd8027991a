/* The gradient of upsample_cross_entropy.
   Math     grad z_p[c] = k_p softmax(z_p)[c] - [c == y_p] l_p - beta_c b_p (base/loss.h); a sample's gradient is the sum over
            the pixels of its four cells, each with the weight the sample has in the pixel's blend
   Shapes   logits (N, C, h, w) f32|f16|bf16 of any strides; lse2 (N, H, W) f32 from the forward pass; label (N, H, W)
   Traffic  pixel_factors.cuh makes 6 bytes per pixel (8 more where factors differ). gradient_kernel reads those
            6 once per 4 C' classes from L2 (C' warps of a block share them), the samples once, and writes the gradient once.
            N=16 C=150 128x128 -> 512x512 bf16: 0.2 GB from memory, 43 us at 4.8 TB/s, against 630 M blends and
            exponentials of 12.5 instructions, 0.27 ms on 132 SMs: bound by issue (counted)
   Mapping  pixel_factors.cuh first turns labels, weights and statistics into what a lane needs, in the order it reads them.
            gradient_kernel: a lane owns one column of cells and 4 classes and walks down the rows of cells. What a cell gives
            to its lower samples stays in registers for the next row, what it gives to the right goes to the next lane by
            shuffle; between warps it goes through shared memory once, at the end. A block covers a whole row of up to
            256 samples, so no cell is visited twice but for one row of cells above each block
   Launch   up to 256 threads x 2 blocks (128 registers): warps along the row x warps of other classes
   Numerics float32; the common factor (grad_loss, and 1 / weight_sum for the mean) multiplies the finished sum
   Order    every sample's gradient is summed in row order by two lanes and added once: no atomics, the same bits every run
   Source   the cell formulation is ours */
// SPDX-License-Identifier: Apache-2.0
#include "cuda/pixel_factors.cuh"

namespace segfast {
namespace {

constexpr int kClasses = kClassesPerLane;
constexpr int kMostThreads = 256;
constexpr int kMostWarps = kMostThreads / 32;
constexpr int kMostRows = 32;  // sample rows a block may own
struct Gradient {
  PixelGrid grid, grad_grid;
  BilinearAxis rows, cols;
  PixelFactors factors;
  SlotLanes lanes;
  LossInputs in;
  LossGradient scale;  // for mean and sum
  int row_tiles, rows_per_tile, column_tiles, columns_per_tile;
  int row_warps;   // warps of a block along the row; the others have other classes
  bool per_pixel;  // reduction none: grad_loss is in the factors
};

// What a block works on: sample rows [row_begin, row_end) and lanes [first_lane, first_lane + lanes) of image n.
struct Tile {
  int64_t n;
  int row_begin, row_end, first_lane, lanes;
  bool whole;  // all lanes of a row: the last one's neighbour is the first

  __device__ Tile(const Gradient& a, int work) {
    const int x = work % a.column_tiles, y = work / a.column_tiles;
    n = y / a.row_tiles;
    row_begin = y % a.row_tiles * a.rows_per_tile;
    row_end = min(row_begin + a.rows_per_tile, static_cast<int>(a.grid.H));
    whole = a.column_tiles == 1;
    first_lane =
        whole ? 0
              : x * a.columns_per_tile - 1;  // a tile begins with its left neighbour's last lane
    lanes = min(a.columns_per_tile + (whole ? 0 : 1), a.lanes.lanes - first_lane);
  }
};

// kSlots neighbouring floats, 8 or 16 bytes a load.
template <int kSlots>
struct SlotValues {
  float v[kSlots];

  __device__ explicit SlotValues(const float* from) {
    if constexpr (kSlots == 2) {
      const float2 q = *reinterpret_cast<const float2*>(from);
      v[0] = q.x, v[1] = q.y;
    } else {
#pragma unroll
      for (int k = 0; k < kSlots; k += 4) {
        const float4 q = *reinterpret_cast<const float4*>(from + k);
        v[k] = q.x, v[k + 1] = q.y, v[k + 2] = q.z, v[k + 3] = q.w;
      }
    }
  }
};

// Sums over pixels, for each class of a lane: of the gradient, and of the gradient times the weight of the right sample.
struct RowSums {
  float all[kClasses] = {}, right[kClasses] = {};
};

// Takes the label terms of kSlots pixels out of their sums.
template <int kSlots, bool kFactors>
__device__ inline void subtract_labels(const PixelFactors& f, int64_t at, int first_class,
                                       const float (&weight)[kSlots], RowSums& sum) {
#pragma unroll
  for (int k = 0; k < kSlots; ++k) {
    const int c = static_cast<int>(f.label[at + k]) - first_class;
    const float term = kFactors ? f.one_hot[at + k] : 1.0f;
#pragma unroll
    for (int i = 0; i < kClasses; ++i) {
      if (c != i) continue;
      sum.all[i] -= term;
      sum.right[i] -= term * weight[k];
    }
  }
}

// Takes the smoothing terms of kSlots pixels out of their sums.
__device__ inline void subtract_smoothing(const LossInputs& in, const float* smooth,
                                          int first_class, int classes, RowSums& sum) {
#pragma unroll
  for (int i = 0; i < kClasses; ++i) {
    const float beta = in.factor_of(first_class + min(i, classes - 1)).beta;
    sum.all[i] -= beta * smooth[0];
    sum.right[i] -= beta * smooth[1];
  }
}

// Adds kSlots pixels of one row: left and across are the samples' blends in that row, weight those of the right sample.
template <int kSlots, bool kFactors>
__device__ inline void add_slots(const PixelFactors& f, unsigned place, int first_class,
                                 const float (&weight)[kSlots], const float (&left)[kClasses],
                                 const float (&across)[kClasses], RowSums& sum) {
  const int64_t at = static_cast<int64_t>(place) * kSlots;
  const SlotValues<kSlots> lse2(f.lse2 + at);
  const unsigned present = f.present[place];
#pragma unroll
  for (int k = 0; k < kSlots; ++k) {
    const float factor = kFactors ? f.softmax[at + k] : 1.0f;
#pragma unroll
    for (int i = 0; i < kClasses; ++i) {
      const float z = fmaf(weight[k], across[i], left[i]);
      float value = exp2_approx(fmaf(z, kLog2E, -lse2.v[k]));
      if (kFactors) value *= factor;
      sum.all[i] += value;
      sum.right[i] = fmaf(value, weight[k], sum.right[i]);
    }
  }
  if (present >> (first_class / kClasses % 32) & 1)
    subtract_labels<kSlots, kFactors>(f, at, first_class, weight, sum);
}

// Where kClasses neighbouring class planes lie from the first one on; beyond the last class, the last again.
struct ClassOffsets {
  int at[kClasses];

  __device__ ClassOffsets(int64_t stride_c, int classes) {
#pragma unroll
    for (int i = 0; i < kClasses; ++i) at[i] = min(i, classes - 1) * static_cast<int>(stride_c);
  }
};

// Whether ClassOffsets can reach the last of its classes.
inline void check_planes(const char* op, const PixelGrid& g) {
  STD_TORCH_CHECK(g.C == 1 || g.stride_c <= INT32_MAX / (kClasses - 1), "segfast::", op,
                  ": logits with (h, w) = (", g.H, ", ", g.W,
                  ") have planes that are too large for CUDA (hint: split the image)");
}

template <class S>
__device__ inline void read_samples(const S* from, const ClassOffsets& offsets,
                                    float (&v)[kClasses]) {
#pragma unroll
  for (int i = 0; i < kClasses; ++i)
    v[i] = at_least(widen(from[offsets.at[i]]), CellValues::kLowest);
}

// What crosses the edges of a warp, in shared memory: [row of the tile][class].
struct alignas(16) Edge {
  float first[kMostRows][kClasses];  // the part of the first lane's samples that is its own
  float last[kMostRows][kClasses];   // what the last lane gives to the next warp
};

__device__ inline void store_edge(float (&to)[kClasses], const float (&v)[kClasses]) {
  *reinterpret_cast<float4*>(to) = float4{v[0], v[1], v[2], v[3]};
}

// The lane a thread has in its tile.
struct Lane {
  int index;
  bool exists, writes;  // writes: the sample on its left is finished within the warp
  bool exports;         // gives to another warp, or to the last sample

  __device__ Lane(const Gradient& a, const Tile& tile, int l) {
    const int all = a.lanes.lanes;
    index = tile.first_lane + l;
    const bool before = index < 0;  // the lane whose right sample is the first, if there is one
    exists = l < tile.lanes && !(before && a.cols.align_corners);
    index = before || index >= all ? all - 1 : index;
    writes = exists && threadIdx.x % 32 != 0;
    exports = l == tile.lanes - 1 || (threadIdx.x % 32 == 31 && l < tile.lanes);
  }
};

// A block's shared memory: what crosses the edges of its warps, and what would cost registers.
struct Shared {
  Edge edges[kMostWarps];
  float carried[2 * kClasses][kMostThreads];  // a thread's own words, see Carried
  float scale;
};

// What a row of cells gives to the sample row below, until the next row of cells: in registers, or where factors need the
// registers in shared memory.
template <bool kShared>
class Carried {
 public:
  __device__ explicit Carried(Shared& shared) : shared_(shared) {
#pragma unroll
    for (int i = 0; i < kClasses; ++i) left(i) = right(i) = 0;
  }
  __device__ float& left(int i) {
    return kShared ? shared_.carried[i][threadIdx.x] : registers_[i];
  }
  __device__ float& right(int i) {
    return kShared ? shared_.carried[kClasses + i][threadIdx.x] : registers_[kClasses + i];
  }

 private:
  Shared& shared_;
  float registers_[2 * kClasses];
};

template <int kSlots>
__device__ inline void set_weights(const LaneColumn& column, int first_slot,
                                   float (&weight)[kSlots]) {
#pragma unroll
  for (int k = 0; k < kSlots; ++k) weight[k] = column.lambda(first_slot + k);
}

// Walks a lane's classes down the rows of a tile and writes what needs no other warp.
template <class S, int kSlots, bool kFactors>
__device__ inline void walk_tile(const S* __restrict__ logits, S* __restrict__ grad,
                                 const Gradient& a, const Tile& tile, int first_class,
                                 const Lane& lane, Shared& shared) {
  const PixelGrid &g = a.grid, &gg = a.grad_grid;
  const LaneColumn column(a.cols, lane.index);
  const int slots = lane.exists ? column.count : 0;
  const int classes = min(kClasses, static_cast<int>(g.C) - first_class);
  float weight[kSlots];
  set_weights(column, 0, weight);
  const int last_cell = static_cast<int>(g.H) - 1, out = static_cast<int>(a.rows.out);
  const S* corner = logits + tile.n * g.stride_n + first_class * g.stride_c +
                    max(tile.row_begin - 1, 0) * g.stride_h;
  const S *samples_left = corner + column.left * g.stride_w,
          *samples_right = corner + column.right * g.stride_w;
  const ClassOffsets offsets(g.stride_c, classes), to_offsets(gg.stride_c, classes);
  S* to = grad + tile.n * gg.stride_n + first_class * gg.stride_c + tile.row_begin * gg.stride_h +
          lane.index * gg.stride_w;
  int Y = static_cast<int>(first_pixel(a.rows, tile.row_begin - 1));
  unsigned row_place = static_cast<unsigned>(a.lanes.row(tile.n, out, Y)) + lane.index;
  const CellWeights rows(a.rows, 0, 0);
  const float denominator = static_cast<float>(bilinear_denominator(a.rows)),
              step =
                  static_cast<float>(bilinear_numerator(a.rows, 1) - bilinear_numerator(a.rows, 0));
  float remainder = static_cast<float>(bilinear_numerator(a.rows, Y) -
                                       (tile.row_begin - 1) * bilinear_denominator(a.rows));
  float top_left[kClasses], top_right[kClasses];
  Carried<kFactors> carried(shared);
  Edge& edge = shared.edges[threadIdx.x / 32];
  read_samples(samples_left, offsets, top_left);
  read_samples(samples_right, offsets, top_right);
  for (int cell = tile.row_begin - 1; cell < tile.row_end; ++cell) {
    float bottom_left[kClasses], bottom_right[kClasses], down_left[kClasses], down_right[kClasses];
    const bool between =
        cell >= 0 && cell < last_cell;  // two rows of samples; outside, one row twice
    if (between) {
      samples_left += g.stride_h;
      samples_right += g.stride_h;
    }
    read_samples(samples_left, offsets, bottom_left);
    read_samples(samples_right, offsets, bottom_right);
#pragma unroll
    for (int i = 0; i < kClasses; ++i) {
      down_left[i] = bottom_left[i] - top_left[i];
      down_right[i] = bottom_right[i] - top_right[i];
      top_left[i] = bottom_left[i];  // of the next cell: below, blends start from the bottom
      top_right[i] = bottom_right[i];
    }
    RowSums top, bottom;
    const float growth = between ? rows.inverse : 0.0f, begin = cell < 0 ? 1.0f : 0.0f,
                end = cell == last_cell ? INFINITY : denominator;
    for (; Y < out && remainder < end;
         ++Y, remainder += step, row_place += a.lanes.chunks * a.lanes.lanes) {
      const float ly = fmaf(remainder, growth, begin), up = 1.0f - ly;
      float left[kClasses], across[kClasses];
#pragma unroll
      for (int i = 0; i < kClasses; ++i) {
        left[i] = fmaf(-up, down_left[i], bottom_left[i]);
        across[i] = fmaf(-up, down_right[i], bottom_right[i]) - left[i];
      }
      RowSums row;
      unsigned place = row_place;
#pragma unroll 1
      for (int slot = 0; slot < slots; slot += kSlots, place += a.lanes.lanes) {
        if (column.count > kSlots) set_weights(column, slot, weight);
        add_slots<kSlots, kFactors>(a.factors, place, first_class, weight, left, across, row);
        if (kFactors && a.factors.smooth != nullptr)
          subtract_smoothing(a.in, a.factors.smooth + 2 * static_cast<int64_t>(place), first_class,
                             classes, row);
      }
#pragma unroll
      for (int i = 0; i < kClasses; ++i) {
        top.all[i] = fmaf(row.all[i], up, top.all[i]);
        top.right[i] = fmaf(row.right[i], up, top.right[i]);
        bottom.all[i] = fmaf(row.all[i], ly, bottom.all[i]);
        bottom.right[i] = fmaf(row.right[i], ly, bottom.right[i]);
      }
    }
    remainder -= denominator;
    float own[kClasses], given[kClasses], received[kClasses];
#pragma unroll
    for (int i = 0; i < kClasses; ++i) {
      own[i] = carried.left(i) + (top.all[i] - top.right[i]);
      given[i] = carried.right(i) + top.right[i];
      received[i] = __shfl_up_sync(0xffffffffu, given[i], 1);
      carried.left(i) = bottom.all[i] - bottom.right[i];
      carried.right(i) = bottom.right[i];
    }
    if (cell < tile.row_begin) continue;
    const int row = cell - tile.row_begin;
#pragma unroll
    for (int i = 0; i < kClasses; ++i) {
      if (lane.writes && i < classes)
        narrow((own[i] + received[i]) * shared.scale, to + to_offsets.at[i]);
    }
    if (threadIdx.x % 32 == 0) store_edge(edge.first[row], own);
    if (lane.exports) store_edge(edge.last[row], given);
    to += gg.stride_h;
  }
}

// Writes one column of samples, a sample and class per lane: two lanes' parts, added.
template <class S>
__device__ inline void write_edge(const Gradient& a, S* grad, const Tile& tile, int first_class,
                                  int column, float scale, const float (*own)[kClasses],
                                  const float (*received)[kClasses]) {
  const PixelGrid& g = a.grad_grid;
  S* to = grad + tile.n * g.stride_n + first_class * g.stride_c + tile.row_begin * g.stride_h +
          column * g.stride_w;
  for (int i = static_cast<int>(threadIdx.x % 32); i < (tile.row_end - tile.row_begin) * kClasses;
       i += 32) {
    const int row = i / kClasses, c = i % kClasses;
    if (first_class + c >= a.grid.C) continue;
    narrow((own[row][c] + (received ? received[row][c] : 0.0f)) * scale,
           to + c * g.stride_c + row * g.stride_h);
  }
}

template <class S, int kSlots, bool kFactors>
__global__ void __launch_bounds__(kMostThreads, 2)
    gradient_kernel(const S* __restrict__ logits, const __grid_constant__ Gradient a,
                    S* __restrict__ grad) {
  __shared__ Shared shared;
  if (threadIdx.x == 0) shared.scale = a.per_pixel ? 1.0f : a.scale.at(0);
  __syncthreads();  // or other warps would read the scale too early
  const Tile tile(a, static_cast<int>(blockIdx.x));
  const int warp = static_cast<int>(threadIdx.x / 32), row_warp = warp % a.row_warps,
            class_warp = warp / a.row_warps,
            class_warps = static_cast<int>(blockDim.x / 32) / a.row_warps;
  const int first_class = (static_cast<int>(blockIdx.y) * class_warps + class_warp) * kClasses;
  const int l = row_warp * 32 + static_cast<int>(threadIdx.x % 32);
  if (first_class < a.grid.C)
    walk_tile<S, kSlots, kFactors>(logits, grad, a, tile, first_class, Lane(a, tile, l), shared);
  __syncthreads();  // or an edge would be read before its other warp has written it
  if (first_class >= a.grid.C) return;
  const int first_lane = row_warp * 32, last_warp = (tile.lanes - 1) / 32;
  const int column = tile.first_lane + first_lane;
  const Edge& mine = shared.edges[warp];
  const float scale = shared.scale;
  if (first_lane < tile.lanes && (row_warp > 0 || tile.whole)) {
    const bool wraps = row_warp == 0, nothing = wraps && a.cols.align_corners;
    write_edge(a, grad, tile, first_class, column, scale, mine.first,
               nothing ? nullptr : shared.edges[wraps ? warp + last_warp : warp - 1].last);
  }
  // With align_corners the last sample has no lane of its own: all it gets comes from the last lane.
  const bool at_end = tile.first_lane + tile.lanes == a.lanes.lanes;
  if (row_warp == last_warp && at_end && a.lanes.lanes < a.grid.W)
    write_edge(a, grad, tile, first_class, a.lanes.lanes, scale, mine.last, nullptr);
}

// How a gradient is cut into blocks: a whole row of up to kMostThreads lanes, or tiles of it; rows so that the device is filled
// in few even waves. Sums do not depend on it.
void choose_tiles(Gradient& a, int64_t class_groups, int* class_warps) {
  const int lanes = a.lanes.lanes;
  a.column_tiles = lanes <= kMostThreads ? 1 : (lanes + kMostThreads - 2) / (kMostThreads - 1);
  a.columns_per_tile = (lanes + a.column_tiles - 1) / a.column_tiles;
  const int width = a.columns_per_tile + (a.column_tiles > 1 ? 1 : 0);
  a.row_warps = (width + 31) / 32;
  *class_warps = static_cast<int>(std::min<int64_t>(kMostWarps / a.row_warps, class_groups));
  const int64_t class_blocks = (class_groups + *class_warps - 1) / *class_warps;
  const int64_t per_row_tile = a.grid.N * a.column_tiles * class_blocks;
  const int64_t resident =
      int64_t{multiprocessors()} * (kMostWarps / (a.row_warps * *class_warps)) * 2;
  int64_t best = INT64_MAX;
  for (int rows = 1; rows <= kMostRows; ++rows) {
    const int64_t tiles = (a.grid.H + rows - 1) / rows,
                  waves = (tiles * per_row_tile + resident - 1) / resident;
    if (waves * (rows + 1) < best) {
      best = waves * (rows + 1);
      a.rows_per_tile = rows;
      a.row_tiles = static_cast<int>(tiles);
    }
  }
}

template <class S>
auto kernel_for(int64_t slots, bool factors) {
  if (slots == 2) return factors ? gradient_kernel<S, 2, true> : gradient_kernel<S, 2, false>;
  if (slots == 8) return gradient_kernel<S, 8, false>;
  return factors ? gradient_kernel<S, 4, true> : gradient_kernel<S, 4, false>;
}

Tensor upsample_cross_entropy_backward(const Tensor& grad_loss, const Tensor& logits,
                                       const Tensor& target, std::optional<Tensor> weight,
                                       std::optional<Tensor> pixel_weight, const Tensor& lse2,
                                       const Tensor& weight_sum, int64_t ignore_index,
                                       int64_t reduction, double label_smoothing,
                                       bool align_corners) {
  const char* op = "upsample_cross_entropy_backward";
  check_cross_entropy(op, logits, target, weight, pixel_weight);
  check_upsample(op, logits, target);
  check_classes(op, logits.size(1));
  check_upstream(op, logits, target, grad_loss, weight_sum, check_reduction(op, reduction));
  check_stats(op, logits, lse2, shape_of(target));
  const DeviceGuard guard(logits.get_device_index());
  Tensor grad = torch::stable::empty_like(logits);
  if (grad.numel() == 0) return grad;
  if (target.numel() == 0) return torch::stable::zero_(grad);
  const Tensor upstream = torch::stable::contiguous(grad_loss), samples = by_class(logits);
  const PixelGrid g = grid_of(samples), grad_grid = grid_of(grad);
  check_planes(op, g);
  check_planes(op, grad_grid);
  const BilinearAxis rows{g.H, target.size(1), align_corners},
      cols{g.W, target.size(2), align_corners};
  const bool per_pixel = reduction == static_cast<int64_t>(Reduction::kNone);
  const bool with_factors = per_pixel || weight || pixel_weight || label_smoothing != 0.0;
  const LossInputs in =
      loss_inputs(target, pixel_weight, weight, label_smoothing, g.C, ignore_index);
  const float* upstream_data = static_cast<const float*>(upstream.const_data_ptr());
  const FactorTensors factors(logits, target, cols, with_factors, label_smoothing != 0.0);
  make_factors(
      {factors.view(), factors.lanes, rows, cols, g.N, in,
       static_cast<const float*>(lse2.const_data_ptr()), per_pixel ? upstream_data : nullptr},
      factors.slots, current_stream(logits));
  Gradient args{g,
                grad_grid,
                rows,
                cols,
                factors.view(),
                factors.lanes,
                in,
                {upstream_data, static_cast<const float*>(weight_sum.const_data_ptr()), reduction},
                0,
                0,
                0,
                0,
                0,
                per_pixel};
  const int64_t class_groups = (g.C + kClasses - 1) / kClasses;
  int class_warps = 0;
  choose_tiles(args, class_groups, &class_warps);
  const dim3 grid(static_cast<unsigned>(g.N * args.row_tiles * args.column_tiles),
                  blocks_for(class_groups, class_warps, 65535));
  with_logit_type(logits, [&](auto zero) {
    using S = decltype(zero);
    const auto kernel = kernel_for<S>(factors.slots, with_factors);
    kernel<<<grid, args.row_warps * class_warps * 32, 0, current_stream(logits)>>>(
        static_cast<const S*>(samples.const_data_ptr()), args,
        static_cast<S*>(grad.mutable_data_ptr()));
    STD_CUDA_KERNEL_LAUNCH_CHECK();
  });
  return grad;
}

}  // namespace
}  // namespace segfast

STABLE_TORCH_LIBRARY_IMPL(segfast, CUDA, m) {
  m.impl("upsample_cross_entropy_backward", TORCH_BOX(&segfast::upsample_cross_entropy_backward));
}
