/* Count (target, pred) pairs.
   Math     counts[t, p] += #{i: target_i = t, pred_i = p, t != ignore_index}
   Shapes   pred, target of any one shape, contiguous, u8|i16|i32|i64; counts (C, C) i64
   Traffic  reads 2 t bytes per pixel; 8x1024x2048 uint8: 34 MB, 8 us at 4.2 TB/s
   Mapping  a lane takes 32 neighbouring bytes of the wider map, by 16-byte loads, and the next 32 ahead of time. Up to 16 pixels of
            one pair, and the same in neighbouring lanes, are one addition; other pixels are added one by one, without a branch
   Memory   32-bit counts of the block in shared memory, as much as the device offers (240 classes on sm_90), added to the
            result once; more classes are added to the result directly. Where C is small there are up to 32 copies side by side,
            a lane each: noise then meets no bank conflict
   Launch   640 threads (96 registers), a block per multiprocessor
   Cost     counted in SASS for sm_90, uint8, per pixel: 5 instructions where 16 neighbours are one pair, 17 where they are not;
            an H200 issues 12 while it moves their bytes at 4.8 TB/s. Wider labels move more bytes for about as many
   Numerics integers: exact
   Order    integer additions commute: the same counts every run
   Source   privatised and replicated histograms, CUB DeviceHistogram (idea) */
// SPDX-License-Identifier: Apache-2.0
#include <type_traits>

#include "cuda/element.cuh"
#include "cuda/label_faults.cuh"
#include "cuda/launch.cuh"
#include "cuda/runs.cuh"
#include "ops/confusion_matrix.h"

namespace segfast {
namespace {

constexpr int kThreads = 640;
constexpr int kWarps = kThreads / 32;
constexpr int64_t kCopiesBytes = 64 << 10;     // copies beyond the first take no more
constexpr int64_t kMostBlockPixels = 1 << 30;  // 32-bit counts hold more

struct Pairs {
  const void *pred, *target;
  int64_t count, num_classes, ignore_index;
};

// Words behind a block's counts, one for each lane: where pixels that do not count and pixels with bad labels are added. To
// choose an address is one instruction; a branch would be four.
struct Aside {
  unsigned ignored[32], bad[32];
};

// A block's counts in shared memory: cell c of copy r is word c * copies + r.
struct BlockCounts {
  using Cell = unsigned;

  char* copy;       // this lane's cell 0
  unsigned stride;  // bytes
  unsigned *ignored, *bad;

  __device__ BlockCounts(unsigned* words, unsigned copies, Aside* aside)
      : copy(reinterpret_cast<char*>(words + (threadIdx.x & (copies - 1)))),
        stride(4 * copies),
        ignored(aside->ignored + threadIdx.x % 32),
        bad(aside->bad + threadIdx.x % 32) {}

  __device__ unsigned* at(Cell cell) const {
    return reinterpret_cast<unsigned*>(copy + cell * stride);
  }
  __device__ void add(Cell cell, unsigned run) const { atomicAdd(at(cell), run); }
  __device__ void add_one(bool here, bool known, Cell cell) const {
    unsigned* to = known ? at(cell) : bad;
    atomicAdd(here ? to : ignored, 1u);
  }
};

// The result itself.
struct GlobalCounts {
  using Cell = unsigned long long;

  unsigned long long* out;
  unsigned* bad;

  __device__ void add(Cell cell, unsigned run) const {
    atomicAdd(out + cell, static_cast<unsigned long long>(run));
  }
  __device__ void add_one(bool here, bool known, Cell cell) const {
    if (here && known) add(cell, 1);
    if (here && !known) atomicAdd(bad, 1u);
  }
};

__device__ inline void clear(unsigned* words, unsigned count) {
  for (unsigned i = threadIdx.x; i < count; i += kThreads) words[i] = 0;
}

__device__ inline void flush(const unsigned* words, unsigned cells, unsigned copies,
                             unsigned long long* out) {
  for (unsigned cell = threadIdx.x; cell < cells; cell += kThreads) {
    unsigned sum = 0;
    for (unsigned r = 0; r < copies; ++r)  // each lane from a copy of its own: no bank conflicts
      sum += words[cell * copies + ((r + threadIdx.x) & (copies - 1))];
    if (sum > 0) atomicAdd(out + cell, static_cast<unsigned long long>(sum));
  }
}

// Labels in the narrowest type that tells the ignored one from all others.
template <class T>
using Label = std::conditional_t<(sizeof(T) >= 4), int64_t, int32_t>;

// What is known about the pixels of a pair of types.
template <class T, class P>
struct Rules {
  Label<T> ignored;
  int32_t num_classes;

