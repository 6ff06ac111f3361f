// Edits of chosen columns of chosen rows.
//
// Edits are made in f32 on a scratch matrix that holds the rows that a list edits or copies from, and narrowed once at
// the end, as the CPU does: `widen_rows` fills it, `edit_rows` edits it, `narrow_rows` writes the edited rows back.
//
// Edits of a list count in its order. The host cuts it so that blocks need not wait for each other: a chain is the edits
// of one row, in order, that one block makes; a wave is the chains of one launch. An edit is in a later wave than the
// last one before it that changed the row which it copies, and than the last one before it that copied its row.
//
// The way back, from the gradient with respect to what a list made to that with respect to what it was given, is a list
// too: each edit's, from the last to the first. What a clamp lets through depends on what it was given, so the edits are
// made once more before, and clamps mark what was within.

#include "device.cuh"

// Rows of `x` to the scratch matrix. grid: rows of the scratch; block: any.
template <class T> __device__ void widen_each(const T *x, const int *rows, float *scratch, int width) {
  const T *row = x + size_t(rows[blockIdx.x]) * width;
  for (int i = int(threadIdx.x); i < width; i += int(blockDim.x)) {
    scratch[size_t(blockIdx.x) * width + i] = widen(row[i]);
  }
}

// Rows `from` of the scratch matrix to rows `rows` of `x`. grid: rows to write; block: any.
template <class T>
__device__ void narrow_each(const float *scratch, const int *from, const int *rows, T *x, int width) {
  const float *row = scratch + size_t(from[blockIdx.x]) * width;
  T *to = x + size_t(rows[blockIdx.x]) * width;
  for (int i = int(threadIdx.x); i < width; i += int(blockDim.x)) narrow(row[i], &to[i]);
}

enum Kind { ZERO, COPY_ROW, SET, ADD, PROJECT_OUT, SCALE, CLAMP, CLAMP_AND_MARK, KEEP_MARKED };

// `source`: the row that COPY_ROW copies; `vector`: where the edit's numbers begin, or its marks; `first_range`, `ranges`:
// its columns.
struct Edit { int kind, row, source, vector, first_range, ranges; };

// Columns `start..end`, of which the first is number `joined` of all columns of the edit.
struct Columns { int start, end, joined; };

// Calls f(column, index in the edit's columns joined) for the columns of this thread.
template <class F> __device__ void each(const Edit &edit, const Columns *ranges, F f) {
  for (int r = 0; r < edit.ranges; r++) {
    const Columns c = ranges[edit.first_range + r];
    for (int i = c.start + int(threadIdx.x); i < c.end; i += int(blockDim.x)) f(i, c.joined + i - c.start);
  }
}

// The sum of every thread's `x`, in every thread. `partial` has a number for each warp.
__device__ double block_sum(double x, double *partial) {
  x = warp_sum(x);
  if (threadIdx.x % WARP_SIZE == 0) partial[threadIdx.x / WARP_SIZE] = x;
  __syncthreads();
  double sum = 0.0;
  for (unsigned w = 0; w < blockDim.x / WARP_SIZE; w++) sum += partial[w];
  __syncthreads();
  return sum;
}

__device__ void project_out(float *row, const float *along, const Edit &edit, const Columns *ranges) {
  SHARED(double, partial, 32);
  double product = 0.0, square = 0.0;
  each(edit, ranges, [&](int i, int j) {
    product += double(row[i]) * double(along[j]);
    square += double(along[j]) * double(along[j]);
  });
  product = block_sum(product, partial);
  square = block_sum(square, partial);
  const float c = square > 0.0 ? float(product / square) : 0.0f;
  each(edit, ranges, [&](int i, int j) { row[i] = __fadd_rn(row[i], -__fmul_rn(c, along[j])); });
}

// What is no number stays so: fmaxf and fminf would make a number of it.
__device__ __forceinline__ float clamped(float x, float a, float b) { return x == x ? fminf(fmaxf(x, a), b) : x; }

// Makes one edit. Products are rounded before they are added, as on the CPU.
__device__ void make(float *scratch, int width, const Edit &edit, const Columns *ranges, const float *vectors,
                     float *marks, float a, float b) {
  float *row = scratch + size_t(edit.row) * width, *mark = marks + edit.vector;
  const float *other = scratch + size_t(edit.source) * width, *vector = vectors + edit.vector;
  switch (edit.kind) {
    case ZERO: each(edit, ranges, [&](int i, int) { row[i] = 0.0f; }); break;
    case COPY_ROW: each(edit, ranges, [&](int i, int) { row[i] = other[i]; }); break;
    case SET: each(edit, ranges, [&](int i, int j) { row[i] = vector[j]; }); break;
    case ADD: each(edit, ranges, [&](int i, int j) { row[i] = __fadd_rn(row[i], __fmul_rn(a, vector[j])); }); break;
    case PROJECT_OUT: project_out(row, vector, edit, ranges); break;
    case SCALE: each(edit, ranges, [&](int i, int) { row[i] *= a; }); break;
    case CLAMP: each(edit, ranges, [&](int i, int) { row[i] = clamped(row[i], a, b); }); break;
    case CLAMP_AND_MARK:
      each(edit, ranges, [&](int i, int j) {
        mark[j] = row[i] >= a && row[i] <= b ? 1.0f : 0.0f;
        row[i] = clamped(row[i], a, b);
      });
      break;
    case KEEP_MARKED: each(edit, ranges, [&](int i, int j) { if (mark[j] == 0.0f) row[i] = 0.0f; }); break;
  }
}

// Makes the chains of one wave. `edits` is in the order of chains; `numbers` holds two a edit (a coefficient, a clamp's
// ends). grid: the wave's chains; block: a multiple of 32 threads, 1024 at most.
extern "C" __global__ void edit_rows(float *scratch, int width, const int *chains, int first_chain, const int *edits,
                                     const float *numbers, const int *ranges, const float *vectors, float *marks) {
  const Edit *all = reinterpret_cast<const Edit *>(edits);
  const Columns *columns = reinterpret_cast<const Columns *>(ranges);
  const int chain = first_chain + int(blockIdx.x);
  for (int e = chains[chain]; e < chains[chain + 1]; e++) {
    make(scratch, width, all[e], columns, vectors, marks, numbers[2 * e], numbers[2 * e + 1]);
    // The next edit may give a column to another thread.
    __syncthreads();
  }
}
CPU_LAUNCHER(edit_rows)

#define ROWS(suffix, T)                                                                                             \
  extern "C" __global__ void widen_rows_##suffix(const T *x, const int *rows, float *scratch, int width) {     \
    widen_each(x, rows, scratch, width);                                                                            \
  }                                                                                                                 \
  CPU_LAUNCHER(widen_rows_##suffix)                                                                                 \
  extern "C" __global__ void narrow_rows_##suffix(const float *scratch, const int *from, const int *rows, \
                                                  T *x, int width) {                                                \
    narrow_each(scratch, from, rows, x, width);                                                                     \
  }                                                                                                                 \
  CPU_LAUNCHER(narrow_rows_##suffix)

ROWS(f32, float)
ROWS(bf16, __nv_bfloat16)
ROWS(f16, __half)
