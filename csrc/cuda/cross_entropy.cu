/* Softmax cross-entropy over channels, with an ignored label.
   Math     base/loss.h; grad_p[c] = softmax(x_p)[c] for_softmax - [c == y_p] for_label - beta_c for_beta
   Shapes   logits (N, C, H, W) f32|f16|bf16 of any strides (rows folded); label (N, H, W) u8|i16|i32|i64; stats (2, N, H, W) f32
   Traffic  forward reads C e + t and writes 8 bytes per pixel, backward reads C e + t + 8 and writes C e: 3 C e together;
            with_gradient reads C e + 2 t and writes C e. N=8 C=150 512x512 bf16/u8: 1.26 GB, 263 us at 4.8 TB/s, not 1.92 GB
   Mapping  cross_entropy_walk.cuh: a warp holds a tile of pixels, all their classes, in registers
   Launch   2 warps a block, each on tiles of its own; at most 8192 blocks, by the shape only. C = 19 f32: tiles of 128 pixels,
            9.7 KB a warp, 12 warps an SM: 117 KB in flight or at work, and 4.8 TB/s need about 30 KB in flight (Little, 800 ns)
   Cost     with_gradient, bf16, C = 19, sm_90, counted: 19 instructions a logit, one of them ex2; at 4.8 TB/s an SM has 25 slots
   Numerics float32; maximum and log-sum are saved apart; ex2.approx: relative error of a power 2^-22
   Order    loss_sums.cuh: no float atomics, the same bits every run
   Source   Milakov and Gimelshein 2018, arXiv:1805.02867, algorithm 3 */
// SPDX-License-Identifier: Apache-2.0
#include "cuda/cross_entropy_walk.cuh"
#include "cuda/launch.cuh"

