#!/usr/bin/env python3
"""What Python costs beside the command: a sweep by either, many forks in one plan, edits that are Python functions.

    benches/python.py MODEL PAIRS.jsonl [--command gatelens] [--rounds 5]

The sweep is `interchange` on the pairs, by the command and from Python in turn, each into a run directory of its own. Times are
those that their records have (computing, then tables, figures and reports). Prints medians, and the ratio of the sums.
"""

from __future__ import annotations

import argparse
import json
import pathlib
import statistics
import subprocess
import tempfile
import time

import gatelens as gl


def record(folder: pathlib.Path) -> tuple[float, float]:
    timings = json.loads((folder / "run.json").read_text())["timings"]
    return timings["compute_s"], timings["output_s"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("pairs")
    parser.add_argument("--command", default="gatelens")
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    model = gl.open(args.model)
    prompt = gl.read_pairs(args.pairs)[0]["positive"]
    sweep = gl.Interchange(args.pairs)
    times: dict[str, list[tuple[float, float]]] = {"command": [], "python": []}
    with tempfile.TemporaryDirectory() as scratch:
        for i in range(args.rounds):
            out = pathlib.Path(scratch)
            words = [args.command, "interchange", args.model, "--pairs", args.pairs, "--out", out / f"c{i}", "--quiet"]
            subprocess.run(words, check=True, stdout=subprocess.DEVNULL)
            times["command"].append(record(out / f"c{i}"))
            sweep.run(model, out=out / f"p{i}", progress=False)
            times["python"].append(record(out / f"p{i}"))
    medians = {by: [statistics.median(part) for part in zip(*found, strict=True)] for by, found in times.items()}
    for by, (compute, output) in medians.items():
        print(f"{by:8} computes {compute:.2f} s, writes {output:.2f} s (median of {args.rounds})")
    print(f"python / command: {sum(medians['python']) / sum(medians['command']):.3f}")

    def timed(forks: int, edit: gl.Edit | None) -> float:
        plan = model.plan()
        run = plan.prompt(prompt)
        heads = model.heads
        for i in range(forks):
            run.fork(edit or gl.z(*heads[i % len(heads)]).scale(1 / (1 + i))).entropy()
        plan.prompt(prompt).entropy()
        began = time.monotonic()
        plan.run(progress=False)
        return time.monotonic() - began

    timed(1, None)
    plain = statistics.median(timed(0, None) for _ in range(args.rounds))
    print(f"a pass over the prompt: {plain * 1000:.0f} ms")
    print(f"1,000 forks in one plan: {statistics.median(timed(1000, None) for _ in range(args.rounds)):.2f} s")
    layer = model.n_layers // 2
    place = gl.at("resid_post", layer)
    engine = statistics.median(timed(1000, place.scale(0.5)) for _ in range(args.rounds))
    function = statistics.median(timed(1000, place.map(lambda row: row * 0.5)) for _ in range(args.rounds))
    print(
        f"an edit of 1,000 rows at layer {layer}: {engine:.2f} s by the engine, {function:.2f} s by a Python function"
    )


if __name__ == "__main__":
    main()
