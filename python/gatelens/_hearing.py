"""What the engine says while it works: warnings to ``logging``, progress to a bar."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import import_module
from importlib.util import find_spec
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


#: Seconds that a run may take without a bar.
DELAY = 1.0


#: What shows a share, and what ends showing.
_Bar: TypeAlias = "tuple[Callable[[float], object], Callable[[], object]]"


def _shown(progress: Progress, what: str) -> _Bar:
    if callable(progress):
        return progress, lambda: None
    bar = None if progress is False else _notebook_bar(what) or _tqdm_bar(what)
    return bar or (lambda share: None, lambda: None)


def _tqdm_bar(what: str) -> _Bar | None:
    try:
        from tqdm.auto import tqdm
    except ImportError:
        return None
    shape = "{desc}: {percentage:3.0f} %|{bar}| {elapsed} so far, about {remaining} left"
    bar: Any = tqdm(total=1.0, desc=what, delay=DELAY, leave=False, smoothing=0, bar_format=shape)
    return lambda share: bar.update(share - bar.n), bar.close


def _notebook_bar(what: str) -> _Bar | None:
    """A bar in a notebook without ipywidgets, where tqdm's would fill the page line by line."""
    if "ipykernel" not in sys.modules or find_spec("ipywidgets") is not None:
        return None
    ipython: Any = import_module("IPython.display")
    began, handle, drawn = time.monotonic(), None, 0.0

    def show(share: float) -> None:
        nonlocal handle, drawn
        now = time.monotonic()
        if now - began < DELAY or now - drawn < 0.2:
            return
        drawn, left = now, (now - began) * (1 / max(share, 1e-6) - 1)
        bar = ipython.HTML(
            f'<progress value="{share:.3f}"></progress> {what}: {now - began:.0f} s so far, about {left:.0f} s left'
        )
        if handle is None:
            handle = ipython.display(bar, display_id=True)
        else:
            handle.update(bar)

    def close() -> None:
        if handle is not None:
            handle.update(ipython.HTML(""))

    return show, close
