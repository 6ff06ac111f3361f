#!/usr/bin/env python3
"""What a sweep over every head costs on a GPU, on paper: no GPU has run it. Prints the tables of docs/kernels.md.

The sweep: one pair of prompts, every head of every layer exchanged at the last position, in both directions. A fork has one
row, from its own layer on. All sizes are those of the models' published configurations; rates are the cards' published ones.
"""

from dataclasses import dataclass

TOKENS = 60
# Of a rate on paper, what a kernel of each kind is expected to reach. Guesses until a GPU has run them.
PRODUCTS, ATTENTION, COPIES = 0.6, 0.1, 0.7


@dataclass
class Model:
    name: str
    layers: int
    d_model: int
    heads: int
    kv_heads: int
    d_mlp: int
    vocab: int
    d_head: int = 128

    def layer_parameters(self):
        attention = self.d_model * self.d_head * (2 * self.heads + 2 * self.kv_heads)
        return attention + 3 * self.d_model * self.d_mlp

    def parameters(self):
        return self.layers * self.layer_parameters() + 2 * self.vocab * self.d_model

    def rows(self):
        """Rows of the middle layer: both prompts, and the forks of the layers before."""
        return 2 * TOKENS + 2 * self.heads * self.layers // 2


@dataclass
class Card:
    name: str
    bf16: float
    f32: float
    memory: float
    host: float


MODELS = [
    Model("Llama 2 7B", 32, 4096, 32, 32, 11008, 32000),
    Model("Qwen2.5 14B", 48, 5120, 40, 8, 13824, 152064),
    Model("Qwen2.5 32B", 64, 5120, 40, 8, 27648, 152064),
    Model("Qwen2.5 72B", 80, 8192, 64, 8, 29568, 152064),
]
CARDS = [Card("A100 80 GB", 312e12, 19.5e12, 2.04e12, 25e9), Card("H100 80 GB", 989e12, 67e12, 3.35e12, 50e9)]


def layer(model, card):
    """Seconds of each part of the middle layer, as (name, seconds)."""
    rows = model.rows()
    products = 2 * rows * model.layer_parameters() / (PRODUCTS * card.bf16)
    weights = 2 * model.layer_parameters() / card.memory
    attention = 4 * rows * TOKENS * model.heads * model.d_head / (ATTENTION * card.f32)
    # A norm reads a row from memory once, and writes it once, twice a layer. Rotations, sums, activations: bf16 too.
    norms = 2 * (2 + 2) * model.d_model
    rest = 2 * (3 * 2 * (model.heads + model.kv_heads) * model.d_head + 6 * model.d_model + 4 * model.d_mlp)
    elementwise = rows * (norms + rest) / (COPIES * card.memory)
    # Of the forks that begin here. The activation is copied whole, as a tensor does not change; each fork's row is widened
    # to f32 and narrowed again, and in between one head's columns are taken from the donor's.
    width, forks = model.heads * model.d_head, 2 * model.heads
    copied = (rows + forks) * (2 + 2) * width
    edited = forks * ((2 + 4 + 4 + 2) * width + (4 + 4) * model.d_head)
    edits = (copied + edited) / (COPIES * card.memory)
    return [
        ("products", max(products, weights)),
        ("attention", attention),
        ("norms and other elementwise", elementwise),
        ("edits", edits),
    ]


def main():
    print("| Model | Weights in bf16 | Rows, middle layer | FLOPs a row and layer | Weights a layer | Rows at which products outweigh reading the weights (A100, H100) |")
    print("|---|---|---|---|---|---|")
    for m in MODELS:
        flops, bytes_ = 2 * m.layer_parameters(), 2 * m.layer_parameters()
        turn = ", ".join(f"{PRODUCTS * c.bf16 / c.memory:.0f}" for c in CARDS)
        print(f"| {m.name} | {2 * m.parameters() / 1e9:.0f} GB | {m.rows()} | {flops / 1e9:.2f} G | {bytes_ / 1e6:.0f} MB | {turn} |")
    print()
    print("| Model | Card | Products | Attention | Norms and elementwise | Edits | A layer | Copy of a layer from the host | The sweep |")
    print("|---|---|---|---|---|---|---|---|---|")
    for m in MODELS:
        for c in CARDS:
            parts = layer(m, c)
            total = sum(s for _, s in parts)
            shares = " | ".join(f"{100 * s / total:.1f} %" for _, s in parts)
            copy = 2 * m.layer_parameters() / c.host
            fits = 2 * m.parameters() < 76e9
            sweep = m.layers * (total if fits else max(total, copy))
            how = "" if fits else ", streamed"
            print(f"| {m.name} | {c.name} | {shares} | {1e3 * total:.1f} ms | {1e3 * copy:.0f} ms | {sweep:.2f} s{how} |")


if __name__ == "__main__":
    main()
