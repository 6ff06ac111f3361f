// Kernels with a bug each, which the tests must see. None is ever built for a GPU.

#include "../device.cuh"

// Reverses a block's numbers: right.
extern "C" __global__ void reverse(const float *from, float *to) {
  SHARED(float, all, 1024);
  all[threadIdx.x] = from[threadIdx.x];
  __syncthreads();
  to[threadIdx.x] = all[blockDim.x - 1 - threadIdx.x];
}
CPU_LAUNCHER(reverse)

// The same without its barrier.
extern "C" __global__ void reverse_without_barrier(const float *from, float *to) {
  SHARED(float, all, 1024);
  all[threadIdx.x] = from[threadIdx.x];
  to[threadIdx.x] = all[blockDim.x - 1 - threadIdx.x];
}
CPU_LAUNCHER(reverse_without_barrier)

// Each thread takes what the one before it left: a missing barrier that goes unseen in forward order.
extern "C" __global__ void neighbour_without_barrier(const float *from, float *to) {
  SHARED(float, all, 1024);
  all[threadIdx.x] = from[threadIdx.x];
  to[threadIdx.x] = all[threadIdx.x > 0 ? threadIdx.x - 1 : 0];
}
CPU_LAUNCHER(neighbour_without_barrier)

// Writes again what other warps may still have to read: a missing barrier that shows only where a warp gets ahead.
extern "C" __global__ void overwritten_too_soon(const float *from, float *to) {
  SHARED(float, all, 1024);
  all[threadIdx.x] = from[threadIdx.x];
  __syncthreads();
  float x = __shfl_xor_sync(ALL_LANES, all[blockDim.x - 1 - threadIdx.x], 0);
  all[threadIdx.x] = -1.0f;
  to[threadIdx.x] = x;
}
CPU_LAUNCHER(overwritten_too_soon)

// Half of the threads leave before the barrier.
extern "C" __global__ void leaves_before_barrier(const float *from, float *to) {
  if (threadIdx.x >= blockDim.x / 2) return;
  __syncthreads();
  to[threadIdx.x] = from[threadIdx.x];
}
CPU_LAUNCHER(leaves_before_barrier)

// Two halves wait at two barriers.
extern "C" __global__ void two_barriers(const float *from, float *to) {
  if (threadIdx.x % 2 == 0) {
    __syncthreads();
  } else {
    __syncthreads();
  }
  to[threadIdx.x] = from[threadIdx.x];
}
CPU_LAUNCHER(two_barriers)

// One lane does not take part in a shuffle of all.
extern "C" __global__ void shuffle_without_one(const float *from, float *to) {
  float x = from[threadIdx.x];
  if (threadIdx.x != 5) x += __shfl_down_sync(ALL_LANES, x, 1);
  to[threadIdx.x] = x;
}
CPU_LAUNCHER(shuffle_without_one)

// Writes one number too many to shared memory.
extern "C" __global__ void outside_shared(const float *from, float *to) {
  SHARED(float, all, 32);
  all[threadIdx.x + 1] = from[threadIdx.x];
  __syncthreads();
  to[threadIdx.x] = all[threadIdx.x + 1];
}
CPU_LAUNCHER(outside_shared)

// The norm without the first of its two barriers, and without the second: its own source, in which each __syncthreads()
// takes a number, of which only the odd or only the even ones wait.
#pragma push_macro("__syncthreads")
#undef __syncthreads
#define __syncthreads() (__COUNTER__ % 2 == KEPT ? cuda_on_cpu::wait(cuda_on_cpu::BARRIER, __LINE__) : void())

#define KEPT 1
namespace without_first {
#define norm_f32 norm_without_first_barrier_f32
#define norm_bf16 norm_without_first_barrier_bf16
#define norm_f16 norm_without_first_barrier_f16
#include "../norm.cu"
#undef norm_f32
#undef norm_bf16
#undef norm_f16
}
#undef KEPT

#define KEPT 0
namespace without_second {
#define norm_f32 norm_without_second_barrier_f32
#define norm_bf16 norm_without_second_barrier_bf16
#define norm_f16 norm_without_second_barrier_f16
#include "../norm.cu"
}
#undef KEPT
#pragma pop_macro("__syncthreads")
