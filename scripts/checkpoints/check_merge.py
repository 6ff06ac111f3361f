#!/usr/bin/env python3
"""Holds `gatelens merge` to numpy and transformers, and kills it. From the repository's root:

    scripts/checkpoints/check_merge.py --model DIR [--gatelens target/release/gatelens] [--kills 40] [--seed 0] [--keep DIR]

Two children of a Hugging Face folder are made by adding noise to its weights. Then, for several mixtures:

bytes       each tensor of the merged folder is what numpy's float32 gives, `x + c * (a - b)` term by term from left to right; in
            bf16 and f16 the nearest of it, ties to even. In shards, the index names every tensor once
logits      `transformers` loads the merged folder, and its logits are those that `gatelens trace` gives for the folder and for the
            recipe itself
kills       the command is killed with SIGKILL after a random part of its time and resumed, again and again, until there were so
            many kills: every file of the finished folder has the SHA-256 of an undisturbed one, an unfinished one is no model, and
            another recipe is refused there

Needs numpy, safetensors, torch and transformers; with --no-transformers only numpy."""

import argparse
import hashlib
import json
import pathlib
import random
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import time

import folders
import numpy as np

# Masks and frequencies that older checkpoints hold: no weights, which are the base's.
BUFFERS = (".attn.bias", ".attn.masked_bias", ".attention.bias", ".attention.masked_bias", ".rotary_emb.inv_freq")

IDS = [[1, 5, 9, 17, 33, 71, 120, 2], [3, 8, 40, 11]]


def fail(why):
    sys.exit(f"FAILED: {why}")


def raw(folder):
    """Every tensor as it is stored: its dtype, shape and bytes."""
    found = {}
    for path in folders.files(folder):
        data = path.read_bytes()
        (size,) = struct.unpack("<Q", data[:8])
        header = json.loads(data[8 : 8 + size])
        if size % 8 or header.get("__metadata__") != {"format": "pt"}:
            fail(f"{path}: its header is not as transformers writes it")
        for name, about in header.items():
            if name != "__metadata__":
                begin, end = (8 + size + at for at in about["data_offsets"])
                if name in found:
                    fail(f"{path}: {name} is in two files")
                found[name] = (about["dtype"], about["shape"], data[begin:end])
    return found


def noisy(weights, seed):
    """The weights with noise of a tenth of each tensor's spread."""
    random_numbers = np.random.default_rng(seed)
    noise = lambda w: random_numbers.standard_normal(w.shape, np.float32) * np.float32(0.1 * w.std() + 1e-4)
    return {name: (w + noise(w)).astype(np.float32) for name, w in weights.items()}


def mixed(base, terms):
    """`base + c (plus - minus)` in float32, term by term; without a minus, from the base as it was."""
    out = {name: w.copy() for name, w in base.items()}
    for c, plus, minus, which in terms:
        for name in filter(which, out):
            other = base if minus is None else minus
            out[name] = out[name] + np.float32(c) * (plus[name] - other[name])
            assert out[name].dtype == np.float32
    return out


def stored(w, dtype):
    """Numbers as a file holds them."""
    if dtype == "F32":
        return np.ascontiguousarray(w, "<f4").tobytes()
    return folders.to_bf16(w).astype("<u2").tobytes() if dtype == "BF16" else w.astype("<f2").tobytes()


def run(gatelens, *words, code=0):
    done = subprocess.run([gatelens, *map(str, words)], capture_output=True, text=True)
    if done.returncode != code or "defect of gatelens" in done.stderr:
        fail(f"{' '.join(map(str, words))} ended with {done.returncode}: {done.stderr}")
    return done