  __device__ explicit Rules(const Pairs& a)
      : ignored(static_cast<Label<T>>(a.ignore_index)),
        num_classes(static_cast<int32_t>(a.num_classes)) {
    // No narrow label equals an ignore_index that 32 bits cannot hold.
    if (sizeof(T) < 4 && a.ignore_index != static_cast<int32_t>(a.ignore_index)) ignored = 1 << 20;
  }
  template <class L>
  __device__ bool is_class(L label) const {
    return static_cast<std::make_unsigned_t<L>>(label) < static_cast<unsigned>(num_classes);
  }
  __device__ bool are_classes(Label<T> label, Label<P> guess) const {
    return is_class(label) && is_class(guess);
  }
  template <class Cell>
  __device__ Cell cell(Label<T> label, Label<P> guess) const {
    return static_cast<Cell>(label) * static_cast<unsigned>(num_classes) +
           static_cast<unsigned>(guess);
  }
};

// Whether elements [first, first + kPart) are equal.
template <int kPart, int kSize, int kCount>
__device__ inline bool is_uniform(const Run<kSize, kCount>& run, int first) {
  constexpr int kWords = kPart * kSize / 4;
  const int at = first * kSize / 4;
  uint32_t one = run.word[at], difference = 0;
  if (kSize < 4) one = __byte_perm(one, 0, kSize == 1 ? 0x0000 : 0x1010);
#pragma unroll
  for (int i = 0; i < kWords; ++i)
    difference |= run.word[at + i] ^ (kSize == 8 && i % 2 == 1 ? run.word[at + 1] : one);
  return difference == 0;
}

// `run` pixels of one cell in each lane that has one: neighbouring lanes with the same add once. All lanes of a warp.
template <class Counts>
__device__ inline void add_lanes(typename Counts::Cell cell, bool has_one, unsigned run,
                                 const Counts& counts) {
  using Cell = typename Counts::Cell;
  const Cell mine = has_one ? cell : ~Cell{0};
  const unsigned lane = threadIdx.x % 32;
  const Cell before = __shfl_up_sync(0xffffffffu, mine, 1);
  const unsigned heads = __ballot_sync(0xffffffffu, lane == 0 || mine != before);
  const unsigned behind = heads >> lane >> 1;  // the next head, counted from this lane on
  const unsigned lanes = behind ? __ffs(static_cast<int>(behind)) : 32 - lane;
  if (has_one && (heads >> lane & 1)) counts.add(mine, run * lanes);
}

template <class T, class P>
constexpr int kWidest = sizeof(T) > sizeof(P) ? sizeof(T) : sizeof(P);
// Neighbouring pixels of a lane.
template <class T, class P>
constexpr int kGroup = 32 / kWidest<T, P>;

template <class T, class P>
struct Group {
  Run<sizeof(T), kGroup<T, P>> target;
  Run<sizeof(P), kGroup<T, P>> pred;

