#!/usr/bin/env bash
# Builds the command `gatelens` for a system and puts it, stripped, into a folder:
#
#   scripts/build_command.sh [TARGET] [DIR]      default: x86_64-unknown-linux-musl, a command that needs no library; dist
#
# Targets of Linux are linked by zig, which pip brings in an environment of its own.
set -euo pipefail
cd "$(dirname "$0")/.."
target=${1:-x86_64-unknown-linux-musl} out=${2:-dist}
rustup target add "$target"
# A file to be downloaded is built for its size too, where that costs no time: 36 MB in place of 45. Symbols are left out by the linker.
export CARGO_PROFILE_RELEASE_STRIP=symbols CARGO_PROFILE_RELEASE_CODEGEN_UNITS=1
small=()
for crate in candle-core polars-arrow polars-compute polars-parquet; do
  small+=(--config "profile.release.package.$crate.opt-level=\"s\"")
done
case $target in
  *linux*)
    tools=$(mktemp -d)
    trap 'rm -rf "$tools"' EXIT
    python3 -m venv "$tools"
    "$tools/bin/pip" install --quiet cargo-zigbuild ziglang
    PATH="$tools/bin:$PATH" cargo zigbuild --release --locked --bin gatelens --target "$target" "${small[@]}"
    ;;
  *) cargo build --release --locked --bin gatelens --target "$target" "${small[@]}" ;;
esac
ending=
case $target in *windows*) ending=.exe ;; esac
mkdir -p "$out"
cp "${CARGO_TARGET_DIR:-target}/$target/release/gatelens$ending" "$out/gatelens-$target$ending"
ls -l "$out/gatelens-$target$ending"
