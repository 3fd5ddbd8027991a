/* How a warp walks the logits of cross_entropy: every logit is read once, every sum stays within the warp.
   Walks    forward: loss and two statistics a pixel. backward: gradient from the statistics. both: loss and gradient
   Forms    planes: pixels of a class adjacent and aligned; a lane holds 16 bytes of neighbouring pixels of its classes
            staged: classes of a pixel adjacent, pixels dense (channels_last); 16-byte copies through shared memory, a tile a warp
            strided: everything else, by single elements; both latter: a lane takes its pixels one after another
   Mapping  lanes side by side are pixels; lanes that share a pixel are its *groups*. Group i of G holds the classes i, i + G,
            i + 2 G, ... in its slots. C = 19: one group; C = 150: 8 groups of 19 classes, 4 lanes of pixels
   Softmax  the largest logit of all groups by shuffles, powers in the logits' registers, their sum by shuffles, then the
            powers become gradients: one exponential a logit. 32 groups of 20 slots hold 640 classes; more than that are strided
            and come in chunks, and the walks are two
   Numerics powers are 2^((x - max) log2(e)): the exponent of the largest logit is exactly 0, logits of any size are safe.
            An ignored pixel has gradient 0, even where its logits are NaN */
// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <float.h>
#include <limits.h>

#include "cuda/cross_entropy_fragment.cuh"
#include "cuda/fast_math.cuh"
#include "cuda/loss_sums.cuh"

namespace segfast {

constexpr int kWarps = 2,
              kThreads = 32 * kWarps;  // of a block; warps share nothing but its partial sum

enum class Walk { kForward, kBackward, kBoth };

// By the logits' shape, strides and alignment only.
struct WalkShape {
  int lane_shift;       // log2 of the lanes side by side along pixels
  int steps;            // pixels of a lane
  int chunks;           // strided: of a pixel's classes; else 1
  int pad;              // staged: elements between two pixels, so that lanes meet different banks
  unsigned tile_bytes;  // staged: shared memory of a warp
  unsigned tiles_per_row, tiles;
};

struct WalkArgs {
  PixelGrid grid, grad_grid;
  LossInputs in;
  WalkShape shape;
  float* loss;            // forward: per pixel, or null
  float* stats;           // (2, pixels): maxima, then log-sums; forward writes, backward reads
  LossGradient gradient;  // backward
  const float* unit;      // both: the gradient of a pixel's loss; null for 1
  float beta_scale;       // smoothing / C: beta_c is this times the weight of class c
  bool accuracy;
};

// A lane has the fewest of 4, 8, 12 and 20 slots that are enough; 20 where classes are strided, or with label smoothing.
constexpr int kMostSlots = 20;
SEGFAST_HOST_DEVICE constexpr int fewer_slots(int slots) {
  return slots == kMostSlots ? 12 : slots - 4;
}

// What powers are relative to: a maximum, or something finite where every class so far is masked by -inf.
__device__ inline float base_of(float max) { return fmaxf(max, -FLT_MAX); }
// exp(x - base); exactly 1 for the maximum.
__device__ inline float power(float x, float base) { return exp2_approx((x - base) * kLog2E); }

// The classes of one chunk that a lane holds: first, first + groups, ...
struct LaneClasses {
  int first, count, used;  // used: slots of the fullest lane
};

// What is known of a pixel after some of its classes; sums are this lane's until sum_groups, maximum and choice the pixel's.
struct Running {
  float max = -INFINITY, base = 0, sum = 0, dot = 0, betas = 0;
  int argmax = -1;
};

// A pixel beside its logits; y < 0 where it does not count.
struct Pixel {
  int64_t index;
  int y;
  float label_logit, pixel_weight, class_weight;
};

struct Outcome {
  float max, log_sum, loss;
};

template <class S, Form kForm, Walk kWalk, bool kSmooth, int kSlots>
struct Walker {
  static constexpr bool kPlanes = kForm == Form::kPlanes,
                        kAll = kForm != Form::kStrided && !kSmooth;
  static constexpr int kSure =
      kAll ? fewer_slots(kSlots) : 0;  // or there would have been fewer slots
  using F = Fragment<S, kSlots>;

