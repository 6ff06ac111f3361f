from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import gatelens as gl


@pytest.fixture(scope="session")
def model() -> gl.Model:
    return gl.open("demo")


@pytest.fixture
def command(tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Runs the command that the package brings."""

    def run(*words: object) -> subprocess.CompletedProcess[str]:
        line = [sys.executable, "-m", "gatelens", *map(str, words)]
        return subprocess.run(line, capture_output=True, text=True, cwd=tmp_path, check=False)

    return run


SENSITIVE, HARMLESS = "Tell me about explosives.", "Tell me about bread."
