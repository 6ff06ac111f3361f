#!/usr/bin/env bash
# Checks gatelens on an NVIDIA GPU and measures it there (docs/kernels.md says what). The program is built here; the
# machine with the GPU needs a driver and CUDA's libraries, and neither this checkout nor a network.
#
#   scripts/gpu_check.sh prepare [--device cuda|cpu] [DIR]
#     builds the program and packs it with its data: DIR, by default dist/gpu_check (dist/gpu_check_cpu), and DIR.tar.gz
#   scripts/gpu_check.sh run [--device cuda|cpu] [WORDS]
#     runs it in under eight minutes, from the folder where this script is or from dist/; writes gpu_check.json, prints
#     a table, and leaves 1 if a stage failed. WORDS go to the program: --out FILE
#
# A driver refuses PTX of a newer nvcc than its CUDA. GATELENS_CUDA is the CUDA release of the machine with the GPU, by
# default 13.0, and CUDA_HOME a toolkit of that release; where there is none, one is brought from NVIDIA's Python
# packages. CUDA_COMPUTE_CAP is the least compute capability that the program runs on, by default 80.
set -euo pipefail
shopt -s inherit_errexit

cuda=${GATELENS_CUDA:-13.0}
here=$(cd "$(dirname "$0")" && pwd)
# The most that a pack may weigh, in bytes.
most=60000000
# Room for the weights of a 7B model in bf16, in KiB; those on the CPU are smaller.
room_gpu=16000000 room_cpu=1000000

fail() {
  echo "error: $*" >&2
  exit 1
}

# Whether a release is another one or older.
not_newer() {
  [ "$1" = "$(printf '%s\n' "$1" "$2" | sort -V | head -1)" ]
}

# A driver's library for the linker, where there is no driver: every function that cudarc names is in it, and fails.
stub_driver() {
  local version source names
  [ ! -e "$CUDA_HOME/lib64/stubs/libcuda.so" ] || return 0
  cargo fetch --locked
  version=$(grep -A1 '^name = "cudarc"$' Cargo.lock | sed -n 's/^version = "\(.*\)"$/\1/p')
  source=$(echo "${CARGO_HOME:-$HOME/.cargo}"/registry/src/*/cudarc-"$version"/src/driver/sys/mod.rs)
  [ -e "$source" ] || fail "cudarc $version is not where cargo leaves what it fetches: $source"
  names=$(grep -oE 'fn cu[A-Z][A-Za-z0-9_]*\(' "$source" | sed 's/^fn //; s/($//' | sort -u)
  [ "$(wc -l <<<"$names")" -gt 100 ] || fail "$source names too few functions of the driver"
  mkdir -p "$CUDA_HOME/lib64/stubs"
  # 34 is CUDA_ERROR_STUB_LIBRARY.
  while read -r name; do echo "int $name(void) { return 34; }"; done <<<"$names" |
    cc -shared -fPIC -Wl,-soname,libcuda.so.1 -xc -o "$CUDA_HOME/lib64/stubs/libcuda.so" -
}

# Sets up the build for a GPU, and says with which compiler.
use_cuda() {
  local release
  CUDA_HOME=${CUDA_HOME:-$(scripts/kernels_toolchain.sh "$cuda")}
  export CUDA_HOME PATH=$CUDA_HOME/bin:$PATH
  release=$(nvcc --version | sed -n 's/.*release \([0-9.]*\),.*/\1/p')
  echo "nvcc $release of $CUDA_HOME, for a machine with CUDA $cuda"
  not_newer "$release" "$cuda" ||
    fail "nvcc $release is newer than the machine's CUDA, whose driver may refuse its PTX: set CUDA_HOME to a $cuda"
  [ "${release%%.*}" = "${cuda%%.*}" ] || fail "libraries of CUDA $release have other names than those of $cuda"
  export CUDA_COMPUTE_CAP=${CUDA_COMPUTE_CAP:-80} CUDAFORGE_THREADS=${CUDAFORGE_THREADS:-2}
  export LIBRARY_PATH=$CUDA_HOME/lib64:$CUDA_HOME/lib64/stubs${LIBRARY_PATH:+:$LIBRARY_PATH}
  # A folder of its own: kernels that another compiler made are not taken for this one's.
  export CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-${XDG_CACHE_HOME:-$HOME/.cache}/gatelens/target}/cuda-$release
  stub_driver
}

# Holds the PTX within a program to the release: CUDA 13.0 has PTX 9.0, 13.1 has 9.1, and so on.
check_ptx() {
  local newest
  newest=$({ grep -aoE '^\.version [0-9]+\.[0-9]+' "$1" || true; } | sed 's/.* //' | sort -V | tail -1)
  [ -n "$newest" ] || fail "the program has no kernels in it"
  echo "PTX $newest is in the program"
  [ "${cuda%%.*}" != 13 ] || not_newer "$newest" "9.${cuda#*.}" || fail "a driver of CUDA $cuda may refuse it"
}

