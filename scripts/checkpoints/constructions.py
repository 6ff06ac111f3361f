#!/usr/bin/env python3
"""Children of a small checkpoint of which the answer is known by construction.

    constructions.py --model tests/fixtures/llama --out constructions [--theta 20] [--check]

leaves Hugging Face folders in f32, and truth.json with what is known of each. All but `head` and `same` change every matrix of the
layers; embeddings, lm_head and norms stay as they are.

    principal   the first k singular values times 1.5, the vectors as they were: drift is known, and no angle opens
    sparse      the smallest tenth of |W| made larger by half of that tenth's largest: they are all that changed
    rotated     the k-th left singular vector and the next, turned by theta in their plane: the spectrum stays, and the largest
                angle on the left is theta
    head        two heads of a layer exchanged, which read the same keys and values: rows of q_proj and columns of o_proj, and of
                k_proj and v_proj too where each head has its own. The model computes the same; the rows of both heads are exchanged
    same        a round trip through bf16: no entry counts as changed

k and a tenth are those of reference.py. In truth.json, `tensors` gives values that hold to 1e-5, and angles that hold to 0.01
degrees, both because of rounding to f32; tensors that it does not name are unchanged. --check compares it with reference.py.

Needs numpy, and scipy for --check."""

import argparse
import json
import pathlib

import folders
import numpy as np
import reference

GROWTH = 1.5


def inner(weights):
    """The matrices of the layers."""
    return [name for name, w in weights.items() if w.ndim == 2 and ".layers." in name]


def svd(w):
    return np.linalg.svd(w.astype(np.float64), full_matrices=False)


def principal(weights):
    child, truth = dict(weights), {}
    for name in inner(weights):
        (u, s, vt), k = svd(weights[name]), reference.top(*weights[name].shape)
        grown = np.where(np.arange(s.size) < k, GROWTH, 1.0) * s
        child[name] = (u * grown) @ vt
        drift = float(np.linalg.norm(grown - s) / np.linalg.norm(s))
        truth[name] = {
            "spectral_norm": float(grown[0]),
            "spectral_drift": drift,
            "relative_change": drift,
            "angle_left_max": 0.0,
            "angle_right_max": 0.0,
        }
    return child, {"tensors": truth}


def sparse(weights):
    child, truth = dict(weights), {}
    for name in inner(weights):
        w = weights[name].astype(np.float64)
        small = reference.tenth(np.abs(weights[name]), largest=False)
        by = 0.5 * np.abs(w[small]).max()
        child[name] = w + by * small * np.where(w < 0, -1.0, 1.0)
        count = int(small.sum())
        truth[name] = {
            "update_sparsity": 1.0 - count / w.size,
            "in_small": 1.0,
            "relative_change": float(by * count**0.5 / np.linalg.norm(w)),
        }
    return child, {"tensors": truth}


def rotated(weights, theta):
    child, truth = dict(weights), {}
    sin, cos = np.sin(np.radians(theta)), np.cos(np.radians(theta))
    for name in inner(weights):
        (u, s, vt), k = svd(weights[name]), reference.top(*weights[name].shape)
        last, after = u[:, k - 1].copy(), u[:, k].copy()
        u[:, k - 1], u[:, k] = cos * last + sin * after, cos * after - sin * last
        child[name] = (u * s) @ vt
        change = (2 * (1 - cos) * (s[k - 1] ** 2 + s[k] ** 2)) ** 0.5 / np.linalg.norm(s)
        truth[name] = {"spectral_drift": 0.0, "relative_change": float(change), "angle_left_max": theta, "angle_right_max": 0.0}
    return child, {"theta": theta, "tensors": truth}


def head(weights, config):
    child, truth = dict(weights), {}
    heads = config["num_attention_heads"]
    own = heads == config.get("num_key_value_heads", heads)
    layer = config["num_hidden_layers"] // 2
    for which in "qkvo" if own else "qo":
        name = f"model.layers.{layer}.self_attn.{which}_proj.weight"
        w = weights[name].T.copy() if which == "o" else weights[name].copy()
        dh = w.shape[0] // heads
        w[: 2 * dh] = np.concatenate([w[dh : 2 * dh], w[:dh]])
        child[name] = w.T if which == "o" else w
        change = float(np.linalg.norm(child[name] - weights[name]) / np.linalg.norm(weights[name]))
        kept = "angle_left_max" if which == "o" else "angle_right_max"
        truth[name] = {"spectral_drift": 0.0, "relative_change": change, kept: 0.0}
    return child, {"layer": layer, "heads": [0, 1], "tensors": truth}


def same(weights):
    child = {name: folders.rounded(w) for name, w in weights.items()}
    known = {"update_sparsity": 1.0, "in_principal": None, "in_small": None}
    return child, {"relative_change_at_most": 2.0**-8, "tensors": {name: known for name, w in weights.items() if w.ndim == 2}}


def check(out, model, truth):
    """The largest differences between truth and reference."""
    for name, known in truth.items():
        worst = {"value": 0.0, "degrees": 0.0}
        rows = {row["tensor"]: row for row in reference.reference(out / name, model, heads=False, composition=False)["matrices"]}
        for tensor, row in rows.items():
            expected = known["tensors"].get(tensor, {"relative_change": 0.0, "update_sparsity": 1.0})
            for column, value in expected.items():
                if value is None:
                    assert row[column] is None, (name, tensor, column)
                else:
                    unit = "degrees" if column.startswith("angle") else "value"
                    worst[unit] = max(worst[unit], abs(row[column] - value))
        print(f"{name}: differs by at most {worst['value']:.1e}, and {worst['degrees']:.1e} degrees")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True, metavar="DIR", type=pathlib.Path)
    parser.add_argument("--out", required=True, type=pathlib.Path)
    parser.add_argument("--theta", type=float, default=20.0, metavar="DEGREES")
    parser.add_argument("--check", action="store_true")
    args = parser.parse_args()
    weights, truth = folders.read(args.model), {}
    config = json.loads((args.model / "config.json").read_text())
    made = {
        "principal": principal(weights),
        "sparse": sparse(weights),
        "rotated": rotated(weights, args.theta),
        "head": head(weights, config),
        "same": same(weights),
    }
    for name, (child, known) in made.items():
        folders.write(args.out / name, child, args.model)
        truth[name] = known
    (args.out / "truth.json").write_text(json.dumps(truth, indent=1) + "\n")
    if args.check:
        check(args.out, args.model, truth)


if __name__ == "__main__":
    main()
