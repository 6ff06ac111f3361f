"""Data as users have them, as the engine takes them: files by name, or the bytes that a file would hold."""

from __future__ import annotations

import io
import json
import os
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np

from . import _core
from ._hearing import hearing
from ._models import Tokens, prompt_json
from ._tables import Table

#: Pairs or prompts: a file by its name (``"pairs.jsonl"``, ``"demo:pairs.jsonl"``), a list of dicts with the fields of its lines,
#: or a data frame with these fields as columns.
Data: TypeAlias = Any


#: What files of other parameters than pairs and prompts are, where their bytes are given.
ENDINGS = {
    "classes": "toml",
    "circuit": "json",
    "graph": "json",
    "metric_file": "json",
    "set": "txt",
    "vector": "safetensors",
}


def read_pairs(path: str | os.PathLike[str]) -> list[dict[str, Any]]:
    """The pairs of a file of JSON Lines, each a dict with the fields of its line. The file is checked."""
    return _lines(path, True)


def read_prompts(path: str | os.PathLike[str]) -> list[dict[str, Any]]:
    """The prompts of a file of JSON Lines, each a dict with the fields of its line. The file is checked."""
    return _lines(path, False)


def _lines(path: str | os.PathLike[str], pairs: bool) -> list[dict[str, Any]]:
    with hearing():
        lines = _core.read_input(os.fspath(path), pairs).decode("utf-8-sig").splitlines()
    return [json.loads(line) for line in lines if line.strip()]


#: Parameters whose items are prompts: a text alone is one.
PROMPTS = ("prompts", "reference", "concept", "random", "class")


def written(name: str, value: Data) -> Any:
    """A value of a parameter that takes a file, as JSON."""
    if isinstance(value, (str, os.PathLike)):
        return os.fspath(value)
    if isinstance(value, (bytes, bytearray)):
        return in_memory(f"{name}.{ENDINGS.get(name, 'bin')}", bytes(value))
    if name == "classes":
        return in_memory("classes.toml", _rules(value).encode())
    if isinstance(value, Table):
        return in_memory(f"{name}.parquet", value.to_parquet())
    if isinstance(value, np.ndarray):
        array = io.BytesIO()
        np.save(array, np.ascontiguousarray(value, dtype=np.float32))
        return in_memory(f"{name}.npy", array.getvalue())
    if isinstance(value, Mapping) and ENDINGS.get(name) == "safetensors":
        return in_memory(f"{name}.safetensors", vector_bytes(value))
    if isinstance(value, Mapping) and name not in PROMPTS:
        return in_memory(f"{name}.json", json.dumps(value).encode())
    lines: list[Any]
    items = [value] if isinstance(value, (Mapping, Tokens)) else _items(value)
    if items is None:
        raise _core.InputError(
            f"{name}: expected a file, a list of dicts or a data frame, found {type(value).__name__}"
        )
    if not items:
        raise _core.InputError(f"{name}: is empty")
    if name in PROMPTS:
        lines = [item if _is_line(item) else {"prompt": item} for item in items]
    elif all(isinstance(item, str) for item in items):
        # Names that a line each has: heads, neurons.
        return in_memory(f"{name}.txt", "".join(f"{item}\n" for item in items).encode())
    else:
        lines = list(items)
    if not all(isinstance(line, Mapping) for line in lines):
        raise _core.InputError(f"{name}: expected a list of dicts with the fields of a line of its file")
    return in_memory(f"{name}.jsonl", "".join(json.dumps(_plain(line)) + "\n" for line in lines).encode())


def vector_bytes(vectors: Mapping[str, Any]) -> bytes:
    """Arrays by name as the bytes of a safetensors file."""
    if not isinstance(vectors, Mapping):
        raise _core.InputError(f"expected a dict of arrays by name, found {type(vectors).__name__}")
    arrays = {name: np.ascontiguousarray(np.asarray(value), dtype=np.float32) for name, value in vectors.items()}
    return _core.tensor_bytes(arrays)


def _is_line(item: Any) -> bool:
    """Whether this is a line of a prompts file, rather than a prompt alone."""
    return isinstance(item, Mapping) and not {"text", "messages", "ids", "role"} & item.keys()


def _rules(value: Any) -> str:
    """Classes of texts as a file has them: given as rules, or as the phrases of each class, which count wherever they stand."""
    if isinstance(value, Mapping):
        found = [
            {
                "id": name,
                "class": name,
                "lang": "any",
                "at": "start",
                "within": 100_000,
                "phrases": [phrases] if isinstance(phrases, str) else list(phrases),
            }
            for name, phrases in value.items()
        ]
        return _rules(found)
    if (
        not isinstance(value, Sequence)
        or isinstance(value, str)
        or not all(isinstance(rule, Mapping) for rule in value)
    ):
        raise _core.InputError("classes: expected a file, a dict of phrases by class, or a list of rules")
    # What JSON writes of texts, numbers, flags and lists is TOML.
    lines = [
        "\n".join(["[[rule]]", *(f"{k} = {json.dumps(v, ensure_ascii=False)}" for k, v in rule.items())])
        for rule in value
    ]
    return "\n\n".join(lines) + "\n"


def in_memory(name: str, data: bytes) -> Any:
    """Bytes under a name, by whose ending readers tell formats apart."""
    return json.loads(_core.data(name, data))


def _items(value: Any) -> Sequence[Any] | None:
    if isinstance(value, Sequence):
        return value
    if hasattr(value, "to_dicts"):  # polars
        found: list[Any] = value.to_dicts()
        return found
    if hasattr(value, "to_pylist"):  # pyarrow
        return list(value.to_pylist())
    if hasattr(value, "to_dict"):  # pandas
        return list(value.to_dict("records"))
    return None


def _plain(item: Mapping[str, Any]) -> dict[str, Any]:
    """A row as a line has it: an empty cell is a field that is not there."""
    return {key: _field(key, value) for key, value in item.items() if not _empty(value)}


def _field(key: str, value: Any) -> Any:
    """A field of a line; prompts may be given in every way that models take them."""
    if key in ("prompt", "positive", "negative") and not isinstance(value, Mapping):
        return prompt_json(value)
    return _value(value)


def _empty(value: Any) -> bool:
    return value is None or (isinstance(value, float) and value != value)


def _value(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        return [_value(item) for item in value.tolist()]
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, Mapping):
        return {key: _value(item) for key, item in value.items() if not _empty(item)}
    if isinstance(value, (list, tuple)):
        return [_value(item) for item in value]
    return value
