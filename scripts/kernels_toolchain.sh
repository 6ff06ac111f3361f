#!/usr/bin/env bash
# Brings a CUDA compiler and CUDA's libraries onto this machine from NVIDIA's Python packages (1.1 GB, no GPU and no driver needed) and
# prints where they are, for use as CUDA_HOME. Does nothing but print where they were brought before. Needs Python 3 with venv and pip.
#
#   export CUDA_HOME=$(scripts/kernels_toolchain.sh [RELEASE])
#
# RELEASE is 13.2 (the default) or 13.0.
set -euo pipefail

release=${1:-13.2}
root=${XDG_CACHE_HOME:-$HOME/.cache}/gatelens/cuda
case $release in
  # cudarc, through which candle reaches CUDA, knows releases up to 13.2.
  13.2) libraries=("nvidia-cublas==13.4.1.3" "nvidia-curand==10.4.2.*" "nvidia-cuda-cuobjdump==13.2.*" "nvidia-cuda-nvdisasm==13.2.*") ;;
  13.0) libraries=("nvidia-cublas==13.0.*" "nvidia-curand==10.4.0.*") ;;
  *)
    echo "error: CUDA $release is not brought, 13.2 and 13.0 are; set CUDA_HOME to a toolkit of it" >&2
    exit 1
    ;;
esac
packages=()
for part in cuda-nvcc nvvm cuda-crt cuda-runtime cuda-nvrtc cuda-cccl; do packages+=("nvidia-$part==$release.*"); done
packages+=("${libraries[@]}")
# Changes with the list, so that a toolchain of another list is not taken for this one.
name=$(printf '%s\n' "${packages[@]}" | sha256sum | cut -c1-12)
venv=$root/$name

home() { echo "$venv"/lib/python3*/site-packages/nvidia/cu13; }

if [ ! -e "$venv/complete" ]; then
  rm -rf "$venv"
  mkdir -p "$root"
  {
    python3 -m venv "$venv"
    "$venv/bin/python" -m pip install --quiet --disable-pip-version-check --no-deps "${packages[@]}"
  } >&2
  home=$(home)
  [ -x "$home/bin/nvcc" ] || { echo "error: the packages hold no $home/bin/nvcc" >&2; exit 1; }
  # Where nvcc and linkers look, which the packages leave out.
  ln -sfn lib "$home/lib64"
  for library in "$home"/lib/*.so.*; do
    plain=${library%%.so.*}.so
    [ -e "$plain" ] || ln -s "$(basename "$library")" "$plain"
  done
  touch "$venv/complete"
fi
home
