#!/usr/bin/env python3
"""Writes what Python renders for the expressions and templates of tests/fixtures/templates.

The tests hold gatelens' own interpreter of Jinja to it, so that they need no Python. Run it after a change of
`expressions.txt`, `variables.json`, `conversations.json` or a `*.jinja`:

    pip install transformers jinja2
    python scripts/make_template_cases.py

It takes the environment that `transformers` makes for chat templates; without `transformers`, it sets up the same.
"""

import datetime
import json
import pathlib

FOLDER = pathlib.Path(__file__).resolve().parent.parent / "tests" / "fixtures" / "templates"
SPECIALS = {"bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>", "image_token": "<image>"}
# The day that gatelens takes for today where none is given.
TODAY = datetime.datetime(2024, 7, 26)


def environment_of_transformers():
    from transformers.utils.chat_template_utils import _compile_jinja_template

    return _compile_jinja_template("").environment


def environment_like_it():
    import jinja2
    import jinja2.ext
    import jinja2.sandbox

    class Generation(jinja2.ext.Extension):
        tags = {"generation"}

        def parse(self, parser):
            line = next(parser.stream).lineno
            body = parser.parse_statements(["name:endgeneration"], drop_needle=True)
            return jinja2.nodes.CallBlock(self.call_method("_written"), [], [], body).set_lineno(line)

        def _written(self, caller):
            return caller()

    def raise_exception(message):
        raise jinja2.exceptions.TemplateError(message)

    def tojson(x, ensure_ascii=False, indent=None, separators=None, sort_keys=False):
        return json.dumps(x, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)

    class Namespace(jinja2.utils.Namespace):
        def __init__(*args, **kwargs):
            attributes = dict(*args[1:], **kwargs)
            jinja2.utils.Namespace.__init__(args[0], {})
            for name, value in attributes.items():
                args[0][name] = value

        def __setitem__(self, name, value):
            if isinstance(name, str) and name.startswith("_"):
                raise jinja2.exceptions.SecurityError(name)
            jinja2.utils.Namespace.__setitem__(self, name, value)

    environment = jinja2.sandbox.ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[Generation, jinja2.ext.loopcontrols]
    )
    environment.filters["tojson"] = tojson
    environment.globals["raise_exception"] = raise_exception
    environment.globals["namespace"] = Namespace
    return environment


def environment():
    try:
        made = environment_of_transformers()
    except ImportError:
        made = environment_like_it()
    made.globals["strftime_now"] = lambda format: TODAY.strftime(format)
    return made


def rendered(environment, source, variables):
    """`{"output": ...}`, or `{"error": ...}` with the class of what Python raised."""
    try:
        output = environment.from_string(source).render(**variables)
    except Exception as error:
        return {"error": type(error).__name__}
    if " at 0x" in output:
        raise SystemExit(f"{source!r} writes an address, which is another each time: {output!r}")
    return {"output": output}


def read(name):
    return json.loads((FOLDER / name).read_text(encoding="utf-8"))


def write(name, value):
    text = json.dumps(value, ensure_ascii=False, indent=1)
    (FOLDER / name).write_text(text + "\n", encoding="utf-8")


def main():
    python = environment()
    variables = read("variables.json")
    lines = (FOLDER / "expressions.txt").read_text(encoding="utf-8").split("\n")
    expressions = []
    for line in lines:
        if line and not line.startswith("#"):
            # A backslash before a line break cannot stand in a line: it is written as a pilcrow.
            source = "{{ " + line.replace("\\¶", "\\\n") + " }}"
            expressions.append({"source": source, **rendered(python, source, SPECIALS | variables)})
    write("expressions.json", expressions)
    cases = {}
    for path in sorted(FOLDER.glob("*.jinja")):
        source = path.read_bytes().decode("utf-8")
        cases[path.stem] = {}
        for name, conversation in read("conversations.json").items():
            given = {"tools": None, "documents": None, **SPECIALS, **conversation.get("variables", {})}
            given["messages"] = conversation["messages"]
            given["add_generation_prompt"] = conversation["add_generation_prompt"]
            cases[path.stem][name] = rendered(python, source, given)
    write("renderings.json", cases)
    failed = sum("error" in case for template in cases.values() for case in template.values())
    total = sum(len(template) for template in cases.values())
    refused = sum("error" in case for case in expressions)
    print(f"{len(expressions)} expressions, {refused} refused; {total} renderings, {failed} refused")


if __name__ == "__main__":
    main()
