// Direct logit attribution of heads: what each head of a row adds along a direction of the residual stream.
//
// A head h adds W_o[:, h] z[h], so along a direction u it adds u . (W_o[:, h] z[h]) = (W_o^T u)[h] . z[h]. `through` holds
// W_o^T u, one row a direction, which one small product makes for all rows at once; what is left is one dot product of
// d_head numbers a pair and head, and [rows, heads, d_model] is never made. A pair is a row and a direction read of it.
//
// A warp takes a head. grid: (pairs, ceil(n_heads / warps)); block: a multiple of 32 threads.

#include "device.cuh"

// z: [rows, n_heads * d_head]; through: [directions, n_heads * d_head]; out: [pairs, n_heads].
template <class T>
__device__ void attribute(const T *z, const float *through, const int *pair_row, const int *pair_direction, float *out,
                          int n_heads, int d_head) {
  const int lane = int(threadIdx.x % WARP_SIZE);
  const int head = int(blockIdx.y * (blockDim.x / WARP_SIZE) + threadIdx.x / WARP_SIZE);
  // A whole warp leaves, and no barrier follows.
  if (head >= n_heads) return;
  const size_t pair = blockIdx.x;
  const T *value = z + (size_t(pair_row[pair]) * n_heads + head) * d_head;
  const float *direction = through + (size_t(pair_direction[pair]) * n_heads + head) * d_head;
  float sum = 0.0f;
  for (int i = lane; i < d_head; i += int(WARP_SIZE)) sum += widen(value[i]) * direction[i];
  sum = warp_sum(sum);
  if (lane == 0) out[pair * n_heads + head] = sum;
}

#define DLA(name, T)                                                                                                \
  extern "C" __global__ void name(const T *z, const float *through, const int *pair_row, const int *pair_direction, \
                                  float *out, int n_heads, int d_head) {                                            \
    attribute(z, through, pair_row, pair_direction, out, n_heads, d_head);                                          \
  }                                                                                                                 \
  CPU_LAUNCHER(name)

DLA(dla_f32, float)
DLA(dla_bf16, __nv_bfloat16)
DLA(dla_f16, __half)