  __device__ void load(const Pairs& a, int64_t pixel) {
    target = {};
    target.load(reinterpret_cast<const char*>(static_cast<const T*>(a.target) + pixel));
    pred = {};
    pred.load(reinterpret_cast<const char*>(static_cast<const P*>(a.pred) + pixel));
  }
};

// All lanes of a warp.
template <class T, class P, class Counts>
__device__ inline void count_group(Group<T, P>& group, const Rules<T, P>& rules,
                                   const Counts& counts) {
  using Cell = typename Counts::Cell;
  constexpr int kPart = kGroup<T, P> < 16 ? kGroup<T, P> : 16;
  group.target.settle();
  group.pred.settle();
#pragma unroll
  for (int first = 0; first < kGroup<T, P>; first += kPart) {
    const bool uniform =
        is_uniform<kPart>(group.target, first) && is_uniform<kPart>(group.pred, first);
    const Label<T> label = group.target.template get<T>(first);
    const Label<P> guess = group.pred.template get<P>(first);
    const bool here = label != rules.ignored, known = rules.are_classes(label, guess);
    add_lanes(rules.template cell<Cell>(label, guess), uniform && here && known, kPart, counts);
    if (uniform && (known || !here)) continue;
#pragma unroll
    for (int i = 0; i < kPart; ++i) {
      const Label<T> t = group.target.template get<T>(first + i);
      const Label<P> p = group.pred.template get<P>(first + i);
      counts.add_one(t != rules.ignored, rules.are_classes(t, p), rules.template cell<Cell>(t, p));
    }
  }
}

// Which pixels belong to a lane: groups from `begin` on, `step` apart, and single ones outside [first, end).
template <class T, class P>
struct Share {
  static constexpr int G = kGroup<T, P>, kWarpPixels = 32 * G;

  int64_t first, end, begin, step;