class Case:
    """A mixture: its words for the command, its recipe, and what it is by numpy."""

    def __init__(self, name, terms):
        self.name, self.terms = name, terms

    def words(self, paths):
        words = []
        for c, plus, minus, _ in self.terms:
            words += ["--add", f"{c}*({paths[plus]} - {paths[minus]})" if minus else f"{c}*{paths[plus]}"]
        patterns = self.terms[0][3]
        return words + [word for pattern in patterns for word in ("--tensors", pattern)]

    def recipe(self, paths):
        lines = [f"base = {json.dumps(str(paths['base']))}"]
        for c, plus, minus, patterns in self.terms:
            lines += ["[[term]]", f"coefficient = {c}", f"plus = {json.dumps(str(paths[plus]))}"]
            lines += [f"minus = {json.dumps(str(paths[minus]))}"] if minus else []
            lines += [f"tensors = {json.dumps(patterns)}"] if patterns else []
        return "\n".join(lines) + "\n"

    def expected(self, weights):
        def inside(patterns):
            named = lambda name: not patterns or any(pattern.strip("*") in name for pattern in patterns)
            return lambda name: named(name) and not name.endswith(BUFFERS)

        terms = [(c, weights[plus], minus and weights[minus], inside(patterns)) for c, plus, minus, patterns in self.terms]
        return mixed(weights["base"], terms)


CASES = [
    Case("difference", [(0.5, "a", "b", [])]),
    Case("negation", [(-1.0, "a", None, [])]),
    Case("several", [(0.3, "a", None, []), (0.7, "b", "a", []), (-0.25, "b", None, [])]),
    Case("mlp", [(0.9, "a", "b", ["*mlp*"])]),
]


def check_bytes(gatelens, folder, weights, paths, dtypes):
    """The first folder, in float32, of each case."""
    kept = {}
    for case in CASES:
        want = case.expected(weights)
        changed = {name for name in want if not np.array_equal(want[name], weights["base"][name])}
        for dtype in ("keep", "f32", "bf16", "f16"):
            shard = "5GB" if dtype != "bf16" else "2MB"
            out = folder / f"{case.name}-{dtype}"
            words = ["merge", paths["base"], *case.words(paths), "--dtype", dtype, "--max-shard-size", shard, "--out", out]
            run(gatelens, *words, "--quiet")
            found = raw(out)
            if found.keys() != want.keys():
                fail(f"{out}: other tensors than the base's")
            for name, (kind, shape, data) in found.items():
                expected = dtypes[name] if dtype == "keep" else dtype.upper()
                if kind != expected or shape != list(want[name].shape):
                    fail(f"{out}: {name} is {kind} {shape}, not {expected} {list(want[name].shape)}")
                if data != stored(want[name], kind):
                    fail(f"{out}: {name} has other bytes than numpy's float32 gives")
            if dtype == "f32":
                kept[case.name] = out
            else:
                shutil.rmtree(out)
        print(
            f"bytes: {case.name}: {len(changed)} of {len(want)} tensors changed; keep, f32, bf16 and f16 are numpy's", flush=True
        )
    return kept


def traced(gatelens, model, folder):
    """The logits of all positions, by gatelens."""
    prompts, out = folder / "prompts.jsonl", folder / "logits.safetensors"
    prompts.write_text("".join(json.dumps({"id": str(i), "prompt": {"ids": ids}}) + "\n" for i, ids in enumerate(IDS)))
    run(gatelens, "trace", model, "--prompts", prompts, "--sites", "logits", "--dtype", "f32", "--out", out, "--force", "--quiet")
    data = out.read_bytes()
    (size,) = struct.unpack("<Q", data[:8])
    about = json.loads(data[8 : 8 + size])["logits"]
    begin, end = about["data_offsets"]
    return np.frombuffer(data[8 + size + begin : 8 + size + end], "<f4").reshape(about["shape"])


def by_transformers(folder):
    import torch
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager").eval()
    with torch.no_grad():
        return np.concatenate([model(torch.tensor([ids])).logits[0].numpy() for ids in IDS])


def check_logits(gatelens, folder, paths, merged, tolerance, transformers):
    base = traced(gatelens, paths["base"], folder)
    for case in CASES:
        recipe = folder / f"{case.name}.toml"
        recipe.write_text(case.recipe(paths))
        of_folder, of_recipe = (traced(gatelens, model, folder) for model in (merged[case.name], recipe))
        if not np.array_equal(of_folder, of_recipe):
            fail(f"{case.name}: the recipe's logits are not the merged folder's")
        said = f"up to {np.abs(of_folder - base).max():.3g} from the base's"
        if transformers:
            reference = by_transformers(merged[case.name])
            off = np.abs(of_folder - reference).max() / max(1.0, np.abs(reference).max())
            said += f"; off from transformers' by {off:.2e} of the largest"
            if not off <= tolerance:
                fail(f"{case.name}: {said}")
        print(f"logits: {case.name}: the recipe's are the folder's, {said}", flush=True)


