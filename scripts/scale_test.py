#!/usr/bin/env python3
"""How gatelens carries many pairs, long files and many run directories. Prints tables of seconds and peak memory.

    scripts/scale_test.py [--binary target/release/gatelens] [pairs] [lines] [report]      default: all three

`pairs`: an interchange of every head of 24 layers of 14 over 250 to 2,000 pairs of 60 tokens, on a small random model: what grows
with pairs is bookkeeping, which knows nothing of widths. `lines`: a dry run over 100,000 pairs. `report`: one report over 50 run
directories.
"""

import argparse
import json
import os
import pathlib
import random
import resource
import struct
import subprocess
import sys
import tempfile
import time

LAYERS, HEADS, D_HEAD, MLP, VOCAB, TOKENS = 24, 14, 8, 224, 256, 60
D = HEADS * D_HEAD
RANDOM = random.Random(0)
ALL = ["pairs", "lines", "report"]


def model(folder):
    """A random llama."""
    folder.mkdir()
    config = {"model_type": "llama", "hidden_size": D, "intermediate_size": MLP, "num_hidden_layers": LAYERS,
              "num_attention_heads": HEADS, "num_key_value_heads": HEADS, "vocab_size": VOCAB, "max_position_embeddings": 128,
              "rms_norm_eps": 1e-5, "rope_theta": 10000.0, "hidden_act": "silu", "tie_word_embeddings": True}
    (folder / "config.json").write_text(json.dumps(config))
    shapes = {"model.embed_tokens.weight": [VOCAB, D], "model.norm.weight": [D]}
    for layer in range(LAYERS):
        each = {"input_layernorm": [D], "post_attention_layernorm": [D], "mlp.gate_proj": [MLP, D], "mlp.up_proj": [MLP, D],
                "mlp.down_proj": [D, MLP]} | {f"self_attn.{p}_proj": [D, D] for p in "qkvo"}
        shapes |= {f"model.layers.{layer}.{name}.weight": shape for name, shape in each.items()}
    head, data = {}, bytearray()
    for name, shape in shapes.items():
        n = shape[0] * (shape[1] if len(shape) > 1 else 1)
        content = struct.pack(f"<{n}f", *(RANDOM.gauss(0, 0.08) if len(shape) > 1 else 1.0 for _ in range(n)))
        head[name] = {"dtype": "F32", "shape": shape, "data_offsets": [len(data), len(data) + len(content)]}
        data += content
    head = json.dumps(head).encode()
    (folder / "model.safetensors").write_bytes(struct.pack("<Q", len(head)) + head + data)
    return folder


def pairs(path, n):
    with open(path, "w") as file:
        for i in range(n):
            ids = [RANDOM.randrange(VOCAB) for _ in range(TOKENS)]
            other = ids[:-3] + [RANDOM.randrange(VOCAB) for _ in range(3)]
            line = {"id": f"pair-{i}", "group": f"group {i % 8}", "lang": ["en", "de"][i % 2], "positive": {"ids": ids},
                    "negative": {"ids": other}, "answer": [11], "foil": [23]}
            file.write(json.dumps(line) + "\n")
    return path


def run(binary, *words):
    """Seconds and peak MiB of a command."""
    started = time.monotonic()
    process = subprocess.Popen([binary, *map(str, words), "--quiet"], stdout=subprocess.PIPE, text=True)
    out = process.stdout.read()
    _, status, usage = os.wait4(process.pid, 0)
    if status != 0:
        sys.exit(f"error: {' '.join(map(str, words))} left {status}")
    return time.monotonic() - started, usage.ru_maxrss / 1024, out


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--binary", default=os.environ.get("CARGO_TARGET_DIR", "target") + "/release/gatelens")
    # Not `choices`, to which argparse holds the default of such a list as a whole.
    parser.add_argument("what", nargs="*", metavar="|".join(ALL), help="what to try; all of it by default")
    args = parser.parse_args()
    what = args.what or ALL
    for word in what:
        if word not in ALL:
            parser.error(f"{word}: not one of {', '.join(ALL)}")
    binary = str(pathlib.Path(args.binary).resolve())
    if not os.access(binary, os.X_OK):
        sys.exit(f"error: {binary} is not there: build it with `cargo build --release`, or give --binary")
    with tempfile.TemporaryDirectory() as work:
        work = pathlib.Path(work)
        small = model(work / "model")
        if "pairs" in what:
            print("| pairs | forks | seconds | peak memory, MiB |\n|---|---|---|---|")
            for n in [250, 500, 1000, 2000]:
                file, out = pairs(work / f"{n}.jsonl", n), work / f"run-{n}"
                seconds, peak, _ = run(binary, "interchange", small, "--pairs", file, "--out", out)
                forks = 2 * LAYERS * HEADS * n
                print(f"| {n:,} | {forks:,} | {seconds:.0f} | {peak:.0f} |", flush=True)
        if "lines" in what:
            file = pairs(work / "lines.jsonl", 100_000)
            seconds, peak, out = run(binary, "interchange", small, "--pairs", file, "--dry-run")
            print(f"100,000 pairs ({file.stat().st_size >> 20} MiB), dry run: {seconds:.1f} s, {peak:.0f} MiB: {out.splitlines()[0]}")
        if "report" in what:
            file, dirs = pairs(work / "few.jsonl", 4), []
            for i in range(50):
                dirs.append(work / f"dir-{i}")
                run(binary, "interchange", small, "--pairs", file, "--out", dirs[-1], "--seed", i)
            started = time.monotonic()
            done = subprocess.run([binary, "report", *dirs, "--out", work / "report"], capture_output=True, text=True)
            if done.returncode:
                sys.exit(f"error: report left {done.returncode}: {done.stderr}")
            peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
            size = sum(f.stat().st_size for f in (work / "report").rglob("*") if f.is_file()) >> 10
            print(f"a report over 50 run directories: {time.monotonic() - started:.1f} s, {size} KiB (peak of all commands {peak:.0f} MiB)")


if __name__ == "__main__":
    main()
