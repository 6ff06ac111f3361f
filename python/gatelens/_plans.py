"""Plans: prompts, runs of them that differ by edits, and what is read of each, computed together in one wave."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Generic, TypeAlias, TypeVar, cast

import numpy as np
import numpy.typing as npt

from . import _core
from ._hearing import Progress, hearing
from ._models import Array, Generated, Model, Prompt, Token, Tokens

T = TypeVar("T")

#: One token or several.
TokensOf: TypeAlias = "Token | Sequence[Token]"
#: What can be made an array of float32.
Vector: TypeAlias = "npt.ArrayLike"


class Handle(Generic[T]):
    """A readout of a plan. Once the plan was run, ``readings[handle]`` is its value."""

    def __init__(self, plan: Plan, number: int, shaped: Callable[[Any], T]) -> None:
        self._plan, self._number, self._shaped = plan, number, shaped

    def __repr__(self) -> str:
        return f"<readout {self._number}>"


class Readings:
    """The values of a plan's readouts: ``readings[handle]``."""

    def __init__(self, plan: Plan, values: list[Any]) -> None:
        self._plan, self._values = plan, values

    def __getitem__(self, handle: Handle[T]) -> T:
        if not isinstance(handle, Handle):
            raise _core.InputError(
                f"readings are found by what a readout gave, such as run.entropy(), not by {handle!r}"
            )
        if handle._plan is not self._plan:
            raise _core.InputError(f"{handle!r} is of another plan")
        if handle._number >= len(self._values):
            raise _core.InputError(f"{handle!r} was added after the plan was run; run it again")
        return handle._shaped(self._values[handle._number])

    def __len__(self) -> int:
        return len(self._values)

    def __repr__(self) -> str:
        return f"<{len(self._values)} readings; readings[handle] is the value of a readout>"


class Edit:
    """A change at a site, made by :class:`At`: ``gl.z(14, 3).zero()``."""

    def __init__(self, place: At, change: str, **arguments: Any) -> None:
        self._place, self._change, self._arguments = place, change, arguments

    def __repr__(self) -> str:
        return f"<{self._change} at {self._place!r}>"

    def _core_edit(self, run: Run) -> _core.Edit:
        arguments = dict(self._arguments)
        donor: Run | None = arguments.pop("donor_run", None)
        if donor is not None:
            if donor.plan is not run.plan:
                raise _core.InputError("an edit takes from a run of another plan: both runs must be of one")
            arguments["donor"] = donor._number
            if arguments.get("donor_positions") is not None:
                arguments["donor_positions"] = donor._resolved(arguments["donor_positions"])
        place = self._place
        return _core.Edit(place.site, place._part, run._where(place._positions), self._change, **arguments)


class At:
    """A place in the model: a site, a part of it, and positions of a prompt (its last one, unless others are named)."""

    def __init__(self, site: str, part: tuple[str, list[int]] = ("all", []), positions: Any = "last") -> None:
        #: The site's name, such as ``z.14``.
        self.site = site
        self._part, self._positions = part, positions

    def __repr__(self) -> str:
        kind, numbers = self._part
        part = "" if kind == "all" else f" {kind} {numbers}"
        return f"{self.site}{part}, {self._positions}"

    def _check(self, model: Model) -> None:
        """Refuse heads that the site does not have."""
        kind, numbers = self._part
        if kind != "heads":
            return
        units = model._core.heads_of(self.site)
        if units is None:
            raise _core.InputError(f"{self.site} does not come in heads")
        for head in numbers:
            if not 0 <= head < units[0]:
                raise _core.InputError(f"{self.site}: head {head} does not exist; it has heads 0 to {units[0] - 1}")

    def heads(self, *heads: int) -> At:
        """These heads of it."""
        return At(self.site, ("heads", list(heads)), self._positions)

    def columns(self, *columns: int) -> At:
        """These columns of it: neurons, dimensions of the residual stream."""
        return At(self.site, ("columns", list(columns)), self._positions)

    def everywhere(self) -> At:
        """At all positions."""
        return At(self.site, self._part, "all")

    def positions(self, positions: str | int | Sequence[int]) -> At:
        """At these positions: numbers (negative ones count from the prompt's end), ``"last"`` or ``"all"``."""
        return At(self.site, self._part, positions if isinstance(positions, str) else _numbers(positions))

    def from_(self, run: Run, positions: int | Sequence[int] | None = None) -> Edit:
        """Take the value of another run here (*interchange*, activation patching).

        ``positions`` are those of the other run, one for each that is edited, where they are not the same.
        """
        theirs = None if positions is None else _numbers(positions)
        return Edit(self, "from", donor_run=run, donor_positions=theirs)

    def zero(self) -> Edit:
        """Set it to zero."""
        return Edit(self, "zero")

    def set(self, vector: Vector) -> Edit:
        """Set it to these numbers, a mean say, at every edited position."""
        return Edit(self, "set", vector=_vector(vector))

    def add(self, vector: Vector, coefficient: float = 1.0) -> Edit:
        """Add a vector times a coefficient (*steering*)."""
        return Edit(self, "add", vector=_vector(vector), numbers=(float(coefficient), 0.0))

    def project_out(self, direction: Vector) -> Edit:
        """Take out what lies along a direction (*directional ablation*)."""
        return Edit(self, "project_out", vector=_vector(direction))

    def scale(self, by: float) -> Edit:
        """Multiply it."""
        return Edit(self, "scale", numbers=(float(by), 0.0))

    def clamp(self, low: float, high: float) -> Edit:
        """Keep each number between two."""
        return Edit(self, "clamp", numbers=(float(low), float(high)))

    def map(self, function: Callable[[Array], Any]) -> Edit:
        """Edit each row by a function: it is given the part of a row that is edited, as float32, and gives back as many numbers.

        If it gives ``None``, what it did to its own array counts. What it raises ends the run and reaches the caller.
        """
        return Edit(self, "map", function=function)