def sums(folder):
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(folder.iterdir())}


def check_kills(gatelens, folder, paths, kills, rng):
    case, out = CASES[0], folder / "killed"
    size = sum(path.stat().st_size for path in folders.files(paths["base"]))
    words = ["merge", paths["base"], *case.words(paths), "--max-shard-size", f"{max(size // 12, 1)}", "--out", out]
    at = time.monotonic()
    run(gatelens, *words, "--quiet")
    seconds, expected = time.monotonic() - at, sums(out)
    shutil.rmtree(out)
    killed = finished = resumed = 0
    while killed < kills or not finished:
        resumed += out.exists()
        process = subprocess.Popen(
            [gatelens, *map(str, words), "--resume", "--quiet"], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
        )
        try:
            # Once there were kills enough, what is left runs to its end.
            _, errors = process.communicate(timeout=600 if killed >= kills else rng.uniform(0, seconds))
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            _, errors = process.communicate()
            killed += 1
            whole = out.exists() and (out / "config.json").exists()
            if "defect of gatelens" in errors:
                fail(errors)
            if not whole:
                continue
            run(gatelens, *words, "--resume", "--quiet")
        else:
            if process.returncode:
                fail(f"resumed after {killed} kills, it ended with {process.returncode}: {errors}")
        if sums(out) != expected:
            fail(f"after {killed} kills: not the files of an undisturbed merge")
        finished += 1
        shutil.rmtree(out)
    # What was begun is gone on with as what it is, and as nothing else.
    process = subprocess.Popen([gatelens, *map(str, words), "--quiet"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    time.sleep(seconds / 2)
    process.kill()
    process.wait()
    if (out / ".merge-state.json").exists():
        done = run(gatelens, *words, "--scale", "2", "--resume", code=2)
        if "another mixture" not in done.stderr:
            fail(f"another recipe was refused for another reason: {done.stderr}")
    print(f"kills: {killed} kills, {resumed} resumed, {finished} finished with the bytes of an undisturbed merge", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True, type=pathlib.Path)
    parser.add_argument("--gatelens", default="target/release/gatelens")
    parser.add_argument("--kills", type=int, default=40)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--tolerance", type=float, default=2e-4)
    parser.add_argument("--no-transformers", action="store_true")
    parser.add_argument("--keep", metavar="DIR", type=pathlib.Path, help="leave what was made here")
    args = parser.parse_args()
    gatelens = str(pathlib.Path(args.gatelens).resolve())
    with tempfile.TemporaryDirectory() as scratch:
        folder = args.keep or pathlib.Path(scratch)
        folder.mkdir(parents=True, exist_ok=True)
        dtypes = {}
        for path in folders.files(args.model):
            with open(path, "rb") as file:
                (size,) = struct.unpack("<Q", file.read(8))
                header = json.loads(file.read(size))
                dtypes |= {name: about["dtype"] for name, about in header.items() if name != "__metadata__"}
        weights = {"base": folders.read(args.model)}
        paths = {"base": args.model.resolve()}
        dtype = "BF16" if set(dtypes.values()) == {"BF16"} else "F32"
        for name, seed in (("a", args.seed + 1), ("b", args.seed + 2)):
            paths[name] = folder / name
            folders.write(paths[name], noisy(weights["base"], seed), args.model, dtype)
            weights[name] = folders.read(paths[name])
        merged = check_bytes(gatelens, folder, weights, paths, dtypes)
        check_logits(gatelens, folder, paths, merged, args.tolerance, not args.no_transformers)
        check_kills(gatelens, folder, paths, args.kills, random.Random(args.seed))


if __name__ == "__main__":
    main()
