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

// Kernels without one of their barriers: their own source again, in which each __syncthreads() takes a number, counted from 1.
#pragma push_macro("__syncthreads")
#undef __syncthreads
#define __syncthreads() (__COUNTER__ - BEFORE == LEFT_OUT ? void() : cuda_on_cpu::wait(cuda_on_cpu::BARRIER, __LINE__))
#define JOINED_(name, number, of) name##number##of
#define JOINED(name, number, of) JOINED_(name, number, of)

// The norm has two: what warps leave for each other, and before that is left again.
#define norm_f32 JOINED(norm_without_barrier_, LEFT_OUT, _f32)
#define norm_bf16 JOINED(norm_without_barrier_, LEFT_OUT, _bf16)
#define norm_f16 JOINED(norm_without_barrier_, LEFT_OUT, _f16)

#define LEFT_OUT 1
namespace norm_1 {
enum { BEFORE = __COUNTER__ };
#include "../norm.cu"
}
#undef LEFT_OUT

#define LEFT_OUT 2
namespace norm_2 {
enum { BEFORE = __COUNTER__ };
#include "../norm.cu"
}
#undef LEFT_OUT

// The edits have three: the same two in a sum, and one between the edits of a chain.
#define edit_rows JOINED(edit_rows_without_barrier_, LEFT_OUT, )
#define cpu_edit_rows JOINED(cpu_edit_rows_without_barrier_, LEFT_OUT, )
// What has no barrier needs other names too.
#define widen_rows_f32 JOINED(widen_rows_f32_, LEFT_OUT, )
#define cpu_widen_rows_f32 JOINED(cpu_widen_rows_f32_, LEFT_OUT, )
#define widen_rows_bf16 JOINED(widen_rows_bf16_, LEFT_OUT, )
#define cpu_widen_rows_bf16 JOINED(cpu_widen_rows_bf16_, LEFT_OUT, )
#define widen_rows_f16 JOINED(widen_rows_f16_, LEFT_OUT, )
#define cpu_widen_rows_f16 JOINED(cpu_widen_rows_f16_, LEFT_OUT, )
#define narrow_rows_f32 JOINED(narrow_rows_f32_, LEFT_OUT, )
#define cpu_narrow_rows_f32 JOINED(cpu_narrow_rows_f32_, LEFT_OUT, )
#define narrow_rows_bf16 JOINED(narrow_rows_bf16_, LEFT_OUT, )
#define cpu_narrow_rows_bf16 JOINED(cpu_narrow_rows_bf16_, LEFT_OUT, )
#define narrow_rows_f16 JOINED(narrow_rows_f16_, LEFT_OUT, )
#define cpu_narrow_rows_f16 JOINED(cpu_narrow_rows_f16_, LEFT_OUT, )

#define LEFT_OUT 1
namespace edits_1 {
enum { BEFORE = __COUNTER__ };
#include "../edit.cu"
}
#undef LEFT_OUT
#undef ROWS

#define LEFT_OUT 2
namespace edits_2 {
enum { BEFORE = __COUNTER__ };
#include "../edit.cu"
}
#undef LEFT_OUT
#undef ROWS

#define LEFT_OUT 3
namespace edits_3 {
enum { BEFORE = __COUNTER__ };
#include "../edit.cu"
}
#undef LEFT_OUT
#undef ROWS
#pragma pop_macro("__syncthreads")
