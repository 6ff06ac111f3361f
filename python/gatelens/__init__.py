"""gatelens: which parts of a language model decide a behaviour.

>>> import gatelens as gl
>>> model = gl.open("demo")
>>> study = gl.Interchange().run(model, "demo:pairs.jsonl")
>>> study.heads.to_polars()  # doctest: +SKIP

Every analysis of the command ``gatelens`` is a class with the command's parameters. Beside them there are plans, for sweeps of
one's own: prompts, edited runs of them, and what is read of each, computed together in one wave.
"""

from . import _core
from ._core import Error, InputError, ModelError
from ._data import read_pairs, read_prompts
from ._models import Generated, Model, Tokens, Trace, open, text
from ._plans import At, Edit, Handle, Plan, Readings, Run, at, z
from ._studies import Analysis, Figure, Study, View, load, read_vectors, write_vectors
from ._tables import Table
from .analyses import (
    Ablate,
    Attention,
    Behaviour,
    Cascade,
    Cav,
    Cipher,
    Circuit,
    Commitment,
    Contrast,
    ContrastMethods,
    Deltas,
    Dla,
    Edges,
    Functions,
    Importance,
    Interactions,
    Interchange,
    Lens,
    Modulate,
    Neurons,
    Rank,
    Scale,
    Screen,
    Similarity,
    Steer,
    Truth,
    Values,
    Weights,
)

#: The version, which is the command's.
__version__: str = _core.VERSION

__all__ = [
    "Ablate",
    "Analysis",
    "At",
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
    "Edit",
    "Error",
    "Figure",
    "Functions",
    "Generated",
    "Handle",
    "Importance",
    "InputError",
    "Interactions",
    "Interchange",
    "Lens",
    "Model",
    "ModelError",
    "Modulate",
    "Neurons",
    "Plan",
    "Rank",
    "Readings",
    "Run",
    "Scale",
    "Screen",
    "Similarity",
    "Steer",
    "Study",
    "Table",
    "Tokens",
    "Trace",
    "Truth",
    "Values",
    "View",
    "Weights",
    "at",
    "load",
    "open",
    "read_pairs",
    "read_prompts",
    "read_vectors",
    "text",
    "write_vectors",
    "z",
]
