#!/usr/bin/env python3
"""Writes the seeds of the fuzz targets to fuzz/corpus/TARGET/seed-*: small sound inputs, from which the fuzzer goes on."""

import json
import pathlib
import random
import struct

ROOT = pathlib.Path(__file__).resolve().parent
CORPUS = ROOT / "corpus"
D, HEADS, MLP, VOCAB = 8, 2, 12, 11
RANDOM = random.Random(0)


def put(target, name, data):
    folder = CORPUS / target
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"seed-{name}").write_bytes(data if isinstance(data, bytes) else data.encode())


def floats(n):
    return struct.pack(f"<{n}f", *(RANDOM.uniform(-0.3, 0.3) for _ in range(n)))


# ---- GGUF

def text(s):
    return struct.pack("<Q", len(s.encode())) + s.encode()


def value(v):
    if isinstance(v, bool):
        return struct.pack("<IB", 7, v)
    if isinstance(v, int):
        return struct.pack("<II", 4, v)
    if isinstance(v, float):
        return struct.pack("<If", 6, v)
    if isinstance(v, str):
        return struct.pack("<I", 8) + text(v)
    parts = [value(x) for x in v]
    return struct.pack("<I", 9) + parts[0][:4] + struct.pack("<Q", len(parts)) + b"".join(p[4:] for p in parts)


def gguf(keys, tensors):
    head = b"GGUF" + struct.pack("<IQQ", 3, len(tensors), len(keys))
    head += b"".join(text(k) + value(v) for k, v in keys.items())
    data = b""
    for name, shape, kind, content in tensors:
        data += b"\0" * (-len(data) % 32)
        head += text(name) + struct.pack("<I", len(shape)) + struct.pack(f"<{len(shape)}Q", *reversed(shape))
        head += struct.pack("<IQ", kind, len(data))
        data += content
    return head + b"\0" * (-len(head) % 32) + data


def make_gguf():
    keys = {
        "general.architecture": "llama", "llama.block_count": 1, "llama.embedding_length": D, "llama.context_length": 32,
        "llama.feed_forward_length": MLP, "llama.attention.head_count": HEADS, "llama.attention.head_count_kv": HEADS,
        "llama.rope.dimension_count": D // HEADS, "llama.rope.freq_base": 10000.0,
        "llama.attention.layer_norm_rms_epsilon": 1e-5, "llama.vocab_size": VOCAB,
        "tokenizer.ggml.model": "llama", "tokenizer.ggml.tokens": ["<unk>", "<s>", "</s>"] + [f"w{i}" for i in range(8)],
        "tokenizer.ggml.scores": [0.0] * VOCAB, "tokenizer.ggml.token_type": [2, 3, 3] + [1] * 8,
        "tokenizer.ggml.bos_token_id": 1, "tokenizer.ggml.add_bos_token": True,
    }
    shapes = [("token_embd.weight", [VOCAB, D]), ("output_norm.weight", [D]), ("output.weight", [VOCAB, D])]
    for name, shape in [("attn_norm", [D]), ("attn_q", [D, D]), ("attn_k", [D, D]), ("attn_v", [D, D]), ("attn_output", [D, D]),
                        ("ffn_norm", [D]), ("ffn_gate", [MLP, D]), ("ffn_up", [MLP, D]), ("ffn_down", [D, MLP])]:
        shapes.append((f"blk.0.{name}.weight", shape))
    count = lambda shape: shape[0] * (shape[1] if len(shape) > 1 else 1)
    put("gguf", "llama", gguf(keys, [(n, s, 0, floats(count(s))) for n, s in shapes]))
    # One tensor of each way of storing that has blocks, and nothing else.
    for kind, block, size in [(8, 32, 34), (2, 32, 18), (3, 32, 20), (6, 32, 22), (7, 32, 24), (10, 256, 84), (11, 256, 110),
                              (12, 256, 144), (13, 256, 176), (14, 256, 210)]:
        put("gguf", f"kind-{kind}", gguf({"general.architecture": "llama"}, [("a", [1, block], kind, bytes(size))]))


# ---- A Hugging Face folder

def safetensors(tensors):
    head, data = {}, b""
    for name, shape, content in tensors:
        head[name] = {"dtype": "F32", "shape": shape, "data_offsets": [len(data), len(data) + len(content)]}
        data += content
    head = json.dumps(head).encode()
    return struct.pack("<Q", len(head)) + head + data