def at(site: str, layer: int | None = None) -> At:
    """A site by its name, at the last position: ``at("resid_post", 3)`` or ``at("resid_post.3")``."""
    return At(site if layer is None else f"{site}.{layer}")


def z(layer: int, head: int) -> At:
    """What a head read of the values, before the output projection, at the last position."""
    return at("z", layer).heads(head)


class Run:
    """A run of a plan: a prompt, or a fork of one that differs by edits."""

    def __init__(self, plan: Plan, number: int, tokens: Tokens) -> None:
        #: The plan that it is of.
        self.plan = plan
        #: The tokens of its prompt.
        self.tokens = tokens
        self._number = number

    def fork(self, *edits: Edit | Sequence[Edit]) -> Run:
        """A run that differs from this one by edits."""
        all_edits: list[Any] = [one for edit in edits for one in ([edit] if isinstance(edit, (Edit, At)) else edit)]
        for edit in all_edits:
            if not isinstance(edit, Edit):
                raise _core.InputError(f"{edit!r} is no edit: say what is done there, as in gl.z(14, 3).zero()")
            edit._place._check(self.plan.model)
        made = [edit._core_edit(self) for edit in all_edits]
        return Run(self.plan, self.plan._core.fork(self._number, made), self.tokens)

    def exchange(
        self,
        donor: Run,
        edges: Sequence[str],
        *,
        all_but: bool = False,
        positions: str | int | Sequence[int] = "all",
    ) -> Run:
        """A run in which some edges carry what they carry in another run: ``["a20.h0->a23.h7<q>"]``.

        With ``all_but`` these edges stay as they are, and all others are taken: so a circuit is tried.
        """
        if donor.plan is not self.plan:
            raise _core.InputError("edges are taken from a run of another plan: both runs must be of one")
        where = self._where(positions)
        number = self.plan._core.exchange(self._number, donor._number, list(edges), all_but, where)
        return Run(self.plan, number, self.tokens)

    # What is read of it.

    def logit_diff(self, answer: TokensOf, foil: TokensOf) -> Handle[float]:
        """The logit difference of two sets of tokens after the last position, in nats: the metric of most analyses."""
        return self._number_read(self.plan._core.read_metric(self._number, self._difference(answer, foil)))

    def logit(self, tokens: TokensOf) -> Handle[float]:
        """The tokens' logit (logsumexp of several) less the vocabulary's mean, after the last position, in nats."""
        return self._number_read(self.plan._core.read_metric(self._number, self.plan.model.token_ids(tokens)))

    def continuation(self, start: int) -> Handle[float]:
        """The log-probability of the prompt's own tokens from a position on, each given those before it, in nats."""
        return self._number_read(self.plan._core.read_metric(self._number, self._resolved([start])[0]))

    def log_probs(self, tokens: TokensOf) -> Handle[Array]:
        """The log-probability of each token as the next one, in nats. ``[tokens]``"""
        ids = self.plan.model.token_ids(tokens)
        return Handle(self.plan, self.plan._core.read_log_probs(self._number, ids), _as_is)

    def rank(self, token: Token) -> Handle[int]:
        """1 and how many tokens are likelier as the next one."""
        return Handle(self.plan, self.plan._core.read_rank(self._number, self.plan.model.token(token)), int)

    def entropy(self) -> Handle[float]:
        """The entropy of the next token, in nats."""
        return self._number_read(self.plan._core.read_entropy(self._number))

    def kl_from(self, run: Run) -> Handle[float]:
        """The KL divergence of the next token's distribution from that of another run, ``KL(other || this)``, in nats."""
        return self._number_read(self.plan._core.read_kl(self._number, run._number))

    def read(self, place: At) -> Handle[Array]:
        """The numbers at a place; see :class:`Trace` for the shapes."""
        place._check(self.plan.model)
        where = self._where(place._positions)
        number = self.plan._core.read_activation(self._number, place.site, place._part, where)
        return Handle(self.plan, number, _shaper(self.plan.model, place))

    def project(self, place: At, direction: Vector) -> Handle[Array]:
        """The inner product of a site's value with a direction: ``[positions]``."""
        where = self._where(place._positions)
        number = self.plan._core.read_projection(self._number, place.site, where, _vector(direction))
        return Handle(self.plan, number, _as_is)

    def gradient(self, place: At, answer: TokensOf, foil: TokensOf) -> Handle[Array]:
        """The derivative of a logit difference with respect to the numbers at a place, in nats for each unit of them."""
        metric, where = self._difference(answer, foil), self._where(place._positions)
        number = self.plan._core.read_gradient(self._number, metric, place.site, place._part, where)
        return Handle(self.plan, number, _shaper(self.plan.model, place))

    def attribution(self, answer: TokensOf, foil: TokensOf) -> Handle[Array]:
        """Direct logit attribution of a logit difference: ``[layers + 1, heads + 2]``, in nats.

        A layer's row has its heads, its MLP and the attention's bias; the last row the embedding, the final norm's bias and what
        the logsumexp of several tokens has beyond its weighted sum. They sum to the difference.
        """
        return Handle(self.plan, self.plan._core.read_attribution(self._number, self._difference(answer, foil)), _as_is)

    def __repr__(self) -> str:
        kind = "fork" if self._number % 2 else "prompt"
        return f"<{kind} {self._number // 2} of {len(self.tokens)} tokens>"

    def _difference(self, answer: TokensOf, foil: TokensOf) -> tuple[list[int], list[int]]:
        model = self.plan.model
        return (model.token_ids(answer), model.token_ids(foil))

    def _number_read(self, number: int) -> Handle[float]:
        return Handle(self.plan, number, float)

    def _resolved(self, positions: Sequence[int]) -> list[int]:
        length = len(self.tokens)
        for position in positions:
            if not -length <= position < length:
                raise _core.InputError(f"position {position} does not exist; the prompt has {length} tokens")
        return [int(position) % length for position in positions]

    def _where(self, positions: str | int | Sequence[int]) -> str | list[int]:
        return positions if isinstance(positions, str) else self._resolved(_numbers(positions))


