#!/usr/bin/env bash
# Holds job arrays on a real Slurm to one process, byte for byte: an analysis, the policy suite, and an experiment over two models,
# with a task that is killed, one that is requeued, and a node that is drained meanwhile.
#   scripts/check_slurm.sh [GATELENS]
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
gatelens=$(realpath "${1:-${CARGO_TARGET_DIR:-target}/release/gatelens}")
work=$(mktemp -d)
cd "$work"
# shellcheck source=scripts/slurm_cluster.sh
. "$here/slurm_cluster.sh" "$work/slurm"
# What a job still writes does not make of a check that passed one that failed.
trap 'stop_slurm || true; rm -rf "$work" || true' EXIT

cat > profile.toml <<'TOML'
cpus = 1
memory = "1GiB"
time = "0:30:00"
TOML
cat > spec.toml <<'TOML'
title = "Two models"
models = ["demo", "demo:blind"]
compare = "screen"
[defaults]
pairs = "demo:pairs.jsonl"
max_pairs = 24
[[analysis]]
command = "screen"
[[analysis]]
command = "cascade"
circuit = "run:screen/circuit.json"
models = ["demo"]
TOML
edges=(edges demo --pairs demo:pairs.jsonl --max-pairs 60)
policy=(policy demo --max-pairs 24)

submit() { # NAME WORDS...
  local name=$1
  shift
  "$gatelens" slurm --out "$name" --profile profile.toml --tasks 4 "$@"
}
# Waits until none of a run's jobs is on its way.
ended() {
  while squeue -h -o %T | grep -qE 'PENDING|RUNNING|COMPLETING|CONFIGURING|REQUEUE'; do sleep 1; done
}
job() { python3 -c "import json; print(json.load(open('$1.slurm/jobs.json'))['jobs']['$2'][-1])"; }

echo "-- one process"
"$gatelens" "${edges[@]}" --out whole-edges --quiet >/dev/null
"$gatelens" "${policy[@]}" --out whole-policy --quiet >/dev/null
"$gatelens" run spec.toml --out whole-spec --quiet >/dev/null

echo "-- arrays of four"
submit edges -- "${edges[@]}"
array=$(job edges work)
for _ in $(seq 60); do
  squeue -h -r -t RUNNING -o %i -j "$array" | grep -q . && [ -d edges.partial/.parts ] && break
  sleep 0.5
done
sleep 3
victim=$(pgrep -f -- '--out ./edges --join' | head -1)
echo "killed: process $victim"
kill -KILL "$victim"
node=$(hostname -s)
scontrol update "nodename=$node" state=drain reason=test
sleep 2
"$gatelens" status edges
scontrol update "nodename=$node" state=resume
second=$(squeue -h -r -t RUNNING -o %i -j "$array" | tail -1)
echo "requeued: task $second"
[ -z "$second" ] || scontrol requeue "$second"
submit edges -- "${edges[@]}" | tail -3
submit policy -- "${policy[@]}"
submit spec spec.toml
ended
for name in edges policy spec; do
  if [ ! -d "$name" ]; then
    echo "-- what is missing of $name"
    "$gatelens" status "$name"
    case $name in
      edges) submit edges -- "${edges[@]}" ;;
      policy) submit policy -- "${policy[@]}" ;;
      spec) submit spec spec.toml ;;
    esac
  fi
done
ended

for name in edges policy spec; do
  "$gatelens" status "$name"
  files=$(cd "whole-$name" && find . -name '*.parquet' -o -name '*.png' | sort)
  [ -n "$files" ] || exit 1
  [ "$files" = "$(cd "$name" && find . -name '*.parquet' -o -name '*.png' | sort)" ]
  for file in $files; do cmp "whole-$name/$file" "$name/$file"; done
  echo "$name: $(echo "$files" | wc -l) files, byte for byte those of one process"
done
