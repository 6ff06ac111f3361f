// Norms over groups of consecutive numbers, read twice (a layer norm three times, all but once from the cache) and
// written once.
//
// A team of threads takes a group: a warp where groups are narrow, as heads are, else a whole block. Sums are in f32,
// whatever the numbers are; the mean of a layer norm is taken out before anything is squared.
//
// grid: the groups, over a block's teams, rounded up; block: a multiple of 32 threads, 1024 at most. `team` is 32 or
// the block's threads.

#include "device.cuh"

enum Kind { RMS, LAYER, LAYER_WITH_BIAS };

// `groups`: all of them, of `width` numbers each; the weights are those of `weights` groups, over and over.
struct Norm { int groups, width, weights, team, kind; float eps; };

// The sum of every `x` of a team, in every thread of it. `partial` has a number for each warp.
__device__ __forceinline__ float team_sum(float x, int team, float *partial) {
  x = warp_sum(x);
  if (team == int(WARP_SIZE)) return x;
  if (threadIdx.x % WARP_SIZE == 0) partial[threadIdx.x / WARP_SIZE] = x;
  __syncthreads();
  float sum = 0.0f;
  for (unsigned w = 0; w < blockDim.x / WARP_SIZE; w++) sum += partial[w];
  // A team's next sum writes there again.
  __syncthreads();
  return sum;
}

// x and out: [groups, width]; weight and bias: [weights, width]. Where there is no bias, none is read.
template <class T>
__device__ void scale_group(const T *x, const float *weight, const float *bias, T *out, Norm norm) {
  SHARED(float, partial, 32);
  const int member = int(threadIdx.x) % norm.team, teams = int(blockDim.x) / norm.team;
  const size_t group = size_t(blockIdx.x) * teams + threadIdx.x / norm.team;
  // A whole team leaves; one that is the block is never left over, so that no barrier is missed.
  if (group >= size_t(norm.groups)) return;
  const size_t at = group * norm.width, of_weight = group % norm.weights * norm.width;
  float mean = 0.0f, square = 0.0f;
  if (norm.kind != RMS) {
    for (int i = member; i < norm.width; i += norm.team) mean += widen(x[at + i]);
    mean = team_sum(mean, norm.team, partial) / norm.width;
  }
  for (int i = member; i < norm.width; i += norm.team) {
    const float centred = widen(x[at + i]) - mean;
    square += centred * centred;
  }
  const float scale = 1.0f / sqrtf(team_sum(square, norm.team, partial) / norm.width + norm.eps);
  for (int i = member; i < norm.width; i += norm.team) {
    const float y = (widen(x[at + i]) - mean) * scale * weight[of_weight + i];
    narrow(norm.kind == LAYER_WITH_BIAS ? y + bias[of_weight + i] : y, &out[at + i]);
  }
}

#define NORM(name, T)                                                                                               \
  extern "C" __global__ void name(const T *__restrict__ x, const float *__restrict__ weight,                        \
                                  const float *__restrict__ bias, T *__restrict__ out, int groups, int width,       \
                                  int weights, int team, int kind, float eps) {                                     \
    scale_group(x, weight, bias, out, Norm{groups, width, weights, team, kind, eps});                               \
  }                                                                                                                 \
  CPU_LAUNCHER(name)

NORM(norm_f32, float)
NORM(norm_bf16, __nv_bfloat16)
NORM(norm_f16, __half)
