"""The analyses: a class each, with the parameters of the command of its name.

Written by ``python/write_analyses.py`` from what the engine declares; change it there.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, TypeAlias

from ._data import Data
from ._studies import Analysis

Number: TypeAlias = "int | float"
Text: TypeAlias = "str | int | float"

__all__ = [
    "Ablate",
    "Attention",
    "Behaviour",
    "Cascade",
    "Cav",
    "Cipher",
    "Circuit",
    "Commitment",
    "Contrast",
    "ContrastMethods",
    "Deltas",
    "Dla",
    "Edges",
    "Functions",
    "Importance",
    "Interactions",
    "Interchange",
    "Lens",
    "Modulate",
    "Neurons",
    "Rank",
    "Scale",
    "Screen",
    "Similarity",
    "Steer",
    "Truth",
    "Values",
    "Weights",
]


class Behaviour(Analysis):
    """Find out what the model refuses, and which first tokens tell."""

    command = "behaviour"
    _data = ("pairs", "classes")
    _required = ("pairs",)
    _first = "pairs"

    def __init__(
        self,
        pairs: Data = None,
        *,
        max_pairs: int | None = None,
        generate: int | None = None,
        tokens: int | None = None,
        classes: Data = None,
    ) -> None:
        """Find out what the model refuses, and which first tokens tell.

        Parameters
        ----------
        pairs
            Read pairs of prompts from this file, JSON Lines: {"id", "positive", "negative", "answer"?, "foil"?,
            "group"?, "lang"?, "spans"?}.
        max_pairs
            Use at most this many pairs, spread over languages and groups as in the file.
        generate
            Generate this many tokens per answer. Default: ``32``.
        tokens
            Use at most this many tokens on each side of the metric. Default: ``8``.
        classes
            Classes of one's own for generated answers: a file of rules as datasets/answers.toml has them.
        """
        super().__init__(
            pairs=pairs,
            max_pairs=max_pairs,
            generate=generate,
            tokens=tokens,
            classes=classes,
        )


class Interchange(Analysis):
    """Swap every head between matched prompts, and measure what changes."""

    command = "interchange"
    _data = ("pairs", "metric_file")
    _lists = ("answer", "foil")
    _required = ("pairs",)
    _first = "pairs"

    def __init__(
        self,
        pairs: Data = None,
        *,
        max_pairs: int | None = None,
        answer: Text | Sequence[Text] | None = None,
        foil: Text | Sequence[Text] | None = None,
        metric_file: Data = None,
        position: Text | None = None,
        by_span: bool = False,
        align: bool = False,
        direction: Literal["necessity", "sufficiency"] | None = None,
        site: Text | None = None,
        estimate: Literal["gradient"] | None = None,
        exact: int | None = None,
        mark_p: Number | None = None,
        mark_share: Number | None = None,
    ) -> None:
        """Swap every head between matched prompts, and measure what changes.

        Parameters
        ----------
        pairs
            Read pairs of prompts from this file, JSON Lines: {"id", "positive", "negative", "answer"?, "foil"?,
            "group"?, "lang"?, "spans"?}.
        max_pairs
            Use at most this many pairs, spread over languages and groups as in the file.
        answer
            Answer token for items that name none: a string, of which the first token counts, or id:N (one, or a
            list)
        foil
            Foil token for items that name none (one, or a list)
        metric_file
            Take answer and foil tokens, by language, from the metric.json that `behaviour` writes. They count
            only for an item that names no tokens itself, and where no answer or foil token is given beside the
            file.
        position
            Swap at this position: last, all, or a number (a negative one counts from the prompt's end) Default:
            ``last``.
        by_span
            Swap at each span of the pairs by itself: rows have its name as their position. A pair names its
            spans, in the field `spans` of its line. It does not count in the rows of a span that it lacks.
        align
            At all positions: match up prompts of unequal lengths. Equal beginnings and ends are matched token
            by token, and the spans between them in proportion.
        direction
            Edit only one of the two runs (default: each in turn)
        site
            Swap this site: z (every head), resid_pre, attn_out, mlp_out, q, k, v, mlp_act, ... Default: ``z``.
        estimate
            Estimate every effect first, and run only the strongest exactly.
        exact
            After an estimate: run this many exactly, in each direction. Default: ``32``.
        mark_p
            Put a dot on a cell of a heatmap only if its family-wise p-value is below this. Default: ``0.05``.
            If some effects were only estimated, the q-value counts instead.
        mark_share
            Put a dot on a cell of a heatmap only if its effect is at least this share of the whole. Default:
            ``0.01``. The whole is the gap (interchange, screen), the base (ablate) or the metric (dla).
        """
        super().__init__(
            pairs=pairs,
            max_pairs=max_pairs,
            answer=answer,
            foil=foil,
            metric_file=metric_file,
            position=position,
            by_span=by_span,
            align=align,
            direction=direction,
            site=site,
            estimate=estimate,
            exact=exact,
            mark_p=mark_p,
            mark_share=mark_share,
        )


class Screen(Analysis):
    """Find the heads that gate a behaviour: estimate all, run the strongest exactly."""

    command = "screen"
    _data = ("pairs", "metric_file")
    _lists = ("answer", "foil")
    _required = ("pairs",)
    _first = "pairs"

    def __init__(
        self,
        pairs: Data = None,
        *,
        max_pairs: int | None = None,
        answer: Text | Sequence[Text] | None = None,
        foil: Text | Sequence[Text] | None = None,
        metric_file: Data = None,
        candidates: int | None = None,
        sample: int | None = None,
        estimate_pairs: int | None = None,
        gates: int | None = None,
        mark_p: Number | None = None,
        mark_share: Number | None = None,
    ) -> None:
        """Find the heads that gate a behaviour: estimate all, run the strongest exactly.

        Parameters
        ----------
        pairs
            Read pairs of prompts from this file, JSON Lines: {"id", "positive", "negative", "answer"?, "foil"?,
            "group"?, "lang"?, "spans"?}.
        max_pairs
            Use at most this many pairs, spread over languages and groups as in the file.
        answer
            Answer token for items that name none: a string, of which the first token counts, or id:N (one, or a
            list)
        foil
            Foil token for items that name none (one, or a list)
        metric_file
            Take answer and foil tokens, by language, from the metric.json that `behaviour` writes. They count
            only for an item that names no tokens itself, and where no answer or foil token is given beside the
            file.
        candidates
            Run exactly this many heads with the strongest estimates of each direction. Default: ``32``. A head
            that is chosen in either direction is run in both.
        sample
            Also run exactly this many of the other heads, drawn at random. Default: ``32``.
        estimate_pairs
            Make estimates from at most this many pairs. Default: ``40``.
        gates
            Name at most this many heads as the gate in circuit.json. Default: ``1``.
        mark_p
            Put a dot on a cell of a heatmap only if its family-wise p-value is below this. Default: ``0.05``.
            If some effects were only estimated, the q-value counts instead.
        mark_share
            Put a dot on a cell of a heatmap only if its effect is at least this share of the whole. Default:
            ``0.01``. The whole is the gap (interchange, screen), the base (ablate) or the metric (dla).
        """
        super().__init__(
            pairs=pairs,
            max_pairs=max_pairs,
            answer=answer,
            foil=foil,
            metric_file=metric_file,
            candidates=candidates,
            sample=sample,
            estimate_pairs=estimate_pairs,
            gates=gates,
            mark_p=mark_p,
            mark_share=mark_share,
        )


class Ablate(Analysis):
    """Ablate every head, or every MLP, one at a time."""

    command = "ablate"
    _data = ("prompts", "metric_file", "reference")
    _lists = ("answer", "foil", "mode")
    _required = ("prompts",)
    _first = "prompts"

    def __init__(
        self,
        prompts: Data = None,
        *,
        label: Text | None = None,
        answer: Text | Sequence[Text] | None = None,
        foil: Text | Sequence[Text] | None = None,
        metric_file: Data = None,
        mode: Literal["zero", "mean", "resample"] | Sequence[Literal["zero", "mean", "resample"]] | None = None,
        reference: Data = None,
        draws: int | None = None,
        position: Text | None = None,
        site: Text | None = None,
        mark_p: Number | None = None,
        mark_share: Number | None = None,
    ) -> None:
        """Ablate every head, or every MLP, one at a time.

        Parameters
        ----------
        prompts
            Read prompts from this file, JSON Lines: {"id", "prompt", "answer"?, "foil"?, "label"?, "group"?,
            "lang"?, "facts"?}.
        label
            Use only the prompts with this label.
        answer
            Answer token for items that name none: a string, of which the first token counts, or id:N (one, or a
            list)
        foil
            Foil token for items that name none (one, or a list)
        metric_file
            Take answer and foil tokens, by language, from the metric.json that `behaviour` writes. They count
            only for an item that names no tokens itself, and where no answer or foil token is given beside the
            file.
        mode
            Put this in its place; several with commas. Default: ``zero``.
        reference
            Take mean and resample from these reference prompts (default: the prompts themselves)
        draws
            For mode resample: draw this many values per prompt (default: 8)
        position
            Ablate at this position: last, all, or a number (a negative one counts from the prompt's end)
            Default: ``last``.
        site
            Ablate this site: z (every head), mlp_out (every MLP), or another. Default: ``z``.
        mark_p
            Put a dot on a cell of a heatmap only if its family-wise p-value is below this. Default: ``0.05``.
            If some effects were only estimated, the q-value counts instead.
        mark_share
            Put a dot on a cell of a heatmap only if its effect is at least this share of the whole. Default:
            ``0.01``. The whole is the gap (interchange, screen), the base (ablate) or the metric (dla).
        """
        super().__init__(
            prompts=prompts,
            label=label,
            answer=answer,
            foil=foil,
            metric_file=metric_file,
            mode=mode,
            reference=reference,
            draws=draws,
            position=position,
            site=site,
            mark_p=mark_p,
            mark_share=mark_share,
        )


class Dla(Analysis):
    """Show what each head and MLP writes towards the answer (direct logit attribution, logit lens)."""

    command = "dla"
    _data = ("prompts", "metric_file")
    _lists = ("answer", "foil")
    _required = ("prompts",)
    _first = "prompts"

    def __init__(
        self,
        prompts: Data = None,
        *,
        label: Text | None = None,
        answer: Text | Sequence[Text] | None = None,
        foil: Text | Sequence[Text] | None = None,
        metric_file: Data = None,
        mark_p: Number | None = None,
        mark_share: Number | None = None,
    ) -> None:
        """Show what each head and MLP writes towards the answer (direct logit attribution, logit lens).

        Parameters
        ----------
        prompts
            Read prompts from this file, JSON Lines: {"id", "prompt", "answer"?, "foil"?, "label"?, "group"?,
            "lang"?, "facts"?}.
        label
            Use only the prompts with this label.
        answer
            Answer token for items that name none: a string, of which the first token counts, or id:N (one, or a
            list)
        foil
            Foil token for items that name none (one, or a list)
        metric_file
            Take answer and foil tokens, by language, from the metric.json that `behaviour` writes. They count
            only for an item that names no tokens itself, and where no answer or foil token is given beside the
            file.
        mark_p
            Put a dot on a cell of a heatmap only if its family-wise p-value is below this. Default: ``0.05``.
            If some effects were only estimated, the q-value counts instead.
        mark_share
            Put a dot on a cell of a heatmap only if its effect is at least this share of the whole. Default:
            ``0.01``. The whole is the gap (interchange, screen), the base (ablate) or the metric (dla).
        """
        super().__init__(
            prompts=prompts,
            label=label,
            answer=answer,
            foil=foil,
            metric_file=metric_file,
            mark_p=mark_p,
            mark_share=mark_share,
        )


class Lens(Analysis):
    """Show which tokens each layer's residual stream would predict (logit lens)."""

    command = "lens"
    _data = ("prompts", "vector")
    _lists = ("vector", "answer")
    _first = "prompts"

    def __init__(
        self,
        prompts: Data = None,
        *,
        label: Text | None = None,
        vector: Data = None,
        vector_name: Text | None = None,
        answer: Text | Sequence[Text] | None = None,
        site: Text | None = None,
        position: Text | None = None,
        top: int | None = None,
    ) -> None:
        """Show which tokens each layer's residual stream would predict (logit lens).

        Parameters
        ----------
        prompts
            Read prompts from this file, JSON Lines: {"id", "prompt", "answer"?, "label"?, "group"?, "lang"?}.
        label
            Use only the prompts with this label.
        vector
            Show the vocabulary of this file's vector: of `functions`, `steer` or `cav`, an .npy array, a
            control vector (one, or a list)
        vector_name
            Take this vector of files that have several.
        answer
            Follow this token's rank for prompts that name no answer: a string, of which the first token counts,
            or id:N (one, or a list)
        site
            Read at this site: resid_pre, resid_mid, resid_post, attn_out, attn_delta, mlp_out, mlp_delta or
            ple_out. Default: ``resid_post``.
        position
            Read at this position: all, last, or a number (a negative one counts from the prompt's end) Default:
            ``all``.
        top
            List this many of the likeliest tokens. Default: ``5``.
        """
        super().__init__(
            prompts=prompts,
            label=label,
            vector=vector,
            vector_name=vector_name,
            answer=answer,
            site=site,
            position=position,
            top=top,
        )


class Attention(Analysis):
    """Show where each head looks: scores of attention patterns, and the patterns of chosen heads."""

    command = "attention"
    _data = ("prompts", "pairs", "circuit", "metric_file")
    _lists = ("head", "query", "answer", "foil")
    _first = "prompts"

    def __init__(
        self,
        prompts: Data = None,
        *,
        label: Text | None = None,
        pairs: Data = None,
        max_pairs: int | None = None,
        head: Text | Sequence[Text] | None = None,
        circuit: Data = None,
        by_span: bool = False,
        query: Text | Sequence[Text] | None = None,
        list: int | None = None,
        list_by: Literal["previous", "first", "self", "duplicate", "induction"] | None = None,
        answer: Text | Sequence[Text] | None = None,
        foil: Text | Sequence[Text] | None = None,
        metric_file: Data = None,
    ) -> None:
        """Show where each head looks: scores of attention patterns, and the patterns of chosen heads.

        Parameters
        ----------
        prompts
            Read prompts from this file, JSON Lines: {"id", "prompt", "answer"?, "foil"?, "label"?, "group"?,
            "lang"?, "spans"?}.
        label
            Use only the prompts with this label.
        pairs
            Ask about the positive prompts of this file's pairs instead.
        max_pairs
            Use at most this many pairs, spread over languages and groups as in the file.
        head
            Keep the patterns of these heads, as L14.H5; several with commas. Where prompts have an answer and a
            foil, each head's attribution is told apart by the tokens that it looks at, too.
        circuit
            Keep the patterns of the heads of this circuit: the circuit.json or graph.json of `screen`, `edges`
            or `circuit`, or a list of heads.
        by_span
            Tell the weights of the chosen heads, and of all heads together, apart by the spans of the prompts.
            A prompt names its spans in the field `spans` of its line. It does not count in the rows of a span
            that it lacks.
        query
            Look from these spans, or from the last position (`last`, the default); several with commas.
        list
            Write the heads that look most at one thing into heads.txt, this many. Other analyses read the file
            as their circuit, as `neurons ``circuit``` does.
        list_by
            List them by this score. Default: ``previous``.
        answer
            Answer token for items that name none: a string, of which the first token counts, or id:N (one, or a
            list)
        foil
            Foil token for items that name none (one, or a list)
        metric_file
            Take answer and foil tokens, by language, from the metric.json that `behaviour` writes. They count
            only for an item that names no tokens itself, and where no answer or foil token is given beside the
            file.
        """
        super().__init__(
            prompts=prompts,
            label=label,
            pairs=pairs,
            max_pairs=max_pairs,
            head=head,
            circuit=circuit,
            by_span=by_span,
            query=query,
            list=list,
            list_by=list_by,
            answer=answer,
            foil=foil,
            metric_file=metric_file,
        )


class Neurons(Analysis):
    """Show what neurons do: their share in the answer, what they write, and where they fire."""

    command = "neurons"
    _data = ("prompts", "set", "circuit", "metric_file")
    _lists = ("neuron", "words", "head", "answer", "foil")
    _required = ("prompts",)
    _first = "prompts"

    def __init__(
        self,
        prompts: Data = None,
        *,
        label: Text | None = None,
        length: int | None = None,
        neuron: Text | Sequence[Text] | None = None,
        set: Data = None,
        words: Text | Sequence[Text] | None = None,
        layers: Text | None = None,
        list: int | None = None,
        contexts: int | None = None,
        vocabulary: int | None = None,
        all_vocabulary: bool = False,
        mode: Literal["zero", "mean"] | None = None,
        position: Text | None = None,
        head: Text | Sequence[Text] | None = None,
        circuit: Data = None,
        drivers: bool = False,
        answer: Text | Sequence[Text] | None = None,
        foil: Text | Sequence[Text] | None = None,
        metric_file: Data = None,
    ) -> None:
        """Show what neurons do: their share in the answer, what they write, and where they fire.

        Parameters
        ----------
        prompts
            Read prompts from this file, JSON Lines: {"id", "prompt", "answer"?, "foil"?, "label"?, "group"?,
            "lang"?, "facts"?}.
        label
            Use only the prompts with this label.
        length
            Cut a corpus (plain text, or JSON Lines of {"text"}) into pieces of this many tokens. Default:
            ``256``.
        neuron
            Look closely at these neurons, as L5.N1234, or L5.E3.N12 of an expert; several with commas (default:
            the strongest)
        set
            Look closely at the neurons that this file lists, one a line: the neurons.txt of another run, say.
        words
            Look closely at the neurons whose vocabulary holds these words best: strings, or id:N; several with
            commas. They are chosen by the model's weights alone: by each word's logit for a unit of activation,
            in standard deviations over the vocabulary, mean over the words, whatever its sign. A word's first
            token counts, after a space where the model has such tokens.
        layers
            Look at the neurons of these layers alone: 3, 0-5,8.
        list
            Without a choice of your own, look closely at this many neurons. Default: ``50``. They are those
            with the largest attribution to the answer; where nothing is measured, those that write the most at
            once. Of those that hold the given words it is as many too.
        contexts
            Keep this many contexts of every neuron, from each end of its activation. Default: ``8``.
        vocabulary
            List this many tokens of a vocabulary, from each end. Default: ``8``.
        all_vocabulary
            List the vocabulary of every neuron, not only of those looked at closely.
        mode
            Silence neurons with zeros, or with their mean. Default: ``zero``.
        position
            Silence them at this position: last, all, or a number (a negative one counts from the prompt's end)
            Default: ``last``.
        head
            Silence these heads too, by themselves and with the neurons, as L16.H0; several with commas.
        circuit
            Silence the heads of this circuit too, and look at the neurons of its MLPs alone where it has any.
            That is the circuit.json or graph.json of `screen`, `edges` or `circuit`, or a list of heads, as
            `attention ``list``` writes it. With layers or neurons of your own, it is these that are looked at.
        drivers
            Say what drives the neurons: what each head, each MLP and the embedding add to what their gates
            read.
        answer
            Answer token for items that name none: a string, of which the first token counts, or id:N (one, or a
            list)
        foil
            Foil token for items that name none (one, or a list)
        metric_file
            Take answer and foil tokens, by language, from the metric.json that `behaviour` writes. They count
            only for an item that names no tokens itself, and where no answer or foil token is given beside the
            file.
        """
        super().__init__(
            prompts=prompts,
            label=label,
            length=length,
            neuron=neuron,
            set=set,
            words=words,
            layers=layers,
            list=list,
            contexts=contexts,
            vocabulary=vocabulary,
            all_vocabulary=all_vocabulary,
            mode=mode,
            position=position,
            head=head,
            circuit=circuit,
            drivers=drivers,
            answer=answer,
            foil=foil,
            metric_file=metric_file,
        )


class Functions(Analysis):
    """Find the heads that carry a task shown by examples, and test what they write on prompts without examples."""

    command = "functions"
    _data = ("task", "test", "add")
    _lists = ("natural", "coefficient", "add")
    _required = ("task",)
    _first = "task"

    def __init__(
        self,
        task: Data = None,
        *,
        test: Data = None,
        shots: int | None = None,
        trials: int | None = None,
        heads: int | None = None,
        template: Text | None = None,
        separator: Text | None = None,
        natural: Text | Sequence[Text] | None = None,
        layers: Text | None = None,
        coefficient: Text | Sequence[Text] | None = None,
        spread: int | None = None,
        add: Data = None,
        random: int | None = None,
        vocabulary: int | None = None,
    ) -> None:
        """Find the heads that carry a task shown by examples, and test what they write on prompts without examples.

        Parameters
        ----------
        task
            Read the task from this file, JSON Lines: {"input", "output"}.
        test
            Test on the words of this file (default: half of the task's, drawn at random)
        shots
            Show this many examples in a prompt. Default: ``8``.
        trials
            Measure heads in this many prompts. Default: ``40``.
        heads
            Make the vector of this many heads. Default: ``10``.
        template
            Write a prompt like this, {input} being the word; the output follows after a space. Default: ``Q:
            {input}\nA:``.
        separator
            Put this between two examples. Default: ``\n\n``.
        natural
            Test in these sentences too, {input} being the word (repeatable; default: two)
        layers
            Try the vector after these layers: 3, 0-5,8 (default: all)
        coefficient
            Add the vector this many times; several with commas. Default: ``1``.
        spread
            Add the vector after this many layers in a row, not after one. Default: ``1``.
        add
            Add the vector of this file to the one that is made: the function.safetensors of another task, say
            (one, or a list)
        random
            Compare with this many sets of random heads. Default: ``5``.
        vocabulary
            List this many tokens of the vector's vocabulary. Default: ``10``.
        """
        super().__init__(
            task=task,
            test=test,
            shots=shots,
            trials=trials,
            heads=heads,
            template=template,
            separator=separator,
            natural=natural,
            layers=layers,
            coefficient=coefficient,
            spread=spread,
            add=add,
            random=random,
            vocabulary=vocabulary,
        )


class Importance(Analysis):
    """Rank the tokens of prompts by what the answer depends on, in four ways, and test the rankings."""

    command = "importance"
    _data = ("prompts", "metric_file")
    _lists = ("answer", "foil")
    _required = ("prompts",)
    _first = "prompts"

    def __init__(
        self,
        prompts: Data = None,
        *,
        label: Text | None = None,
        answer: Text | Sequence[Text] | None = None,
        foil: Text | Sequence[Text] | None = None,
        metric_file: Data = None,
        masks: int | None = None,
        random: int | None = None,
    ) -> None:
        """Rank the tokens of prompts by what the answer depends on, in four ways, and test the rankings.

        Parameters
        ----------
        prompts
            Read prompts from this file, JSON Lines: {"id", "prompt", "answer"?, "foil"?, "label"?, "group"?,
            "lang"?, "facts"?}.
        label
            Use only the prompts with this label.
        answer
            Answer token for items that name none: a string, of which the first token counts, or id:N (one, or a
            list)
        foil
            Foil token for items that name none (one, or a list)
        metric_file
            Take answer and foil tokens, by language, from the metric.json that `behaviour` writes. They count
            only for an item that names no tokens itself, and where no answer or foil token is given beside the
            file.
        masks
            Mask half of the tokens at random this many times. Default: ``1000``.
        random
            Compare with this many random rankings. Default: ``5``.
        """
        super().__init__(
            prompts=prompts,
            label=label,
            answer=answer,
            foil=foil,
            metric_file=metric_file,
            masks=masks,
            random=random,
        )


class Truth(Analysis):
    """Let neurons vote on which statement is true, beside log-likelihood and a probe."""

    command = "truth"
    _data = ("items",)
    _required = ("items",)
    _first = "items"

    def __init__(
        self,
        items: Data = None,
        *,
        labelled: int | None = None,
        voters: int | None = None,
    ) -> None:
        """Let neurons vote on which statement is true, beside log-likelihood and a probe.

        Parameters
        ----------
        items
            Read items from this file, JSON Lines: {"stem", "candidates", "true", "id"?, "topic"?}.
        labelled
            Find the neurons on this many labelled items. Default: ``32``.
        voters
            Let this many neurons vote. Default: ``64``.
        """
        super().__init__(
            items=items,
            labelled=labelled,
            voters=voters,
        )


class Values(Analysis):
    """Find a value in the stream and in neurons, with and without a prompt that asks for it, and test both."""

    command = "values"
    _data = ("items",)
    _lists = ("value",)
    _required = ("items",)
    _first = "items"

    def __init__(
        self,
        items: Data = None,
        *,
        value: Text | Sequence[Text] | None = None,
        neurons: int | None = None,
        layers: Text | None = None,
        coefficients: Text | None = None,
        controls: int | None = None,
    ) -> None:
        """Find a value in the stream and in neurons, with and without a prompt that asks for it, and test both.

        Parameters
        ----------
        items
            Read items from this file, JSON Lines: {"value", "prompt", "question", "with", "without", "id"?,
            "topic"?}.
        value
            Ask of these values alone; several with commas (default: all of the file)
        neurons
            Take at most this many neurons for each vector. Default: ``100``.
        layers
            Add the vectors after these layers: 3, 0-5,8 (default: the middle one)
        coefficients
            Add each vector times these coefficients: from:to:how-many, or a list with commas. Default:
            ``-1,1``.
        controls
            Compare with this many random sets of neurons, and random directions. Default: ``5``.
        """
        super().__init__(
            items=items,
            value=value,
            neurons=neurons,
            layers=layers,
            coefficients=coefficients,
            controls=controls,
        )


class Weights(Analysis):
    """Measure the matrices of a checkpoint, alone or beside its parent's."""

    command = "weights"
    _lists = ("children", "tensors")

    def __init__(
        self,
        *,
        against: Text | None = None,
        children: Text | Sequence[Text] | None = None,
        top: int | None = None,
        whole: int | None = None,
        tensors: Text | Sequence[Text] | None = None,
        composition: bool = False,
    ) -> None:
        """Measure the matrices of a checkpoint, alone or beside its parent's.

        Parameters
        ----------
        against
            Compare with this model, which training began from.
        children
            Measure these too, each against the same parent, in this order; a name may hold * (one, or a list)
        top
            Count this many singular values and vectors as the principal ones; fewer where a tenth of a matrix's
            are fewer. Default: ``64``.
        whole
            Find all singular values of matrices whose shorter side is at most this; of larger ones only the
            principal ones. Default: ``1024``.
        tensors
            Measure only tensors whose names match one of these, in which * stands for anything; several with
            commas.
        composition
            Measure how much of what each head writes later heads read (composition scores)
        """
        super().__init__(
            against=against,
            children=children,
            top=top,
            whole=whole,
            tensors=tensors,
            composition=composition,
        )


class Deltas(Analysis):
    """Compare models that were finetuned from one parent by what each adds to its activations (Delta Activations)."""

    command = "deltas"
    _data = ("prompts", "labels")
    _lists = ("children", "sums")
    _required = ("children",)
    _first = "prompts"

    def __init__(
        self,
        prompts: Data = None,
        *,
        children: Text | Sequence[Text] | None = None,
        labels: Data = None,
        sums: Text | Sequence[Text] | None = None,
    ) -> None:
        """Compare models that were finetuned from one parent by what each adds to its activations (Delta Activations).

        Parameters
        ----------
        prompts
            Read the generic prompts from this file, JSON Lines: {"id"?, "prompt"} (default: five instructions
            that name no task)
        children
            Compare these with the parent, in this order; a name may hold *, as in "out/checkpoint-*" (one, or a
            list)
        labels
            Read the children's kinds from this file, JSON Lines: {"model", "label"}. A model is named as among
            the children, or by the last part of its path. It is tested whether children of one kind are nearer
            to each other than to the others.
        sums
            Ask whether a child's vector is the sum of two others', as in "mathematics + code = both" (one, or a
            list)
        """
        super().__init__(
            prompts=prompts,
            children=children,
            labels=labels,
            sums=sums,
        )


class Similarity(Analysis):
    """Compare every layer of a model with every layer of another, or its own, on the same texts (CKA, Procrustes, RSA)."""

    command = "similarity"
    _data = ("prompts",)
    _required = ("prompts", "with")
    _first = "prompts"

    def __init__(
        self,
        prompts: Data = None,
        *,
        label: Text | None = None,
        with_: Text | None = None,
        positions: Literal["last", "words"] | None = None,
        rows: int | None = None,
    ) -> None:
        """Compare every layer of a model with every layer of another, or its own, on the same texts (CKA, Procrustes, RSA).

        Parameters
        ----------
        prompts
            Read prompts from this file, JSON Lines: {"id", "prompt", "answer"?, "foil"?, "label"?, "group"?,
            "lang"?, "facts"?}.
        label
            Use only the prompts with this label.
        with_
            Compare with this model; its depth, width and tokenizer may be others.
        positions
            Take these positions. Default: ``last``. Where both models read a text as other tokens, words are
            the places at which a token of both ends. What a chat template adds is left out of them, and so is a
            model's first position, at which activations are often a hundred times as large.
        rows
            Compare this many rows at most, evenly from all; memory grows with their square, time with their
            cube. Default: ``1000``.
        """
        super().__init__(
            prompts=prompts,
            label=label,
            with_=with_,
            positions=positions,
            rows=rows,
        )


class Rank(Analysis):
    """Find how much of each matrix is used on prompts (utilised rank)."""

    command = "rank"
    _data = ("prompts",)
    _required = ("prompts",)
    _first = "prompts"

    def __init__(
        self,
        prompts: Data = None,
        *,
        label: Text | None = None,
        energy: Number | None = None,
        layers: Text | None = None,
        first: bool = False,
    ) -> None:
        """Find how much of each matrix is used on prompts (utilised rank).

        Parameters
        ----------
        prompts
            Read prompts from this file, JSON Lines: {"id", "prompt", "answer"?, "foil"?, "label"?, "group"?,
            "lang"?, "facts"?}.
        label
            Use only the prompts with this label.
        energy
            Count directions until they hold this share of the energy. Default: ``0.99``.
        layers
            Measure the matrices of these layers: 3, 0-5,8 (default: all)
        first
            Count the first token of each prompt too, whose activations are often a hundred times as large as
            all others.
        """
        super().__init__(
            prompts=prompts,
            label=label,
            energy=energy,
            layers=layers,
            first=first,
        )


class Scale(Analysis):
    """Measure pairs at several scales of a mixture, whose recipe is MODEL."""

    command = "scale"
    _data = ("pairs", "metric_file")
    _lists = ("answer", "foil")
    _required = ("pairs",)
    _first = "pairs"

    def __init__(
        self,
        pairs: Data = None,
        *,
        max_pairs: int | None = None,
        answer: Text | Sequence[Text] | None = None,
        foil: Text | Sequence[Text] | None = None,
        metric_file: Data = None,
        at: Text | None = None,
    ) -> None:
        """Measure pairs at several scales of a mixture, whose recipe is MODEL.

        Parameters
        ----------
        pairs
            Read pairs of prompts from this file, JSON Lines: {"id", "positive", "negative", "answer"?, "foil"?,
            "group"?, "lang"?, "spans"?}.
        max_pairs
            Use at most this many pairs, spread over languages and groups as in the file.
        answer
            Answer token for items that name none: a string, of which the first token counts, or id:N (one, or a
            list)
        foil
            Foil token for items that name none (one, or a list)
        metric_file
            Take answer and foil tokens, by language, from the metric.json that `behaviour` writes. They count
            only for an item that names no tokens itself, and where no answer or foil token is given beside the
            file.
        at
            Multiply the recipe's coefficients by each of these: from:to:how-many, or a list with commas.
            Default: ``0:1.5:7``. 0, the base alone, is always among them.
        """
        super().__init__(
            pairs=pairs,
            max_pairs=max_pairs,
            answer=answer,
            foil=foil,
            metric_file=metric_file,
            at=at,
        )


class Edges(Analysis):
    """Take every edge from the matched prompt, and measure what changes."""

    command = "edges"
    _data = ("pairs", "metric_file", "circuit")
    _lists = ("answer", "foil", "of", "estimate")
    _required = ("pairs",)
    _first = "pairs"

    def __init__(
        self,
        pairs: Data = None,
        *,
        max_pairs: int | None = None,
        answer: Text | Sequence[Text] | None = None,
        foil: Text | Sequence[Text] | None = None,
        metric_file: Data = None,
        position: Text | None = None,
        by_span: bool = False,
        align: bool = False,
        kv: Literal["head", "query"] | None = None,
        of: Text | Sequence[Text] | None = None,
        circuit: Data = None,
        direction: Literal["necessity", "sufficiency"] | None = None,
        estimate: Literal["reader", "eap", "eap-ig"] | Sequence[Literal["reader", "eap", "eap-ig"]] | None = None,
        steps: int | None = None,
        horizon: int | None = None,
        exact: Text | None = None,
        sample: int | None = None,
        keep_pairs: bool = False,
    ) -> None:
        """Take every edge from the matched prompt, and measure what changes.

        Parameters
        ----------
        pairs
            Read pairs of prompts from this file, JSON Lines: {"id", "positive", "negative", "answer"?, "foil"?,
            "group"?, "lang"?, "spans"?}.
        max_pairs
            Use at most this many pairs, spread over languages and groups as in the file.
        answer
            Answer token for items that name none: a string, of which the first token counts, or id:N (one, or a
            list)
        foil
            Foil token for items that name none (one, or a list)
        metric_file
            Take answer and foil tokens, by language, from the metric.json that `behaviour` writes. They count
            only for an item that names no tokens itself, and where no answer or foil token is given beside the
            file.
        position
            Where readers read what is taken: last, all, or a number (a negative one counts from the prompt's
            end) Default: ``all``.
        by_span
            Take edges at each span of the pairs by itself: rows have the span's name as their position. Readers
            read what is taken at the span alone. A pair names its spans in the field `spans` of its line; it
            does not count in the rows of a span that it lacks.
        align
            Match up prompts of unequal lengths. Equal beginnings and ends are matched token by token, and the
            spans between them in proportion. A reader takes from the matching position; at positions that match
            none it reads what it does.
        kv
            Whose keys and values readers are, where heads share some. Default: ``head``.
        of
            Only edges that begin or end at these parts: L23.H3, a23.h3, m0, input, logits; several with commas.
            p-values and q-values are corrected over these edges.
        circuit
            Only edges that begin or end at the gate in the circuit.json that `screen` writes, or at the heads
            of a list or a graph.
        direction
            Take edges into only one of the two runs (default: each in turn)
        estimate
            Estimate every edge by these; the first chooses which are run exactly. Default: ``reader``.
        steps
            For eap-ig: take this many steps on the way between the two embeddings. Default: ``5``.
        horizon
            Estimate every edge also by running it exactly through this many layers, the reader's the first, and
            the rest to first order; this estimate then chooses. Default: ``0``.
        exact
            Run this many of the strongest edges exactly, in each direction, or all. Default: ``2000``.
        sample
            Run this many of the other edges too, drawn at random: they say what the estimate missed. Default:
            ``500``.
        keep_pairs
            Leave the effect on every pair of every edge that was run, too.
        """
        super().__init__(
            pairs=pairs,
            max_pairs=max_pairs,
            answer=answer,
            foil=foil,
            metric_file=metric_file,
            position=position,
            by_span=by_span,
            align=align,
            kv=kv,
            of=of,
            circuit=circuit,
            direction=direction,
            estimate=estimate,
            steps=steps,
            horizon=horizon,
            exact=exact,
            sample=sample,
            keep_pairs=keep_pairs,
        )


class Circuit(Analysis):
    """Keep a few edges, take all others from the matched prompt, and measure what is left."""

    command = "circuit"
    _data = ("pairs", "metric_file", "edges", "graph")
    _lists = ("answer", "foil", "estimate")
    _required = ("pairs",)
    _first = "pairs"

    def __init__(
        self,
        pairs: Data = None,
        *,
        max_pairs: int | None = None,
        answer: Text | Sequence[Text] | None = None,
        foil: Text | Sequence[Text] | None = None,
        metric_file: Data = None,
        edges: Data = None,
        graph: Data = None,
        estimate: Literal["reader", "eap", "eap-ig"] | Sequence[Literal["reader", "eap", "eap-ig"]] | None = None,
        steps: int | None = None,
        by_span: bool = False,
        align: bool = False,
        kv: Literal["head", "query"] | None = None,
        threshold: Number | None = None,
        random: int | None = None,
        minimality: int | None = None,
        minimality_pairs: int | None = None,
        resamples: int | None = None,
    ) -> None:
        """Keep a few edges, take all others from the matched prompt, and measure what is left.

        Parameters
        ----------
        pairs
            Read pairs of prompts from this file, JSON Lines: {"id", "positive", "negative", "answer"?, "foil"?,
            "group"?, "lang"?, "spans"?}.
        max_pairs
            Use at most this many pairs, spread over languages and groups as in the file.
        answer
            Answer token for items that name none: a string, of which the first token counts, or id:N (one, or a
            list)
        foil
            Foil token for items that name none (one, or a list)
        metric_file
            Take answer and foil tokens, by language, from the metric.json that `behaviour` writes. They count
            only for an item that names no tokens itself, and where no answer or foil token is given beside the
            file.
        edges
            Rank edges by what `edges` found: its run directory.
        graph
            Rank edges by the scores in this graph, JSON as EAP-IG writes it; or test the circuit that it marks.
        estimate
            Where no scores are given, estimate every edge by these. Default: ``reader``.
        steps
            For eap-ig: take this many steps on the way between the two embeddings. Default: ``5``.
        by_span
            Let a circuit have an edge at some spans of the pairs and not at others. Readers then read what is
            taken at one span at a time. A position in several spans is the last one's; all that are in none are
            one more, `rest`.
        align
            Match up prompts of unequal lengths. Equal beginnings and ends are matched token by token, and the
            spans between them in proportion. A reader takes from the matching position; at positions that match
            none it reads what it does.
        kv
            Whose keys and values readers are, where heads share some. Default: ``head``.
        threshold
            Choose the smallest circuit that keeps this share of the gap. Default: ``0.8``.
        random
            Run this many random circuits of each size, to compare with. Default: ``5``.
        minimality
            Take each edge out of the chosen circuit, if these are no more than this many; 0 takes none.
            Default: ``200``.
        minimality_pairs
            Do so on no more pairs than this. Default: ``20``.
        resamples
            Choose circuits of this many samples of the pairs, to see how stable they are. Default: ``200``.
        """
        super().__init__(
            pairs=pairs,
            max_pairs=max_pairs,
            answer=answer,
            foil=foil,
            metric_file=metric_file,
            edges=edges,
            graph=graph,
            estimate=estimate,
            steps=steps,
            by_span=by_span,
            align=align,
            kv=kv,
            threshold=threshold,
            random=random,
            minimality=minimality,
            minimality_pairs=minimality_pairs,
            resamples=resamples,
        )


class Interactions(Analysis):
    """Swap heads between matched prompts two by two: which work together, and which stand in for each other?."""

    command = "interactions"
    _data = ("pairs", "metric_file", "circuit")
    _lists = ("answer", "foil", "heads")
    _required = ("pairs",)
    _first = "pairs"

    def __init__(
        self,
        pairs: Data = None,
        *,
        max_pairs: int | None = None,
        answer: Text | Sequence[Text] | None = None,
        foil: Text | Sequence[Text] | None = None,
        metric_file: Data = None,
        heads: Text | Sequence[Text] | None = None,
        circuit: Data = None,
        top: int | None = None,
        direction: Literal["necessity", "sufficiency"] | None = None,
        position: Text | None = None,
        align: bool = False,
        shapley: Literal["auto", "exact", "sampled", "none"] | None = None,
        permutations: int | None = None,
    ) -> None:
        """Swap heads between matched prompts two by two: which work together, and which stand in for each other?.

        Parameters
        ----------
        pairs
            Read pairs of prompts from this file, JSON Lines: {"id", "positive", "negative", "answer"?, "foil"?,
            "group"?, "lang"?, "spans"?}.
        max_pairs
            Use at most this many pairs, spread over languages and groups as in the file.
        answer
            Answer token for items that name none: a string, of which the first token counts, or id:N (one, or a
            list)
        foil
            Foil token for items that name none (one, or a list)
        metric_file
            Take answer and foil tokens, by language, from the metric.json that `behaviour` writes. They count
            only for an item that names no tokens itself, and where no answer or foil token is given beside the
            file.
        heads
            Take these heads, as L14.H5; several with commas (default: those whose own swap moves the metric
            most) A head that takes over only where another is silent does nothing alone: name it to see what it
            does.
        circuit
            Take the heads of this circuit: the circuit.json or graph.json of `screen`, `edges` or `circuit`, or
            a list of heads.
        top
            Without named heads: take this many, those whose own swap moves the metric of the same pairs most.
            Default: ``12``.
        direction
            Edit this run: the positive one (necessity) or the negative one (sufficiency) Default:
            ``necessity``.
        position
            Swap at this position: last, all, or a number (a negative one counts from the prompt's end) Default:
            ``last``.
        align
            At all positions: match up prompts of unequal lengths.
        shapley
            Find Shapley values in this way. Default: ``auto``.
        permutations
            For sampled Shapley values: draw this many orders of the heads. Default: ``200``.
        """
        super().__init__(
            pairs=pairs,
            max_pairs=max_pairs,
            answer=answer,
            foil=foil,
            metric_file=metric_file,
            heads=heads,
            circuit=circuit,
            top=top,
            direction=direction,
            position=position,
            align=align,
            shapley=shapley,
            permutations=permutations,
        )


class ContrastMethods(Analysis):
    """Compare interchange, ablation and attribution of the same heads, and what self-repair hides."""

    command = "contrast-methods"
    _data = ("pairs", "metric_file")
    _lists = ("answer", "foil")
    _required = ("pairs",)
    _first = "pairs"

    def __init__(
        self,
        pairs: Data = None,
        *,
        max_pairs: int | None = None,
        answer: Text | Sequence[Text] | None = None,
        foil: Text | Sequence[Text] | None = None,
        metric_file: Data = None,
        direct: int | None = None,
    ) -> None:
        """Compare interchange, ablation and attribution of the same heads, and what self-repair hides.

        Parameters
        ----------
        pairs
            Read pairs of prompts from this file, JSON Lines: {"id", "positive", "negative", "answer"?, "foil"?,
            "group"?, "lang"?, "spans"?}.
        max_pairs
            Use at most this many pairs, spread over languages and groups as in the file.
        answer
            Answer token for items that name none: a string, of which the first token counts, or id:N (one, or a
            list)
        foil
            Foil token for items that name none (one, or a list)
        metric_file
            Take answer and foil tokens, by language, from the metric.json that `behaviour` writes. They count
            only for an item that names no tokens itself, and where no answer or foil token is given beside the
            file.
        direct
            Take apart the effects of this many heads, with later components frozen. Default: ``16``. They are
            the strongest by interchange, and as many by attribution.
        """
        super().__init__(
            pairs=pairs,
            max_pairs=max_pairs,
            answer=answer,
            foil=foil,
            metric_file=metric_file,
            direct=direct,
        )


class Cascade(Analysis):
    """Knock the gate out, and show what later heads lose."""

    command = "cascade"
    _data = ("pairs", "metric_file", "circuit")
    _lists = ("answer", "foil", "gate")
    _required = ("pairs",)
    _first = "pairs"

    def __init__(
        self,
        pairs: Data = None,
        *,
        max_pairs: int | None = None,
        answer: Text | Sequence[Text] | None = None,
        foil: Text | Sequence[Text] | None = None,
        metric_file: Data = None,
        gate: Text | Sequence[Text] | None = None,
        circuit: Data = None,
        mode: Literal["interchange", "zero"] | None = None,
        amplifiers: int | None = None,
    ) -> None:
        """Knock the gate out, and show what later heads lose.

        Parameters
        ----------
        pairs
            Read pairs of prompts from this file, JSON Lines: {"id", "positive", "negative", "answer"?, "foil"?,
            "group"?, "lang"?, "spans"?}.
        max_pairs
            Use at most this many pairs, spread over languages and groups as in the file.
        answer
            Answer token for items that name none: a string, of which the first token counts, or id:N (one, or a
            list)
        foil
            Foil token for items that name none (one, or a list)
        metric_file
            Take answer and foil tokens, by language, from the metric.json that `behaviour` writes. They count
            only for an item that names no tokens itself, and where no answer or foil token is given beside the
            file.
        gate
            Take these heads as the gate, as L14.H5; several with commas.
        circuit
            Read the gate from the circuit.json that `screen` writes. All heads of a list, or of a graph of
            edges, are the gate together.
        mode
            Knock heads out in this way. Default: ``interchange``.
        amplifiers
            Also knock out this many amplifiers, the strongest. Default: ``8``.
        """
        super().__init__(
            pairs=pairs,
            max_pairs=max_pairs,
            answer=answer,
            foil=foil,
            metric_file=metric_file,
            gate=gate,
            circuit=circuit,
            mode=mode,
            amplifiers=amplifiers,
        )


class Commitment(Analysis):
    """Find the layer until which the detected signal can still change the answer."""

    command = "commitment"
    _data = ("pairs", "metric_file")
    _lists = ("answer", "foil")
    _required = ("pairs",)
    _first = "pairs"

    def __init__(
        self,
        pairs: Data = None,
        *,
        max_pairs: int | None = None,
        answer: Text | Sequence[Text] | None = None,
        foil: Text | Sequence[Text] | None = None,
        metric_file: Data = None,
        layers: Text | None = None,
        content_pairs: int | None = None,
        controls: int | None = None,
    ) -> None:
        """Find the layer until which the detected signal can still change the answer.

        Parameters
        ----------
        pairs
            Read pairs of prompts from this file, JSON Lines: {"id", "positive", "negative", "answer"?, "foil"?,
            "group"?, "lang"?, "spans"?}.
        max_pairs
            Use at most this many pairs, spread over languages and groups as in the file.
        answer
            Answer token for items that name none: a string, of which the first token counts, or id:N (one, or a
            list)
        foil
            Foil token for items that name none (one, or a list)
        metric_file
            Take answer and foil tokens, by language, from the metric.json that `behaviour` writes. They count
            only for an item that names no tokens itself, and where no answer or foil token is given beside the
            file.
        layers
            Use these layers: 3, or 0-5,8 (default: all)
        content_pairs
            Change the content of this many pairs, spread evenly. Default: ``40``. Such a change takes long: all
            later positions are run again.
        controls
            Use this many random directions as control, at each layer's last position. Default: ``5``. In the
            content, where each takes long, there are two at most.
        """
        super().__init__(
            pairs=pairs,
            max_pairs=max_pairs,
            answer=answer,
            foil=foil,
            metric_file=metric_file,
            layers=layers,
            content_pairs=content_pairs,
            controls=controls,
        )


class Modulate(Analysis):
    """Weaken and strengthen the detected signal, and show which kind of answer takes over."""

    command = "modulate"
    _data = ("pairs", "metric_file", "circuit", "classes")
    _lists = ("answer", "foil", "gate")
    _required = ("pairs",)
    _first = "pairs"

    def __init__(
        self,
        pairs: Data = None,
        *,
        max_pairs: int | None = None,
        answer: Text | Sequence[Text] | None = None,
        foil: Text | Sequence[Text] | None = None,
        metric_file: Data = None,
        layer: Text | None = None,
        gate: Text | Sequence[Text] | None = None,
        circuit: Data = None,
        coefficients: Text | None = None,
        controls: int | None = None,
        generate: int | None = None,
        generate_pairs: int | None = None,
        generate_controls: int | None = None,
        classes: Data = None,
    ) -> None:
        """Weaken and strengthen the detected signal, and show which kind of answer takes over.

        Parameters
        ----------
        pairs
            Read pairs of prompts from this file, JSON Lines: {"id", "positive", "negative", "answer"?, "foil"?,
            "group"?, "lang"?, "spans"?}.
        max_pairs
            Use at most this many pairs, spread over languages and groups as in the file.
        answer
            Answer token for items that name none: a string, of which the first token counts, or id:N (one, or a
            list)
        foil
            Foil token for items that name none (one, or a list)
        metric_file
            Take answer and foil tokens, by language, from the metric.json that `behaviour` writes. They count
            only for an item that names no tokens itself, and where no answer or foil token is given beside the
            file.
        layer
            Read and change the signal after this layer (default: the gate's)
        gate
            Take these heads as the gate, as L14.H5; several with commas.
        circuit
            Read the gate from the circuit.json that `screen` writes. All heads of a list, or of a graph of
            edges, are the gate together.
        coefficients
            Try these coefficients: from:to:how-many, or a list with commas. Default: ``-1.5:1.5:13``. A
            coefficient of 1 is the whole difference between positive and negative prompts.
        controls
            Use this many random directions of the same norm as control, at both ends of the grid. Default:
            ``5``.
        generate
            Generate answers of this many tokens, and classify them (0: none) Default: ``0``.
        generate_pairs
            Generate for this many pairs, spread over languages and groups as in the file. Default: ``40``.
        generate_controls
            Generate along this many of the random directions too, at both ends of the grid. Default: ``0``.
        classes
            Classes of one's own for generated answers: a file of rules as datasets/answers.toml has them.
        """
        super().__init__(
            pairs=pairs,
            max_pairs=max_pairs,
            answer=answer,
            foil=foil,
            metric_file=metric_file,
            layer=layer,
            gate=gate,
            circuit=circuit,
            coefficients=coefficients,
            controls=controls,
            generate=generate,
            generate_pairs=generate_pairs,
            generate_controls=generate_controls,
            classes=classes,
        )


class Cipher(Analysis):
    """Test whether the gate is needed in cipher, and whether injecting it restores refusals."""

    command = "cipher"
    _data = ("pairs", "metric_file", "circuit", "cipher")
    _lists = ("answer", "foil", "gate")
    _required = ("pairs",)
    _first = "pairs"

    def __init__(
        self,
        pairs: Data = None,
        *,
        max_pairs: int | None = None,
        answer: Text | Sequence[Text] | None = None,
        foil: Text | Sequence[Text] | None = None,
        metric_file: Data = None,
        gate: Text | Sequence[Text] | None = None,
        circuit: Data = None,
        cipher: Data = None,
        examples: int | None = None,
        cipher_seed: int | None = None,
        generate: int | None = None,
    ) -> None:
        """Test whether the gate is needed in cipher, and whether injecting it restores refusals.

        Parameters
        ----------
        pairs
            Read pairs of prompts from this file, JSON Lines: {"id", "positive", "negative", "answer"?, "foil"?,
            "group"?, "lang"?, "spans"?}.
        max_pairs
            Use at most this many pairs, spread over languages and groups as in the file.
        answer
            Answer token for items that name none: a string, of which the first token counts, or id:N (one, or a
            list)
        foil
            Foil token for items that name none (one, or a list)
        metric_file
            Take answer and foil tokens, by language, from the metric.json that `behaviour` writes. They count
            only for an item that names no tokens itself, and where no answer or foil token is given beside the
            file.
        gate
            Take these heads as the gate, as L14.H5; several with commas.
        circuit
            Read the gate from the circuit.json that `screen` writes. All heads of a list, or of a graph of
            edges, are the gate together.
        cipher
            Read the pairs in cipher, in any encoding and under the same ids, from this file (default: permute
            the letters)
        examples
            Give this many worked examples of the letter cipher in the prompt. Default: ``2``.
        cipher_seed
            Permute the letters by this seed. Default: ``0``.
        generate
            Generate answers of this many tokens, and classify them (0: none) Default: ``0``. The swap is made
            in the prompt.
        """
        super().__init__(
            pairs=pairs,
            max_pairs=max_pairs,
            answer=answer,
            foil=foil,
            metric_file=metric_file,
            gate=gate,
            circuit=circuit,
            cipher=cipher,
            examples=examples,
            cipher_seed=cipher_seed,
            generate=generate,
        )


class Contrast(Analysis):
    """Show which heads' attributions a cipher takes away, in three passes per pair."""

    command = "contrast"
    _data = ("pairs", "metric_file", "cipher")
    _lists = ("answer", "foil")
    _required = ("pairs",)
    _first = "pairs"

    def __init__(
        self,
        pairs: Data = None,
        *,
        max_pairs: int | None = None,
        answer: Text | Sequence[Text] | None = None,
        foil: Text | Sequence[Text] | None = None,
        metric_file: Data = None,
        cipher: Data = None,
        examples: int | None = None,
        cipher_seed: int | None = None,
    ) -> None:
        """Show which heads' attributions a cipher takes away, in three passes per pair.

        Parameters
        ----------
        pairs
            Read pairs of prompts from this file, JSON Lines: {"id", "positive", "negative", "answer"?, "foil"?,
            "group"?, "lang"?, "spans"?}.
        max_pairs
            Use at most this many pairs, spread over languages and groups as in the file.
        answer
            Answer token for items that name none: a string, of which the first token counts, or id:N (one, or a
            list)
        foil
            Foil token for items that name none (one, or a list)
        metric_file
            Take answer and foil tokens, by language, from the metric.json that `behaviour` writes. They count
            only for an item that names no tokens itself, and where no answer or foil token is given beside the
            file.
        cipher
            Read the pairs in cipher, in any encoding and under the same ids, from this file (default: permute
            the letters)
        examples
            Give this many worked examples of the letter cipher in the prompt. Default: ``2``.
        cipher_seed
            Permute the letters by this seed. Default: ``0``.
        """
        super().__init__(
            pairs=pairs,
            max_pairs=max_pairs,
            answer=answer,
            foil=foil,
            metric_file=metric_file,
            cipher=cipher,
            examples=examples,
            cipher_seed=cipher_seed,
        )


class Cav(Analysis):
    """Find where a concept can be read linearly, and whether the answer follows it (CAV, TCAV)."""

    command = "cav"
    _data = ("concept", "random", "class", "metric_file")
    _lists = ("random", "class", "answer", "foil", "method")
    _required = ("concept",)
    _first = "concept"

    def __init__(
        self,
        concept: Data = None,
        *,
        random: Data = None,
        label: Text | None = None,
        class_: Data = None,
        answer: Text | Sequence[Text] | None = None,
        foil: Text | Sequence[Text] | None = None,
        metric_file: Data = None,
        site: Text | None = None,
        layers: Text | None = None,
        position: Text | None = None,
        method: Literal["logistic", "svm", "ridge", "mean"] | Sequence[Literal["logistic", "svm", "ridge", "mean"]] | None = None,
        runs: int | None = None,
    ) -> None:
        """Find where a concept can be read linearly, and whether the answer follows it (CAV, TCAV).

        Parameters
        ----------
        concept
            Read examples of the concept from this file, JSON Lines: {"id", "prompt", "label"?, "group"?}. Give
            some hundreds: time grows with the cube of the number of all examples. Examples of one group are
            held out together, and are in one run of TCAV.
        random
            Read random examples, without the concept, from this file (one, or a list)
        label
            Take only the concept's examples with this label as showing it. Without random examples, the other
            examples of the file are the random ones.
        class_
            For TCAV: read the prompts whose metric is asked about from this file (one, or a list) Each label is
            a class. If the prompts have no labels, the file is one class.
        answer
            Answer token for items that name none: a string, of which the first token counts, or id:N (one, or a
            list)
        foil
            Foil token for items that name none (one, or a list)
        metric_file
            Take answer and foil tokens, by language, from the metric.json that `behaviour` writes. They count
            only for an item that names no tokens itself, and where no answer or foil token is given beside the
            file.
        site
            Take activations at this site. Default: ``resid_post``.
        layers
            Use these layers: 3, or 0-5,8 (default: all)
        position
            Take activations at this position: last, or a number (a negative one counts from the prompt's end)
            Default: ``last``.
        method
            Fit CAVs in this way; several with commas. Default: ``logistic``.
        runs
            For TCAV: fit this many CAVs of the concept, and as many of random sets. Default: ``10``. If the
            examples or their groups do not suffice, there are fewer, down to 5.
        """
        super().__init__(
            concept=concept,
            random=random,
            label=label,
            class_=class_,
            answer=answer,
            foil=foil,
            metric_file=metric_file,
            site=site,
            layers=layers,
            position=position,
            method=method,
            runs=runs,
        )


class Steer(Analysis):
    """Add a direction times a grid of coefficients, or take it out, beside random directions."""

    command = "steer"
    _data = ("prompts", "metric_file", "vector", "pairs", "concept", "random", "classes")
    _lists = ("answer", "foil")
    _required = ("prompts",)
    _first = "prompts"

    def __init__(
        self,
        prompts: Data = None,
        *,
        label: Text | None = None,
        answer: Text | Sequence[Text] | None = None,
        foil: Text | Sequence[Text] | None = None,
        metric_file: Data = None,
        vector: Data = None,
        name: Text | None = None,
        export: Text | None = None,
        from_: Literal["actadd", "caa", "pca", "mean", "cav"] | None = None,
        pairs: Data = None,
        concept: Data = None,
        random: Data = None,
        layer: Text | None = None,
        site: Text | None = None,
        vector_position: Text | None = None,
        select: int | None = None,
        coefficients: Text | None = None,
        scale: Literal["raw", "unit", "layer"] | None = None,
        position: Text | None = None,
        steps: Literal["every", "prompt"] | None = None,
        ablate: bool = False,
        gcav: Number | None = None,
        controls: int | None = None,
        generate: int | None = None,
        generate_controls: int | None = None,
        classes: Data = None,
        temperature: Number | None = None,
    ) -> None:
        """Add a direction times a grid of coefficients, or take it out, beside random directions.

        Parameters
        ----------
        prompts
            Read prompts from this file, JSON Lines: {"id", "prompt", "answer"?, "foil"?, "label"?, "group"?,
            "lang"?, "facts"?}.
        label
            Use only the prompts with this label.
        answer
            Answer token for items that name none: a string, of which the first token counts, or id:N (one, or a
            list)
        foil
            Foil token for items that name none (one, or a list)
        metric_file
            Take answer and foil tokens, by language, from the metric.json that `behaviour` writes. They count
            only for an item that names no tokens itself, and where no answer or foil token is given beside the
            file.
        vector
            Read the vector from a file: safetensors as `cav` and `steer` write it, .npy, or a control vector in
            GGUF.
        name
            Take this vector of the file, as logistic.resid_post.3 (default: the only one, or the layer's)
        export
            Also write the vector as a control vector in GGUF, for llama.cpp.
        from_
            Make the vector in this way, from pairs, or from prompts that show a concept and prompts that do
            not.
        pairs
            Make the vector from the pairs in this file.
        concept
            For mean and cav: read prompts that show what to steer towards.
        random
            Read prompts that do not show it.
        layer
            Make and add the vector at this layer. Leave it out if it is to be selected, and if the site is in
            no layer.
        site
            Make and add the vector at this site (default: resid_pre for actadd and mean, else resid_post)
        vector_position
            Make the vector at this position of its prompts: last, or a number (a negative one counts from the
            end) Default: ``last``. actadd takes all positions.
        select
            For the mean of pairs: choose the layer, and one of the last N positions, by what the direction
            does. Added to the negative prompts, the direction must bring the metric over 0. Taken out of them,
            it must change their next token little (a KL divergence of 0.1 nats at most). Of these directions,
            the one is chosen that leaves the least of the metric when it is taken out of the positive prompts.
        coefficients
            Try these coefficients: from:to:how-many, or a list with commas. Default: ``-2:2:9``.
        scale
            Let a coefficient of 1 stand for this. Default: ``raw``.
        position
            Add the vector at this position of the prompt: last (and after), all, or a number. Default:
            ``last``. actadd has its own positions.
        steps
            Steer generated tokens too, or the prompt only (default: every; prompt if actadd or a numbered
            position adds something)
        ablate
            Also take the direction out of every layer's residual stream (directional ablation)
        gcav
            Also give each prompt the smallest coefficient that brings the classifier's probability to P (needs
            a logistic CAV)
        controls
            Use this many random directions of the same norm as control. Default: ``20``.
        generate
            Generate answers of this many tokens, and classify them (0: none) Default: ``0``.
        generate_controls
            Generate along this many of the random directions too. Default: ``2``.
        classes
            Classes of one's own for generated answers: a file of rules as datasets/answers.toml has them.
        temperature
            Sample answers at this temperature (default: greedy)
        """
        super().__init__(
            prompts=prompts,
            label=label,
            answer=answer,
            foil=foil,
            metric_file=metric_file,
            vector=vector,
            name=name,
            export=export,
            from_=from_,
            pairs=pairs,
            concept=concept,
            random=random,
            layer=layer,
            site=site,
            vector_position=vector_position,
            select=select,
            coefficients=coefficients,
            scale=scale,
            position=position,
            steps=steps,
            ablate=ablate,
            gcav=gcav,
            controls=controls,
            generate=generate,
            generate_controls=generate_controls,
            classes=classes,
            temperature=temperature,
        )
