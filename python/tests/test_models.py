from __future__ import annotations

import logging
import pickle
import threading
from pathlib import Path

import numpy as np
import pytest
from conftest import HARMLESS, SENSITIVE

import gatelens as gl


def test_a_model_says_what_it_is(model: gl.Model) -> None:
    assert (model.name, model.architecture, model.n_layers, model.n_heads) == ("demo", "llama", 8, 8)
    assert len(model.heads) == 64 and model.parameters == 289_728 and "z" in model.sites


def test_what_is_no_model_is_a_model_error_that_says_what_is() -> None:
    with pytest.raises(gl.ModelError, match=r"no-such-model"):
        gl.open("no-such-model")
    with pytest.raises(gl.InputError, match=r"`date`"):
        gl.open("demo", date="soon")


def test_models_are_not_pickled(model: gl.Model) -> None:
    with pytest.raises(TypeError, match=r"gatelens\.open"):
        pickle.dumps(model)


def test_prompts_of_every_kind_become_tokens(model: gl.Model) -> None:
    chat = model.tokens(HARMLESS)
    assert chat.pieces[2:] == [" Tell", " me", " about", " bread", ".", "<|end|>", "<|assistant|>"]
    assert model.tokens([{"role": "user", "content": HARMLESS}]).ids == chat.ids
    assert model.tokens({"messages": [{"role": "user", "content": HARMLESS}]}).ids == chat.ids
    assert model.tokens(chat.ids).ids == model.tokens(np.array(chat.ids)).ids == model.tokens(chat).ids == chat.ids
    plain = model.tokens(gl.text("Tell me"))
    assert plain.pieces[-2:] == [" Tell", " me"] and len(plain) < len(chat)
    assert chat.find("bread") == 5 and chat[2:4].pieces == [" Tell", " me"]
    assert model.decode(chat.ids[2:7]).strip() == HARMLESS


@pytest.mark.parametrize("bad", ["", [], [10**6], [{"role": "user"}], {"txt": "a"}, [1.5]])
def test_what_is_no_prompt_is_an_input_error(model: gl.Model, bad: object) -> None:
    with pytest.raises(gl.InputError):
        model.tokens(bad)  # type: ignore[arg-type]


def test_a_token_that_is_not_there_is_said(model: gl.Model) -> None:
    with pytest.raises(gl.InputError, match="1000000"):
        model.token(10**6)
    with pytest.raises(gl.InputError):
        model.token("")
    with pytest.raises(gl.InputError, match="0 times"):
        model.tokens(HARMLESS).find("zebra")


def test_logits_and_traces_agree(model: gl.Model) -> None:
    logits = model.logits(HARMLESS)
    assert logits.shape == (9, model.vocab) and logits.dtype == np.float32
    traced = model.trace(HARMLESS, "logits,resid_post.7,z.3,pattern.3")
    assert np.allclose(traced["logits"], logits, atol=1e-5)
    assert traced["resid_post.7"].shape == (9, 64) and traced["z.3"].shape == (9, 8, 8)
    pattern = traced["pattern.3"]
    assert pattern.shape == (8, 9, 9) and np.allclose(pattern.sum(-1), 1, atol=1e-5)
    assert np.array_equal(model.patterns(HARMLESS, 3, 5), pattern[5])
    assert np.allclose(model.logits(HARMLESS, positions=[-1])[0], logits[-1], atol=1e-5)
    # z is the pattern times the values.
    values = model.trace(HARMLESS, "v.3")["v.3"]
    kv = [h * values.shape[1] // model.n_heads for h in range(model.n_heads)]
    by_hand = np.einsum("hqk,khd->qhd", pattern, values[:, kv])
    assert np.allclose(by_hand, traced["z.3"], atol=1e-5)


def test_prompts_of_different_lengths_are_traced_together(model: gl.Model) -> None:
    long = "Tell me about the history of bread, please."
    traced = model.trace([HARMLESS, long], ["blocks.3.attn.hook_z", "resid_post.3"])
    assert [z.shape[0] for z in traced["z.3"]] == [len(tokens) for tokens in traced.tokens] == [9, 14]
    assert np.array_equal(traced["z.3"][1], model.trace(long, "z.3")["z.3"])
    assert traced.last("resid_post.3").shape == (2, 64)
    for name in ("blocks.3.attn.hook_z", ("z", 3)):
        assert np.array_equal(traced[name][0], traced["z.3"][0])
    with pytest.raises(KeyError, match=r"resid_post\.3"):
        traced["z.4"]
    with pytest.raises(gl.InputError, match="nearest"):
        model.trace(HARMLESS, "zz.3")


def test_texts_go_on_together_and_under_edits(model: gl.Model) -> None:
    plain = model.generate([SENSITIVE, HARMLESS], 16)
    assert [text.text for text in plain] == [
        "Sorry, I cannot help with that.",
        "Sure, here is a short answer about bread.",
    ]
    assert all(text.stopped for text in plain) and str(plain[0]) == plain[0].text
    silenced = model.generate(SENSITIVE, 16, edits=gl.z(3, 5).zero())
    assert silenced.text == "Sure, here is a short answer about explosives."
    assert model.generate(SENSITIVE, 2).stopped is False
    sampled = model.generate([SENSITIVE, HARMLESS], 4, samples=3, temperature=5.0, seed=1)
    assert [len(texts) for texts in sampled] == [3, 3] and len({tuple(text.ids) for text in sampled[0]}) > 1
    assert sampled == model.generate([SENSITIVE, HARMLESS], 4, samples=3, temperature=5.0, seed=1)


def test_warnings_go_to_logging(caplog: pytest.LogCaptureFixture, tmp_path: Path) -> None:
    file = tmp_path / "prompts.jsonl"
    file.write_text('{"prompt": "Tell me about bread.", "langs": "a"}\n')
    with caplog.at_level(logging.WARNING, logger="gatelens"):
        gl.read_prompts(file)
    assert [(record.name, "langs" in record.message) for record in caplog.records] == [("gatelens", True)]


def test_several_threads_use_one_model(model: gl.Model) -> None:
    expected = model.logits(HARMLESS)
    found: list[np.ndarray] = []
    threads = [threading.Thread(target=lambda: found.append(model.logits(HARMLESS))) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 6 and all(np.array_equal(logits, expected) for logits in found)


def test_vectors_go_to_safetensors_and_back(tmp_path: Path) -> None:
    vectors = {"a": np.arange(6.0).reshape(2, 3), "b": np.float32([1, 2])}
    gl.write_vectors(tmp_path / "v.safetensors", vectors)
    read = gl.read_vectors(tmp_path / "v.safetensors")
    assert read.keys() == vectors.keys() and all(np.array_equal(read[k], vectors[k]) for k in vectors)
    (tmp_path / "bad.safetensors").write_bytes(b"no")
    with pytest.raises(gl.InputError, match=r"bad\.safetensors"):
        gl.read_vectors(tmp_path / "bad.safetensors")
