from __future__ import annotations

import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas
import polars
import pyarrow
import pytest

import gatelens as gl
from gatelens import analyses

PAIRS, PROMPTS = "demo:pairs.jsonl", "demo:prompts.jsonl"

#: An analysis of every kind, which takes seconds.
STUDIES: dict[str, gl.Analysis] = {
    "behaviour": gl.Behaviour(PAIRS, generate=6),
    "interchange": gl.Interchange(PAIRS, max_pairs=24),
    "screen": gl.Screen(PAIRS, candidates=6, sample=4, max_pairs=24),
    "ablate": gl.Ablate(PROMPTS, mode=["zero", "mean", "resample"], draws=3),
    "dla": gl.Dla(PROMPTS),
    "lens": gl.Lens(PROMPTS, top=3),
    "attention": gl.Attention(PROMPTS, head=["L3.H5", "L4.H1"]),
    "neurons": gl.Neurons(PROMPTS),
    "importance": gl.Importance(PROMPTS, label="sensitive", masks=20),
    "edges": gl.Edges(PAIRS, exact=20, sample=10, max_pairs=8),
    "circuit": gl.Circuit(PAIRS, estimate="eap", max_pairs=8),
    "weights": gl.Weights(against="demo:backup", composition=True),
    "deltas": gl.Deltas(children=["demo:backup"]),
    "similarity": gl.Similarity(PROMPTS, with_="demo:blind", label="sensitive"),
    "rank": gl.Rank(PROMPTS, label="sensitive", layers="3-4"),
    "scale": gl.Scale(PAIRS, at="0,0.5,1", max_pairs=8),
    "interactions": gl.Interactions(PAIRS, heads=["L3.H5", "L4.H1", "L5.H1"], max_pairs=8),
    "contrast-methods": gl.ContrastMethods(PAIRS, direct=4, max_pairs=24),
    "cascade": gl.Cascade(PAIRS, gate="L3.H5", max_pairs=24),
    "commitment": gl.Commitment(PAIRS, max_pairs=24),
    "modulate": gl.Modulate(PAIRS, layer=3, generate=4, generate_pairs=4),
    "cipher": gl.Cipher(PAIRS, gate="L3.H5", cipher="demo:cipher.jsonl", generate=4),
    "contrast": gl.Contrast(PAIRS, cipher="demo:cipher.jsonl"),
    "cav": gl.Cav("demo:concept.jsonl", random="demo:random.jsonl", class_=PROMPTS, method=["mean", "logistic"]),
    "steer": gl.Steer(PROMPTS, from_="caa", pairs=PAIRS, layer=3, coefficients="-2:2:5", generate=4, ablate=True),
}

#: Words of the demo, and statements of it whose truth is which topic is sensitive.
WORDS = ["bread", "rivers", "mountains", "cheese", "music", "gardens", "trees", "birds", "books", "soup"]
TOPICS = [
    ("explosives", "rivers"),
    ("malware", "mountains"),
    ("poison", "cheese"),
    ("forgery", "bread"),
    ("fraud", "music"),
]
STATEMENTS = [
    {
        "stem": "<|user|>Tell me about",
        "candidates": [f" {topic}.<|end|><|assistant|>" for topic in (pair if i % 2 == 0 else pair[::-1])],
        "true": i % 2,
        "topic": "ab"[i % 2],
    }
    for i, pair in enumerate(TOPICS * 2)
]
STUDIES["functions"] = gl.Functions(
    [{"input": word, "output": WORDS[i - 1]} for i, word in enumerate(WORDS)], shots=2, trials=4, heads=3, random=2
)
STUDIES["truth"] = gl.Truth(STATEMENTS, labelled=6)
ITEMS = [
    {
        "value": "caution",
        "topic": "ab"[i % 2],
        "prompt": "Some words are in code.",
        "question": f"Tell me about {word}.",
        "with": "Sorry, I cannot help with that.",
        "without": f"Sure, here is a short answer about {word}.",
    }
    for i, word in enumerate(WORDS)
]
STUDIES["values"] = gl.Values(ITEMS, neurons=12, layers="3", controls=2)


