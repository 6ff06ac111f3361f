"""Studies: an analysis put to a model, and what it leaves."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
import weakref
from collections.abc import Iterator, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any, ClassVar, NoReturn

import numpy as np

from . import _core, _html
from ._data import Data, vector_bytes, written
from ._hearing import Progress, hearing
from ._models import Array, Model, open
from ._tables import Table

#: What the names of figures that can be walked begin with.
GRAPH = "graph"


class Analysis:
    """An analysis with its parameters, which are those of the command of its name. It can be pickled and put to several models."""

    #: The command's name.
    command: ClassVar[str]
    #: Parameters that take data.
    _data: ClassVar[tuple[str, ...]] = ()
    #: Parameters that take a list.
    _lists: ClassVar[tuple[str, ...]] = ()
    #: Parameters that have to be given.
    _required: ClassVar[tuple[str, ...]] = ()
    #: The parameter that the data given to :meth:`run` are of.
    _first: ClassVar[str | None] = None

    def __init__(self, **parameters: Any) -> None:
        given = {name.removesuffix("_"): value for name, value in parameters.items()}
        #: What was given, by the command's names; the rest has its default.
        self.parameters: dict[str, Any] = {k: v for k, v in given.items() if v is not None and v is not False}
        # What is misspelt or out of range is told here; what data are is seen when they are read.
        named = {k: self._file(k) if k in self._data else self._value(k, v) for k, v in self.parameters.items()}
        # Its data may be given to `run`.
        named |= {k: self._file(k) for k in self._required if k in self._data and k not in named}
        if all(name in named for name in self._required):
            _core.Study(self.command, json.dumps(named))

    def __repr__(self) -> str:
        given = ", ".join(f"{_python(name)}={_short(value)}" for name, value in self.parameters.items())
        return f"{type(self).__name__}({given})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Analysis) and type(self) is type(other) and self._json() == other._json()

    def run(
        self,
        model: Model | str | os.PathLike[str],
        data: Data = None,
        *,
        out: str | os.PathLike[str] | None = None,
        force: bool = False,
        resume: bool = False,
        join: bool = False,
        seed: int = 0,
        engine: str = "wavefront",
        progress: Progress = None,
    ) -> Study:
        """Put the analysis to a model, and to these data if they were not among its parameters.

        Parameters
        ----------
        model
            A model, or what :func:`gatelens.open` takes.
        data
            Pairs or prompts: a file, a list of dicts, or a data frame.
        out
            The run directory. It appears whole at the end; what was finished before an interruption stays beside it and is gone on
            from with ``resume``. Without it the study's files are in a folder that goes with the study; see :meth:`Study.save`.
        force
            Replace the run directory if it exists.
        resume
            Go on with an unfinished run of the same study; a complete one is read.
        join
            Work together with all processes that run the same study with the same ``out``, on one machine or many: each takes the
            next piece of the work that no other is at. All of them end with the whole study.
        seed
            The seed of everything random: permutations, the bootstrap, random sets, sampled answers.
        engine
            ``"wavefront"``, or ``"full"``, a whole forward pass for each run.
        progress
            ``None`` draws a bar with tqdm where it is installed, ``False`` shows nothing, a function is told the share done.
        """
        if join and (out is None or force):
            raise _core.InputError("`join`: give the `out` that the processes share, and no `force`")
        model = _opened(model)
        core = self._core(data)
        keep = None if out is not None else tempfile.mkdtemp(prefix="gatelens-")
        place = Path(keep) / self.command if keep else Path(os.fspath(out or ""))
        call = f"gatelens.{self!r}.run({model.name!r})"
        try:
            with hearing(progress, self.command) as tick:
                path, record, tables, complete = core.run_into(
                    model._core, os.fspath(place), force, resume, join, engine, seed, call, tick
                )
        except BaseException:
            if keep is not None:
                shutil.rmtree(keep, ignore_errors=True)
            raise
        if complete:
            return load(path)
        return Study(Path(path), json.loads(record), [Table(table) for table in tables], keep)

    def cost(self, model: Model | str | os.PathLike[str], data: Data = None, *, seed: int = 0) -> dict[str, Any]:
        """What the study would cost by each engine: rows times layers, operations, bytes, and seconds by a measured rate."""
        model = _opened(model)
        with hearing():
            found: dict[str, Any] = json.loads(self._core(data).cost(model._core, "wavefront", seed))
        return found

    def _file(self, name: str) -> Any:
        """A file in the place of data that are not looked at yet."""
        return [f"{name}.jsonl"] if name in self._lists else f"{name}.jsonl"

    def _core(self, data: Data) -> _core.Study:
        return _core.Study(self.command, json.dumps(self._json(data)))

    def _json(self, data: Data = None) -> dict[str, Any]:
        parameters = dict(self.parameters)
        if data is not None:
            if self._first is None:
                raise _core.InputError(f"{self.command}: give its data by the names of its parameters")
            if self._first in parameters:
                raise _core.InputError(f"{self.command}: `{self._first}` was given twice, to the class and to run")
            parameters[self._first] = data
        return {name: self._value(name, value) for name, value in parameters.items()}

    def _value(self, name: str, value: Any) -> Any:
        many = name in self._lists
        if name in self._data:
            if not many:
                return written(name, value)
            each = value if isinstance(value, (list, tuple)) and not _is_items(value) else [value]
            return [written(name, one) for one in each]
        if many:
            return [_plain(one) for one in ([value] if isinstance(value, (str, int, float)) else value)]
        if isinstance(value, (list, tuple, np.ndarray)):
            # As a flag has them: a grid of coefficients, layers.
            return ",".join(str(_plain(one)) for one in value)
        return _plain(value)


class Figure:
    """A figure of a study."""

    def __init__(self, name: str, study: Study) -> None:
        #: Its name, without an ending.
        self.name = name
        # Its files are the study's.
        self._study, self._folder = study, study.path

    @property
    def png(self) -> bytes:
        """As a PNG file's bytes."""
        return (self._folder / f"{self.name}.png").read_bytes()

    @property
    def svg(self) -> str:
        """As SVG: for papers, and for dark pages."""
        return (self._folder / f"{self.name}.svg").read_text()

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write it to a ``.png`` or ``.svg`` file."""
        kind = Path(os.fspath(path)).suffix
        if kind not in (".png", ".svg"):
            raise _core.InputError(f"{path}: a figure is written as .png or .svg")
        shutil.copyfile(self._folder / f"{self.name}{kind}", path)

    def __repr__(self) -> str:
        return f"<figure {self.name}>"

    def _repr_mimebundle_(self, include: object = None, exclude: object = None) -> dict[str, str]:
        plain = {"text/plain": repr(self)}
        page = self._study._page([self.name]) if self.name.startswith(GRAPH) else None
        if page is not None:
            return {**plain, "text/html": _html.frame(page, 820)}
        return {**plain, "text/html": _html.svg(self.svg)}


class View:
    """A page of its own that a reader can walk: a report, the tokens of prompts."""

    def __init__(self, html: str, height: int = 640) -> None:
        #: The page.
        self.html = html
        self._height = height

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write it to a file."""
        Path(os.fspath(path)).write_text(self.html)

    def _repr_html_(self) -> str:
        return _html.frame(self.html, self._height)


