from __future__ import annotations

import os
import signal
import threading
import time

import numpy as np
import pytest
from conftest import HARMLESS, SENSITIVE

import gatelens as gl


def test_every_head_swapped_in_one_wave_equals_whole_passes(model: gl.Model) -> None:
    plan = model.plan()
    clean, other = plan.prompt(SENSITIVE), plan.prompt(HARMLESS)
    base = clean.logit_diff("Sorry", "Sure")
    effects = {head: clean.fork(gl.z(*head).from_(other)).logit_diff("Sorry", "Sure") for head in model.heads}
    wave, full = plan.run(), plan.run(engine="full")
    assert min(effects, key=lambda head: wave[effects[head]]) == (3, 5), "the demo's gate"
    assert all(wave[handle] == pytest.approx(full[handle], abs=1e-4) for handle in effects.values())
    logits = model.logits(SENSITIVE)[-1]
    sorry, sure = model.token_ids(["Sorry", "Sure"])
    assert wave[base] == pytest.approx(float(logits[sorry] - logits[sure]), abs=1e-4)


def test_every_readout_has_its_value(model: gl.Model) -> None:
    plan = model.plan()
    run, other = plan.prompt(SENSITIVE), plan.prompt(HARMLESS)
    handles = {
        "logit": run.logit("Sorry"),
        "log_probs": run.log_probs(["Sorry", "Sure"]),
        "rank": run.rank("Sorry"),
        "entropy": run.entropy(),
        "kl": run.kl_from(other),
        "own": run.kl_from(run),
        "continuation": run.continuation(3),
        "resid": run.read(gl.at("resid_post", 7).everywhere()),
        "head": run.read(gl.z(3, 5)),
        "attribution": run.attribution("Sorry", "Sure"),
        "difference": run.logit_diff("Sorry", "Sure"),
        "gradient": run.gradient(gl.at("resid_post.7"), "Sorry", "Sure"),
    }
    direction = np.random.default_rng(0).normal(size=64)
    projection = run.project(gl.at("resid_post.7").everywhere(), direction)
    readings = plan.run()
    logits = model.logits(SENSITIVE)
    log_probs = logits - np.log(np.exp(logits.astype(np.float64)).sum(-1, keepdims=True))
    last, sorry, sure = log_probs[-1], *model.token_ids(["Sorry", "Sure"])
    assert readings[handles["logit"]] == pytest.approx(logits[-1][sorry] - logits[-1].mean(), abs=1e-4)
    assert readings[handles["log_probs"]] == pytest.approx(last[[sorry, sure]], abs=1e-4)
    assert readings[handles["rank"]] == 1 + (last > last[sorry]).sum()
    assert readings[handles["entropy"]] == pytest.approx(-(np.exp(last) * last).sum(), abs=1e-4)
    assert readings[handles["kl"]] > 1 and readings[handles["own"]] == pytest.approx(0, abs=1e-6)
    ids = run.tokens.ids
    own = sum(log_probs[i - 1][ids[i]] for i in range(3, len(ids)))
    assert readings[handles["continuation"]] == pytest.approx(own, abs=1e-3)
    assert readings[handles["head"]].shape == (1, 1, 8)
    assert readings[handles["attribution"]].shape == (9, 10)
    assert readings[handles["attribution"]].sum() == pytest.approx(readings[handles["difference"]], abs=1e-3)
    assert readings[projection] == pytest.approx(readings[handles["resid"]] @ direction, abs=1e-3)
    assert readings[handles["gradient"]].shape == (1, 64)


