#!/usr/bin/env python3
"""Whether two builds of gatelens leave the same tables, byte for byte.

  scripts/same_tables.py OLD_BINARY NEW_BINARY [--real SMOLLM2.gguf] [--keep DIR]

Runs every analysis with either build on the demo and on its variant without a gate, `policy` on the demo and, with --real, the
IOI pairs on a real model; then compares every table and every file that is not of one build alone. A table's own documentation is
left out of the comparison (the key-value metadata of a Parquet file), its values, types, names and order are not.
"""
import argparse, hashlib, pathlib, subprocess, sys, tempfile, time

PAIRS, PROMPTS = ["--pairs", "demo:pairs.jsonl"], ["--prompts", "demo:prompts.jsonl"]
RUNS = {
    "interchange": ["interchange", "MODEL", *PAIRS],
    "interchange-all": ["interchange", "MODEL", *PAIRS, "--site", "resid_pre", "--position", "all", "--align"],
    "interchange-estimate": ["interchange", "MODEL", *PAIRS, "--estimate", "gradient", "--exact", "6"],
    "screen": ["screen", "MODEL", *PAIRS, "--candidates", "6", "--sample", "4"],
    "ablate": ["ablate", "MODEL", *PROMPTS, "--mode", "zero,mean,resample", "--draws", "3"],
    "ablate-mlp": ["ablate", "MODEL", *PROMPTS, "--site", "mlp_out"],
    "dla": ["dla", "MODEL", *PROMPTS],
    "contrast-methods": ["contrast-methods", "MODEL", *PAIRS, "--direct", "4"],
    "cascade": ["cascade", "MODEL", *PAIRS, "--gate", "L3.H5"],
    "commitment": ["commitment", "MODEL", *PAIRS],
    "modulate": ["modulate", "MODEL", *PAIRS, "--layer", "3", "--generate", "4", "--generate-pairs", "4"],
    "cipher": ["cipher", "MODEL", *PAIRS, "--gate", "L3.H5", "--cipher", "demo:cipher.jsonl", "--generate", "4"],
    "contrast": ["contrast", "MODEL", *PAIRS, "--cipher", "demo:cipher.jsonl"],
    "cav": ["cav", "MODEL", "--concept", "demo:concept.jsonl", "--random", "demo:random.jsonl", "--class", "demo:prompts.jsonl", "--method", "mean,logistic"],
    "steer": ["steer", "MODEL", *PROMPTS, "--from", "caa", *PAIRS, "--layer", "3", "--coefficients", "-2:2:5", "--generate", "4", "--ablate"],
    "steer-select": ["steer", "MODEL", *PROMPTS, "--from", "mean", *PAIRS, "--select", "2", "--controls", "4"],
    "steer-gcav": ["steer", "MODEL", *PROMPTS, "--from", "cav", *PAIRS, "--layer", "3", "--gcav", "0.9", "--controls", "2"],
    "behaviour": ["behaviour", "MODEL", *PAIRS, "--generate", "6"],
}
REAL = {
    "ioi": ["interchange", "MODEL", "--pairs", "ioi.jsonl"],
    "ioi-methods": ["contrast-methods", "MODEL", "--pairs", "ioi.jsonl", "--direct", "4"],
}
# What names the build, the machine or the time.
OF_THE_RUN = {"run.json", "report.md", "report.html", "tables.tex", "params.json"}


def columns(path):
    """A table's bytes without its key-value metadata: its footer is Thrift, and polars reads it well enough for values and types."""
    try:
        import polars
    except ImportError:
        return path.read_bytes()
    frame = polars.read_parquet(path)
    return repr((frame.schema, frame.height)).encode() + frame.write_ipc(None, compression="uncompressed").getvalue()


def left(binary, models, keep, which, ioi):
    found = {}
    for model, name in models:
        runs = REAL if name == "real" else {**RUNS, **({"policy": ["policy", "MODEL"]} if model == "demo" else {})}
        for run, words in runs.items():
            out = keep / which / f"{name}-{run}"
            words = [str(model) if w == "MODEL" else str(ioi) if w == "ioi.jsonl" else w for w in words]
            started = time.time()
            done = subprocess.run([binary, *words, "--out", out, "--quiet"], capture_output=True, text=True)
            print(f"{which} {name} {run}: {time.time() - started:.1f} s, exit code {done.returncode}", flush=True)
            found[f"{name}-{run}: exit code"] = done.returncode
            if done.returncode:
                found[f"{name}-{run}: message"] = done.stderr.strip().splitlines()[-1:]
            for path in sorted(out.rglob("*")) if out.is_dir() else []:
                at = f"{name}-{run}/{path.relative_to(out)}"
                if path.suffix == ".parquet":
                    found[at] = hashlib.sha256(columns(path)).hexdigest()
                elif path.suffix in (".safetensors", ".json") and path.name not in OF_THE_RUN:
                    found[at] = hashlib.sha256(path.read_bytes()).hexdigest()
    return found


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("old"), parser.add_argument("new"), parser.add_argument("--real"), parser.add_argument("--keep")
    args = parser.parse_args()
    ioi = pathlib.Path(__file__).resolve().parent.parent / "datasets" / "ioi.jsonl"
    models = [("demo", "demo"), ("demo:blind", "blind")] + ([(args.real, "real")] if args.real else [])
    with tempfile.TemporaryDirectory() as scratch:
        keep = pathlib.Path(args.keep or scratch)
        old, new = (left(binary, models, keep, which, ioi) for binary, which in [(args.old, "old"), (args.new, "new")])
    differ = sorted(name for name in old.keys() | new.keys() if old.get(name) != new.get(name))
    for name in differ:
        print(f"differs: {name}: {old.get(name)} was, {new.get(name)} is")
    print(f"{len(old.keys() | new.keys()) - len(differ)} of {len(old.keys() | new.keys())} are the same")
    sys.exit(bool(differ))


if __name__ == "__main__":
    main()
