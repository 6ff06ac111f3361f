#!/usr/bin/env bash
# Runs every ```sh block of a tutorial in order, each by itself, from the root of the repository, and stops at the first
# that fails, or that did not print what the ```text block after it shows. The tutorial's run directories are removed first,
# so that it can be run again.
#
# The lines of a ```text block must be among those on standard output, in their order ("..." stands for any lines). Times and
# memory may differ, other numbers with decimals by two in their last place: processors sum in different orders.
#
#   scripts/run_tutorial.sh [FILE]      default: docs/first-circuit.md
set -euo pipefail
cd "$(dirname "$0")/.."
file=${1:-docs/first-circuit.md}
[ -f "$file" ] || { echo "error: $file: there is no such tutorial" >&2; exit 2; }

blocks=$(mktemp -d)
trap 'rm -rf "$blocks"' EXIT
# One file a block, named by its number and the line of its first command; beside it, NAME.text, what is shown to come of it. A
# fence of any other language is passed over.
awk -v dir="$blocks" '
  !inside && $0 == "```sh"                  { inside = 1; name = sprintf("%s/%02d:%d", dir, ++n, NR + 1); out = name; printf "" > out; next }
  !inside && $0 == "```text" && name != ""  { inside = 1; out = name ".text"; next }
  inside && $0 == "```"                     { inside = 0; close(out); next }
  inside                                    { print > out }
  END { if (inside) { print "error: a block is not closed" > "/dev/stderr"; exit 1 } }
' "$file"

# Whether what was printed (second file) has the lines that are shown (first file).
shows() {
  python3 - "$1" "$2" <<'PYTHON'
import re, sys

NUMBER = re.compile(r"[-−+]?\d+\.\d+")
MASKED = re.compile(r"\d+(\.\d+)? (s|KiB|MiB|GiB)\b")

def parts(line):
    """The words of a line, and its numbers with decimals."""
    line = MASKED.sub(r"_ \2", line)
    return NUMBER.sub("#", line).split(), NUMBER.findall(line)

def equal(shown, printed):
    (words, numbers), (found, values) = parts(shown), parts(printed)
    if words != found or len(numbers) != len(values):
        return False
    def near(a, b):
        last = 10 ** -len(a.split(".")[1])
        return abs(float(a.replace("−", "-")) - float(b.replace("−", "-"))) <= 2.5 * last
    return all(map(near, numbers, values))

shown, printed = (open(path).read().splitlines() for path in sys.argv[1:])
rest = iter(printed)
for line in shown:
    if line.strip() not in ("", "...") and not any(equal(line, other) for other in rest):
        sys.exit(f"this line is shown and was not printed, or not in this place:\n    {line}")
PYTHON
}

shopt -s nullglob
scripts=("$blocks"/*[0-9])
[ ${#scripts[@]} -gt 0 ] || { echo "error: $file has no sh blocks" >&2; exit 2; }
rm -rf runs/first-circuit runs/first-circuit.partial
for script in "${scripts[@]}"; do
  name=$(basename "$script")
  printf -- '-- %s:%s, block %d of %d\n' "$file" "${name#*:}" "$((10#${name%%:*}))" "${#scripts[@]}"
  bash -euo pipefail "$script" </dev/null | tee "$script.out" || {
    echo "error: $file:${name#*:}: block $((10#${name%%:*})) failed" >&2
    sed 's/^/    /' "$script" >&2
    exit 1
  }
  [ ! -e "$script.text" ] || shows "$script.text" "$script.out" || {
    echo "error: $file:${name#*:}: block $((10#${name%%:*})) printed something else than $file shows" >&2
    exit 1
  }
done
echo "$file: ${#scripts[@]} blocks ran"
