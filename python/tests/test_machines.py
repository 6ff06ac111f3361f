from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

import gatelens as gl

EXAMPLES = Path(__file__).parents[2] / "examples" / "machines"
WORKER = """
import sys, gatelens as gl
gl.Edges("demo:pairs.jsonl", max_pairs=8).run(gl.open("demo", threads=1), out=sys.argv[1], join=True, progress=False)
"""


def tables(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.glob("*.parquet")}


def test_processes_that_join_end_with_the_tables_of_one(model: gl.Model, tmp_path: Path) -> None:
    alone = gl.Edges("demo:pairs.jsonl", max_pairs=8).run(model, out=tmp_path / "alone")
    out = tmp_path / "shared"
    both = [subprocess.Popen([sys.executable, "-c", WORKER, str(out)]) for _ in range(2)]
    joined = gl.Edges("demo:pairs.jsonl", max_pairs=8).run(model, out=out, join=True)
    assert [process.wait() for process in both] == [0, 0]
    assert joined.path == out and tables(out) == tables(alone.path) and joined.tables.keys() == alone.tables.keys()
    assert not out.with_name("shared.partial").exists()


def test_a_place_to_join_must_be_given(model: gl.Model, tmp_path: Path) -> None:
    for given in ({}, {"out": tmp_path / "x", "force": True}):
        with pytest.raises(gl.InputError, match="join"):
            gl.Dla("demo:prompts.jsonl").run(model, join=True, **given)  # type: ignore[arg-type]


@pytest.mark.parametrize("on", ["ray", "dask"])
def test_the_examples_share_a_study(on: str, model: gl.Model, tmp_path: Path) -> None:
    if importlib.util.find_spec("ray" if on == "ray" else "distributed") is None:
        pytest.skip(f"{on} is not installed")
    out = tmp_path / "shared"
    ran = subprocess.run(
        [sys.executable, EXAMPLES / f"on_{on}.py", out, "--workers", "2"], capture_output=True, text=True
    )
    assert ran.returncode == 0, ran.stderr
    alone = gl.Interchange("demo:pairs.jsonl").run(model, out=tmp_path / "alone")
    assert tables(out) == tables(alone.path) and "interchange" in ran.stdout