  const WalkArgs& a;
  const S* __restrict__ logits;
  S* __restrict__ grad;
  FaultTally* tally;  // group 0's, or null
  S* staged;          // this warp's shared memory, where the logits of a tile begin
  int along, group, groups;
  float beta_sum, unit;
  int n, h;  // of the tile
  int64_t first;
  float loss, weight;  // of the tile's pixels; group 0's
  unsigned counts;     // valid, and correct above: a lane has fewer than 2^16 pixels of a tile

  __device__ Walker(const WalkArgs& args, const S* from, S* to, FaultTally* faults)
      : a(args), logits(from), grad(to), staged(nullptr) {
    const int lane = static_cast<int>(threadIdx.x % 32), lanes = 1 << a.shape.lane_shift;
    along = lane & (lanes - 1);
    group = lane >> a.shape.lane_shift;
    groups = 32 >> a.shape.lane_shift;
    tally = group == 0 && kWalk != Walk::kBackward ? faults : nullptr;
    beta_sum = kSmooth ? a.in.beta_sum() : 0.0f;
    unit = kWalk == Walk::kBoth && a.unit ? *a.unit : 1.0f;
  }

  __device__ int64_t offset(const PixelGrid& g, int64_t w) const {
    return n * g.stride_n + h * g.stride_h + w * g.stride_w;
  }
  __device__ int64_t column(int i) const {
    return first + (kPlanes ? along * F::kPixels + i : along + (i << a.shape.lane_shift));
  }
  __device__ S* staged_pixel(int64_t w) const {
    return staged + (w - first) * (a.grid.C + a.shape.pad);
  }
  __device__ const S* logits_at(int64_t w) const {
    return kForm == Form::kStaged ? staged_pixel(w) : logits + offset(a.grid, w);
  }
  __device__ int64_t class_stride(const PixelGrid& g) const {
    return kForm == Form::kStaged ? 1 : g.stride_c;
  }
  __device__ LaneClasses classes(int chunk) const {
    const int left = static_cast<int>(a.grid.C) - chunk * kSlots * groups;
    const int used = (left + groups - 1) >> (5 - a.shape.lane_shift),
              count = (left - group + groups - 1) >> (5 - a.shape.lane_shift);
    return {chunk * kSlots * groups + group, count < kSlots ? count : kSlots,
            used < kSlots ? used : kSlots};
  }

  template <class T, class Combine>
  __device__ T over_groups(T value, Combine&& combine) const {
#pragma unroll
    for (int shift = 4; shift >= 0; --shift) {
      if (shift < a.shape.lane_shift) break;
      value = combine(value, __shfl_xor_sync(0xffffffffu, value, 1 << shift));
    }
    return value;
  }

  __device__ int64_t index_of(int64_t w) const {
    return (static_cast<int64_t>(n) * a.grid.H + h) * a.grid.W + w;
  }
  // The classes of a lane's neighbouring pixels from w on, -1 where they do not count; all are inside the row or none.
  template <class T, int kCount>
  __device__ void read_labels_as(int64_t w, bool inside, int (&y)[kCount]) const {
    const Labels& label = a.in.label;
    const auto* at = static_cast<const T*>(label.map.data) + n * label.map.stride_n +
                     h * label.map.stride_h + w * label.map.stride_w;
    bool bad = false;
#pragma unroll
    for (int q = 0; q < kCount; ++q) {
      const int64_t read =
          inside ? static_cast<int64_t>(at[q * label.map.stride_w]) : label.ignore_index;
      const bool exists = static_cast<uint64_t>(read) < static_cast<uint64_t>(label.num_classes);
      y[q] = exists && read != label.ignore_index ? static_cast<int>(read) : -1;
      bad |= !exists && read != label.ignore_index;
    }
    if (!bad || !tally) return;
#pragma unroll 1
    for (int q = 0; q < kCount; ++q)
      label.class_of(static_cast<int64_t>(at[q * label.map.stride_w]), index_of(w) + q, tally);
  }
  template <int kCount>
  __device__ void read_labels(int64_t w, bool inside, int (&y)[kCount]) const {
    switch (a.in.label.map.type) {
      case Element::kUInt8:
        return read_labels_as<uint8_t>(w, inside, y);
      case Element::kInt16:
        return read_labels_as<int16_t>(w, inside, y);
      case Element::kInt32:
        return read_labels_as<int32_t>(w, inside, y);
      default:
        return read_labels_as<int64_t>(w, inside, y);
    }
  }
  // logit: the pixel's first class.
  __device__ Pixel read_pixel(int64_t w, int y, const S* logit) const {
    Pixel p{index_of(w), y, 0.0f, 0.0f, 0.0f};
    if (p.y >= 0) {
      p.pixel_weight = a.in.pixel_weight_at(n, h, w);
      p.class_weight = a.in.weight_of(p.y);
      if (kWalk != Walk::kBackward) p.label_logit = widen(logit[p.y * class_stride(a.grid)]);
    }
    return p;
  }