def test_edits_do_what_they_say(model: gl.Model) -> None:
    plan = model.plan()
    run = plan.prompt(SENSITIVE)
    place = gl.at("resid_post", 2).everywhere()
    vector = np.random.default_rng(1).normal(size=64).astype(np.float32)
    unit = vector / np.linalg.norm(vector)
    plain = run.read(place)
    edited = {
        "zero": place.zero(),
        "set": place.set(vector),
        "add": place.add(vector, -2),
        "scale": place.scale(0.5),
        "clamp": place.clamp(-0.25, 0.25),
        "project_out": place.project_out(vector),
        "map": place.map(lambda row: row * 2 + 1),
    }
    handles = {name: run.fork(edit).read(place) for name, edit in edited.items()}
    one = run.fork(place.columns(3, 5).positions(-1).map(lambda row: row * 0)).read(place)
    readings = plan.run()
    base = readings[plain]
    expected = {
        "zero": base * 0,
        "set": np.broadcast_to(vector, base.shape),
        "add": base - 2 * vector,
        "scale": base * 0.5,
        "clamp": base.clip(-0.25, 0.25),
        "project_out": base - np.outer(base @ unit, unit),
        "map": base * 2 + 1,
    }
    for name, value in expected.items():
        assert readings[handles[name]] == pytest.approx(value, abs=1e-5), name
    silenced = base.copy()
    silenced[-1, [3, 5]] = 0
    assert readings[one] == pytest.approx(silenced, abs=1e-6)


def test_a_function_may_change_its_own_row_and_what_it_raises_reaches_the_caller(model: gl.Model) -> None:
    plan = model.plan()
    run = plan.prompt(SENSITIVE)
    place = gl.at("resid_post", 2)

    def doubled(row: np.ndarray) -> None:
        row *= 2

    handle = run.fork(place.map(doubled)).read(place)
    plain = run.read(place)
    readings = plan.run()
    assert np.array_equal(readings[handle], 2 * readings[plain])

    class MineError(Exception):
        pass

    def fails(row: np.ndarray) -> np.ndarray:
        raise MineError("of the caller")

    for function, error, why in [
        (fails, MineError, "of the caller"),
        (lambda row: row[:3], ValueError, "3 numbers for a row of 64"),
        (lambda row: "no", ValueError, "could not convert"),
        (lambda row: [row, row], ValueError, "one axis"),
    ]:
        bad = model.plan()
        bad.prompt(SENSITIVE).fork(place.map(function)).entropy()
        with pytest.raises(error, match=why):
            bad.run()


def test_patching_in_one_call_is_the_plan_by_hand(model: gl.Model) -> None:
    words = (SENSITIVE, HARMLESS, "Sorry", "Sure")
    last, together = model.patch(*words), model.patch(*words, positions="all")
    each = model.patch(*words, "resid_pre", positions="each")
    assert last.shape == together.shape == (8, 8) and each.shape == (8, 9)
    plan = model.plan()
    clean, other = plan.prompt(SENSITIVE), plan.prompt(HARMLESS)
    base = clean.logit_diff("Sorry", "Sure")
    topic = clean.tokens.find("explosives")
    by_hand = [
        clean.fork(gl.z(3, 5).from_(other)),
        clean.fork(gl.z(3, 5).everywhere().from_(other)),
        clean.fork([gl.at("resid_pre", 1).positions(topic).from_(other, positions=topic)]),
    ]
    handles = [run.logit_diff("Sorry", "Sure") for run in by_hand]
    readings = plan.run()
    effects = [readings[handle] - readings[base] for handle in handles]
    assert effects == pytest.approx([last[3, 5], together[3, 5], each[1, topic]], abs=1e-4)
    assert np.abs(each[1]).argmax() == topic, "the topic alone tells the two apart"
    with pytest.raises(gl.InputError, match="tokens"):
        model.patch(SENSITIVE, "Tell me about the history of bread.", "Sorry", "Sure", positions="each")
    with pytest.raises(gl.InputError, match="'each'"):
        model.patch(*words, positions="some")


def test_edges_are_taken_from_another_run(model: gl.Model) -> None:
    plan = model.plan()
    clean, other = plan.prompt(SENSITIVE), plan.prompt(HARMLESS)
    metric = ("Sorry", "Sure")
    base, donor = clean.logit_diff(*metric), other.logit_diff(*metric)
    key_edge = clean.exchange(other, ["m1->a3.h5<v>"]).logit_diff(*metric)
    everything = clean.exchange(other, [], all_but=True).logit_diff(*metric)
    readings = plan.run()
    assert readings[key_edge] < readings[base] - 8, "the gate reads the topic by this edge"
    assert readings[everything] == pytest.approx(readings[donor], abs=1e-3)
    with pytest.raises(gl.InputError, match="no edge"):
        clean.exchange(other, ["m1"])


