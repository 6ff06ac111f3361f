"""Models that stay loaded, and what they do with prompts."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NoReturn, TypeAlias, overload

import numpy as np
import numpy.typing as npt

from . import _core
from ._hearing import Progress, hear, hearing, logger

if TYPE_CHECKING:
    from ._plans import Edit, Plan
    from ._studies import Study

Array: TypeAlias = npt.NDArray[np.float32]

#: A prompt: a user's message (through the chat template, where the model has one), :func:`text` that is read as it stands, a
#: list of messages with ``role`` and ``content``, token ids, or :class:`Tokens`.
Prompt: TypeAlias = (
    "str | Mapping[str, Any] | Sequence[int] | Sequence[Mapping[str, Any]] | npt.NDArray[np.integer[Any]] | Tokens"
)

#: A token: its id, or a text of which the first token counts.
Token: TypeAlias = "int | str"


def text(text: str, *, special_tokens: bool = True) -> dict[str, Any]:
    """A prompt that is read as it stands, without a chat template.

    ``special_tokens`` says whether the tokenizer's own marks, such as a beginning-of-text token, go before it.
    """
    return {"text": text} if special_tokens else {"text": text, "special_tokens": False}


class Tokens(Sequence[int]):
    """A prompt's token ids, with the text of each."""

    def __init__(self, ids: Sequence[int], pieces: Sequence[str]) -> None:
        #: Token ids.
        self.ids = list(ids)
        #: The text of each token, spaces included.
        self.pieces = list(pieces)

    @overload
    def __getitem__(self, at: int) -> int: ...
    @overload
    def __getitem__(self, at: slice) -> Tokens: ...
    def __getitem__(self, at: int | slice) -> int | Tokens:
        if isinstance(at, slice):
            return Tokens(self.ids[at], self.pieces[at])
        return self.ids[at]

    def __len__(self) -> int:
        return len(self.ids)

    def find(self, piece: str, which: int = 0) -> int:
        """The position of a token by its text, spaces at its ends aside; ``which`` counts from 0, from the end if negative."""
        found = [i for i, text in enumerate(self.pieces) if text == piece or text.strip() == piece.strip()]
        try:
            return found[which]
        except IndexError:
            raise _core.InputError(f"{piece!r} is {len(found)} times among the tokens {self.pieces}") from None

    def __repr__(self) -> str:
        return f"Tokens({' '.join(repr(piece) for piece in self.pieces)})"

    def _repr_html_(self) -> str:
        from ._html import tokens

        return tokens(self)


@dataclass(frozen=True)
class Generated:
    """A text that a run came to."""

    #: The text.
    text: str
    #: Its token ids, without the one that ended it.
    ids: list[int]
    #: Whether a stop token ended it; it ran out of tokens otherwise.
    stopped: bool

    def __str__(self) -> str:
        return self.text


class Trace(Mapping[str, Any]):
    """Activations by site: of one prompt an array, of a list of prompts a list of arrays.

    Rows are positions. Sites that come in heads are ``[positions, heads, width]``; ``pattern`` and ``scores`` are
    ``[heads, queries, keys]``; all others are ``[positions, width]``.
    """

    def __init__(self, model: Model, values: dict[str, list[Array]], tokens: list[Tokens], one: bool) -> None:
        self._model, self._values = model, values
        self._one = one
        #: The tokens of each prompt.
        self.tokens = tokens

    def __getitem__(self, site: str | tuple[str, int]) -> Any:
        try:
            found = self._values[self._named(site)]
        except KeyError:
            raise KeyError(f"{site!r} was not traced; there are {', '.join(self._values)}") from None
        return found[0] if self._one else found

    def _named(self, site: str | tuple[str, int]) -> str:
        """A site as it was traced, by any of its names: ``z.3``, ``("z", 3)``, ``blocks.3.attn.hook_z``."""
        name = site if isinstance(site, str) else ".".join(map(str, site))
        if name in self._values:
            return name
        try:
            [known] = self._model._core.sites(name)
        except (ValueError, _core.InputError):
            return name
        return known

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def last(self, site: str | tuple[str, int]) -> Array:
        """The rows of all prompts' last positions: ``[prompts, ...]``."""
        site = self._named(site)
        keys = site.split(".")[0] in ("pattern", "scores")
        if keys:
            raise _core.InputError(f"{site}: rows are as long as their prompt; take {site!r} by itself")
        return np.stack([values[-1] for values in self._values[site]])

    def __repr__(self) -> str:
        lines = [f"Trace of {len(self.tokens)} prompt{'s' * (len(self.tokens) != 1)}"]
        lines += [f"  {site}: {', '.join(str(v.shape) for v in values[:3])}" for site, values in self._values.items()]
        return "\n".join(lines)


