/* Just enough of CUDA to run this project's kernels on a CPU, thread for thread: a block's threads are fibers that run
   until a barrier or a shuffle, so that missing barriers, wrong indices and wrong sums show without a GPU.
   Not a model of timing or of the memory system; races between threads that never meet at a barrier do not show. */
// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <ucontext.h>

#include <cmath>
#include <cstdint>
#include <cstring>
#include <exception>
#include <functional>
#include <memory>
#include <stdexcept>
#include <utility>
#include <vector>

#define __global__
#define __device__
#define __host__
#define __shared__ static
#define __grid_constant__
#define __launch_bounds__(...)

struct uint2 {
  unsigned x, y;
};
// 16 bytes are only written where a GPU could: at multiples of 16.
struct alignas(16) uint4 {
  unsigned x, y, z, w;
  uint4& operator=(const uint4& other) {
    uintptr_t address = reinterpret_cast<uintptr_t>(this);
    asm("" : "+r"(address));  // or the compiler would take the alignment for granted
    if (address % 16) throw std::runtime_error("emulation: misaligned store");
    return x = other.x, y = other.y, z = other.z, w = other.w, *this;
  }
};
struct dim3 {
  unsigned x, y, z;
  dim3(unsigned x = 1, unsigned y = 1, unsigned z = 1) : x(x), y(y), z(z) {}
};
using cudaStream_t = void*;
inline dim3 blockIdx, threadIdx, gridDim, blockDim;

