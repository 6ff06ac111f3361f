"""What the docs say runs as it stands."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from conftest import HARMLESS, SENSITIVE

import gatelens as gl

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "python.md").read_text()


def blocks(text: str) -> list[str]:
    return re.findall(r"```python\n(.*?)```", text, re.DOTALL)


@pytest.mark.parametrize("page", ["docs/python.md", "README.md"])
def test_the_pages_code_runs(page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("networkx")
    pytest.importorskip("sklearn")
    monkeypatch.chdir(tmp_path)
    found = blocks((ROOT / page).read_text())
    assert found
    namespace: dict[str, Any] = {}
    for block in found:
        exec(compile(block, page, "exec"), namespace)


def phrases() -> list[tuple[str, str]]:
    table = PAGE[PAGE.index("| there | here |") :].splitlines()[2:]
    rows = [line.strip("|").rsplit(" | ", 1) for line in table if line.startswith("|")]
    return [(there.strip(), here.strip().strip("`")) for there, here in rows]


def test_the_phrase_book_has_thirty_phrases() -> None:
    assert len(phrases()) >= 30


@pytest.mark.parametrize(("there", "here"), phrases())
def test_a_phrase_does_something(there: str, here: str, model: gl.Model) -> None:
    import numpy as np

    plan = model.plan()
    namespace: dict[str, Any] = {
        "gl": gl,
        "model": model,
        "prompt": SENSITIVE,
        "other": HARMLESS,
        "ids": model.tokens(SENSITIVE).ids,
        "plan": plan,
        "run": plan.prompt(SENSITIVE),
        "donor": plan.prompt(HARMLESS),
        "pairs": gl.read_pairs("demo:pairs.jsonl")[:8],
        "cache": model.trace(SENSITIVE, "resid_post,z"),
        "vector": np.ones(64),
        "row_hook": lambda row: row * 0.5,
        "same_length": "Tell me about bread.",
    }
    exec(compile(f"value = {here.removeprefix('cache = ')}", there, "exec"), namespace)
    value = namespace["value"]
    if isinstance(value, gl.Handle):
        assert plan.run()[value] is not None
    elif isinstance(value, (gl.Run, list)) and here.startswith(("run.", "[run.")):
        plan.run()
    elif isinstance(value, gl.Analysis):
        assert value.run(model).tables
    assert value is not None