class Plan:
    """Prompts, forks and readouts. All runs go through the model together, and a fork costs only what its edits reach."""

    def __init__(self, model: Model) -> None:
        #: The model that it is for.
        self.model = model
        self._core = _core.Plan(model._core)

    def prompt(self, prompt: Prompt, *, name: str | None = None) -> Run:
        """Add a prompt."""
        tokens = self.model.tokens(prompt)
        text = prompt.get("text") if isinstance(prompt, Mapping) else prompt
        name = name or (text if isinstance(text, str) else f"number {self._core.extent()[0]}")
        return Run(self, self._core.prompt(name, tokens.ids), tokens)

    def run(self, *, engine: str = "wavefront", progress: Progress = None) -> Readings:
        """Compute every readout. ``engine="full"`` runs a whole forward pass for each run: slow, the reference."""
        with hearing(progress, "plan") as tick:
            return Readings(self, self._core.run(engine, tick))

    def generate(
        self,
        runs: Sequence[Run],
        max_tokens: int = 64,
        *,
        steps: str = "every",
        temperature: float | None = None,
        top_p: float = 1.0,
        seed: int = 0,
        progress: Progress = None,
    ) -> list[Generated]:
        """Let runs of the plan go on token by token, all together; one that is listed several times is sampled several times."""
        if steps not in ("every", "prompt"):
            raise _core.InputError(f"steps: {steps!r}: expected 'every' or 'prompt'")
        numbers, stop = [run._number for run in runs], self.model.stop_tokens
        with hearing(progress, "texts") as tick:
            found = self._core.generate(numbers, max_tokens, steps == "every", stop, temperature, top_p, seed, tick)
        return [Generated(self.model._core.decode_generated(ids), ids, stopped) for ids, stopped in found]

    def __repr__(self) -> str:
        prompts, forks, readouts = self._core.extent()
        return f"<plan of {prompts} prompts, {forks} forks and {readouts} readouts>"


def _numbers(positions: int | Sequence[int]) -> list[int]:
    found: list[int] = np.atleast_1d(np.asarray(positions)).tolist()
    return found


def _vector(vector: Vector) -> Array:
    return np.ascontiguousarray(np.asarray(vector), dtype=np.float32).reshape(-1)


def _as_is(value: Any) -> Array:
    return cast("Array", value)


def _shaper(model: Model, place: At) -> Callable[[Any], Array]:
    """How rows of a place are shown."""
    kind, numbers = place._part
    units = model._core.heads_of(place.site)
    if units is None or kind == "columns":
        return _as_is
    n = len(numbers) if kind == "heads" else units[0]
    if units[1]:
        return lambda rows: cast("Array", rows.reshape(len(rows), n, units[1]))
    # Rows have a number a key for each head: a head's pattern is a matrix of queries and keys.
    return lambda rows: cast("Array", rows.reshape(len(rows), n, -1).transpose(1, 0, 2))
