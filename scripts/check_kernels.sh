#!/usr/bin/env bash
# Compiles kernels/ to PTX and to machine code for two generations of GPUs, where no GPU need be; fails if a kernel keeps
# registers in memory (spills), or if the table in docs/kernels.md is not what came out. Brings the compiler if need be.
# Registers are the compiler's choice: with one of another release than the table's (CUDA_HOME), spills alone are checked.
#
#   scripts/check_kernels.sh            check
#   scripts/check_kernels.sh --write    put the table that came out into docs/kernels.md
set -euo pipefail
cd "$(dirname "$0")/.."

CUDA_HOME=${CUDA_HOME:-$(scripts/kernels_toolchain.sh)}
export PATH=$CUDA_HOME/bin:$PATH
"$CUDA_HOME/bin/nvcc" --version | tail -2
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

for sm in 80 90; do
  for file in attention edit dla norm; do
    nvcc --ptx --std=c++17 -O3 -arch=compute_$sm -o "$work/$file.$sm.ptx" "kernels/$file.cu"
    ptxas -v -arch=sm_$sm -o "$work/$file.$sm.cubin" "$work/$file.$sm.ptx" 2>"$work/$file.$sm.log" ||
      { cat "$work/$file.$sm.log" >&2; exit 1; }
  done
done

release=$(nvcc --version | sed -n 's/.*release \([0-9.]*\),.*/\1/p')
python3 - "$work" "$release" "${1:-}" <<'PYTHON'
import pathlib, re, sys

work, release, write = pathlib.Path(sys.argv[1]), sys.argv[2], sys.argv[3] == "--write"
# The release of scripts/kernels_toolchain.sh, which docs/kernels.md names beside its table.
TABLE = "13.2"
used, spills = {}, []
for log in sorted(work.glob("*.log")):
    file, sm = log.stem.split(".")
    text = log.read_text()
    for part in re.split(r"(?=ptxas info\s+: Compiling entry function)", text)[1:]:
        name = re.search(r"function '(\w+)'", part)[1]
        stack, stores, loads = map(int, re.search(r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads", part).groups())
        registers = int(re.search(r"Used (\d+) registers", part)[1])
        shared = int((re.search(r"(\d+) bytes smem", part) or [0, 0])[1])
        used.setdefault((file, name), {})[sm] = (registers, shared)
        if stores or loads:
            spills.append(f"kernels/{file}.cu: {name} for sm_{sm} spills {stores} bytes")
if len(used) < 10:
    sys.exit(f"error: {len(used)} kernels came out; the output of ptxas is not understood")
lines = ["| Kernel | Registers, sm_80 | Registers, sm_90 | Static shared memory, bytes |", "|---|---|---|---|"]
for (file, name), by in used.items():
    lines.append(f"| `{name}` | {by['80'][0]} | {by['90'][0]} | {by['80'][1]} |")
print("\n".join(lines))
if spills:
    sys.exit("error: " + "; ".join(spills))
print(f"{len(used)} kernels, PTX and machine code for sm_80 and sm_90, no spills")
if release != TABLE:
    why = f"the table in docs/kernels.md is that of nvcc {TABLE}, and this is {release}; unset CUDA_HOME to bring {TABLE}"
    if write:
        sys.exit(f"error: {why}")
    print(f"NOT COMPARED: {why}")
    sys.exit()
page = pathlib.Path("docs/kernels.md")
text, begin, end = page.read_text(), "<!-- scripts/check_kernels.sh -->\n", "<!-- end -->"
before, rest = text.split(begin)
old, after = rest.split(end)
table = "\n".join(lines) + "\n"
if write:
    page.write_text(before + begin + table + end + after)
elif old != table:
    sys.exit("error: docs/kernels.md has another table; run scripts/check_kernels.sh --write")
PYTHON
