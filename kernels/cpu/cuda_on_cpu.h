// Runs a CUDA kernel on the CPU, one fiber for each CUDA thread, to test what it computes where no GPU is.
//
// A thread runs until it reaches a barrier or a shuffle; the order in which threads run is the caller's, so that a
// kernel that lacks a barrier is wrong in some order. Shared memory starts as NaN and is followed by a guard. Not
// modelled: races on global memory, limits of a launch, speed.
#pragma once

#include <math.h>
#include <ucontext.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <map>
#include <memory>
#include <random>
#include <utility>
#include <vector>

#include "half.h"

#define __global__
#define __device__
#define __forceinline__ inline
#define __restrict__ __restrict

namespace cuda_on_cpu {

struct Dim { unsigned x, y, z; };

// What a launch returns.
enum Code { OK = 0, DIVERGENT_BARRIER = 1, DIVERGENT_SHUFFLE = 2, OUTSIDE_SHARED = 3 };

enum Wait { READY, BARRIER, SHUFFLE, DONE };

struct Thread {
  ucontext_t context;
  std::unique_ptr<char[]> stack;
  Dim index;
  Wait wait;
  int site;                   // the line at which it waits
  unsigned source;            // the lane that a shuffle takes from
  unsigned char value[8];     // what it gives to a shuffle, then what it got
};

constexpr size_t STACK = 1 << 16, GUARD = 64, WARP = 32;

struct State {
  Dim grid, block, block_index;
  std::vector<Thread> threads;
  unsigned current;
  ucontext_t scheduler;
  void (*call)(void *);
  void *kernel;
  std::map<int, std::vector<unsigned char>> shared;  // by line; -1 is the dynamic one
};

inline thread_local State *state;

inline Thread &self() { return state->threads[state->current]; }

inline void wait(Wait why, int site) {
  Thread &t = self();
  t.wait = why;
  t.site = site;
  swapcontext(&t.context, &state->scheduler);
}

// A block's shared array, made by the first thread that asks.
template <class T> T *shared(int site, size_t n) {
  auto &bytes = state->shared[site];
  if (bytes.empty()) bytes.assign(n * sizeof(T) + GUARD, 0xff);
  return reinterpret_cast<T *>(bytes.data());
}

template <class T> T shuffle(unsigned, T value, unsigned source, int site) {
  static_assert(sizeof(T) <= 8, "a shuffle moves 4 or 8 bytes");
  Thread &t = self();
  std::memcpy(t.value, &value, sizeof(T));
  t.source = source < WARP ? source : state->current % WARP;
  wait(SHUFFLE, site);
  std::memcpy(&value, self().value, sizeof(T));
  return value;
}

inline void enter() {
  state->call(state->kernel);
  self().wait = DONE;
  swapcontext(&self().context, &state->scheduler);
}

inline void start_block() {
  State &s = *state;
  for (unsigned i = 0; i < s.threads.size(); i++) {
    Thread &t = s.threads[i];
    if (!t.stack) t.stack.reset(new char[STACK]);
    t.index = {i % s.block.x, i / s.block.x % s.block.y, i / s.block.x / s.block.y};
    t.wait = READY;
    getcontext(&t.context);
    t.context.uc_stack.ss_sp = t.stack.get();
    t.context.uc_stack.ss_size = STACK;
    t.context.uc_link = nullptr;
    makecontext(&t.context, enter, 0);
  }
}

// Lets a warp on whose threads all wait at one shuffle. Whether there was one to let on; `code` says what is wrong.
inline bool finish_shuffle(size_t first, Code &code) {
  auto &threads = state->threads;
  size_t end = std::min(first + WARP, threads.size());
  bool any = false, all = true;
  for (size_t i = first; i < end; i++) {
    bool here = threads[i].wait == SHUFFLE;
    any |= here;
    all &= here && threads[i].site == threads[first].site;
  }
  if (any && !all) code = DIVERGENT_SHUFFLE;
  if (!any || !all) return false;
  unsigned char given[WARP][8];
  std::memset(given, 0xff, sizeof given);  // a lane that does not exist gives NaN
  for (size_t i = first; i < end; i++) std::memcpy(given[i - first], threads[i].value, 8);
  for (size_t i = first; i < end; i++) {
    std::memcpy(threads[i].value, given[threads[i].source], 8);
    threads[i].wait = READY;
  }
  return true;
}

// Called when no thread is ready: lets on those that have met. OK with none ready means that all are done.
inline Code meet() {
  auto &threads = state->threads;
  Code code = OK;
  bool moved = false;
  for (size_t first = 0; first < threads.size(); first += WARP) moved |= finish_shuffle(first, code);
  if (code != OK || moved) return code;
  if (std::all_of(threads.begin(), threads.end(), [](const Thread &t) { return t.wait == DONE; })) return OK;
  for (Thread &t : threads) {
    if (t.wait != BARRIER || t.site != threads[0].site) return DIVERGENT_BARRIER;
  }
  for (Thread &t : threads) t.wait = READY;
  return OK;
}

// Order 0 is forward, 1 reverse, and all warps meet at each shuffle; any other seeds an order, another one after each
// barrier, in which every warp gets as far ahead of the others as it can.
struct Order {
  uint64_t order;
  std::mt19937_64 random{order};
  std::vector<unsigned> of(size_t n) {
    std::vector<unsigned> all(n);
    for (size_t i = 0; i < n; i++) all[i] = unsigned(order == 1 ? n - 1 - i : i);
    if (order > 1) std::shuffle(all.begin(), all.end(), random);
    return all;
  }
};

inline bool run_if_ready(unsigned i) {
  State &s = *state;
  if (s.threads[i].wait != READY) return false;
  s.current = i;
  swapcontext(&s.scheduler, &s.threads[i].context);
  return true;
}

// Runs a warp until all its threads wait at barriers or are done.
inline bool run_ahead(Order &order, size_t first, Code &code) {
  bool ran = false;
  size_t n = std::min(WARP, state->threads.size() - first);
  do {
    for (unsigned i : order.of(n)) ran |= run_if_ready(unsigned(first) + i);
  } while (code == OK && finish_shuffle(first, code));
  return ran;
}

inline Code run_block(Order &order) {
  State &s = *state;
  for (auto &array : s.shared) std::fill(array.second.begin(), array.second.end(), 0xff);
  start_block();
  for (bool ran = true; ran;) {
    ran = false;
    Code code = OK;
    if (order.order > 1) {
      for (unsigned w : order.of((s.threads.size() + WARP - 1) / WARP)) ran |= run_ahead(order, w * WARP, code);
    } else {
      for (unsigned i : order.of(s.threads.size())) ran |= run_if_ready(i);
    }
    if (code != OK) return code;
    if (Code code = meet()) return code;
  }
  for (auto &array : s.shared) {
    auto end = array.second.end();
    if (std::any_of(end - GUARD, end, [](unsigned char b) { return b != 0xff; })) return OUTSIDE_SHARED;
  }
  return OK;
}

// As cuLaunchKernel: `args[i]` points to the i-th argument.
template <class... A, size_t... I>
int launch(void (*kernel)(A...), const unsigned *grid, const unsigned *block, size_t bytes, uint64_t order, void **args,
           std::index_sequence<I...>) {
  auto call = [&] { kernel(*static_cast<A *>(args[I])...); };
  State s{};
  s.grid = {grid[0], grid[1], grid[2]};
  s.block = {block[0], block[1], block[2]};
  s.threads.resize(size_t(block[0]) * block[1] * block[2]);
  s.kernel = &call;
  s.call = [](void *f) { (*static_cast<decltype(call) *>(f))(); };
  s.shared[-1].assign(bytes + GUARD, 0xff);
  state = &s;
  Order in{order};
  for (unsigned b : in.of(size_t(grid[0]) * grid[1] * grid[2])) {
    s.block_index = {b % grid[0], b / grid[0] % grid[1], b / grid[0] / grid[1]};
    if (Code code = run_block(in)) return code;
  }
  return OK;
}

template <class... A>
int launch(void (*kernel)(A...), const unsigned *grid, const unsigned *block, size_t bytes, uint64_t order, void **args) {
  return launch(kernel, grid, block, bytes, order, args, std::index_sequence_for<A...>{});
}

}  // namespace cuda_on_cpu

