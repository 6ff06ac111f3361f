#!/usr/bin/env python3
"""Reference values for `gatelens weights`, by numpy and scipy: what is printed is what the definitions below give.

    reference.py MODEL [--against PARENT] [--spectra] [--heads] [--composition] [--tensors TEXT] [--out FILE]

MODEL and PARENT are Hugging Face folders. Weights are read as f32 and everything is computed from them in f64. Nothing here is
meant to be fast: products of heads are formed as matrices of [d, d], and decomposed as such.

Each 2-D tensor W [rows, columns], with singular values s_1 >= s_2 >= ..., rank = min(rows, columns), and
k = max(1, min(64, rank // 10)):

    norm                the Frobenius norm |W|
    spectral_norm       s_1
    stable_rank         |W|^2 / s_1^2
    effective_rank      exp(-sum p_i ln p_i), p_i = s_i / sum s (Roy & Vetterli 2007)
    top_energy          sum over i <= k of s_i^2 / |W|^2
    spectrum            all s, largest first

Against the tensor W0 of the same name, with singular values s0:

    relative_change     |W - W0| / |W0|
    update_sparsity     share of unchanged entries. With w and w0 both rounded to bf16 (nearest, ties to even), an entry is
                        unchanged where |w - w0| <= 1e-3 max(|w|, |w0|)
    spectral_drift      |s - s0| / |s0|, over all singular values
    angle_left_max, angle_left_mean, angle_right_max, angle_right_mean
                        degrees: of the k principal angles between the spans of the first k left (right) singular vectors of W and
                        of W0, by `scipy.linalg.subspace_angles` (Knyazev & Argentati 2002: by the sine where they are small)
    in_principal        share of the changed entries that lie in the principal mask: the largest tenth of |rank-k part of W0|
    in_small            share of the changed entries that lie in the smallest tenth of |W0|

A tenth of n entries is (n + 5) // 10 of them. Among equal entries the first in row-major order is taken. The two shares are null
where no entry has changed. A tensor that the parent lacks, or has in another shape, is an error.

Each attention head of a model like llama: q_proj [heads dh, d], k_proj and v_proj [kv dh, d], o_proj [d, heads dh]. Head h has the
rows h dh .. (h + 1) dh of q_proj, the same columns of o_proj, and the rows g dh .. (g + 1) dh of k_proj and v_proj with
g = h // (heads / kv). Biases, norms and rotary positions are left out. With OV = W_O W_V and QK = W_Q^T W_K, both [d, d]:

    ov_norm, ov_spectral_norm, ov_stable_rank, ov_effective_rank, and the same of qk: as above
    copying             sum Re l / sum |l| over the eigenvalues l of W_U OV W_E^T [vocab, vocab]. Those that are not zero are those
                        of W_V (W_E^T W_U) W_O [dh, dh]. W_E and W_U are [vocab, d]; a model without lm_head has W_U = W_E
    gate_norm           of a layer: the root of the sum over heads of |QK|^2

Composition (Elhage et al. 2021) of a writer (l1, h1) with a reader (l2, h2) in a later layer, l1 < l2:

    q                   |QK2^T OV1| / (|QK2| |OV1|)
    k                   |QK2 OV1| / (|QK2| |OV1|)
    v                   |OV2 OV1| / (|OV2| |OV1|)

Needs numpy and scipy."""

import argparse
import json
import pathlib
import re
import sys

import folders
import numpy as np
import scipy.linalg


def shape_of(s):
    """What singular values alone say of a matrix."""
    energy = float(np.sum(s**2))
    if energy == 0.0:
        return {"norm": 0.0, "spectral_norm": 0.0, "stable_rank": None, "effective_rank": None}
    p = s / s.sum()
    p = p[p > 0]
    return {
        "norm": energy**0.5,
        "spectral_norm": float(s[0]),
        "stable_rank": energy / float(s[0]) ** 2,
        "effective_rank": float(np.exp(-np.sum(p * np.log(p)))),
    }


