"""What the engine says while it works: warnings to ``logging``, progress to a bar."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeAlias

from . import _core

logger = logging.getLogger("gatelens")

#: How a run shows its progress: ``None`` draws a bar with tqdm where that is installed, ``False`` shows nothing, and a function
#: is called with the share that is done, from 0 to 1.
Progress: TypeAlias = "bool | Callable[[float], object] | None"


def hear() -> None:
    """Pass on what was said since the last call."""
    for level, text in _core.drain_logs():
        logger.log(level, text)


@contextmanager
def hearing(progress: Progress = False, what: str = "") -> Iterator[Callable[[float, float], None]]:
    """A function to call with what is done and what is expected; what the engine says meanwhile is passed on."""
    show, close = _shown(progress, what)

    def tick(done: float, expected: float) -> None:
        hear()
        if expected > 0:
            show(min(done / expected, 1.0))

    try:
        yield tick
    finally:
        close()
        hear()


def _shown(progress: Progress, what: str) -> tuple[Callable[[float], object], Callable[[], object]]:
    nothing: tuple[Callable[[float], object], Callable[[], object]] = (lambda share: None, lambda: None)
    if progress is False:
        return nothing
    if callable(progress):
        return progress, lambda: None
    try:
        from tqdm.auto import tqdm
    except ImportError:
        return nothing
    # A run of under a second shows none.
    shape = "{desc}: {percentage:3.0f} %|{bar}| {elapsed} so far, about {remaining} left"
    bar: Any = tqdm(total=1.0, desc=what, delay=1.0, leave=False, bar_format=shape)

    def show(share: float) -> None:
        bar.update(share - bar.n)

    return show, bar.close
