"""Tables, and how data frames take them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from . import _core

if TYPE_CHECKING:
    import pandas
    import polars
    import pyarrow


class Table:
    """A table with typed, documented columns. Any library that speaks Arrow takes it: ``polars.DataFrame(table)``."""

    def __init__(self, core: _core.Table) -> None:
        self._core = core

    @staticmethod
    def read(path: str | os.PathLike[str]) -> Table:
        """Read a Parquet file."""
        return Table(_core.Table.read_parquet(os.fspath(path)))

    @property
    def name(self) -> str:
        """Its file's stem: ``heads`` of ``heads.parquet``."""
        return self._core.name

    @property
    def columns(self) -> list[str]:
        """The columns' names."""
        return [name for name, _, _ in self._core.columns()]

    @property
    def docs(self) -> dict[str, str]:
        """What each column means, with its unit."""
        return {name: doc for name, _, doc in self._core.columns()}

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""
        return len(self._core), len(self._core.columns())

    def __len__(self) -> int:
        return len(self._core)

    def __getitem__(self, column: str) -> Any:
        """A column: a numpy array of float64 (NaN in empty cells), int64 or bool, or a list of texts (None in empty cells)."""
        return self._core.column(column)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return iter(self.to_dicts())

    def __arrow_c_stream__(self, requested_schema: object | None = None) -> object:
        return self._core.__arrow_c_stream__(requested_schema)

    def to_dicts(self) -> list[dict[str, Any]]:
        """Its rows; an empty cell is ``None``."""
        names = self.columns
        cells = [self._plain(name) for name in names]
        return [dict(zip(names, row, strict=True)) for row in zip(*cells, strict=True)]

    def to_polars(self) -> polars.DataFrame:
        """As a polars data frame."""
        import polars

        return polars.DataFrame(self)

    def to_pyarrow(self) -> pyarrow.Table:
        """As a pyarrow table."""
        import pyarrow

        return pyarrow.table(self)

    def to_pandas(self) -> pandas.DataFrame:
        """As a pandas data frame."""
        import pandas

        return pandas.DataFrame({name: self[name] for name in self.columns})

    def to_parquet(self) -> bytes:
        """As a Parquet file's bytes, as the command writes it."""
        return self._core.to_parquet()

    def _plain(self, name: str, rows: int | None = None) -> list[Any]:
        """The first cells of a column, or all, as Python's own values."""
        cells = self[name][:rows]
        if isinstance(cells, list):
            return cells
        return [None if cell != cell else cell for cell in cells.tolist()]

    def __repr__(self) -> str:
        rows, columns = self.shape
        return f"<table {self.name}: {rows} rows, {columns} columns: {', '.join(self.columns)}>"

    def _repr_html_(self) -> str:
        from ._html import table

        return table(self)