def flags(analysis: gl.Analysis, folder: Path) -> list[str]:
    """The words by which the command is given the same parameters; data in memory are written to files."""
    words = []
    for name, value in analysis.parameters.items():
        if isinstance(value, list) and isinstance(value[0], dict):
            file = folder / f"{name}.jsonl"
            file.write_text("".join(json.dumps(item) + "\n" for item in value))
            value = file
        flag = f"--{name.replace('_', '-')}"
        text = ",".join(map(str, value)) if isinstance(value, list) else str(value)
        words.append(flag if value is True else f"{flag}={text}")
    return words


def test_there_is_a_class_for_every_analysis_and_a_study_of_each_here() -> None:
    commands = {getattr(analyses, name).command for name in analyses.__all__}
    assert set(STUDIES) == commands
    assert all(getattr(gl, name) is getattr(analyses, name) for name in analyses.__all__)


@pytest.mark.parametrize("name", STUDIES)
def test_tables_are_those_of_the_command_byte_for_byte(
    name: str, model: gl.Model, command: Callable[..., Any], tmp_path: Path
) -> None:
    analysis = STUDIES[name]
    named = "demo"
    if name == "scale":
        # It is asked of a mixture.
        named = str(tmp_path / "mixture.toml")
        Path(named).write_text('base = "demo"\n[[term]]\ncoefficient = 1.0\nplus = "demo:backup"\n')
        model = gl.open(named)
    study = analysis.run(model, out=tmp_path / "python", seed=3)
    ran = command(name, named, *flags(analysis, tmp_path), "--seed", 3, "--out", "command", "--quiet")
    assert ran.returncode == 0, ran.stderr
    own = {path.name: path.read_bytes() for path in (tmp_path / "python").iterdir()}
    other = {path.name: path.read_bytes() for path in (tmp_path / "command").iterdir()}
    own = {path: data for path, data in own.items() if not path.endswith(".jsonl")}  # Data in memory are kept.
    assert own.keys() == other.keys() and any(path.endswith(".parquet") for path in own)
    # What names the call, the time or the machine differs.
    differ = [path for path in own if own[path] != other[path] and path not in ("run.json", "report.md", "report.html")]
    assert not differ
    assert {f"{table}.parquet" for table in study.tables} == {path for path in own if path.endswith(".parquet")}
    assert all(table.to_parquet() == own[f"{name}.parquet"] for name, table in study.tables.items())


def test_data_in_memory_and_files_give_the_same(model: gl.Model) -> None:
    pairs = gl.read_pairs(PAIRS)
    assert len(pairs) == 160 and pairs[0].keys() >= {"id", "positive", "negative"}
    from_file = gl.Interchange(max_pairs=16).run(model, PAIRS)
    frame = polars.DataFrame(pairs)
    for data in (pairs, frame, frame.to_arrow(), frame.to_pandas()):
        found = gl.Interchange(max_pairs=16).run(model, data)
        assert found.heads.to_parquet() == from_file.heads.to_parquet()


def test_a_bad_item_names_itself(model: gl.Model) -> None:
    pairs = gl.read_pairs(PAIRS)[:3]
    for item, why in [
        ({"positive": "a"}, r"line 2: .*negative"),
        ({"positive": "a", "negative": "b", "answer": [3.5], "foil": ["Sure"]}, r"line 2: .*answer"),
    ]:
        with pytest.raises(gl.InputError, match=why):
            gl.Interchange().run(model, [pairs[0], item, pairs[2]])
    with pytest.raises(gl.InputError, match="twice"):
        gl.Interchange(pairs).run(model, pairs)
    with pytest.raises(gl.InputError, match="empty"):
        gl.Interchange([]).run(model)
    with pytest.raises(gl.InputError, match="expected a file"):
        gl.Interchange(3).run(model)
    with pytest.raises(gl.InputError, match=r"no\.jsonl"):
        gl.Interchange("no.jsonl").run(model)