#define threadIdx (cuda_on_cpu::self().index)
#define blockIdx (cuda_on_cpu::state->block_index)
#define blockDim (cuda_on_cpu::state->block)
#define gridDim (cuda_on_cpu::state->grid)
#define __syncthreads() cuda_on_cpu::wait(cuda_on_cpu::BARRIER, __LINE__)
#define __shfl_sync(mask, value, lane) cuda_on_cpu::shuffle(mask, value, lane, __LINE__)
#define __shfl_xor_sync(mask, value, by) \
  cuda_on_cpu::shuffle(mask, value, (cuda_on_cpu::state->current % 32) ^ (by), __LINE__)
#define __shfl_down_sync(mask, value, by) \
  cuda_on_cpu::shuffle(mask, value, (cuda_on_cpu::state->current % 32) + (by), __LINE__)

using std::min;

inline float __fadd_rn(float a, float b) { return a + b; }
inline float __fmul_rn(float a, float b) { return a * b; }

#define SHARED(T, name, n) T *name = cuda_on_cpu::shared<T>(__LINE__, n)
#define DYNAMIC_SHARED(T, name) T *name = cuda_on_cpu::shared<T>(-1, 0)
#define CPU_LAUNCHER(kernel)                                                                                    \
  extern "C" int cpu_##kernel(const unsigned *grid, const unsigned *block, size_t shared, uint64_t order,      \
                              void **args) {                                                                    \
    return cuda_on_cpu::launch(kernel, grid, block, shared, order, args);                                      \
  }
