#!/usr/bin/env bash
# Counts what four studies would cost on the models that datasets/configs describes, and prints a table in Markdown. Nothing is
# computed, and no weights are needed. GATELENS names the program (default: gatelens).
#
#   GATELENS=target/release/gatelens scripts/plan_on_paper.sh [NAME...]      default: all of datasets/configs
#
# Hours are operations over a rate that is assumed, not measured: --help lists what stands for it.
set -euo pipefail
cd "$(dirname "$0")/.."
exec python3 - "$@" <<'PYTHON'
import argparse, json, os, pathlib, subprocess, sys

STUDIES = ["interchange", "screen", "edges", "policy"]
CONFIGS = pathlib.Path("datasets/configs")
PROGRAM = os.environ.get("GATELENS", "gatelens")
# The most that the activations of one batch take, in bytes.
BATCH = 256 << 20

parser = argparse.ArgumentParser(prog="scripts/plan_on_paper.sh", formatter_class=argparse.ArgumentDefaultsHelpFormatter)
parser.add_argument("names", nargs="*", metavar="NAME", help="a description's name, without .json")
parser.add_argument("--pairs", type=int, default=120, help="pairs of prompts")
parser.add_argument("--tokens", type=int, default=40, help="tokens of each prompt")
parser.add_argument("--chips", type=int, default=8, help="GPUs")
parser.add_argument("--peak", type=float, default=989.0, help="peak rate of a GPU, dense bf16, TFLOP/s (an H100's)")
parser.add_argument("--share", type=float, default=0.35, help="share of that peak that is reached")
parser.add_argument("--nodes", type=int, default=40, help="machines without GPUs")
parser.add_argument("--node-rate", type=float, default=2.0, help="rate that such a machine reaches, f32, TFLOP/s")
asked = parser.parse_args()


def printed(*words):
    """What the program prints; where it fails, so does this script."""
    run = subprocess.run([PROGRAM, *words], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True)
    if run.returncode != 0:
        sys.exit(f"error: {PROGRAM} {' '.join(words)} ended with code {run.returncode}")
    return run.stdout


def counted(study, config):
    """Rows times layers, operations, bytes of weights, and of the residual streams that are held at once; of a suite's analyses
    the sums, and the most that is held."""
    data = [] if study == "policy" else ["--pairs", "demo:policy.jsonl", "--answer", "id:0", "--foil", "id:1"]
    planned = ["--max-pairs", str(asked.pairs), "--prompt-tokens", str(asked.tokens), "--dry-run"]
    how = ["--dtype", "bf16", "--device", "cpu", "--json", "--quiet"]
    entries = [json.loads(line) for line in printed(study, config, *data, *planned, *how).splitlines()]
    of = [entry["wavefront"] for entry in entries]
    rows, flops, held = (([size[what] for size in of]) for what in ("rows", "flops", "resid_bytes"))
    return sum(rows), sum(flops), entries[0]["weights"]["bytes"], max(held)


names = asked.names or [path.stem for path in CONFIGS.glob("*.json")]
configs = [str(CONFIGS / f"{name}.json") for name in names]
sizes = {config: json.loads(printed("inspect", "--config", config, "--json"))["parameters"] for config in configs}
gpus, nodes = asked.chips * asked.peak * asked.share * 1e12, asked.nodes * asked.node_rate * 1e12
titles = ["model", "weights in bf16, GB", "study", "rows x layers", "PFLOP", f"GB a GPU of {asked.chips}"]
titles += [f"hours on {asked.chips} GPUs", f"hours on {asked.nodes} machines"]
print(f"| {' | '.join(titles)} |", "|---|---:|---|---:|---:|---:|---:|---:|", sep="\n")
for config in sorted(configs, key=sizes.get):
    for study in STUDIES:
        print(f"{study}, {config}", file=sys.stderr)
        rows, flops, weights, held = counted(study, config)
        # Layers are split over the GPUs; the streams are where the layer is, with the activations of one batch.
        each = weights / asked.chips + held + BATCH
        cells = [pathlib.Path(config).stem, f"{weights / 1e9:.1f}", f"`{study}`", f"{rows:,}", f"{flops / 1e15:,.1f}", f"{each / 1e9:.1f}"]
        cells += [f"{flops / rate / 3600:,.2f}" for rate in (gpus, nodes)]
        print(f"| {' | '.join(cells)} |", flush=True)
PYTHON
