"""Hugging Face folders with numpy alone: every tensor of one read as f32, and one written in f32 or bf16.

    weights = read("parent")                      # {name: f32 array}, of one file or of shards
    write("child", weights, "parent")             # config and tokenizer are the parent's

torch is not needed, and bf16 is rounded here to the nearest, ties to even."""

import json
import pathlib
import shutil
import struct

import numpy as np

BYTES = {"F32": 4, "F16": 2, "BF16": 2}
CONFIG_DTYPE = {"F32": "float32", "BF16": "bfloat16"}


def to_bf16(values):
    """f32 values as the 16 bits of bf16: nearest, ties to even. For finite values."""
    bits = np.ascontiguousarray(values, np.float32).view(np.uint32)
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16)


def from_bf16(bits):
    """The f32 values of bf16 bits: exact."""
    return (bits.astype(np.uint32) << 16).view(np.float32)


def rounded(values):
    """f32 values after a round trip through bf16."""
    return from_bf16(to_bf16(values))


def files(folder):
    """The safetensors files of a folder."""
    index = pathlib.Path(folder) / "model.safetensors.index.json"
    names = sorted(set(json.loads(index.read_text())["weight_map"].values())) if index.exists() else ["model.safetensors"]
    return [pathlib.Path(folder) / name for name in names]


def read(folder):
    """Every tensor of a folder in f32, by name."""
    weights = {}
    for path in files(folder):
        with open(path, "rb") as file:
            (size,) = struct.unpack("<Q", file.read(8))
            header = json.loads(file.read(size))
            for name, about in header.items():
                if name == "__metadata__":
                    continue
                begin, end = about["data_offsets"]
                file.seek(8 + size + begin)
                data = file.read(end - begin)
                if about["dtype"] == "BF16":
                    values = from_bf16(np.frombuffer(data, "<u2"))
                else:
                    values = np.frombuffer(data, {"F32": "<f4", "F16": "<f2"}[about["dtype"]]).astype(np.float32)
                weights[name] = values.reshape(about["shape"])
    return dict(sorted(weights.items()))


def write_file(path, shapes, blocks, dtype):
    """One safetensors file. `shapes`: name to shape. `blocks(name)`: the tensor in blocks of rows, when its turn comes."""
    header, at = {"__metadata__": {"format": "pt"}}, 0
    for name, shape in shapes.items():
        size = BYTES[dtype] * int(np.prod(shape))
        header[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [at, at + size]}
        at += size
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as out:
        out.write(struct.pack("<Q", len(text)) + text)
        for name, shape in shapes.items():
            count = 0
            for block in blocks(name):
                count += block.size
                out.write((to_bf16(block) if dtype == "BF16" else np.ascontiguousarray(block, np.float32)).tobytes())
            assert count == int(np.prod(shape)), name
    return at


def write(folder, weights, like, dtype="F32"):
    """A folder of `weights`, with the configuration and the tokenizer of the folder `like`."""
    folder = pathlib.Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    config = json.loads((pathlib.Path(like) / "config.json").read_text())
    config.pop("torch_dtype", None)
    config["dtype"] = CONFIG_DTYPE[dtype]
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n")
    for name in ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "generation_config.json"):
        if (pathlib.Path(like) / name).exists():
            shutil.copy(pathlib.Path(like) / name, folder / name)
    write_file(folder / "model.safetensors", {n: w.shape for n, w in weights.items()}, lambda name: [weights[name]], dtype)