namespace segfast {
namespace {

constexpr int64_t kMostClassesOfBoth =
    32 * kMostSlots;  // ONE_WALK_CLASSES of segfast/ops/cross_entropy.py
constexpr int64_t kMostBlocks = 8192;
constexpr int64_t kStagedBytes = 6 << 10,
                  kMostStagedBytes = 11 << 10;  // of a warp's tile, if it can be; at most
constexpr int64_t kEnoughTiles = 4096;  // where there are fewer, staged tiles of fewer pixels
constexpr int kLabelBlocks = 128, kLabelThreads = 1024, kLabelsInFlight = 8;
constexpr int kScaleThreads = 256;
constexpr int64_t kMostScaleBlocks = 1024;

// Blocks an SM: fewer where a lane holds 16 bytes of many classes, and where label smoothing adds factors.
template <Form kForm, Walk kWalk, bool kSmooth, int kSlots>
constexpr int kBlocks = kForm == Form::kStrided && kWalk == Walk::kForward ? 8
                        : kForm != Form::kPlanes || kSlots <= 4            ? 10
                        : kSlots < kMostSlots                              ? 8
                        : kSmooth                                          ? 4
                                                                           : 6;

template <class S, Form kForm, Walk kWalk, bool kSmooth, int kSlots>
__global__ void __launch_bounds__(kThreads, kBlocks<kForm, kWalk, kSmooth, kSlots>)
    walk_kernel(const S* __restrict__ logits, const WalkArgs a, S* __restrict__ grad,
                LossPartial* __restrict__ partials, FaultTally* tally) {
  extern __shared__ uint4 shared_memory[];
  const unsigned warp = threadIdx.x / 32;
  char* memory = reinterpret_cast<char*>(shared_memory) + warp * a.shape.tile_bytes;
  __shared__ LossPartial totals[kWalk == Walk::kBackward ? 1 : kThreads];
  if (kWalk != Walk::kBackward) totals[threadIdx.x] = LossPartial{};
  Walker<S, kForm, kWalk, kSmooth, kSlots> walker(a, logits, grad, tally);
  for (unsigned tile = blockIdx.x * kWarps + warp; tile < a.shape.tiles; tile += gridDim.x * kWarps)
    walker.walk_tile(tile, memory, totals + threadIdx.x);
  if constexpr (kWalk != Walk::kBackward) {
    const LossPartial sum = block_sum<kThreads>(totals[threadIdx.x]);
    if (threadIdx.x == 0) partials[blockIdx.x] = sum;
  }
}

// Sums of the class weights of the labels, one per block: what a mean is divided by, before any logit is read.
// Rows are cut into pieces of kLabelThreads labels.
__global__ void __launch_bounds__(kLabelThreads, 1)
    label_weight_kernel(const LossInputs in, const PixelGrid g, unsigned pieces_per_row,
                        unsigned pieces, double* __restrict__ sums) {
  LossPartial mine;
  for (unsigned first = blockIdx.x; first < pieces; first += kLabelsInFlight * kLabelBlocks) {
    int64_t y[kLabelsInFlight];
#pragma unroll
    for (int i = 0; i < kLabelsInFlight; ++i) {
      const unsigned piece = first + i * kLabelBlocks, row = piece / pieces_per_row;
      const int64_t w = static_cast<int64_t>(piece % pieces_per_row) * kLabelThreads + threadIdx.x,
                    n = row / static_cast<unsigned>(g.H), h = row % static_cast<unsigned>(g.H);
      y[i] = in.label.ignore_index;
      if (piece < pieces && w < g.W)
        y[i] = read_integer(
            in.label.map.data, in.label.map.type,
            n * in.label.map.stride_n + h * in.label.map.stride_h + w * in.label.map.stride_w);
    }
#pragma unroll
    for (int i = 0; i < kLabelsInFlight; ++i) {
      if (y[i] != in.label.ignore_index && y[i] >= 0 && y[i] < in.label.num_classes)
        mine.weight += static_cast<double>(in.weight_of(y[i]));
    }
  }
  const LossPartial sum = block_sum<kLabelThreads>(mine);
  if (threadIdx.x == 0) sums[blockIdx.x] = sum.weight;
}

// The gradient of a pixel's loss where the mean's is 1; 0 where nothing counts.
__global__ void __launch_bounds__(32, 1)
    unit_kernel(const double* __restrict__ sums, int count, float* unit) {
  double sum = 0;
  for (int i = static_cast<int>(threadIdx.x); i < count; i += 32) sum += sums[i];
  const float denominator = static_cast<float>(warp_sum(sum));
  if (threadIdx.x == 0) *unit = denominator == 0.0f ? 0.0f : 1.0f / denominator;
}

int64_t up(int64_t a, int64_t b) { return (a + b - 1) / b; }

// Launches both; a map without gaps is one row.
void find_unit(const LossInputs& in, PixelGrid g, double* sums, float* unit, cudaStream_t stream) {
  const PixelMap& m = in.label.map;
  if (m.stride_w == 1 && (g.H == 1 || m.stride_h == g.W) && (g.N == 1 || m.stride_n == g.H * g.W)) {
    g.W *= g.N * g.H;
    g.N = g.H = 1;
  }
  const int64_t per_row = up(g.W, kLabelThreads);
  const int64_t pieces = g.N * g.H * per_row;
  const unsigned blocks = blocks_for(pieces, 1, kLabelBlocks);
  label_weight_kernel<<<blocks, kLabelThreads, 0, stream>>>(in, g, static_cast<unsigned>(per_row),
                                                            static_cast<unsigned>(pieces), sums);
  STD_CUDA_KERNEL_LAUNCH_CHECK();
  unit_kernel<<<1, 32, 0, stream>>>(sums, static_cast<int>(blocks), unit);
  STD_CUDA_KERNEL_LAUNCH_CHECK();
}

int log2_up(int64_t x) {  // the smallest power of two that is not less than x >= 1
  int shift = 0;
  while (int64_t{1} << shift < x) ++shift;
  return shift;
}

// The logits and their gradient, which need not have the same strides (it has no gaps); grad is null in a forward walk.
struct Maps {
  const void* logits;
  void* grad;
  PixelGrid grid, grad_grid;

