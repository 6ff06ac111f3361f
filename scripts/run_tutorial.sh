#!/usr/bin/env bash
# Runs every ```sh block of a tutorial in order, each by itself, from the root of the repository, and stops at the first
# that fails. The tutorial's run directories are removed first, so that it can be run again.
#
#   scripts/run_tutorial.sh [FILE]      default: docs/first-circuit.md
set -euo pipefail
cd "$(dirname "$0")/.."
file=${1:-docs/first-circuit.md}
[ -f "$file" ] || { echo "error: $file: there is no such tutorial" >&2; exit 2; }

blocks=$(mktemp -d)
trap 'rm -rf "$blocks"' EXIT
# One file a block, named by its number and the line of its first command. A fence of any other language is passed over.
awk -v dir="$blocks" '
  !inside && $0 == "```sh" { inside = 1; out = sprintf("%s/%02d:%d", dir, ++n, NR + 1); printf "" > out; next }
  inside && $0 == "```"    { inside = 0; close(out); next }
  inside                   { print > out }
  END { if (inside) { print "error: a block is not closed" > "/dev/stderr"; exit 1 } }
' "$file"

shopt -s nullglob
scripts=("$blocks"/*)
[ ${#scripts[@]} -gt 0 ] || { echo "error: $file has no sh blocks" >&2; exit 2; }
rm -rf runs/first-circuit runs/first-circuit.partial
for script in "${scripts[@]}"; do
  name=$(basename "$script")
  printf -- '-- %s:%s, block %d of %d\n' "$file" "${name#*:}" "$((10#${name%%:*}))" "${#scripts[@]}"
  bash -euo pipefail "$script" </dev/null || {
    echo "error: $file:${name#*:}: block $((10#${name%%:*})) failed" >&2
    sed 's/^/    /' "$script" >&2
    exit 1
  }
done
echo "$file: ${#scripts[@]} blocks ran"
