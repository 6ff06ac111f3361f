"""Greedy generation beside transformers, in one run: f32, the same threads, the same prompts, one alone and forty together.

    python3 -m venv peers && peers/bin/pip install -r benches/peers/requirements.txt
    peers/bin/python benches/peers/to_folder.py models/smollm2.gguf models/smollm2
    peers/bin/python benches/peers/generation.py models/smollm2 [--threads 2] [--turns 3]

Both read the same folder. The two take turns, each turn in a process of its own; a rate is the median of a turn's calls, and the ratio
that of the medians over turns. `same` counts the prompts whose 128 new tokens are equal. transformers pads forty prompts on the left,
which rounds otherwise, so a text may part where two tokens are equally likely to seven digits; gatelens' rows do not depend on each other."""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
TOKENS, CALLS = 128, 3


def ours(model):
    command = ["cargo", "bench", "--locked", "--quiet", "--bench", "generation", "--", str(Path(model).resolve()), "--json"]
    done = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True)
    return json.loads(done.stdout.strip().splitlines()[-1])


def theirs(model, prompts_file):
    command = [sys.executable, __file__, model, "--peer", prompts_file]
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip().splitlines()[-1])


def peer(model, prompts_file):
    """One turn of transformers, which prints what the benchmark prints."""
    import torch
    from transformers import AutoModelForCausalLM

    torch.set_num_threads(int(os.environ["RAYON_NUM_THREADS"]))
    loaded = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32).eval()
    found = []
    for prompts in json.loads(Path(prompts_file).read_text()):
        longest = max(len(ids) for ids in prompts)
        pad = [[0] * (longest - len(ids)) + ids for ids in prompts]
        mask = [[0] * (longest - len(ids)) + [1] * len(ids) for ids in prompts]
        rates = []
        for _ in range(CALLS):
            start = time.perf_counter()
            with torch.inference_mode():
                out = loaded.generate(torch.tensor(pad), attention_mask=torch.tensor(mask), do_sample=False,
                                      min_new_tokens=TOKENS, max_new_tokens=TOKENS, pad_token_id=0, eos_token_id=None)
            rates.append(len(prompts) * TOKENS / (time.perf_counter() - start))
        found.append({"tokens_per_s": statistics.median(rates), "new": out[:, longest:].tolist()})
    print(json.dumps(found))


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("model")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--peer", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.peer:
        return peer(arguments.model, arguments.peer)
    for name in ("RAYON_NUM_THREADS", "OMP_NUM_THREADS"):
        os.environ[name] = str(arguments.threads)
    rates, first = {"gatelens": [], "transformers": []}, None
    for _ in range(arguments.turns):
        first = ours(arguments.model)
        prompts_file = ROOT / "target" / "generation-prompts.json"
        prompts_file.parent.mkdir(exist_ok=True)
        prompts_file.write_text(json.dumps([case["prompts"] for case in first]))
        second = theirs(arguments.model, str(prompts_file))
        for name, cases in (("gatelens", first), ("transformers", second)):
            rates[name].append([case["tokens_per_s"] for case in cases])
    print(f"{'prompts':>8} {'gatelens':>10} {'transformers':>13} {'ratio':>7} {'same':>9}   tokens/s, {arguments.threads} threads, f32")
    for i, (case, other) in enumerate(zip(first, second)):
        mine, peers = (statistics.median(turn[i] for turn in rates[name]) for name in ("gatelens", "transformers"))
        same = sum(a == b for a, b in zip(case["new"], other["new"]))
        count = len(case["prompts"])
        print(f"{count:>8} {mine:>10.1f} {peers:>13.1f} {mine / peers:>7.2f} {same:>4} of {count}")


if __name__ == "__main__":
    main()