  __device__ explicit Share(const Pairs& a) {
    // Where a map does not start at words, the words around its first and last elements reach beyond it.
    const uintptr_t addresses =
        reinterpret_cast<uintptr_t>(a.target) | reinterpret_cast<uintptr_t>(a.pred);
    const int64_t margin = addresses % 4 == 0 || a.count < 2 * G ? 0 : G;
    first = margin;
    end = first + (a.count - 2 * margin) / kWarpPixels * kWarpPixels;
    // Neighbouring blocks take neighbouring parts, so that a small map occupies many multiprocessors.
    const int64_t warp = static_cast<int64_t>(threadIdx.x / 32) * gridDim.x + blockIdx.x;
    begin = first + warp * kWarpPixels + threadIdx.x % 32 * G;
    step = static_cast<int64_t>(gridDim.x) * kWarps * kWarpPixels;
  }
  // Calls f with each single pixel; the first block has them all.
  template <class F>
  __device__ void singles(const Pairs& a, F&& f) const {
    if (blockIdx.x > 0) return;
    for (int64_t i = threadIdx.x; i < first + a.count - end; i += kThreads)
      f(i < first ? i : end - first + i);
  }
};

template <class T, class P, class Counts>
__device__ inline void count_pairs(const Pairs& a, const Counts& counts) {
  const Rules<T, P> rules(a);
  const Share<T, P> share(a);
  Group<T, P> next;
  if (share.begin < share.end) next.load(a, share.begin);
  for (int64_t pixel = share.begin; pixel < share.end; pixel += share.step) {
    Group<T, P> group = next;
    if (pixel + share.step < share.end) next.load(a, pixel + share.step);
    count_group(group, rules, counts);
  }
  share.singles(a, [&](int64_t i) {
    const Label<T> label = static_cast<const T*>(a.target)[i];
    const Label<P> guess = static_cast<const P*>(a.pred)[i];
    counts.add_one(label != rules.ignored, rules.are_classes(label, guess),
                   rules.template cell<typename Counts::Cell>(label, guess));
  });
}

// Reports the bad labels among a lane's pixels, once it is known that its block has some.
template <class T, class P>
__device__ inline void report_bad(const Pairs& a, FaultTally* tally) {
  const Rules<T, P> rules(a);
  const Share<T, P> share(a);
  const auto report = [&](int64_t i) {
    const Label<T> label = static_cast<const T*>(a.target)[i];
    const Label<P> guess = static_cast<const P*>(a.pred)[i];
    if (label != rules.ignored && !rules.are_classes(label, guess))
      report_fault(tally, i, rules.is_class(label) ? guess : label, a.num_classes);
  };
  for (int64_t pixel = share.begin; pixel < share.end; pixel += share.step) {
#pragma unroll 1
    for (int64_t i = pixel; i < pixel + kGroup<T, P>; ++i) report(i);
  }
  share.singles(a, report);
}

// True in all lanes of a warp where a pixel of the block was bad.
__device__ inline bool any_bad(const Aside& aside) {
  return __ballot_sync(0xffffffffu, aside.bad[threadIdx.x % 32] > 0) != 0;
}

template <class T, class P>
__global__ void __launch_bounds__(kThreads, 1)
    private_kernel(const Pairs a, unsigned copies, unsigned long long* __restrict__ out,
                   FaultTally* tally) {
  extern __shared__ unsigned words[];
  __shared__ Aside aside;
  const unsigned cells = static_cast<unsigned>(a.num_classes * a.num_classes);
  clear(words, cells * copies);
  clear(aside.bad, 32);
  __syncthreads();  // or a fast warp would count into cells not yet cleared
  count_pairs<T, P>(a, BlockCounts(words, copies, &aside));
  __syncthreads();  // or the sums would miss another warp's last runs
  flush(words, cells, copies, out);
  if (any_bad(aside)) report_bad<T, P>(a, tally);
}

template <class T, class P>
__global__ void __launch_bounds__(kThreads, 1)
    global_kernel(const Pairs a, unsigned long long* __restrict__ out, FaultTally* tally) {
  __shared__ Aside aside;
  clear(aside.bad, 32);
  __syncthreads();  // or a fast warp's mark would be cleared
  count_pairs<T, P>(a, GlobalCounts{out, aside.bad + threadIdx.x % 32});
  __syncthreads();  // or another warp's mark would be missed
  if (any_bad(aside)) report_bad<T, P>(a, tally);
}

template <class F>
void with_label_type(Element e, F&& f) {
  switch (e) {
    case Element::kUInt8:
      return f(uint8_t{});
    case Element::kInt16:
      return f(int16_t{});
    case Element::kInt32:
      return f(int32_t{});
    default:
      return f(int64_t{});
  }
}

// Copies of C * C counts of 4 bytes in shared memory, a power of two up to 32; 0 where not even one fits.
unsigned copies_for(int64_t num_classes) {
  const int64_t most = shared_bytes_for(1) - static_cast<int64_t>(sizeof(Aside));
  const int64_t bytes = std::min<int64_t>(num_classes, 1024) * num_classes * 4;
  if (bytes > most) return 0;
  unsigned copies = 32;
  while (copies > 1 && copies * bytes > std::min(most, kCopiesBytes)) copies /= 2;
  return copies;
}

template <class T, class P>
void launch_confusion_matrix(const Pairs& pairs, unsigned long long* out, cudaStream_t stream) {
  const unsigned copies = copies_for(pairs.num_classes);
  const size_t bytes = static_cast<size_t>(pairs.num_classes * pairs.num_classes * 4 * copies);
  const int64_t most = std::max<int64_t>(multiprocessors(), pairs.count / kMostBlockPixels + 1);
  const unsigned blocks = blocks_for(pairs.count, 32 * kGroup<T, P>, most);
  if (copies > 0) {
    allow_shared(private_kernel<T, P>, bytes);
    private_kernel<T, P><<<blocks, kThreads, bytes, stream>>>(pairs, copies, out, fault_tally());
    STD_CUDA_KERNEL_LAUNCH_CHECK();
  } else {
    global_kernel<T, P><<<blocks, kThreads, 0, stream>>>(pairs, out, fault_tally());
    STD_CUDA_KERNEL_LAUNCH_CHECK();
  }
}

void confusion_matrix_(const Tensor& counts, const Tensor& pred, const Tensor& target,
                       int64_t ignore_index) {
  const int64_t num_classes = check_confusion_matrix(counts, pred, target);
  const DeviceGuard guard(counts.get_device_index());
  if (target.numel() == 0) return;
  const Tensor p = torch::stable::contiguous(pred), t = torch::stable::contiguous(target);
  const Pairs pairs{p.const_data_ptr(), t.const_data_ptr(), t.numel(), num_classes, ignore_index};
  auto* out = static_cast<unsigned long long*>(counts.mutable_data_ptr());
  const cudaStream_t stream = current_stream(counts);
  with_label_type(element_of(t), [&](auto target_zero) {
    with_label_type(element_of(p), [&](auto pred_zero) {
      launch_confusion_matrix<decltype(target_zero), decltype(pred_zero)>(pairs, out, stream);
    });
  });
}

}  // namespace
}  // namespace segfast

STABLE_TORCH_LIBRARY_IMPL(segfast, CUDA, m) {
  m.impl("confusion_matrix_", TORCH_BOX(&segfast::confusion_matrix_));
}