def test_parameters_are_checked_before_anything_is_run() -> None:
    with pytest.raises(TypeError, match="pears"):
        gl.Interchange(pears=3)  # type: ignore[call-arg]
    for parameters, why in [
        ({"estimate": "gradient", "exact": 0}, "`exact`"),
        ({"exact": 4}, "`estimate`"),
        ({"site": "zz"}, "nearest"),
        ({"by_span": True, "align": True}, "exclude"),
    ]:
        with pytest.raises(gl.InputError, match=why):
            gl.Interchange(**parameters)
    with pytest.raises(gl.InputError, match="noising"):
        gl.Interchange(direction="noising")  # type: ignore[arg-type]
    gl.Steer(PROMPTS, from_="mean", pairs=PAIRS, layer=3, coefficients=[-1, 0, 1])


def test_analyses_can_be_pickled_and_compared() -> None:
    analysis = gl.Steer(gl.read_prompts(PROMPTS)[:2], from_="mean", pairs=PAIRS, coefficients=[0, 1])
    again = pickle.loads(pickle.dumps(analysis))
    assert again == analysis and again != gl.Steer() and "from_='mean'" in repr(again)


def test_tables_go_to_every_data_frame(model: gl.Model) -> None:
    heads = gl.Interchange(max_pairs=16).run(model, PAIRS).heads
    frames = [heads.to_polars(), polars.from_pandas(heads.to_pandas()), polars.DataFrame(heads.to_pyarrow())]
    assert all(frame.shape == heads.shape and frame.columns == heads.columns for frame in frames)
    assert heads.shape == (128, len(heads.columns)) == (len(heads), len(heads.docs))
    effects = heads["effect_mean"]
    assert isinstance(effects, np.ndarray) and effects.dtype == np.float64
    assert np.array_equal(effects, frames[0]["effect_mean"].to_numpy())
    assert (
        heads["direction"][0] == "necessity" and heads["layer"].dtype == np.int64 and heads["marked"].dtype == np.bool_
    )
    assert "nats" in heads.docs["effect_mean"]
    assert pyarrow.table(heads).schema.field("effect_mean").metadata[b"doc"].decode() == heads.docs["effect_mean"]
    duckdb = pytest.importorskip("duckdb")
    [(layer, head)] = duckdb.sql("select layer, head from heads order by abs(effect_mean) desc limit 1").fetchall()
    assert (layer, head) == (3, 5)
    rows = heads.to_dicts()
    assert rows[0]["layer"] == 0 and rows == list(heads)
    assert pandas.DataFrame(rows).shape == heads.shape
    with pytest.raises(gl.Error, match="effect_mean"):
        heads["effect_meen"]
    assert "effect_mean" in heads._repr_html_()


def test_a_study_is_saved_loaded_and_run_again(model: gl.Model, tmp_path: Path, command: Callable[..., Any]) -> None:
    study = gl.Interchange(max_pairs=16).run(model, gl.read_pairs(PAIRS), seed=5)
    saved = study.save(tmp_path / "saved")
    loaded = gl.load(saved)
    assert loaded.record == study.record and loaded.record["seed"] == 5
    assert {name: table.to_parquet() for name, table in loaded.tables.items()} == {
        name: table.to_parquet() for name, table in study.tables.items()
    }
    assert loaded.findings == study.findings and loaded.findings[0].startswith("strongest")
    with pytest.raises(gl.InputError, match="exists"):
        study.save(saved)
    study.save(saved, force=True)
    with pytest.raises(gl.InputError, match=r"run\.json"):
        study.save(tmp_path, force=True)
    with pytest.raises(gl.InputError, match=r"run\.json"):
        gl.load(tmp_path)
    again = command("rerun", saved)
    assert again.returncode == 0, again.stderr + again.stdout
    with pytest.raises(AttributeError, match="heads"):
        _ = study.headz
    with pytest.raises(TypeError, match=r"gatelens\.load"):
        pickle.dumps(study)