def test_mistakes_name_themselves(model: gl.Model) -> None:
    plan, elsewhere = model.plan(), model.plan()
    run = plan.prompt(SENSITIVE)
    foreign = elsewhere.prompt(HARMLESS)
    with pytest.raises(gl.InputError, match="another plan"):
        run.fork(gl.z(3, 5).from_(foreign))
    with pytest.raises(gl.InputError, match="position 40"):
        run.read(gl.at("resid_post", 2).positions(40))
    with pytest.raises(gl.InputError, match="nearest"):
        run.read(gl.at("zz", 2))
    with pytest.raises(gl.InputError, match=r"names 8 sites|name one"):
        run.read(gl.at("resid_post"))
    handle = run.entropy()
    other = foreign.entropy()
    readings = plan.run()
    with pytest.raises(gl.InputError, match="another plan"):
        readings[other]
    later = run.rank("Sure")
    with pytest.raises(gl.InputError, match="after the plan was run"):
        readings[later]
    assert readings[handle] >= 0
    for at_fault in (lambda: run.read(gl.z(3, 80)), lambda: run.fork(gl.z(3, 80).zero())):
        with pytest.raises(gl.InputError, match="head 80 does not exist"):
            at_fault()
    with pytest.raises(gl.InputError, match="is no edit"):
        run.fork(gl.z(3, 5))  # type: ignore[arg-type]
    with pytest.raises(gl.InputError, match="does not come in heads"):
        run.read(gl.at("resid_post", 3).heads(0))
    with pytest.raises(gl.InputError, match="what a readout gave"):
        readings[run]  # type: ignore[index]
    short = model.plan()
    short.prompt(SENSITIVE).fork(gl.z(3, 5).add(np.ones(3))).entropy()
    with pytest.raises(gl.InputError, match="3"):
        short.run()


def test_other_threads_run_while_a_plan_is_computed(model: gl.Model) -> None:
    plan = large(model, 60)
    counted = 0
    stop = threading.Event()

    def count() -> None:
        nonlocal counted
        while not stop.is_set():
            counted += 1
            time.sleep(0.001)

    thread = threading.Thread(target=count)
    thread.start()
    before = counted
    plan.run(progress=False)
    during = counted - before
    stop.set()
    thread.join()
    assert during > 5


def test_ctrl_c_stops_a_plan_within_a_second(model: gl.Model) -> None:
    plan = large(model, 3000)
    sent: list[float] = []

    def interrupt() -> None:
        sent.append(time.monotonic())
        os.kill(os.getpid(), signal.SIGINT)

    # What is started in the background of a shell ignores Ctrl-C.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        timer = threading.Timer(0.3, interrupt)
        timer.start()
        with pytest.raises(KeyboardInterrupt):
            plan.run(progress=False)
    finally:
        signal.signal(signal.SIGINT, before)
    assert time.monotonic() - sent[0] < 1.0
    small = model.plan()
    handle = small.prompt(HARMLESS).entropy()
    assert small.run()[handle] >= 0, "the model can be used again"


def test_progress_is_told(model: gl.Model) -> None:
    shares: list[float] = []
    gl.Interchange().run(model, "demo:pairs.jsonl", progress=shares.append)
    assert shares and shares == sorted(shares) and shares[0] >= 0 and shares[-1] <= 1

    def no(share: float) -> None:
        raise RuntimeError("enough")

    with pytest.raises(RuntimeError, match="enough"):
        gl.Interchange().run(model, "demo:pairs.jsonl", progress=no)


def large(model: gl.Model, copies: int) -> gl.Plan:
    """A plan that takes a while."""
    plan = model.plan()
    for i in range(copies):
        run = plan.prompt(SENSITIVE, name=str(i))
        for layer, head in model.heads:
            run.fork(gl.z(layer, head).everywhere().zero()).entropy()
    return plan