  // Every 16 bytes of a row of a class start at a multiple of 16. vector: elements of 16 bytes.
  bool by_planes(int64_t vector) const {
    const auto aligned = [&](const void* data, const PixelGrid& g) {
      return g.stride_w == 1 && g.W % vector == 0 && reinterpret_cast<uintptr_t>(data) % 16 == 0 &&
             (g.C == 1 || g.stride_c % vector == 0) && rows_start_at(g, vector);
    };
    return aligned(logits, grid) && (grad == nullptr || aligned(grad, grad_grid));
  }
  // The pixels of a row and their classes are one piece of memory, cut by 16 bytes alike in logits and gradient.
  bool by_pixels() const {
    const auto dense = [](const PixelGrid& g) { return g.stride_c == 1 && g.stride_w == g.C; };
    if (grid.W <= 1 || !dense(grid)) return false;
    return grad == nullptr ||
           (dense(grad_grid) &&
            reinterpret_cast<uintptr_t>(logits) % 16 == reinterpret_cast<uintptr_t>(grad) % 16 &&
            (grid.N == 1 || grid.stride_n == grad_grid.stride_n) &&
            (grid.H == 1 || grid.stride_h == grad_grid.stride_h));
  }
  static bool rows_start_at(const PixelGrid& g, int64_t multiple) {
    return (g.N == 1 || g.stride_n % multiple == 0) && (g.H == 1 || g.stride_h % multiple == 0);
  }
};

struct Plan {
  Form form;
  int slots;
  WalkShape shape;
  unsigned blocks, shared;
};

// As few lanes to a pixel as hold its classes, but at least 4 lanes along the pixels where classes may come in chunks.
int lane_shift_for(Form form, Walk walk, const PixelGrid& g, int64_t row_of_lanes) {
  const bool chunks = walk != Walk::kBoth && form == Form::kStrided;
  const int groups = std::min(log2_up(up(g.C, kMostSlots)), chunks ? 3 : 5);
  if (form == Form::kStrided && g.stride_c == 1 && g.stride_w != 1)  // neighbours are classes
    return 5 - std::min(5, log2_up(g.C));
  return std::min(5 - groups, log2_up(std::max<int64_t>(1, row_of_lanes)));
}

// Pixels of a staged tile, and the padding between them.
void plan_staged(const Maps& maps, int64_t element, WalkShape* s) {
  const PixelGrid& g = maps.grid;
  const bool whole = g.C * element % 16 == 0 && Maps::rows_start_at(g, 16 / element) &&
                     reinterpret_cast<uintptr_t>(maps.logits) % 16 == 0;
  s->pad = whole ? static_cast<int>(4 / element) : 0;
  const auto bytes = [&](int64_t pixels) {
    return up(pixels * (g.C + s->pad) * element + 16, 16) * 16;
  };
  s->steps = 1;
  while (bytes(int64_t{2 * s->steps} << s->lane_shift) <= kStagedBytes &&
         int64_t{s->steps} << s->lane_shift < g.W &&
         g.N * g.H * g.W >> s->lane_shift >= 2 * s->steps * kEnoughTiles)
    s->steps *= 2;
  s->tile_bytes = static_cast<unsigned>(bytes(int64_t{s->steps} << s->lane_shift));
}

Plan plan_walk(Walk walk, const Maps& maps, int64_t element) {
  const PixelGrid& g = maps.grid;
  Plan plan{};
  WalkShape& s = plan.shape;
  if (g.C > kMostClassesOfBoth)
    plan.form = Form::kStrided;
  else
    plan.form = maps.by_planes(16 / element) ? Form::kPlanes
                : maps.by_pixels()           ? Form::kStaged
                                             : Form::kStrided;
  const int pixels_of_lane = plan.form == Form::kPlanes ? static_cast<int>(16 / element) : 1;
  s.lane_shift = lane_shift_for(plan.form, walk, g, up(g.W, pixels_of_lane));
  s.steps = pixels_of_lane;
  if (plan.form == Form::kStaged) {
    plan_staged(maps, element, &s);
    if (s.tile_bytes > kMostStagedBytes) {
      plan.form = Form::kStrided;
      s.tile_bytes = 0;
      s.lane_shift = 0;
    }
  }
  const int64_t classes_of_lane = up(g.C, 32 >> s.lane_shift);
  s.chunks = static_cast<int>(up(classes_of_lane, kMostSlots));
  plan.slots = kMostSlots;
  while (plan.form != Form::kStrided && fewer_slots(plan.slots) >= classes_of_lane)
    plan.slots = fewer_slots(plan.slots);
  const int64_t per_row = up(g.W, int64_t{s.steps} << s.lane_shift), tiles = g.N * g.H * per_row;
  STD_TORCH_CHECK(tiles < int64_t{1} << 31 && g.C < int64_t{1} << 27,
                  "segfast::cross_entropy: more pixels or classes than can be counted");
  s.tiles_per_row = static_cast<unsigned>(per_row);
  s.tiles = static_cast<unsigned>(tiles);
  plan.blocks = static_cast<unsigned>(std::min(up(tiles, kWarps), kMostBlocks));
  plan.shared = kWarps * s.tile_bytes;
  return plan;
}

template <class S, Walk kWalk, Form kForm>
auto kernel_of(int slots) {
  return slots == 4    ? walk_kernel<S, kForm, kWalk, false, 4>
         : slots == 8  ? walk_kernel<S, kForm, kWalk, false, 8>
         : slots == 12 ? walk_kernel<S, kForm, kWalk, false, 12>
                       : walk_kernel<S, kForm, kWalk, false, kMostSlots>;
}
template <class S, Walk kWalk>
auto kernel_of(const Plan& plan, bool smooth) {
  switch (plan.form) {
    case Form::kPlanes:
      return smooth ? walk_kernel<S, Form::kPlanes, kWalk, true, kMostSlots>
                    : kernel_of<S, kWalk, Form::kPlanes>(plan.slots);
    case Form::kStaged:
      return smooth ? walk_kernel<S, Form::kStaged, kWalk, true, kMostSlots>
                    : kernel_of<S, kWalk, Form::kStaged>(plan.slots);
    default:
      return smooth ? walk_kernel<S, Form::kStrided, kWalk, true, kMostSlots>
                    : walk_kernel<S, Form::kStrided, kWalk, false, kMostSlots>;
  }
}

template <Walk kWalk>
void launch_walk(const Plan& plan, const Maps& maps, const WalkArgs& args, const Tensor& logits,
                 LossPartial* partials) {
  if (plan.blocks == 0) return;  // no pixels
  with_logit_type(logits, [&](auto zero) {
    using S = decltype(zero);
    if constexpr (kWalk != Walk::kBoth || !std::is_same_v<S, __half>) {
      const auto kernel = kernel_of<S, kWalk>(plan, args.in.smoothing != 0.0f);
      kernel<<<plan.blocks, kThreads, plan.shared, current_stream(logits)>>>(
          static_cast<const S*>(maps.logits), args, static_cast<S*>(maps.grad), partials,
          fault_tally());
      STD_CUDA_KERNEL_LAUNCH_CHECK();
    }
  });
}

// What the kernels take, of what the three entries share. The tensors must outlive the launch.
struct Call {
  MapView labels, weights;
  Maps maps;
  Plan plan;
  WalkArgs args{};

