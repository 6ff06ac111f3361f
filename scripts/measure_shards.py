#!/usr/bin/env python3
"""What it costs in processor time to share a run: all shards together, against one process.

    scripts/measure_shards.py MODEL PAIRS [--gatelens target/release/gatelens] [--shards 4] [--threads 2] -- FLAGS OF interchange

Shards run one after another, each as one process does, so that they do not disturb one another. Loading the model is counted, once
a process. At the end the shards are gathered, and the tables compared byte for byte.
"""

from __future__ import annotations

import argparse
import filecmp
import os
import resource
import subprocess
import tempfile
from pathlib import Path


def processor_time(words: list[str], threads: int) -> float:
    """Seconds of processor time that a command takes, of all its threads."""
    used = lambda: sum(resource.getrusage(resource.RUSAGE_CHILDREN)[:2])  # noqa: E731
    before = used()
    subprocess.run(words, check=True, stdout=subprocess.DEVNULL, env={**os.environ, "RAYON_NUM_THREADS": str(threads)})
    return used() - before


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("pairs")
    parser.add_argument("--gatelens", default="target/release/gatelens")
    parser.add_argument("--shards", type=int, default=4)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("flags", nargs="*")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        words = [asked.gatelens, "interchange", asked.model, "--pairs", asked.pairs, "--quiet", *asked.flags, "--out"]
        at = lambda name: str(Path(folder) / name)  # noqa: E731
        shards = [f"{i}/{asked.shards}" for i in range(1, asked.shards + 1)]
        names = [at(f"shard-{i + 1}") for i in range(asked.shards)]
        whole = processor_time([*words, at("whole")], asked.threads)
        each = [
            processor_time([*words, name, f"--shard={shard}"], asked.threads) for name, shard in zip(names, shards, strict=True)
        ]
        gather = processor_time([asked.gatelens, "gather", *names, "--out", at("gathered")], asked.threads)
        tables = sorted(path.name for path in Path(at("whole")).glob("*.parquet"))
        _, differ, missing = filecmp.cmpfiles(at("whole"), at("gathered"), tables, shallow=False)
    print("| | processor time, s |\n|---|---:|")
    print(f"| one process | {whole:.0f} |")
    print(f"| {asked.shards} shards | {' + '.join(f'{s:.0f}' for s in each)} = {sum(each):.0f} |")
    print(f"| gathering them | {gather:.1f} |")
    print(f"\nshards / one process: {sum(each) / whole:.3f}; with gathering {(sum(each) + gather) / whole:.3f}")
    print(f"{len(tables)} tables, {len(differ) + len(missing)} of them not the same")
    if differ or missing:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
