#!/usr/bin/env python3
"""Two checkpoints of the shapes of a 7B llama, but for a few layers: what comparing large ones costs in time and memory.

    make_large.py --out large [--layers 4]      leaves large/parent and large/child, 2.1 GB each with four layers

Random bf16 weights from a seed, a shard per layer and one for the rest, written a block of rows at a time. The child is the parent
with a random update of one percent of each matrix's norm. Needs numpy alone."""

import argparse
import json
import pathlib

import folders
import numpy as np

D, WIDTH, HEADS, VOCAB = 4096, 11008, 32, 32_000
UPDATE, ROWS = 0.01, 1024


def shards(layers):
    """Of each shard, names with shapes."""
    yield {"lm_head.weight": (VOCAB, D), "model.embed_tokens.weight": (VOCAB, D), "model.norm.weight": (D,)}
    each = {
        "input_layernorm": (D,),
        "mlp.down_proj": (D, WIDTH),
        "mlp.gate_proj": (WIDTH, D),
        "mlp.up_proj": (WIDTH, D),
        "post_attention_layernorm": (D,),
    } | {f"self_attn.{which}_proj": (D, D) for which in "kqvo"}
    for layer in range(layers):
        yield {f"model.layers.{layer}.{name}.weight": shape for name, shape in each.items()}


def blocks(name, shape, seed, child):
    """A tensor by its name and the seed, a block of rows at a time: ones for norms, else normal numbers that keep a row's size."""
    if len(shape) == 1:
        yield np.ones(shape, np.float32)
        return
    for at in range(0, shape[0], ROWS):
        key = [seed, at, *name.encode()]
        size = (min(ROWS, shape[0] - at), shape[1])
        values = np.random.default_rng([*key, 0]).standard_normal(size, np.float32)
        if child:
            values += np.float32(UPDATE) * np.random.default_rng([*key, 1]).standard_normal(size, np.float32)
        yield values * np.float32(shape[1] ** -0.5)


def write(folder, layers, seed, child):
    folder.mkdir(parents=True, exist_ok=True)
    config = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_size": D,
        "intermediate_size": WIDTH,
        "num_hidden_layers": layers,
        "num_attention_heads": HEADS,
        "num_key_value_heads": HEADS,
        "vocab_size": VOCAB,
        "max_position_embeddings": 4096,
        "rms_norm_eps": 1e-5,
        "rope_theta": 10000.0,
        "hidden_act": "silu",
        "tie_word_embeddings": False,
        "attention_bias": False,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "dtype": "bfloat16",
    }
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n")
    where, total = {}, 0
    for at, shapes in enumerate(shards(layers), 1):
        file = f"model-{at:05}-of-{layers + 1:05}.safetensors"

        def each(name, shapes=shapes):
            return blocks(name, shapes[name], seed, child)

        total += folders.write_file(folder / file, shapes, each, "BF16")
        where |= dict.fromkeys(shapes, file)
    index = {"metadata": {"total_size": total}, "weight_map": where}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index, indent=1) + "\n")
    print(f"{folder}: {total / 1e9:.2f} GB")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", required=True, type=pathlib.Path)
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--seed", type=int, default=7)
    args = parser.parse_args()
    write(args.out / "parent", args.layers, args.seed, child=False)
    write(args.out / "child", args.layers, args.seed, child=True)


if __name__ == "__main__":
    main()