namespace emulation {

enum class State { kRunning, kBlockBarrier, kShuffle, kDone };

struct Fiber {
  ucontext_t context;
  std::unique_ptr<char[]> stack;
  State state = State::kRunning;
  int parity = 0;  // which half of the warp's exchange buffer the next shuffle uses
};

constexpr size_t kStackBytes = 128 << 10;
inline std::vector<Fiber> fibers;
inline std::vector<std::vector<uint64_t>> exchange;  // [warp][2 * 32]
inline std::vector<char> dynamic_bytes;
inline size_t allowed_shared = 0;  // dynamic shared memory asked for by the next launch
inline ucontext_t scheduler;
inline unsigned current;
inline std::function<void()> body;

inline void pause(State state) {
  const unsigned me = current;
  fibers[me].state = state;
  swapcontext(&fibers[me].context, &scheduler);
}

inline std::exception_ptr failure;  // of a thread; the launch throws it again

inline void fiber_main() {
  try {
    body();
  } catch (...) {
    failure = std::current_exception();
  }
  fibers[current].state = State::kDone;
  swapcontext(&fibers[current].context, &scheduler);
}

// Lets every fiber in [begin, end) that waits for `waiting` go on, if nobody in the range is elsewhere.
inline bool release(unsigned begin, unsigned end, State waiting) {
  bool any = false;
  for (unsigned t = begin; t < end; ++t) {
    if (fibers[t].state == State::kDone) continue;
    if (fibers[t].state != waiting) return false;
    any = true;
  }
  for (unsigned t = begin; any && t < end; ++t) {
    if (fibers[t].state == waiting) fibers[t].state = State::kRunning;
  }
  return any;
}

inline void run_block(unsigned threads) {
  for (unsigned t = 0; t < threads; ++t) {
    Fiber& fiber = fibers[t];
    fiber.state = State::kRunning;
    fiber.parity = 0;
    getcontext(&fiber.context);
    fiber.context.uc_stack = {fiber.stack.get(), 0, kStackBytes};
    fiber.context.uc_link = &scheduler;
    makecontext(&fiber.context, fiber_main, 0);
  }
  for (;;) {
    bool ran = false, left = false;
    for (current = 0; current < threads; ++current) {
      if (fibers[current].state != State::kRunning) continue;
      threadIdx = dim3(current, 0, 0);
      swapcontext(&scheduler, &fibers[current].context);
      ran = true;
    }
    bool released = release(0, threads, State::kBlockBarrier);
    for (unsigned w = 0; w < threads; w += 32) released |= release(w, w + 32 < threads ? w + 32 : threads, State::kShuffle);
    for (unsigned t = 0; t < threads; ++t) left |= fibers[t].state != State::kDone;
    if (!left) break;
    if (!ran && !released) throw std::runtime_error("emulation: threads wait for each other at different places");
  }
  if (failure) std::rethrow_exception(std::exchange(failure, nullptr));
}

template <class F>
void launch(dim3 grid, dim3 block, size_t shared_bytes, F&& kernel) {
  if (block.y != 1 || block.z != 1 || grid.x == 0 || grid.y == 0 || grid.z == 0 || block.x == 0 || block.x > 1024) {
    throw std::runtime_error("emulation: bad launch configuration");
  }
  if (grid.y > 65535 || grid.z > 65535) throw std::runtime_error("emulation: grid too large in y or z");
  if (shared_bytes > (32 << 10) && shared_bytes > allowed_shared) {
    throw std::runtime_error("emulation: dynamic and static shared memory beyond 48 KB must be asked for");
  }
  allowed_shared = 0;
  gridDim = grid;
  blockDim = block;
  body = kernel;
  fibers.resize(block.x);
  for (Fiber& fiber : fibers) {
    if (!fiber.stack) fiber.stack = std::make_unique<char[]>(kStackBytes);
  }
  exchange.assign((block.x + 31) / 32, std::vector<uint64_t>(64));
  dynamic_bytes.assign(shared_bytes, static_cast<char>(0xcd));  // shared memory starts as rubbish
  for (blockIdx.z = 0; blockIdx.z < grid.z; ++blockIdx.z)
    for (blockIdx.y = 0; blockIdx.y < grid.y; ++blockIdx.y)
      for (blockIdx.x = 0; blockIdx.x < grid.x; ++blockIdx.x) run_block(block.x);
}

// A launch as the translation writes it: f launches, with arguments copied once.
template <class F, class... A>
void with_copies(F&& f, A... args) {
  f(args...);
}

template <class T>
T* dynamic_shared() {
  return reinterpret_cast<T*>(dynamic_bytes.data());
}

// The value of lane source(lane); its own where there is no such lane.
template <class T, class F>
T shuffle(T value, F&& source_of) {
  const unsigned me = current, lane = me % 32, warp = me / 32;
  Fiber& fiber = fibers[me];
  const int parity = fiber.parity;
  fiber.parity ^= 1;
  std::memcpy(&exchange[warp][parity * 32 + lane], &value, sizeof value);
  pause(State::kShuffle);
  const int source = source_of(static_cast<int>(lane));
  if (source < 0 || source > 31) return value;
  T result;
  std::memcpy(&result, &exchange[warp][parity * 32 + source], sizeof result);
  return result;
}

// Bit l: what lane l of the warp brought.
inline unsigned ballot(bool value) {
  const unsigned me = current, warp = me / 32;
  Fiber& fiber = fibers[me];
  uint64_t* row = &exchange[warp][fiber.parity * 32];
  fiber.parity ^= 1;
  row[me % 32] = value;
  pause(State::kShuffle);
  unsigned result = 0;
  for (unsigned l = 0; l < 32 && warp * 32 + l < fibers.size(); ++l) result |= static_cast<unsigned>(row[l] & 1) << l;
  return result;
}

}  // namespace emulation

