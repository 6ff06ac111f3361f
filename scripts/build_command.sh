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
# Symbols are left out by the linker: no strip of the target's is needed.
export CARGO_PROFILE_RELEASE_STRIP=symbols
case $target in
  *linux*)
    tools=$(mktemp -d)
    trap 'rm -rf "$tools"' EXIT
    python3 -m venv "$tools"
    "$tools/bin/pip" install --quiet cargo-zigbuild ziglang
    PATH="$tools/bin:$PATH" cargo zigbuild --release --locked --bin gatelens --target "$target"
    ;;
  *) cargo build --release --locked --bin gatelens --target "$target" ;;
esac
ending=
case $target in *windows*) ending=.exe ;; esac
mkdir -p "$out"
cp "${CARGO_TARGET_DIR:-target}/$target/release/gatelens$ending" "$out/gatelens-$target$ending"
ls -l "$out/gatelens-$target$ending"
