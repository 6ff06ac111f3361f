#!/usr/bin/env bash
# Type-checks the build with --features cuda, and compiles kernels/ for it, where no GPU and no driver need be. Brings the
# compiler if need be. From nothing it takes about 15 minutes on two cores, nearly all of them candle's own kernels.
set -euo pipefail
cd "$(dirname "$0")/.."

export CUDA_HOME=${CUDA_HOME:-$(scripts/kernels_toolchain.sh)}
export PATH=$CUDA_HOME/bin:$PATH LIBRARY_PATH=$CUDA_HOME/lib
# There is no GPU to ask for its generation.
export CUDA_COMPUTE_CAP=${CUDA_COMPUTE_CAP:-80} CUDAFORGE_THREADS=${CUDAFORGE_THREADS:-2}
export CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-${XDG_CACHE_HOME:-$HOME/.cache}/gatelens/target}/cuda
cargo clippy --features cuda --locked -- -D warnings
