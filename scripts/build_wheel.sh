#!/usr/bin/env bash
# Builds a wheel for Linux that holds to manylinux_2_28, and checks that it does:
#
#   scripts/build_wheel.sh [DIR]      default: dist
#
# The tools come by pip into an environment of their own. zig links against the older C library, so everything is built once more.
set -euo pipefail
cd "$(dirname "$0")/.."
out=${1:-dist}
tools=$(mktemp -d)
trap 'rm -rf "$tools"' EXIT
python3 -m venv "$tools"
"$tools/bin/pip" install --quiet "maturin>=1.9,<2" ziglang auditwheel
PATH="$tools/bin:$PATH" maturin build --release --locked --zig --compatibility manylinux_2_28 --out "$out"
wheel=$(ls -t "$out"/gatelens-*manylinux_2_28*.whl | head -1)
"$tools/bin/auditwheel" show "$wheel" | tr '\n' ' ' | grep -o 'consistent with the following platform tag: "manylinux_2_28_[a-z0-9_]*"'
ls -l "$wheel"