class Model:
    """A language model that stays loaded; see :func:`open`. It may be used from several threads."""

    def __init__(self, core: _core.Model) -> None:
        self._core = core
        about: dict[str, Any] = json.loads(core.about())
        #: What it was opened as.
        self.name: str = core.name
        #: The family, such as ``llama``.
        self.architecture: str = about["architecture"]
        self.n_layers: int = about["n_layers"]
        self.n_heads: int = about["n_heads"]
        self.n_kv_heads: int = about["n_kv_heads"]
        self.d_model: int = about["d_model"]
        self.d_head: int = about["d_head"]
        self.d_mlp: int = about["d_mlp"]
        #: How many tokens there are.
        self.vocab: int = about["vocab"]
        #: The same, as other toolkits call it.
        self.d_vocab: int = self.vocab
        #: How many tokens a prompt may have.
        self.n_ctx: int = about["n_ctx"]
        self.parameters: int = about["parameters"]
        self.dtype: str = about["dtype"]
        #: SHA-256 of the weights' headers and files' sizes.
        self.sha256: str = about["sha256"]
        #: The kinds of sites that it has, in the order of the flow.
        self.sites: list[str] = about["sites"]
        #: Every head as (layer, head).
        self.heads: list[tuple[int, int]] = [(layer, head) for layer, head in about["heads"]]
        #: The tokens that end a text.
        self.stop_tokens: list[int] = about["stop_tokens"]
        #: Whether it has a chat template.
        self.has_chat_template: bool = about["has_template"]
        #: What a user should know about how it was read.
        self.warnings: list[str] = core.warnings()

    def __repr__(self) -> str:
        size = f"{self.n_layers} layers of {self.n_heads} heads, d_model {self.d_model}"
        return f"<gatelens model {self.name}: {self.architecture}, {size}>"

    def __reduce__(self) -> NoReturn:
        raise TypeError("a model is not pickled: pickle its name, and open it again with gatelens.open")

    def encode(self, prompts: Sequence[Prompt]) -> list[list[int]]:
        """The token ids of prompts, as the model reads them."""
        lines = "".join(json.dumps({"prompt": prompt_json(prompt)}) + "\n" for prompt in prompts)
        with hearing():
            return self._core.encode(lines.encode()) if lines else []

    def tokens(self, prompt: Prompt) -> Tokens:
        """The tokens of a prompt, as the model reads it: through the chat template, if it is a message and there is one."""
        if isinstance(prompt, Tokens):
            return prompt
        [ids] = self.encode([prompt])
        return self._named(ids)

    def _named(self, ids: list[int]) -> Tokens:
        try:
            return Tokens(ids, self._core.pieces(ids))
        except _core.ModelError:
            return Tokens(ids, [f"id:{i}" for i in ids])

    def decode(self, ids: Sequence[int], *, skip_special: bool = False) -> str:
        """The text of token ids."""
        return self._core.decode([int(i) for i in ids], skip_special)

    def token(self, token: Token) -> int:
        """The id of a token: of a text its first token's, as answers are read."""
        return self.token_ids([token])[0]

    def token_ids(self, tokens: Token | Sequence[Token]) -> list[int]:
        """The ids of tokens, each once: of a text its first token's."""
        return self._core.answer_ids([tokens] if isinstance(tokens, (int, str)) else list(tokens))

    def plan(self) -> Plan:
        """An empty plan: prompts, edited runs of them and readouts, to be computed together."""
        from ._plans import Plan

        return Plan(self)

    def trace(
        self, prompts: Prompt | Sequence[Prompt], sites: str | Sequence[str], *, progress: Progress = None
    ) -> Trace:
        """Activations at sites: ``resid_post.3``, ``z`` (of every layer), ``pattern.4-6``; TransformerLens' names are known too.

        A list of texts is a list of prompts, whose lengths may differ. Nothing after the last layer that is asked for is computed.
        """
        from ._plans import at

        all_prompts, one = _several(prompts)
        names = self._core.sites(sites if isinstance(sites, str) else ",".join(sites))
        plan = self.plan()
        runs = [plan.prompt(prompt, name=str(i)) for i, prompt in enumerate(all_prompts)]
        handles = {name: [run.read(at(name).everywhere()) for run in runs] for name in names}
        readings = plan.run(progress=progress)
        values = {name: [readings[handle] for handle in of] for name, of in handles.items()}
        return Trace(self, values, [run.tokens for run in runs], one)

    def logits(self, prompt: Prompt, *, positions: str | Sequence[int] = "all") -> Array:
        """The logits after each position: ``[positions, vocab]``."""
        from ._plans import at

        plan = self.plan()
        handle = plan.prompt(prompt).read(at("logits").positions(positions))
        return plan.run()[handle]

    def patterns(self, prompt: Prompt, layer: int, head: int | None = None) -> Array:
        """Attention probabilities of a layer: ``[heads, queries, keys]``, or ``[queries, keys]`` of one head."""
        found: Array = self.trace([self.tokens(prompt)], f"pattern.{layer}")[f"pattern.{layer}"][0]
        if head is None:
            return found
        if not 0 <= head < len(found):
            raise _core.InputError(f"head {head} does not exist; layer {layer} has heads 0 to {len(found) - 1}")
        one: Array = found[head]
        return one

    def patch(
        self,
        prompt: Prompt,
        donor: Prompt,
        answer: Token | Sequence[Token],
        foil: Token | Sequence[Token],
        site: str = "z",
        *,
        positions: str = "last",
        progress: Progress = None,
    ) -> Array:
        """Activation patching: how the logit difference changes, in nats, if a site of each layer is taken from another prompt.

        ``[layers]``, or ``[layers, heads]`` for a site that comes in heads. ``positions`` is ``"last"``, ``"all"`` (together) or
        ``"each"``: then the last axis is the prompt's positions, and both prompts are as long. Layers without the site are NaN.
        """
        from ._plans import at

        if positions not in ("last", "all", "each"):
            raise _core.InputError(f"positions: {positions!r}: expected 'last', 'all' or 'each'")
        plan = self.plan()
        clean, other = plan.prompt(prompt, name="prompt"), plan.prompt(donor, name="donor")
        if positions != "last" and len(clean.tokens) != len(other.tokens):
            lengths = f"{len(clean.tokens)} and {len(other.tokens)} tokens"
            raise _core.InputError(f"the prompts have {lengths}; positions correspond only if they are as long")
        where: list[Any] = list(range(len(clean.tokens))) if positions == "each" else [positions]
        base = clean.logit_diff(answer, foil)
        # How many heads the site has in each layer that has it: none, where it does not come in heads.
        units = {name: (self._core.heads_of(name) or (0, 0))[0] for name in self._core.sites(site)}
        heads = max(units.values(), default=0)
        handles = {
            (int(name.rsplit(".", 1)[1]), head, i): clean.fork(place.positions(w).from_(other)).logit_diff(answer, foil)
            for name, of_layer in units.items()
            for head in range(max(of_layer, 1))
            for place in [at(name).heads(head) if heads else at(name)]
            for i, w in enumerate(where)
        }
        readings = plan.run(progress=progress)
        found = np.full((self.n_layers, max(heads, 1), len(where)), np.nan, dtype=np.float32)
        for (layer, head, i), handle in handles.items():
            found[layer, head, i] = readings[handle] - readings[base]
        shaped = found if heads else found[:, 0]
        return shaped if positions == "each" else shaped[..., 0]

    def lens(self, prompt: Prompt, **parameters: Any) -> Study:
        """What each layer's residual stream would say: the study of :class:`gatelens.Lens` on this prompt alone."""
        from .analyses import Lens

        return Lens(prompts=[{"id": "prompt", "prompt": prompt_json(prompt)}], **parameters).run(self)

    def generate(
        self,
        prompts: Prompt | Sequence[Prompt],
        max_tokens: int = 64,
        *,
        edits: Edit | Sequence[Edit] = (),
        steps: str = "every",
        temperature: float | None = None,
        top_p: float = 1.0,
        samples: int = 1,
        seed: int = 0,
        progress: Progress = None,
    ) -> Any:
        """Let prompts go on token by token, all together, under edits if there are any.

        Gives a :class:`Generated` of one prompt and a list of them of a list of prompts; with ``samples`` over 1, a list of lists.
        ``steps`` is ``"every"`` (edits hold for new tokens too) or ``"prompt"``. Without ``temperature`` the likeliest token is
        chosen.
        """
        from ._plans import Edit

        all_prompts, one = _several(prompts)
        plan = self.plan()
        changes = [edits] if isinstance(edits, Edit) else list(edits)
        runs = [plan.prompt(prompt, name=str(i)) for i, prompt in enumerate(all_prompts)]
        if changes:
            runs = [run.fork(*changes) for run in runs]
        texts = plan.generate(
            [run for run in runs for _ in range(samples)],
            max_tokens,
            steps=steps,
            temperature=temperature,
            top_p=top_p,
            seed=seed,
            progress=progress,
        )
        if samples == 1:
            return texts[0] if one else texts
        grouped = [texts[i : i + samples] for i in range(0, len(texts), samples)]
        return grouped[0] if one else grouped


