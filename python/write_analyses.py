#!/usr/bin/env python3
"""Writes ``gatelens/analyses.py``: a class for every analysis of the command, with its parameters.

  python/write_analyses.py [--check]

It needs the package installed (``maturin develop``, or ``pip install .``), since the parameters are those that the engine declares.
With ``--check`` nothing is written, and the exit code says whether the file is as it should be.
"""

from __future__ import annotations

import importlib.util
import json
import pathlib
import re
import sys
import textwrap
from typing import Any

HERE = pathlib.Path(__file__).resolve().parent
FILE = HERE / "gatelens" / "analyses.py"
KEYWORDS = {"class", "from", "lambda", "with"}
HEAD = '''"""The analyses: a class each, with the parameters of the command of its name.

Written by ``python/write_analyses.py`` from what the engine declares; change it there.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, TypeAlias

from ._data import Data
from ._studies import Analysis

Number: TypeAlias = "int | float"
Text: TypeAlias = "str | int | float"
'''


def core() -> Any:
    """The installed extension, without the package around it: that imports the file that is to be written."""
    # Beside this script is the package too, mostly without the extension.
    places = [pathlib.Path(place or ".") / "gatelens" for place in sys.path]
    found = [file for place in places for ending in ("so", "pyd") for file in place.glob(f"_core*.{ending}")]
    if not found:
        sys.exit("the package is not installed: pip install .")
    loaded = importlib.util.spec_from_file_location("gatelens._core", found[0])
    assert loaded and loaded.loader
    module = importlib.util.module_from_spec(loaded)
    loaded.loader.exec_module(module)
    return module


def python_name(name: str) -> str:
    return f"{name}_" if name in KEYWORDS else name


def class_name(command: str) -> str:
    return "".join(word.capitalize() for word in command.split("-"))


def english(text: str) -> str:
    """Help as Python's reader needs it: parameters in place of flags."""
    flags = re.sub(r"--([a-z][a-z-]*)", lambda m: f"``{python_name(m[1].replace('-', '_'))}``", text)
    return flags.replace("(repeatable)", "(one, or a list)").strip()


def annotation(parameter: dict[str, Any]) -> str:
    kind, many, possible = parameter["kind"], parameter["many"], parameter["possible"]
    if kind == "flag":
        return "bool"
    base = {"int": "int", "float": "Number", "data": "Data", "text": "Text"}[kind]
    if possible:
        base = f"Literal[{', '.join(json.dumps(value) for value in possible)}]"
    if kind == "data":
        return "Data"
    if many:
        return f"{base} | Sequence[{base}] | None"
    return f"{base} | None"


def default(parameter: dict[str, Any]) -> str:
    return "False" if parameter["kind"] == "flag" else "None"


def entry(parameter: dict[str, Any]) -> str:
    said = english(parameter["help"] or "")
    if said and said[-1] not in ".:;)":
        said += "."
    long = english(parameter["long_help"] or "")
    rest = long[len(english(parameter["help"] or "")) :].strip() if long else ""
    values = parameter["default"]
    shown = f" Default: ``{','.join(values)}``." if values and parameter["kind"] != "flag" else ""
    text = " ".join(f"{said}{shown} {rest}".split())
    lines = textwrap.wrap(text, 112, initial_indent=" " * 12, subsequent_indent=" " * 12, break_long_words=False)
    return "\n".join([f"        {python_name(parameter['name'])}", *lines])


def written(analysis: dict[str, Any]) -> str:
    parameters = analysis["parameters"]
    data = [p["name"] for p in parameters if p["kind"] == "data"]
    lists = [p["name"] for p in parameters if p["many"]]
    first = data[0] if data else None
    ordered = [p for p in parameters if p["name"] == first] + [p for p in parameters if p["name"] != first]
    own = [f"{python_name(p['name'])}: {annotation(p)} = {default(p)}" for p in ordered]
    signature = [own[0], "*", *own[1:]] if first and len(own) > 1 else own if first else ["*", *own]
    names = [f"{python_name(p['name'])}={python_name(p['name'])}" for p in ordered]
    about = english(analysis["about"])
    lines = [
        f"class {class_name(analysis['name'])}(Analysis):",
        f'    """{about}."""',
        "",
        f"    command = {json.dumps(analysis['name'])}",
    ]
    lines += [f"    _data = {tuple(data)!r}".replace("'", '"')] if data else []
    lines += [f"    _lists = {tuple(lists)!r}".replace("'", '"')] if lists else []
    required = tuple(p["name"] for p in parameters if p["required"])
    lines += [f"    _required = {required!r}".replace("'", '"')] if required else []
    lines += [f'    _first = "{first}"'] if first else []
    lines += [
        "",
        "    def __init__(",
        "        self,",
        *[f"        {part}," for part in signature],
        "    ) -> None:",
        f'        """{about}.',
        "",
        "        Parameters",
        "        ----------",
        *[entry(p) for p in ordered],
        '        """',
        "        super().__init__(",
        *[f"            {name}," for name in names],
        "        )",
    ]
    return "\n".join(lines)


def main() -> None:
    analyses = json.loads(core().commands())
    names = sorted(class_name(analysis["name"]) for analysis in analyses)
    every = "__all__ = [\n" + "".join(f'    "{name}",\n' for name in names) + "]\n"
    text = "\n\n".join([HEAD + "\n" + every, *[written(analysis) + "\n" for analysis in analyses]])
    if "--check" in sys.argv[1:]:
        if FILE.read_text() != text:
            sys.exit(f"{FILE} is not as the engine declares its parameters: run python/write_analyses.py")
        return
    FILE.write_text(text)


if __name__ == "__main__":
    main()