def top(rows, columns):
    """How many singular vectors are principal."""
    return max(1, min(64, min(rows, columns) // 10))


def tenth(values, largest):
    """The mask of the largest or smallest tenth of values; among equal ones the first counts."""
    flat = values.ravel()
    order = np.argsort(-flat if largest else flat, kind="stable")
    mask = np.zeros(flat.size, bool)
    mask[order[: (flat.size + 5) // 10]] = True
    return mask.reshape(values.shape)


def changed_entries(w, w0):
    a, b = (folders.rounded(x).astype(np.float64) for x in (w, w0))
    return np.abs(a - b) > 1e-3 * np.maximum(np.abs(a), np.abs(b))


def matrix(name, w, w0, spectra):
    """The row of a tensor, and against a parent where there is one."""
    rows, columns = w.shape
    k = top(rows, columns)
    layer = re.search(r"\.(\d+)\.", name)
    u, s, vt = np.linalg.svd(w.astype(np.float64), full_matrices=False)
    row = {"tensor": name, "layer": int(layer[1]) if layer else None, "rows": rows, "columns": columns, "k": k} | shape_of(s)
    row["top_energy"] = float(np.sum(s[:k] ** 2) / np.sum(s**2)) if s[0] > 0 else None
    if spectra:
        row["spectrum"] = s.tolist()
    if w0 is None:
        return row
    parent = w0.astype(np.float64)
    u0, s0, vt0 = np.linalg.svd(parent, full_matrices=False)
    row["relative_change"] = float(np.linalg.norm(w.astype(np.float64) - parent) / np.linalg.norm(parent))
    changed = changed_entries(w, w0)
    count = int(changed.sum())
    row["update_sparsity"] = 1.0 - count / changed.size
    row["spectral_drift"] = float(np.linalg.norm(s - s0) / np.linalg.norm(s0))
    for side, a, b in (("left", u[:, :k], u0[:, :k]), ("right", vt[:k].T, vt0[:k].T)):
        angles = np.degrees(scipy.linalg.subspace_angles(a, b))
        row[f"angle_{side}_max"], row[f"angle_{side}_mean"] = float(angles.max()), float(angles.mean())
    principal = tenth(np.abs((u0[:, :k] * s0[:k]) @ vt0[:k]), largest=True)
    small = tenth(np.abs(w0), largest=False)
    row["in_principal"] = float((changed & principal).sum() / count) if count else None
    row["in_small"] = float((changed & small).sum() / count) if count else None
    if spectra:
        row["parent_spectrum"] = s0.tolist()
    return row


def circuits(config, weights, layer, table):
    """OV, QK and the matrix whose eigenvalues copying takes, of each head of a layer. `table`: W_E^T W_U."""
    heads = config["num_attention_heads"]
    group = heads // config.get("num_key_value_heads", heads)
    at = f"model.layers.{layer}.self_attn."
    q, k, v, o = (weights[f"{at}{name}_proj.weight"].astype(np.float64) for name in "qkvo")
    dh = q.shape[0] // heads
    for h in range(heads):
        own, shared = slice(h * dh, (h + 1) * dh), slice(h // group * dh, (h // group + 1) * dh)
        yield o[:, own] @ v[shared], q[own].T @ k[shared], v[shared] @ table @ o[:, own]


def attention(config, weights, composition):
    """Rows of heads, of layers and of pairs of heads."""
    rows, layers, pairs, earlier = [], [], [], []
    embed = weights["model.embed_tokens.weight"].astype(np.float64)
    table = embed.T @ weights.get("lm_head.weight", embed).astype(np.float64)
    for layer in range(config["num_hidden_layers"]):
        here, gate = [], 0.0
        for head, (ov, qk, small) in enumerate(circuits(config, weights, layer, table)):
            row = {"layer": layer, "head": head}
            for name, m in (("ov", ov), ("qk", qk)):
                row |= {f"{name}_{what}": value for what, value in shape_of(np.linalg.svd(m, compute_uv=False)).items()}
            values = np.linalg.eigvals(small)
            row["copying"] = float(values.real.sum() / np.abs(values).sum())
            gate += float(np.sum(qk**2))
            rows.append(row)
            here.append((layer, head, ov, qk))
        layers.append({"layer": layer, "gate_norm": gate**0.5})
        if composition:
            for l1, h1, ov1, _ in earlier:
                for l2, h2, ov2, qk2 in here:
                    size, size2, size_qk2 = (np.linalg.norm(m) for m in (ov1, ov2, qk2))
                    pairs.append(
                        {
                            "writer": [l1, h1],
                            "reader": [l2, h2],
                            "q": float(np.linalg.norm(qk2.T @ ov1) / (size_qk2 * size)),
                            "k": float(np.linalg.norm(qk2 @ ov1) / (size_qk2 * size)),
                            "v": float(np.linalg.norm(ov2 @ ov1) / (size2 * size)),
                        }
                    )
            earlier += here
    return rows, layers, pairs


def short(value):
    """Twelve digits of each number."""
    if isinstance(value, float):
        return float(f"{value:.12g}")
    if isinstance(value, list):
        return [short(v) for v in value]
    return {k: short(v) for k, v in value.items()} if isinstance(value, dict) else value


def reference(model, against=None, spectra=True, heads=True, composition=True, tensors=""):
    weights = folders.read(model)
    parent = folders.read(against) if against else {}
    out = {"matrices": []}
    for name, w in weights.items():
        if w.ndim != 2 or not re.search(tensors, name):
            continue
        if against and (name not in parent or parent[name].shape != w.shape):
            sys.exit(f"{name} has no counterpart of its shape in {against}")
        out["matrices"].append(matrix(name, w, parent.get(name), spectra))
    if heads or composition:
        config = json.loads((pathlib.Path(model) / "config.json").read_text())
        out["heads"], out["layers"], out["composition"] = attention(config, weights, composition)
    return short(out)


def text(out):
    """JSON, a row a line."""
    parts = [f' "{name}": [\n  ' + ",\n  ".join(json.dumps(row) for row in rows) + "\n ]" for name, rows in out.items() if rows]
    return "{\n" + ",\n".join(parts) + "\n}\n"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--against", metavar="PARENT")
    parser.add_argument("--spectra", action="store_true", help="all singular values")
    parser.add_argument("--heads", action="store_true", help="heads and layers")
    parser.add_argument("--composition", action="store_true", help="every pair of heads: for small models")
    parser.add_argument("--tensors", default="", metavar="TEXT", help="only tensors whose names this regular expression matches")
    parser.add_argument("--out", metavar="FILE", help="default: standard output")
    args = parser.parse_args()
    out = text(reference(args.model, args.against, args.spectra, args.heads, args.composition, args.tensors))
    if args.out:
        pathlib.Path(args.out).write_text(out)
    else:
        sys.stdout.write(out)


if __name__ == "__main__":
    main()