  __device__ float beta_of(const LaneClasses& c, int k) const {
    return k < c.count ? a.beta_scale * a.in.weight_of(c.first + k * groups) : 0.0f;
  }

  // Takes a chunk of a pixel's logits, the largest of this lane's being max; they become powers.
  __device__ void add(const LaneClasses& c, bool only_chunk, float max, float (&x)[kSlots],
                      Running* r) const {
    max = over_groups(max, [](float p, float q) { return fmaxf(p, q); });
    if (a.accuracy) {
      uint32_t largest = 0;
      for_slots<kSlots, kAll>(c.used, [&](int k) {
        if (x[k] == max) largest |= 1u << k;
      });
      const int slot = __ffs(static_cast<int>(largest)) - 1;
      int chosen = slot >= 0 && slot < c.count ? c.first + slot * groups : INT_MAX;
      chosen = over_groups(chosen, [](int p, int q) { return p < q ? p : q; });
      if (max > r->max || r->argmax < 0) r->argmax = chosen;
    }
    const Running before = *r;
    r->max = only_chunk ? max : fmaxf(before.max, max);
    r->base = base_of(r->max);
    if (!only_chunk) {
      r->sum *= power(base_of(before.max), r->base);
      if (kSmooth) r->dot += r->betas * (base_of(before.max) - r->base);
    }
    if (kSmooth) {
      for_slots<kSlots, kAll>(c.used, [&](int k) {
        const float beta = beta_of(c, k);
        if (k < c.count) r->dot += beta * (x[k] - r->base);
        r->betas += beta;
      });
    }
    for_slots<kSlots, kAll>(c.used, [&](int k) {
      x[k] = power(x[k], r->base);
      r->sum += x[k];
    });
  }

  // After all classes: the pixel's loss, counted by group 0.
  __device__ Outcome finish(const Pixel& p, Running* r) {
    const auto plus = [](float x, float y) { return x + y; };
    r->sum = over_groups(r->sum, plus);
    if (kSmooth) r->dot = over_groups(r->dot, plus);
    Outcome o{0.0f, INFINITY, 0.0f};
    if (p.y >= 0) {
      o.max = r->max;
      o.log_sum = logf(r->sum);
      o.loss = pixel_loss(alpha_of(p), o.log_sum, p.label_logit - o.max, beta_sum, r->dot,
                          p.pixel_weight);
    }
    if (group == 0) {
      loss += o.loss;
      weight += p.class_weight;
      counts += p.y >= 0 ? 1u : 0u;
      if (a.accuracy && p.y >= 0 && r->argmax == p.y) counts += 1u << 16;
    }
    return o;
  }

  // Powers become gradients. factor: for_softmax over the sum of the powers. Where a pixel is ignored, both are 0, even if its
  // logits are NaN.
  template <class Put>
  __device__ void form_gradient(const Pixel& p, const LaneClasses& c, float factor,
                                const GradientFactors<float>& f, float (&x)[kSlots],
                                Put&& put) const {
    if (__any_sync(0xffffffffu, p.y < 0)) {
      factor = p.y < 0 ? 0.0f : factor;
      for_slots<kSlots, kAll>(c.used, [&](int k) { x[k] = p.y < 0 ? 0.0f : x[k]; });
    }
    const int above = p.y - c.first;
    const uint32_t label = above >= 0 && (above & (groups - 1)) == 0
                               ? slot_bit(above >> (5 - a.shape.lane_shift))
                               : 0u;
    for_slots<kSlots, kAll>(c.used, [&](int k) {
      float value = x[k] * factor;
      if (label >> k & 1u) value -= f.for_label;
      if (kSmooth) value -= beta_of(c, k) * f.for_beta;
      put(k, value);
    });
  }
  __device__ static uint32_t slot_bit(int slot) { return slot < kSlots ? 1u << slot : 0u; }
  __device__ float alpha_of(const Pixel& p) const {
    return kSmooth ? (1.0f - a.in.smoothing) * p.class_weight : p.class_weight;
  }
  __device__ GradientFactors<float> factors_of(const Pixel& p, float upstream) const {
    return gradient_factors(upstream, p.pixel_weight, alpha_of(p), beta_sum);
  }