inline unsigned __ballot_sync(unsigned, bool value) { return emulation::ballot(value); }
inline void __syncthreads() { emulation::pause(emulation::State::kBlockBarrier); }
inline void __syncwarp() { emulation::pause(emulation::State::kShuffle); }
template <class T>
T __shfl_down_sync(unsigned, T value, int offset) {
  return emulation::shuffle(value, [=](int lane) { return lane + offset; });
}
template <class T>
T __shfl_up_sync(unsigned, T value, int offset) {
  return emulation::shuffle(value, [=](int lane) { return lane - offset; });
}
template <class T>
T __shfl_xor_sync(unsigned, T value, int mask) {
  return emulation::shuffle(value, [=](int lane) { return lane ^ mask; });
}
inline bool __any_sync(unsigned mask, bool value) {
  for (int offset = 16; offset > 0; offset /= 2) value |= __shfl_xor_sync(mask, value, offset);
  return value;
}
template <class T>
T atomicAdd(T* p, T value) {
  const T old = *p;
  *p += value;
  return old;
}
// Loads that a kernel asks for by name are checked for alignment.
template <class T>
T __ldg(const T* p) {
  if (reinterpret_cast<uintptr_t>(p) % sizeof(T)) throw std::runtime_error("emulation: misaligned load");
  return *p;
}
inline unsigned __funnelshift_r(unsigned low, unsigned high, unsigned shift) {
  return static_cast<unsigned>((static_cast<uint64_t>(high) << 32 | low) >> (shift & 31));
}
inline unsigned __byte_perm(unsigned low, unsigned high, unsigned selector) {
  const uint64_t bytes = static_cast<uint64_t>(high) << 32 | low;
  unsigned result = 0;
  for (int i = 0; i < 4; ++i) result |= static_cast<unsigned>(bytes >> (selector >> 4 * i & 7) * 8 & 0xff) << 8 * i;
  return result;
}
template <class T>
T atomicMin(T* p, T value) {
  const T old = *p;
  if (value < old) *p = value;
  return old;
}
inline int __popc(unsigned x) { return __builtin_popcount(x); }
inline int __ffs(int x) { return __builtin_ffs(x); }
inline int min(int a, int b) { return a < b ? a : b; }
inline int max(int a, int b) { return a > b ? a : b; }
struct float2 {
  float x, y;
};
struct alignas(16) float4 {
  float x, y, z, w;
};
struct ushort2 {
  uint16_t x, y;
};
struct alignas(8) ushort4 {
  uint16_t x, y, z, w;
};
inline float __log2f(float x) { return std::log2(x); }
// ex2.approx errs by up to 2^-22, so this does: from the bits of x, as if at random.
inline float approximate_exp2(float x) {
  uint32_t bits;
  std::memcpy(&bits, &x, 4);
  bits = (bits ^ bits >> 15) * 0x9e3779b1u;
  const float error = static_cast<float>(static_cast<int32_t>(bits)) * 0x1p-53f;  // in [-2^-22, 2^-22]
  const float y = std::exp2(x);
  return y + y * error;
}
#define exp2f approximate_exp2
inline float __expf(float x) { return std::exp(x); }
inline float __fdiv_rn(float a, float b) { return a / b; }
inline float __fdividef(float a, float b) { return a / b; }
template <class T>
int cudaGetSymbolAddress(void** address, T& symbol) {
  *address = &symbol;
  return 0;
}

inline unsigned __float_as_uint(float x) {
  unsigned bits;
  std::memcpy(&bits, &x, 4);
  return bits;
}
inline float __uint_as_float(unsigned bits) {
  float x;
  std::memcpy(&x, &bits, 4);
  return x;
}
struct __half {
  _Float16 value;
};
inline float __half2float(__half x) { return static_cast<float>(x.value); }
inline __half __float2half_rn(float x) { return {static_cast<_Float16>(x)}; }
struct __nv_bfloat16 {
  uint16_t bits;
};
inline float __bfloat162float(__nv_bfloat16 x) {
  const uint32_t bits = static_cast<uint32_t>(x.bits) << 16;
  float value;
  std::memcpy(&value, &bits, 4);
  return value;
}
inline __nv_bfloat16 __float2bfloat16_rn(float x) {
  uint32_t bits;
  std::memcpy(&bits, &x, 4);
  if (std::isnan(x)) return {0x7fff};
  return {static_cast<uint16_t>((bits + 0x7fff + ((bits >> 16) & 1)) >> 16)};
}
struct __half2 {
  __half x, y;
};
inline __half2 __floats2half2_rn(float x, float y) { return {__float2half_rn(x), __float2half_rn(y)}; }
struct __nv_bfloat162 {
  __nv_bfloat16 x, y;
};
inline __nv_bfloat162 __floats2bfloat162_rn(float x, float y) { return {__float2bfloat16_rn(x), __float2bfloat16_rn(y)}; }
inline __half2 __hmax2(__half2 a, __half2 b) {
  const auto larger = [](__half x, __half y) { return __float2half_rn(std::fmax(__half2float(x), __half2float(y))); };
  return {larger(a.x, b.x), larger(a.y, b.y)};
}
inline __nv_bfloat162 __hmax2(__nv_bfloat162 a, __nv_bfloat162 b) {
  const auto larger = [](__nv_bfloat16 x, __nv_bfloat16 y) {
    return __float2bfloat16_rn(std::fmax(__bfloat162float(x), __bfloat162float(y)));
  };
  return {larger(a.x, b.x), larger(a.y, b.y)};
}