class _Named(Mapping[str, Any]):
    """Things by their names, which are attributes too."""

    def __init__(self, what: str, things: dict[str, Any]) -> None:
        self._what, self._things = what, things

    def __getitem__(self, name: str) -> Any:
        if name in self._things:
            return self._things[name]
        raise KeyError(f"there is no {self._what} {name!r}; there are {', '.join(self._things) or 'none'}")

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_") or name not in self._things:
            raise AttributeError(f"there is no {self._what} {name!r}; there are {', '.join(self._things) or 'none'}")
        return self._things[name]

    def __dir__(self) -> list[str]:
        return [*super().__dir__(), *self._things]

    def __iter__(self) -> Iterator[str]:
        return iter(self._things)

    def __len__(self) -> int:
        return len(self._things)

    def __repr__(self) -> str:
        return f"<{self._what}s {', '.join(self._things)}>"


class Study:
    """What an analysis left: tables, figures, a report, files. Tables are attributes: ``study.heads.to_polars()``."""

    def __init__(self, path: Path, record: dict[str, Any], tables: Sequence[Table], keep: str | None = None) -> None:
        #: The run directory.
        self.path = path
        #: The record: parameters, seed, versions, hashes of the model and the data, times, memory (``run.json``).
        self.record = record
        #: The analysis' name.
        self.command: str = record["command"]
        #: The tables by name.
        self.tables = _Named("table", {table.name: table for table in tables})
        if keep is not None:
            # Nobody asked for a folder: the study's goes with the study.
            weakref.finalize(self, shutil.rmtree, keep, ignore_errors=True)

    @property
    def figures(self) -> Mapping[str, Figure]:
        """The figures by name."""
        names = sorted(path.stem for path in self.path.glob("*.png"))
        return _Named("figure", {name: Figure(name, self) for name in names})

    @property
    def report(self) -> View:
        """The whole report, as a page."""
        return View((self.path / "report.html").read_text(), 800)

    @property
    def markdown(self) -> str:
        """The whole report, as Markdown; figures stand beside it in the run directory."""
        return (self.path / "report.md").read_text()

    @property
    def graph(self) -> Figure:
        """The circuit as a graph that can be walked: of ``edges`` and ``circuit``."""
        names = [name for name in self.figures if name.startswith(GRAPH)]
        if not names:
            raise _core.InputError(f"{self.command} draws no graph; edges and circuit do")
        return self.figures[names[0]]

    @property
    def tokens(self) -> View:
        """Prompts whose tokens show where heads look: of ``attention`` with ``head``."""
        page = self._page([], tokens=True)
        if page is None:
            raise _core.InputError(f"{self.command} has no view of tokens; Attention(head=...) has one")
        return View(page, 340)

    @property
    def findings(self) -> list[str]:
        """What the tables say first, as the command prints it: the strongest, with intervals."""
        return _core.findings(self._core_tables())

    @property
    def files(self) -> Mapping[str, Path]:
        """All files of the run directory by name."""
        return _Named("file", {path.name: path for path in sorted(self.path.iterdir()) if path.is_file()})

    def vectors(self, name: str | None = None) -> dict[str, Array]:
        """The vectors that the study wrote, by name: of the one file that has some, or of this file."""
        found = [path.name for path in sorted(self.path.glob("*.safetensors"))]
        if name is None:
            if len(found) != 1:
                raise _core.InputError(f"{self.command} wrote {', '.join(found) or 'no vectors'}; name a file")
            name = found[0]
        return read_vectors(self.path / name)

    def save(self, directory: str | os.PathLike[str], *, force: bool = False) -> Path:
        """Copy the run directory: :func:`gatelens.load` and the command read it."""
        to = Path(os.fspath(directory))
        if to.exists():
            if not force:
                raise _core.InputError(f"{to}: exists already; choose another folder, or replace it with force=True")
            if not (to / "run.json").is_file():
                raise _core.InputError(f"{to}: holds no run.json, so it is not a run directory and is not replaced")
            shutil.rmtree(to)
        shutil.copytree(self.path, to)
        return to

    def __getattr__(self, name: str) -> Table:
        tables = self.__dict__.get("tables")
        if tables is None or name.startswith("_") or name not in tables:
            known = ", ".join(tables or ())
            raise AttributeError(f"a study of {self.__dict__.get('command')} has no table {name!r}; it has {known}")
        found: Table = tables[name]
        return found

    def __dir__(self) -> list[str]:
        return [*super().__dir__(), *self.tables]

    def __reduce__(self) -> NoReturn:
        raise TypeError("a study is not pickled: save it, and load its folder with gatelens.load")

    def __repr__(self) -> str:
        sizes = ", ".join(f"{name} ({len(table)} rows)" for name, table in self.tables.items())
        return "\n".join([f"<study {self.command} of {self.record['model']['name']}: {sizes}>", *self.findings])

    def _repr_html_(self) -> str:
        found = "".join(f"<div>{escape(line)}</div>" for line in self.findings)
        rows = "".join(
            f'<tr><td style="text-align:left"><code>.{name}</code></td><td>{len(table)} rows</td></tr>'
            for name, table in self.tables.items()
        )
        figures = ", ".join(f"<code>{escape(name)}</code>" for name in self.figures)
        return (
            f"<b>{escape(self.command)}</b> of {escape(self.record['model']['name'])}{found}"
            f"<table><tbody>{rows}</tbody></table><small>figures: {figures or 'none'}</small>"
        )

    def _core_tables(self) -> list[_core.Table]:
        return [table._core for table in self.tables.values()]

    def _page(self, figures: list[str], *, tokens: bool = False) -> str | None:
        """A page of these figures alone, or of the views of tokens; none where there are none."""
        return _core.view(self.command, self._core_tables(), os.fspath(self.path), figures, tokens)


