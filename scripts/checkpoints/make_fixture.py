#!/usr/bin/env python3
"""A small child of `tests/fixtures/llama`, and what the reference gives for it. From the repository's root:

    scripts/checkpoints/make_fixture.py        leaves tests/fixtures/checkpoints

The child is in bf16, its parent in f32: what was not changed differs by rounding alone and counts as unchanged. Needs numpy and
scipy."""

import pathlib

import folders
import numpy as np
import reference

PARENT, OUT = pathlib.Path("tests/fixtures/llama"), pathlib.Path("tests/fixtures/checkpoints")
RANDOM = np.random.default_rng(7)


def low_rank(w, rank, share):
    """A random update of a rank, of this share of the matrix's norm."""
    update = RANDOM.standard_normal((w.shape[0], rank)) @ RANDOM.standard_normal((rank, w.shape[1]))
    return w + update * (share * np.linalg.norm(w) / np.linalg.norm(update))


def sparse(w, chosen, size):
    """Chosen entries moved by a share of the mean entry, up or down."""
    return w + chosen * np.sign(RANDOM.standard_normal(w.shape)) * size * np.abs(w).mean()


def changed(name, w):
    """The child's tensor."""
    if ".layers.1." in name:
        return low_rank(w, 2, 0.1)
    if ".layers.2." in name or name == "lm_head.weight":
        return sparse(w, RANDOM.random(w.shape) < 0.03, 0.3)
    if name == "model.layers.3.mlp.up_proj.weight":
        return 1.5 * w
    if ".layers.3.mlp" in name:
        return sparse(w, reference.tenth(np.abs(w), largest=False), 0.1)
    if ".layers.3." in name:
        return sparse(low_rank(w, 1, 0.3), RANDOM.random(w.shape) < 0.01, 0.5)
    return w


weights = folders.read(PARENT)
child = {name: (changed(name, w) if w.ndim == 2 else w).astype(np.float32) for name, w in weights.items()}
folders.write(OUT / "child", child, PARENT, "BF16")
(OUT / "reference.json").write_text(reference.text(reference.reference(OUT / "child", PARENT)))
