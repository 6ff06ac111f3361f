"""What notebooks show."""

from __future__ import annotations

import re
from html import escape
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ._models import Tokens
    from ._tables import Table

#: Rows of a table that are shown.
ROWS = 12
#: Letters of a text that a cell shows.
LETTERS = 48
#: How many times their size on paper figures have.
SCALE = 1.6


def table(table: Table) -> str:
    """A table's first rows; a column's meaning stands in its heading's tooltip."""
    docs = table.docs
    cells = [table._plain(name, ROWS) for name in docs]
    numeric = [all(isinstance(cell, (int, float, type(None))) for cell in column) for column in cells]
    align = ["right" if is_number else "left" for is_number in numeric]
    head = "".join(
        f'<th style="text-align:{side}" title="{escape(doc)}">{escape(name)}</th>'
        for (name, doc), side in zip(docs.items(), align, strict=True)
    )
    body = "".join(
        "<tr>"
        + "".join(
            f'<td style="text-align:{side};white-space:nowrap">{escape(cell(value))}</td>'
            for value, side in zip(row, align, strict=True)
        )
        + "</tr>"
        for row in zip(*cells, strict=True)
    )
    rows, columns = table.shape
    more = f"{rows} rows, the first {ROWS} shown" if rows > ROWS else f"{rows} row{'s' * (rows != 1)}"
    return (
        f'<div style="max-width:100%;overflow-x:auto"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'
        f"<small><b>{escape(table.name)}</b>: {more}, {columns} columns</small>"
    )


def cell(value: Any) -> str:
    """A cell as it is read."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.4g}".replace("-", "\u2212", 1) if value < 0 else f"{value:.4g}"
    text = str(value)
    return text if len(text) <= LETTERS else f"{text[:LETTERS]}…"


def tokens(tokens: Tokens) -> str:
    """Tokens as boxes, with their positions and ids in tooltips."""
    style = "border:1px solid color-mix(in srgb, currentColor 30%, transparent);border-radius:3px;padding:1px 3px;margin:1px"
    boxes = "".join(
        f'<span style="{style};white-space:pre;display:inline-block" title="position {i}, id {number}">'
        f"{escape(piece).replace(chr(10), '&#9166;') or '&nbsp;'}</span>"
        for i, (number, piece) in enumerate(zip(tokens.ids, tokens.pieces, strict=True))
    )
    return f'<div style="font-family:monospace;line-height:2">{boxes}</div><small>{len(tokens)} tokens</small>'


def svg(picture: str) -> str:
    """A figure as wide as it can be read: its own size is that of a column of a paper."""
    size = re.search(r'width="([0-9.]+)mm" height="[0-9.]+mm"', picture)
    if size is None:
        return picture
    pixels = round(float(size[1]) * 96 / 25.4 * SCALE)
    return picture.replace(size[0], f'style="width:{pixels}px;max-width:100%;height:auto"', 1)


def frame(page: str, height: int) -> str:
    """A page of its own within a page: its script and its style touch nothing else."""
    return (
        f'<iframe srcdoc="{escape(page)}" sandbox="allow-scripts allow-popups" '
        f'style="width:100%;height:{height}px;border:0"></iframe>'
    )