  // A finished pixel whose classes are all in x: powers become gradients.
  template <class Put>
  __device__ void both(const Pixel& p, const LaneClasses& c, const Running& r, float (&x)[kSlots],
                       Put&& put) const {
    const GradientFactors<float> f = factors_of(p, unit);
    form_gradient(p, c, __fdividef(f.for_softmax, r.sum), f, x, put);
  }

  // One chunk of a pixel from its statistics: logits become gradients.
  template <class Put>
  __device__ void backward(const Pixel& p, const LaneClasses& c, float (&x)[kSlots],
                           Put&& put) const {
    float base = 0, log_sum = 0, upstream = 0;
    if (p.y >= 0) {
      base = base_of(a.stats[p.index]);
      log_sum = a.stats[a.grid.N * a.grid.H * a.grid.W + p.index];
      upstream = a.gradient.at(p.index);
    }
    for_slots<kSlots, kAll>(c.used, [&](int k) { x[k] = power(x[k], base); });
    const GradientFactors<float> f = factors_of(p, upstream);
    form_gradient(p, c, f.for_softmax * power(0.0f, log_sum), f, x, put);
  }

  __device__ void walk_planes() {
    const bool inside = column(0) < a.grid.W;
    const int64_t w =
        inside ? column(0)
               : a.grid.W - F::kPixels;  // beyond the row's end: its last ones, not counted
    const LaneClasses c = classes(0);
    const S* at = logits + offset(a.grid, w);
    F f;
    f.load(at + c.first * a.grid.stride_c, groups * a.grid.stride_c, c.count, kSure);
    int y[F::kPixels];
    read_labels(w, inside, y);
    Outcome outcomes[4];
    float max[2];  // halves: of two pixels at once
#pragma unroll
    for (int q = 0; q < F::kPixels; ++q) {
      __syncwarp();  // keeps the compiler from mixing pixels, which would cost registers
      float x[kSlots];
      for_slots<kSlots, kAll>(c.used, [&](int k) { x[k] = f.get(k, q); });
      const Pixel p = read_pixel(w + q, y[q], at + q);
      const auto put = [&](int k, float value) { f.put(k, q, value); };
      if constexpr (kWalk == Walk::kBackward) {
        backward(p, c, x, put);
        continue;
      }
      if (sizeof(S) == 4 || q % 2 == 0) f.largest(q, max);
      Running r;
      add(c, true, max[sizeof(S) == 4 ? 0 : q % 2], x, &r);
      outcomes[q % 4] = finish(p, &r);
      if constexpr (kWalk == Walk::kBoth) both(p, c, r, x, put);
      if (kWalk == Walk::kForward && q % 4 == 3 && inside && group == 0)
        write_outcomes(p.index - 3, outcomes);
    }
    if (kWalk != Walk::kForward && inside)
      f.store(grad + offset(a.grad_grid, w) + c.first * a.grad_grid.stride_c,
              groups * a.grad_grid.stride_c, c.count, kSure);
  }
  __device__ void write_outcomes(int64_t index, const Outcome (&o)[4]) const {
    float* to = a.stats + index;
    *reinterpret_cast<float4*>(to) = float4{o[0].max, o[1].max, o[2].max, o[3].max};
    to += a.grid.N * a.grid.H * a.grid.W;
    *reinterpret_cast<float4*>(to) = float4{o[0].log_sum, o[1].log_sum, o[2].log_sum, o[3].log_sum};
    if (a.loss)
      *reinterpret_cast<float4*>(a.loss + index) =
          float4{o[0].loss, o[1].loss, o[2].loss, o[3].loss};
  }