def open(
    name: str | os.PathLike[str],
    *,
    device: str | None = None,
    dtype: str | None = None,
    max_memory: int | None = None,
    threads: int | None = None,
    portable: bool = False,
    ignore_config_key: Sequence[str] = (),
    date: str | None = None,
    template_vars: Mapping[str, Any] | None = None,
) -> Model:
    """Open a model: ``"demo"``, a Hugging Face folder, a ``.gguf`` file, a LoRA adapter's folder, or ``"hf:OWNER/NAME"``.

    ``device`` is ``cpu``, ``cuda`` or ``cuda:N`` (several share the layers: ``"cuda:0,cuda:1"``); ``dtype`` is ``f32``, ``bf16``
    or ``f16``. With ``max_memory``, in bytes, a larger model is read from its file layer by layer. ``threads`` counts for the
    whole process and holds from the first model on, and so does ``portable``, which multiplies as every x86-64 processor with
    AVX2 does: for machines with and without AVX-512 that share a run. Warnings go to the logger ``gatelens``.
    """
    vars_ = json.dumps(dict(template_vars or {}))
    core = _core.open_model(
        os.fspath(name), device, dtype, max_memory, threads, portable, list(ignore_config_key), date, vars_
    )
    model = Model(core)
    hear()
    for warning in model.warnings:
        logger.warning("%s: %s", model.name, warning)
    return model


def prompt_json(prompt: Prompt) -> Any:
    """A prompt as a line of a prompts file has it."""
    if isinstance(prompt, Tokens):
        return {"ids": prompt.ids}
    if isinstance(prompt, (str, Mapping)):
        return prompt
    items: list[Any] = list(prompt)
    if items and isinstance(items[0], Mapping):
        return {"messages": items}
    if all(isinstance(item, (int, np.integer)) for item in items):
        return {"ids": [int(item) for item in items]}
    raise _core.InputError(f"{prompt!r} is no prompt: give a text, messages, token ids, or gatelens.text(...)")


def _several(prompts: Prompt | Sequence[Prompt]) -> tuple[list[Prompt], bool]:
    """Prompts as a list, and whether one was given by itself."""
    if isinstance(prompts, (str, Mapping, Tokens)):
        return [prompts], True
    items: list[Any] = list(prompts)
    if not items:
        return [], False
    first = items[0]
    of_one = isinstance(first, (int, np.integer)) or (isinstance(first, Mapping) and "role" in first)
    return ([items], True) if of_one else (items, False)