def make_safetensors():
    config = {"model_type": "llama", "hidden_size": D, "intermediate_size": MLP, "num_hidden_layers": 1,
              "num_attention_heads": HEADS, "num_key_value_heads": 1, "vocab_size": VOCAB, "max_position_embeddings": 32,
              "rms_norm_eps": 1e-5, "rope_theta": 10000.0, "hidden_act": "silu", "tie_word_embeddings": True}
    shapes = {"model.embed_tokens.weight": [VOCAB, D], "model.norm.weight": [D]}
    layer = {"input_layernorm": [D], "self_attn.q_proj": [D, D], "self_attn.k_proj": [D // 2, D], "self_attn.v_proj": [D // 2, D],
             "self_attn.o_proj": [D, D], "post_attention_layernorm": [D], "mlp.gate_proj": [MLP, D], "mlp.up_proj": [MLP, D],
             "mlp.down_proj": [D, MLP]}
    shapes |= {f"model.layers.0.{name}.weight": shape for name, shape in layer.items()}
    count = lambda shape: shape[0] * (shape[1] if len(shape) > 1 else 1)
    tensors = [(n, s, floats(count(s))) for n, s in shapes.items()]
    mark = b"\n====\n"
    config = json.dumps(config).encode()
    put("safetensors", "single", config + mark + safetensors(tensors))
    index = {"weight_map": {n: "a.safetensors" if i < 4 else "b.safetensors" for i, (n, _, _) in enumerate(tensors)}}
    parts = [config, safetensors(tensors[:4]), json.dumps(index).encode(), safetensors(tensors[4:])]
    put("safetensors", "sharded", mark.join(parts))
    outside = {"weight_map": {"model.norm.weight": "../../etc/passwd"}}
    put("safetensors", "outside", mark.join([config, b"", json.dumps(outside).encode()]))


# ---- Text

TEMPLATES = {
    "chatml": "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\\n' + m['content'] + '<|im_end|>' + '\\n' }}{% endfor %}"
              "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}",
    "macro": "{%- macro turn(m) -%}[{{ m.role | upper }}] {{ m.content | trim }}{%- endmacro -%}"
             "{%- set ns = namespace(n=0) -%}{%- for m in messages -%}{%- set ns.n = ns.n + 1 -%}{{ turn(m) }}{{ ns.n }}{%- endfor -%}",
    "date": "{{ strftime_now('%d %b %Y') }}{{ bos_token }}{% if messages|length > 5 %}{{ raise_exception('too many') }}{% endif %}",
    "loop": "{% for i in range(10000) %}{% for j in range(10000) %}{{ i * j }}{% endfor %}{% endfor %}",
    "grow": "{% set ns = namespace(s='ab') %}{% for i in range(60) %}{% set ns.s = ns.s + ns.s %}{% endfor %}{{ ns.s }}",
    "generation": "{% generation %}{{ messages[0].content[::-1] }}{% endgeneration %}{{ messages | tojson(indent=2) }}",
}

SPECS = {
    "two-models": 'title = "T"\nmodels = ["demo", "demo:blind"]\ncompare = "sweep"\n[defaults]\npairs = "a.jsonl"\nseed = 1\n'
                  '[[analysis]]\ncommand = "interchange"\nname = "sweep"\n[[analysis]]\ncommand = "ablate"\nhead = ["L1.H2", "L3.H0"]\n',
    "pattern": 'models = ["steps/step-*"]\n[[analysis]]\ncommand = "cascade"\npairs = "a.jsonl"\ngate = "run:screen/circuit.json"\n',
}


def main():
    make_gguf()
    make_safetensors()
    for name, template in TEMPLATES.items():
        put("template", name, template)
    for name, spec in SPECS.items():
        put("spec", name, spec)
    datasets = ROOT.parent / "datasets"
    put("spec", "demo", (datasets / "demo/spec.toml").read_bytes())
    for name in ["ioi.jsonl", "demo/pairs.jsonl", "demo/prompts.jsonl", "demo/cipher.jsonl"]:
        lines = (datasets / name).read_text().splitlines(keepends=True)[:3]
        put("dataset", name.replace("/", "-"), "".join(lines))
    # What the other targets take is made of bytes by `arbitrary`.
    for target in ["tokenizer", "plan"]:
        for n in [16, 100, 400, 1500]:
            put(target, f"bytes-{n}", RANDOM.randbytes(n))


if __name__ == "__main__":
    main()