  __device__ void walk_pixels() {
    for (int i = 0; i < a.shape.steps; ++i) {
      const bool inside = column(i) < a.grid.W;
      // Beyond the row's end: the tile's shared memory, or the last pixel, read but not counted.
      const int64_t w = inside || kForm == Form::kStaged ? column(i) : a.grid.W - 1;
      int y[1];
      read_labels(w, inside, y);
      const Pixel p = read_pixel(w, y[0], logits_at(w));
      Running r;
      const int chunks = kForm == Form::kStaged || kWalk == Walk::kBoth ? 1 : a.shape.chunks;
      for (int chunk = 0; chunk < chunks; ++chunk) {
        const LaneClasses c = classes(chunk);
        const S* from = logits_at(w);
        S* to = kForm == Form::kStaged ? staged_pixel(w) : grad + offset(a.grad_grid, w);
        using Step = std::conditional_t<kForm == Form::kStaged, int, int64_t>;
        const Step from_step = static_cast<Step>(class_stride(a.grid)),
                   to_step = static_cast<Step>(class_stride(a.grad_grid));
        Step at = c.first * from_step;
        float x[kSlots], max = -INFINITY;
        for_slots<kSlots, kAll>(c.used, [&](int k) {
          x[k] = k < kSure || k < c.count ? widen(from[at]) : -INFINITY;
          max = fmaxf(max, x[k]);
          at += groups * from_step;
        });
        at = c.first * to_step;
        const auto put = [&](int k, float value) {
          if ((inside || kForm == Form::kStaged) && (k < kSure || k < c.count))
            put_element(value, to + at);
          at += groups * to_step;
        };
        if constexpr (kWalk == Walk::kForward) add(c, chunks == 1, max, x, &r);
        if constexpr (kWalk == Walk::kBackward) backward(p, c, x, put);
        if constexpr (kWalk == Walk::kBoth) {
          add(c, true, max, x, &r);
          finish(p, &r);
          both(p, c, r, x, put);
        }
      }
      if constexpr (kWalk == Walk::kForward) {
        const Outcome o = finish(p, &r);
        if (!inside || group != 0) continue;
        a.stats[p.index] = o.max;
        a.stats[a.grid.N * a.grid.H * a.grid.W + p.index] = o.log_sum;
        if (a.loss) a.loss[p.index] = o.loss;
      }
    }
  }

  __device__ void walk_staged(char* memory) {
    const S* from = logits + offset(a.grid, first);
    const int64_t left = a.grid.W - first, most = a.shape.steps << a.shape.lane_shift;
    const int num_classes = static_cast<int>(a.grid.C),
              total_elements = static_cast<int>(left < most ? left : most) * num_classes;
    S* tile = reinterpret_cast<S*>(memory);
    staged = tile + reinterpret_cast<uintptr_t>(from) % 16 / sizeof(S);
    copy_tile<S, true>(from, tile, total_elements, num_classes, a.shape.pad);
    __syncwarp();  // or lanes would read logits that are not copied yet
    walk_pixels();
    __syncwarp();  // or gradients would leave before they are formed, or the next tile would come
    if (kWalk == Walk::kForward) return;
    copy_tile<S, false>(grad + offset(a.grad_grid, first), tile, total_elements, num_classes,
                        a.shape.pad);
    __syncwarp();  // or the next tile would overwrite gradients that have not left
  }

  // total: this thread's, in shared memory, where it costs no registers.
  __device__ void walk_tile(unsigned tile, char* memory, LossPartial* total) {
    const unsigned row = tile / a.shape.tiles_per_row, rows = static_cast<unsigned>(a.grid.H);
    n = static_cast<int>(row / rows);
    h = static_cast<int>(row % rows);
    first = (static_cast<int64_t>(tile % a.shape.tiles_per_row) * a.shape.steps)
            << a.shape.lane_shift;
    loss = weight = 0;
    counts = 0;
    if constexpr (kPlanes) walk_planes();
    if constexpr (kForm == Form::kStaged) walk_staged(memory);
    if constexpr (kForm == Form::kStrided) walk_pixels();
    if (kWalk == Walk::kBackward) return;
    total->loss += static_cast<double>(loss);
    total->weight += static_cast<double>(weight);
    total->correct += counts >> 16;
    total->valid += counts & 0xffffu;
  }
};

}  // namespace segfast