def load(directory: str | os.PathLike[str]) -> Study:
    """Read a run directory, whoever made it: the command, an experiment file, or Python."""
    path = Path(os.fspath(directory))
    try:
        record: dict[str, Any] = json.loads((path / "run.json").read_text())
    except FileNotFoundError:
        raise _core.InputError(f"{path}: holds no run.json, so it is not a run directory") from None
    except ValueError as e:
        raise _core.InputError(f"{path / 'run.json'}: is no JSON: {e}") from None
    if "command" not in record or "model" not in record:
        raise _core.InputError(f"{path}: is of several analyses; load one of the folders in it")
    return Study(path, record, [Table.read(file) for file in sorted(path.glob("*.parquet"))])


def read_vectors(path: str | os.PathLike[str]) -> dict[str, Array]:
    """The tensors of a safetensors file by name, as float32 (whole numbers as int64)."""
    return _core.read_tensors(os.fspath(path))


def write_vectors(path: str | os.PathLike[str], vectors: Mapping[str, Any]) -> None:
    """Write arrays to a safetensors file, as float32: the command reads it wherever it reads vectors."""
    Path(os.fspath(path)).write_bytes(vector_bytes(vectors))


def _opened(model: Model | str | os.PathLike[str]) -> Model:
    return model if isinstance(model, Model) else open(model)


def _python(name: str) -> str:
    return f"{name}_" if name in ("class", "from", "lambda") else name


def _short(value: Any) -> str:
    if isinstance(value, (str, int, float, bool, Path)):
        return repr(value)
    if isinstance(value, (list, tuple)) and len(value) <= 6 and all(isinstance(v, (str, int, float)) for v in value):
        return repr(list(value))
    try:
        return f"<{type(value).__name__} of {len(value)}>"
    except TypeError:
        return f"<{type(value).__name__}>"


def _is_items(value: Sequence[Any]) -> bool:
    """Whether a list is one file's items, rather than of several files."""
    return bool(value) and isinstance(value[0], Mapping)


def _plain(value: Any) -> Any:
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, (list, tuple)):
        return [_plain(one) for one in value]
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    return value