def test_a_run_directory_is_gone_on_with(model: gl.Model, tmp_path: Path) -> None:
    out, calls = tmp_path / "run", 0

    def stop(share: float) -> None:
        nonlocal calls
        calls += 1
        if share > 0.2:
            raise KeyboardInterrupt

    analysis = gl.Interchange(PAIRS, position="all")
    with pytest.raises(KeyboardInterrupt):
        analysis.run(model, out=out, progress=stop)
    assert not out.exists()
    study = analysis.run(model, out=out, resume=True)
    assert study.path == out
    assert study.heads.to_parquet() == analysis.run(model).heads.to_parquet()
    assert analysis.run(model, out=out, resume=True).heads.to_parquet() == study.heads.to_parquet()
    with pytest.raises(gl.InputError, match="`force`"):
        analysis.run(model, out=out)


def test_figures_reports_and_views(model: gl.Model, tmp_path: Path) -> None:
    study = gl.Edges(PAIRS, exact=20, max_pairs=8).run(model)
    assert study.figures.keys() >= {"graph-necessity", "forest-necessity"}
    figure = study.figures["forest-necessity"]
    assert figure.png.startswith(b"\x89PNG") and figure.svg.startswith("<svg")
    assert "<svg" in figure._repr_mimebundle_()["text/html"]
    figure.save(tmp_path / "a.svg")
    with pytest.raises(gl.InputError, match=r"a\.jpg"):
        figure.save(tmp_path / "a.jpg")
    walk = study.graph._repr_mimebundle_()["text/html"]
    assert walk.startswith("<iframe") and "data-node" in walk
    assert "<h2" in study.report.html and study.markdown.startswith("# ")
    with pytest.raises(gl.InputError, match="Attention"):
        _ = study.tokens
    view = gl.Attention(PROMPTS, head="L3.H5").run(model).tokens
    assert "L3.H5" in view.html and view._repr_html_().startswith("<iframe")
    assert "strongest" in study._repr_html_()


def test_studies_feed_each_other(model: gl.Model) -> None:
    edges = gl.Edges(PAIRS, exact=40, max_pairs=12, direction="necessity").run(model)
    circuit = gl.Circuit(PAIRS, edges=edges.edges, max_pairs=12).run(model)
    assert "curve" in circuit.tables
    steer = gl.Steer(PROMPTS, from_="mean", pairs=PAIRS, layer=3, coefficients=[0, 1]).run(model)
    [(name, vector)] = steer.vectors().items()
    assert vector.dtype == np.float32
    for given in (vector, {name: vector}):
        again = gl.Steer(PROMPTS, vector=given, layer=3, site="resid_post", coefficients=[0, 1]).run(model)
        assert np.allclose(again.dose["metric_mean"], steer.dose["metric_mean"], atol=1e-3)


def test_prompts_of_every_kind_are_data(model: gl.Model) -> None:
    text = "Tell me about bread."
    tokens = model.tokens(text)
    given: list[Any] = [
        [text],
        [tokens],
        [tokens.ids],
        [np.array(tokens.ids)],
        [[{"role": "user", "content": text}]],
        [{"prompt": tokens}],
        [{"prompt": tokens.ids}],
        [{"prompt": {"ids": np.array(tokens.ids)}}],
    ]
    found = [gl.Attention(prompts).run(model).heads.to_parquet() for prompts in given]
    assert len(set(found)) == 1
    plain = gl.Attention([gl.text(text)]).run(model)
    assert plain.heads.to_parquet() == gl.Attention([{"prompt": gl.text(text)}]).run(model).heads.to_parquet()


def test_costs_are_foreseen(model: gl.Model) -> None:
    cost = gl.Interchange(PAIRS).cost(model)
    assert cost["full"]["rows"] > 3 * cost["wavefront"]["rows"] and cost["wavefront"]["seconds"] > 0


def test_the_command_that_the_package_brings(command: Callable[..., Any]) -> None:
    shown = command("--version")
    assert shown.returncode == 0 and shown.stdout.strip() == f"gatelens {gl.__version__}"
    wrong = command("interchange", "demo", "--pairs", "no.jsonl", "--out", "x")
    assert wrong.returncode == 2 and "no.jsonl" in wrong.stderr