  Call(Walk walk, const PixelView& view, const Tensor& target, const std::optional<Tensor>& weight,
       const std::optional<Tensor>& pixel_weight, int64_t ignore_index, double smoothing,
       void* grad, const PixelGrid& grad_grid)
      : labels(view_map(target, view.grid)),
        weights(pixel_weight ? view_map(*pixel_weight, view.grid) : MapView{}),
        maps{view.tensor.const_data_ptr(), grad, view.grid, grad_grid},
        plan(plan_walk(walk, maps, element_of(view.tensor) == Element::kFloat ? 4 : 2)) {
    args.grid = maps.grid;
    args.grad_grid = maps.grad_grid;
    args.in = {{labels.map, view.grid.C, ignore_index},
               weights.map,
               weight ? static_cast<const float*>(weight->const_data_ptr()) : nullptr,
               static_cast<float>(smoothing)};
    args.beta_scale = args.in.smoothing / static_cast<float>(view.grid.C);
    args.shape = plan.shape;
  }
};

// Walks forward or both ways; returns weight_sum and tally, and fills the loss of a mean or a sum.
template <Walk kWalk>
std::tuple<Tensor, Tensor> run_forward(Call* call, const PixelView& view, bool accuracy,
                                       int64_t reduction, Tensor* loss) {
  Tensor weight_sum = torch::stable::new_empty(view.tensor, {}, ScalarType::Float);
  Tensor tally = torch::stable::new_empty(view.tensor, {2}, ScalarType::Long);
  const int64_t blocks = call->plan.blocks;
  Tensor sums = torch::stable::new_empty(view.tensor, {blocks * 4}, ScalarType::Double);
  auto* partials = static_cast<LossPartial*>(sums.mutable_data_ptr());
  call->args.accuracy = accuracy;
  launch_walk<kWalk>(call->plan, call->maps, call->args, view.tensor, partials);
  finish_loss_kernel<<<1, kFinishThreads, 0, current_stream(view.tensor)>>>(
      partials, blocks, reduction,
      LossResult{static_cast<float*>(loss->mutable_data_ptr()),
                 static_cast<float*>(weight_sum.mutable_data_ptr()),
                 static_cast<int64_t*>(tally.mutable_data_ptr())});
  STD_CUDA_KERNEL_LAUNCH_CHECK();
  return {weight_sum, tally};
}

std::tuple<Tensor, Tensor, Tensor, Tensor> cross_entropy(const Tensor& logits, const Tensor& target,
                                                         std::optional<Tensor> weight,
                                                         std::optional<Tensor> pixel_weight,
                                                         int64_t ignore_index, int64_t reduction,
                                                         double label_smoothing, bool accuracy) {
  check_cross_entropy("cross_entropy", logits, target, weight, pixel_weight);
  check_pixels("cross_entropy", logits, target);
  check_reduction("cross_entropy", reduction);
  const DeviceGuard guard(logits.get_device_index());
  const PixelView view = view_logits(logits);
  const bool per_pixel = reduction == static_cast<int64_t>(Reduction::kNone);
  Tensor loss = torch::stable::new_empty(
      logits, per_pixel ? shape_of(target) : std::vector<int64_t>{}, ScalarType::Float);
  Tensor stats = torch::stable::new_empty(logits, stats_shape(target), ScalarType::Float);
  Call call(Walk::kForward, view, target, weight, pixel_weight, ignore_index, label_smoothing,
            nullptr, view.grid);
  call.args.loss = per_pixel ? static_cast<float*>(loss.mutable_data_ptr()) : nullptr;
  call.args.stats = static_cast<float*>(stats.mutable_data_ptr());
  const auto [weight_sum, tally] =
      run_forward<Walk::kForward>(&call, view, accuracy, reduction, &loss);
  return {loss, stats, weight_sum, tally};
}

std::tuple<Tensor, Tensor, Tensor, Tensor> cross_entropy_with_gradient(
    const Tensor& logits, const Tensor& target, std::optional<Tensor> weight,
    std::optional<Tensor> pixel_weight, int64_t ignore_index, int64_t reduction,
    double label_smoothing, bool accuracy) {
  const char* op = "cross_entropy_with_gradient";
  check_cross_entropy(op, logits, target, weight, pixel_weight);
  check_pixels(op, logits, target);
  check_reduction(op, reduction);
  const DeviceGuard guard(logits.get_device_index());
  PixelView view = view_logits(logits);
  STD_TORCH_CHECK(view.grid.C <= kMostClassesOfBoth && element_of(logits) != Element::kHalf &&
                      reduction != static_cast<int64_t>(Reduction::kNone),
                  "segfast::", op,
                  ": expected float32 or bfloat16, at most 640 classes and reduction mean or sum");
  Tensor loss = torch::stable::new_empty(logits, {}, ScalarType::Float);
  Tensor grad = torch::stable::empty_like(view.tensor);
  PixelGrid grad_grid = view_logits(grad).grid;
  cut_alike(&view.grid, &grad_grid);
  Tensor sums = torch::stable::new_empty(logits, {kLabelBlocks}, ScalarType::Double);
  Tensor unit = torch::stable::new_empty(logits, {}, ScalarType::Float);
  Call call(Walk::kBoth, view, target, weight, pixel_weight, ignore_index, label_smoothing,
            grad.mutable_data_ptr(), grad_grid);
  if (reduction == static_cast<int64_t>(Reduction::kMean)) {
    auto* to = static_cast<float*>(unit.mutable_data_ptr());
    find_unit(call.args.in, view.grid, static_cast<double*>(sums.mutable_data_ptr()), to,
              current_stream(logits));
    call.args.unit = to;
  }
  const auto [weight_sum, tally] =
      run_forward<Walk::kBoth>(&call, view, accuracy, reduction, &loss);
  return {loss, grad, weight_sum, tally};
}

Tensor cross_entropy_backward(const Tensor& grad_loss, const Tensor& logits, const Tensor& target,
                              std::optional<Tensor> weight, std::optional<Tensor> pixel_weight,
                              const Tensor& stats, const Tensor& weight_sum, int64_t ignore_index,
                              int64_t reduction, double label_smoothing) {
  const char* op = "cross_entropy_backward";
  check_cross_entropy(op, logits, target, weight, pixel_weight);
  check_pixels(op, logits, target);
  check_upstream(op, logits, target, grad_loss, weight_sum, check_reduction(op, reduction));
  check_stats(op, logits, stats, stats_shape(target));
  const DeviceGuard guard(logits.get_device_index());
  PixelView view = view_logits(logits);
  Tensor grad = torch::stable::empty_like(view.tensor);
  if (grad.numel() == 0) return grad;
  PixelGrid grad_grid = view_logits(grad).grid;
  cut_alike(&view.grid, &grad_grid);
  const Tensor upstream = torch::stable::contiguous(grad_loss);
  Call call(Walk::kBackward, view, target, weight, pixel_weight, ignore_index, label_smoothing,
            grad.mutable_data_ptr(), grad_grid);
  call.args.stats = static_cast<float*>(const_cast<void*>(stats.const_data_ptr()));
  call.args.gradient = {static_cast<const float*>(upstream.const_data_ptr()),
                        static_cast<const float*>(weight_sum.const_data_ptr()), reduction};
  launch_walk<Walk::kBackward>(call.plan, call.maps, call.args, logits, nullptr);
  return grad;
}

// gradient *= grad_loss, by whole 16 bytes and a tail; nothing is read or written where that is 1.
template <class S>
__global__ void __launch_bounds__(kScaleThreads, 4)
    scale_gradient_kernel(S* __restrict__ gradient, int64_t count,
                          const float* __restrict__ grad_loss) {
  const float factor = *grad_loss;
  if (factor == 1.0f) return;
  constexpr int kVector = 16 / static_cast<int>(sizeof(S));
  const int64_t vectors = count / kVector, stride = static_cast<int64_t>(gridDim.x) * kScaleThreads,
                first = static_cast<int64_t>(blockIdx.x) * kScaleThreads + threadIdx.x;
#pragma unroll 4
  for (int64_t i = first; i < vectors; i += stride) {
    uint4 v = reinterpret_cast<const uint4*>(gradient)[i];
    S x[kVector];
    memcpy(x, &v, 16);
#pragma unroll
    for (int j = 0; j < kVector; ++j) narrow(widen(x[j]) * factor, &x[j]);
    memcpy(&v, x, 16);
    reinterpret_cast<uint4*>(gradient)[i] = v;
  }
  for (int64_t i = vectors * kVector + first; i < count; i += stride)
    narrow(widen(gradient[i]) * factor, &gradient[i]);
}

void scale_gradient_(Tensor gradient, const Tensor& grad_loss) {
  const DeviceGuard guard(gradient.get_device_index());
  const int64_t count = gradient.numel();
  STD_TORCH_CHECK(reinterpret_cast<uintptr_t>(gradient.const_data_ptr()) % 16 == 0 &&
                      grad_loss.numel() == 1 && grad_loss.scalar_type() == ScalarType::Float,
                  "segfast::scale_gradient_: expected an aligned gradient and one float32");
  STD_TORCH_CHECK(is_logit_type(element_of(gradient)) && is_dense(gradient),
                  "segfast::scale_gradient_: expected a floating-point gradient without gaps, got ",
                  shape_text(gradient));
  check_memory_of("scale_gradient_", gradient, grad_loss);
  if (count == 0) return;
  with_logit_type(gradient, [&](auto zero) {
    using S = decltype(zero);
    const unsigned blocks = blocks_for(count, 64 * kScaleThreads / sizeof(S), kMostScaleBlocks);
    scale_gradient_kernel<S><<<blocks, kScaleThreads, 0, current_stream(gradient)>>>(
        static_cast<S*>(gradient.mutable_data_ptr()), count,
        static_cast<const float*>(grad_loss.const_data_ptr()));
    STD_CUDA_KERNEL_LAUNCH_CHECK();
  });
}

}  // namespace
}  // namespace segfast

STABLE_TORCH_LIBRARY_IMPL(segfast, CUDA, m) {
  m.impl("cross_entropy", TORCH_BOX(&segfast::cross_entropy));
  m.impl("cross_entropy_backward", TORCH_BOX(&segfast::cross_entropy_backward));
  m.impl("cross_entropy_with_gradient", TORCH_BOX(&segfast::cross_entropy_with_gradient));
  m.impl("scale_gradient_", TORCH_BOX(&segfast::scale_gradient_));
}
