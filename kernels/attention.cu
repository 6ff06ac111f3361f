// Causal attention of packed rows over keys and values that are read where they lie.
//
// A tile is some consecutive query rows whose spans share their prefix. A segment is a run of consecutive key rows that a
// tile reads: a piece of the shared prefix, which all its rows see, or the own keys of one span. One block computes a
// tile's query heads of one KV head, a warp one query (row and head) at a time. Keys are taken CHUNK at a time: scores
// exist for one chunk only, the softmax is carried along (Milakov and Gimelshein 2018). Chunks that a window hides from every
// row of the tile are passed over.
//
// grid: (tiles, n_kv_heads); block: a multiple of 32 threads.
// Dynamic shared memory: 4 * (32 * (d_head | 1) + warps * (d_head + 32)) bytes. d_head is at most 256.

#include "device.cuh"

constexpr int CHUNK = 32;        // a lane scores one key of it
constexpr int COLUMNS = 256 / 32;  // numbers of z that a lane carries at most

struct Segment { int first_row, first_position, length, span; };

constexpr int EVERY_SPAN = -1;

struct Shape {
  int n_heads, n_kv_heads, d_head;
  float scale, softcap;  // softcap 0: none
  int window;            // 0: none
};

// What a warp carries of its query.
struct Carried {
  float max, total;
  float z[COLUMNS];
};

// Rows of one KV head to shared memory, as f32. An odd stride keeps the lanes' keys in different banks.
template <class T>
__device__ void load(const T *from, Segment segment, int start, int n, int kv, Shape shape, float *tile) {
  for (int i = int(threadIdx.x); i < n * shape.d_head; i += int(blockDim.x)) {
    int key = i / shape.d_head, column = i % shape.d_head;
    size_t row = size_t(segment.first_row + start + key) * shape.n_kv_heads + kv;
    tile[key * (shape.d_head | 1) + column] = widen(from[row * shape.d_head + column]);
  }
}

__device__ float score(const float *query, const float *key, Shape shape) {
  float sum = 0.0f;
  for (int i = 0; i < shape.d_head; i++) sum += query[i] * key[i];
  sum *= shape.scale;
  return shape.softcap > 0.0f ? shape.softcap * tanhf(sum / shape.softcap) : sum;
}

// Takes a chunk's scores into the softmax; leaves the chunk's weights in `weights`.
__device__ void weigh(Carried &carried, float mine, bool visible, float *weights) {
  unsigned lane = threadIdx.x % WARP_SIZE;
  float max = fmaxf(carried.max, warp_max(visible ? mine : -INFINITY));
  float weight = visible ? expf(mine - max) : 0.0f;
  float kept = carried.max == -INFINITY ? 0.0f : expf(carried.max - max);
  weights[lane] = weight;
  carried.total = carried.total * kept + warp_sum(weight);
  carried.max = max;
#pragma unroll
  for (int c = 0; c < COLUMNS; c++) carried.z[c] *= kept;
}

__device__ void read_values(Carried &carried, const float *weights, const float *tile, int n, int d_head) {
  int lane = int(threadIdx.x % WARP_SIZE);
  for (int key = 0; key < n; key++) {
    const float *value = tile + key * (d_head | 1);
#pragma unroll
    for (int c = 0; c < COLUMNS; c++) {
      int column = lane + c * int(WARP_SIZE);
      if (column < d_head) carried.z[c] += weights[key] * value[column];
    }
  }
}

// Where in a segment the first chunk begins of which a row of the tile may see a key, `least` being their first position.
__device__ int first_chunk(Segment segment, int least, Shape shape) {
  int hidden = least + 1 - shape.window - segment.first_position;
  return shape.window == 0 || hidden < 0 ? 0 : hidden / CHUNK * CHUNK;
}

template <class T>
__device__ void attend(const T *q, const T *k, const T *v, T *z, const int *tile_row, const int *tile_segment,
                       const Segment *segments, const int *row_span, const int *row_position, Shape shape) {
  DYNAMIC_SHARED(float, memory);
  const int d = shape.d_head, group = shape.n_heads / shape.n_kv_heads, kv = int(blockIdx.y);
  const int lane = int(threadIdx.x % WARP_SIZE), warp = int(threadIdx.x / WARP_SIZE);
  const int warps = int(blockDim.x / WARP_SIZE);
  float *tile = memory;
  float *query = tile + CHUNK * (d | 1) + warp * (d + CHUNK), *weights = query + d;
  const int first_row = tile_row[blockIdx.x];
  const int queries = (tile_row[blockIdx.x + 1] - first_row) * group;
  int least = row_position[first_row];
  for (int row = first_row + 1; row < tile_row[blockIdx.x + 1]; row++) least = min(least, row_position[row]);
  for (int batch = 0; batch < queries; batch += warps) {
    // Warps without a query go along, for the barriers' sake, with the last one.
    const int index = min(batch + warp, queries - 1);
    const int row = first_row + index / group, head = kv * group + index % group;
    const int span = row_span[row], position = row_position[row];
    const size_t at = (size_t(row) * shape.n_heads + head) * d;
    for (int i = lane; i < d; i += int(WARP_SIZE)) query[i] = widen(q[at + i]);
    Carried carried = {-INFINITY, 0.0f, {}};
    for (int s = tile_segment[blockIdx.x]; s < tile_segment[blockIdx.x + 1]; s++) {
      const Segment segment = segments[s];
      for (int start = first_chunk(segment, least, shape); start < segment.length; start += CHUNK) {
        const int n = min(CHUNK, segment.length - start);
        const int ahead = position - (segment.first_position + start + lane);
        const bool visible = lane < n && ahead >= 0 && (shape.window == 0 || ahead < shape.window) &&
                             (segment.span == EVERY_SPAN || segment.span == span);
        load(k, segment, start, n, kv, shape, tile);
        __syncthreads();
        weigh(carried, visible ? score(query, tile + lane * (d | 1), shape) : 0.0f, visible, weights);
        __syncthreads();
        load(v, segment, start, n, kv, shape, tile);
        __syncthreads();
        read_values(carried, weights, tile, n, d);
        __syncthreads();
      }
    }
    if (batch + warp >= queries) continue;
#pragma unroll
    for (int c = 0; c < COLUMNS; c++) {
      int column = lane + c * int(WARP_SIZE);
      if (column < d) narrow(carried.z[c] / carried.total, &z[at + column]);
    }
  }
}

#define ATTENTION(name, T)                                                                                          \
  extern "C" __global__ void name(const T *q, const T *k, const T *v, T *z, const int *tile_row,                    \
                                  const int *tile_segment, const int *segments, const int *row_span,                \
                                  const int *row_position, int n_heads, int n_kv_heads, int d_head, float scale,    \
                                  float softcap, int window) {                                                      \
    Shape shape = {n_heads, n_kv_heads, d_head, scale, softcap, window};                                            \
    const Segment *all = reinterpret_cast<const Segment *>(segments);                                               \
    attend(q, k, v, z, tile_row, tile_segment, all, row_span, row_position, shape);                                 \
  }                                                                                                                 \
  CPU_LAUNCHER(name)

ATTENTION(attention_f32, float)
ATTENTION(attention_bf16, __nv_bfloat16)
ATTENTION(attention_f16, __half)
