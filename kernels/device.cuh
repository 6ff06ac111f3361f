// What every kernel here stands on: under nvcc CUDA itself, under -DCUDA_ON_CPU its stand-in on the CPU.
#pragma once

#ifdef CUDA_ON_CPU
#include "cpu/cuda_on_cpu.h"
#else
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#define SHARED(T, name, n) __shared__ T name[n]
#define DYNAMIC_SHARED(T, name)                   \
  extern __shared__ __align__(16) char dynamic_shared[]; \
  T *name = reinterpret_cast<T *>(dynamic_shared)
#define CPU_LAUNCHER(kernel)
#endif

constexpr unsigned WARP_SIZE = 32;
constexpr unsigned ALL_LANES = 0xffffffffu;

__device__ __forceinline__ float widen(float x) { return x; }
__device__ __forceinline__ float widen(__nv_bfloat16 x) { return __bfloat162float(x); }
__device__ __forceinline__ float widen(__half x) { return __half2float(x); }

__device__ __forceinline__ void narrow(float x, float *to) { *to = x; }
__device__ __forceinline__ void narrow(float x, __nv_bfloat16 *to) { *to = __float2bfloat16(x); }
__device__ __forceinline__ void narrow(float x, __half *to) { *to = __float2half(x); }

// The sum over a warp's lanes, in every lane.
template <class T> __device__ __forceinline__ T warp_sum(T x) {
  for (unsigned by = WARP_SIZE / 2; by > 0; by /= 2) x += __shfl_xor_sync(ALL_LANES, x, by);
  return x;
}

__device__ __forceinline__ float warp_max(float x) {
  for (unsigned by = WARP_SIZE / 2; by > 0; by /= 2) x = fmaxf(x, __shfl_xor_sync(ALL_LANES, x, by));
  return x;
}
