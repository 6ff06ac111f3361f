#!/usr/bin/env python3
"""Random checkpoints for measuring speed: a mixture of experts of two billion parameters, and a dense model through whose layers a
row goes with as many.   make_random_moe.py OUT      leaves OUT/moe and OUT/dense, 4.4 GB

Both are of the shapes of Qwen 3, in bf16. Needs numpy alone."""
import json
import pathlib
import struct
import sys

import numpy as np

D, LAYERS, HEADS, KV, D_HEAD, VOCAB = 1024, 20, 16, 4, 64, 32_000
EXPERTS, CHOSEN, WIDTH = 64, 4, 512
RANDOM = np.random.default_rng(7)


def shapes(experts):
    """Names with shapes."""
    yield "model.embed_tokens.weight", (VOCAB, D)
    yield "model.norm.weight", (D,)
    for layer in range(LAYERS):
        at = f"model.layers.{layer}."
        for name in ("input_layernorm", "post_attention_layernorm"):
            yield f"{at}{name}.weight", (D,)
        for name, out in (("q", HEADS), ("k", KV), ("v", KV)):
            yield f"{at}self_attn.{name}_proj.weight", (out * D_HEAD, D)
        for name in ("q_norm", "k_norm"):
            yield f"{at}self_attn.{name}.weight", (D_HEAD,)
        yield f"{at}self_attn.o_proj.weight", (D, HEADS * D_HEAD)
        mlps = [(f"{at}mlp.experts.{e}.", WIDTH) for e in range(EXPERTS)] if experts else [(f"{at}mlp.", CHOSEN * WIDTH)]
        if experts:
            yield f"{at}mlp.gate.weight", (EXPERTS, D)
        for name, width in mlps:
            yield f"{name}gate_proj.weight", (width, D)
            yield f"{name}up_proj.weight", (width, D)
            yield f"{name}down_proj.weight", (D, width)


def numbers(shape):
    """bf16 by its upper bits: ones for norms, else normal numbers that keep a row's size."""
    if len(shape) == 1:
        values = np.ones(shape, np.float32)
    else:
        values = RANDOM.standard_normal(shape, np.float32) * np.float32(shape[1] ** -0.5)
    return (values.view(np.uint32) >> 16).astype(np.uint16)


def write(folder, experts):
    folder.mkdir(parents=True, exist_ok=True)
    config = {
        "model_type": "qwen3_moe" if experts else "qwen3", "hidden_size": D, "num_hidden_layers": LAYERS,
        "num_attention_heads": HEADS, "num_key_value_heads": KV, "head_dim": D_HEAD, "vocab_size": VOCAB,
        "intermediate_size": CHOSEN * WIDTH, "max_position_embeddings": 4096, "rms_norm_eps": 1e-6, "rope_theta": 1e6,
        "hidden_act": "silu", "tie_word_embeddings": True, "attention_bias": False,
    }
    if experts:
        config |= {"num_experts": EXPERTS, "num_experts_per_tok": CHOSEN, "moe_intermediate_size": WIDTH, "norm_topk_prob": True}
    (folder / "config.json").write_text(json.dumps(config, indent=1))
    header, at = {}, 0
    for name, shape in shapes(experts):
        size = 2 * int(np.prod(shape))
        header[name] = {"dtype": "BF16", "shape": shape, "data_offsets": [at, at + size]}
        at += size
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with open(folder / "model.safetensors", "wb") as out:
        out.write(struct.pack("<Q", len(text)) + text)
        for _, shape in shapes(experts):
            out.write(numbers(shape).tobytes())
    print(f"{folder}: {at / 2e9:.2f} billion parameters")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    root = pathlib.Path(sys.argv[1])
    write(root / "moe", True)
    write(root / "dense", False)