prepare() {
  local device=cuda dir='' features=() built folder bytes
  while [ $# -gt 0 ]; do
    case $1 in
      --device)
        device=${2:?--device needs a value}
        shift 2
        ;;
      -*) fail "$1: unknown" ;;
      *)
        dir=$1
        shift
        ;;
    esac
  done
  cd "$here/.."
  case $device in
    cuda)
      dir=${dir:-dist/gpu_check}
      features=(--no-default-features --features cuda)
      use_cuda
      ;;
    cpu) dir=${dir:-dist/gpu_check_cpu} ;;
    *) fail "$device: neither cuda nor cpu" ;;
  esac
  [ ! -e "$dir" ] || [ -x "$dir/gpu_check" ] || fail "$dir is there, and is not what an earlier prepare left"
  cargo build --release --locked --example gpu_check "${features[@]}"
  built=${CARGO_TARGET_DIR:-target}/release/examples/gpu_check
  rm -rf "$dir" "$dir.tar.gz"
  mkdir -p "$dir/data"
  strip -o "$dir/gpu_check" "$built"
  [ "$device" = cpu ] || check_ptx "$dir/gpu_check"
  for folder in tests/fixtures/*/ tests/fixtures/families/*/; do
    if [ -e "${folder}golden.safetensors" ] && [ -e "${folder}config.json" ]; then cp -r "${folder%/}" "$dir/data/"; fi
  done
  cp scripts/gpu_check.sh "$dir/"
  tar -C "$(dirname "$dir")" -czf "$dir.tar.gz" "$(basename "$dir")"
  bytes=$(stat -c %s "$dir.tar.gz")
  echo "$dir: $(du -sh "$dir" | cut -f1), $(find "$dir/data" -mindepth 1 -maxdepth 1 | wc -l) families"
  echo "$dir.tar.gz: $bytes bytes"
  [ "$bytes" -le "$most" ] || fail "$dir.tar.gz has $bytes bytes, and may have $most"
}

# Where CUDA's libraries may be: those of a toolkit, of a driver in a container, and of NVIDIA's Python packages.
libraries() {
  local place
  for place in "${CUDA_HOME:-/usr/local/cuda}"/lib64 /usr/local/cuda/lib64 /usr/local/nvidia/lib64; do
    if [ -d "$place" ]; then echo "$place"; fi
  done
  python3 - 2>/dev/null <<'PYTHON' || true
import glob, importlib.util
spec = importlib.util.find_spec("nvidia")
for place in spec.submodule_search_locations if spec else []:
    print(*sorted(glob.glob(f"{place}/*/lib")), sep="\n")
PYTHON
}

# A folder with room for the weights of random models: in memory, if that leaves as much again.
scratch_base() {
  local room=$1 place memory
  memory=$(awk '/^MemAvailable/ { print $2 }' /proc/meminfo 2>/dev/null || echo 0)
  for place in /dev/shm "${TMPDIR:-/tmp}" "$PWD"; do
    [ -d "$place" ] && [ -w "$place" ] || continue
    [ "$place" != /dev/shm ] || [ "${memory:-0}" -ge $((2 * room)) ] || continue
    if [ "$(df -Pk "$place" | awk 'END { print $4 }')" -ge "$room" ]; then
      echo "$place"
      return
    fi
  done
  fail "no folder has $room KiB of room for random weights; set TMPDIR to one that has"
}

run() {
  local device=cuda words=() dir missing status=0 base
  while [ $# -gt 0 ]; do
    case $1 in
      --device)
        device=${2:?--device needs a value}
        shift 2
        ;;
      *)
        words+=("$1")
        shift
        ;;
    esac
  done
  dir=$here
  if [ ! -x "$dir/gpu_check" ]; then
    dir=$here/../dist/gpu_check
    if [ "$device" = cpu ] && [ -x "${dir}_cpu/gpu_check" ]; then dir=${dir}_cpu; fi
  fi
  [ -x "$dir/gpu_check" ] || fail "the program is not there: scripts/gpu_check.sh prepare --device $device builds it"
  if [ "$device" != cpu ]; then
    LD_LIBRARY_PATH=${LD_LIBRARY_PATH:+$LD_LIBRARY_PATH:}$(libraries | paste -sd:)
    export LD_LIBRARY_PATH
  fi
  missing=$(ldd "$dir/gpu_check" | awk '/not found/ { print $1 }' | tr '\n' ' ')
  [ -z "$missing" ] ||
    fail "not found: ${missing% }; a build for CUDA needs a driver, and CUDA's libraries, for which set CUDA_HOME"
  base=$(scratch_base "$([ "$device" = cpu ] && echo "$room_cpu" || echo "$room_gpu")")
  scratch=$(mktemp -d "$base/gatelens.XXXXXX")
  trap 'rm -rf "$scratch"' EXIT
  # What the driver compiles is kept for the next stage.
  if [ ! -w "${HOME:-/nowhere}" ]; then export CUDA_CACHE_PATH=$scratch/cache; fi
  "$dir/gpu_check" --device "$device" --data "$dir/data" --scratch "$scratch" "${words[@]}" || status=$?
  exit "$status"
}

case ${1:-} in
  prepare) prepare "${@:2}" ;;
  run) run "${@:2}" ;;
  *)
    sed -n '2,/^set -/{/^#/s/^# \{0,1\}//p}' "$0" >&2
    exit 2
    ;;
esac
