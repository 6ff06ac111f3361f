#!/usr/bin/env python3
"""A small model fine-tuned in the two ways that checkpoint studies contrast ("The Path Not Taken", 2025), on one CPU core.

    fine_tune.py --gguf smollm2.gguf --out tuned --text docs/*.md      or --model DIR in place of --gguf

leaves Hugging Face folders in bf16, each with its tokenizer:

    parent                             the model as it was given, rounded to bf16
    sft/checkpoint-50, -100, ...       full fine-tuning with a large step: it rotates the leading singular vectors
    off-principal/checkpoint-50, ...   a small step, projected off the parent's leading singular vectors: few entries change in bf16
    training.json                      settings, losses, and the logit difference on held-out prompts at each checkpoint

Half of each batch are indirect-object sentences ("When Mary and John went to the store, John gave a drink to Mary.") from templates
of our own, packed one after another. Half are windows of the texts. The loss is on all tokens.

Both ways use Adam on an f32 master copy that starts at the parent's bf16 values. Off-principal takes each matrix's update D to
(1 - U U') D (1 - V V') before it is applied, with U and V the parent's first k left and right singular vectors,
k = max(1, min(64, rank // 10)). Vectors (norms) take their update as it is.

Needs torch, transformers, and gguf for --gguf."""

import argparse
import copy
import json
import pathlib
import random
import time

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

NAMES = [
    "Mary",
    "John",
    "Tom",
    "James",
    "Dan",
    "Sarah",
    "Anna",
    "Mark",
    "Paul",
    "Lisa",
    "Kate",
    "David",
    "Peter",
    "Laura",
    "Alice",
    "Martin",
    "Simon",
    "Emma",
    "Jack",
    "Sam",
    "Adam",
    "Luke",
    "Rachel",
    "Susan",
    "Emily",
    "Michael",
    "Robert",
    "Maria",
    "Julia",
    "Daniel",
    "Andrew",
    "Thomas",
    "Kevin",
    "Steven",
    "Brian",
    "Helen",
    "Jane",
    "Ruth",
    "George",
    "Henry",
]
PLACES = ["store", "park", "school", "garden", "station", "office", "market", "library", "beach", "house", "museum", "restaurant"]
THINGS = ["drink", "book", "ring", "letter", "ball", "gift", "key", "flower", "map", "coin", "ticket", "picture"]
TRAINED = [
    "When {A} and {B} went to the {place}, {S} gave a {thing} to {IO}.",
    "After {A} and {B} had met at the {place}, {S} handed the {thing} to {IO}.",
    "{A} and {B} were at the {place} all day. In the evening {S} passed a {thing} to {IO}.",
    "While {A} and {B} were on their way to the {place}, {S} showed the {thing} to {IO}.",
    "Once {A} and {B} sat down in the {place}, {S} offered a {thing} to {IO}.",
    "{A} had a long talk with {B} near the {place}. Then {S} sent a {thing} to {IO}.",
]
HELD_OUT = ["Yesterday {A} and {B} walked to the {place}, and {S} brought a {thing} to {IO}."]
WAYS = {"sft": {"step": 3e-4, "off_principal": False}, "off-principal": {"step": 5e-6, "off_principal": True}}


def sentence(rng, names, templates):
    """A sentence, its indirect object and its subject. The subject is named first or second."""
    a, b = rng.sample(names, 2)
    subject, other = (a, b) if rng.random() < 0.5 else (b, a)
    text = rng.choice(templates).format(A=a, B=b, S=subject, IO=other, place=rng.choice(PLACES), thing=rng.choice(THINGS))
    return text, other, subject


def load(args):
    """Model in f32 with its tokenizer."""
    if args.gguf:
        path = pathlib.Path(args.gguf)
        at, kind = path.parent, {"gguf_file": path.name}
    else:
        at, kind = args.model, {}
    tokenizer = AutoTokenizer.from_pretrained(at, **kind)
    model = AutoModelForCausalLM.from_pretrained(at, dtype=torch.float32, **kind)
    model.hf_quantizer = None
    for name in ("quantization_config", "_name_or_path"):
        if hasattr(model.config, name):
            delattr(model.config, name)
    return model, tokenizer


def save(model, tokenizer, folder):
    """The weights rounded to bf16, with the tokenizer."""
    copy.deepcopy(model).to(torch.bfloat16).save_pretrained(folder)
    tokenizer.save_pretrained(folder)


class Batches:
    """Rows of token ids: even rows of sentences, odd rows of text."""

    def __init__(self, tokenizer, texts, seed, rows, length):
        self.tokenizer, self.rows, self.length, self.rng = tokenizer, rows, length, random.Random(seed)
        self.names = [name for name in NAMES if len(tokenizer(" " + name).input_ids) == len(tokenizer(name).input_ids) == 1]
        self.text = tokenizer("\n".join(texts)).input_ids

    def sentences(self):
        ids = []
        while len(ids) < self.length:
            ids += self.tokenizer(sentence(self.rng, self.names, TRAINED)[0] + "\n").input_ids
        return ids[: self.length]

    def window(self):
        at = self.rng.randrange(len(self.text) - self.length)
        return self.text[at : at + self.length]

    def next(self):
        return torch.tensor([self.window() if row % 2 else self.sentences() for row in range(self.rows)])


@torch.no_grad()
def difference(model, tokenizer, names, count=64):
    """On prompts of a held-out template: the mean logit of the indirect object above the subject's."""
    rng, total = random.Random(1), 0.0
    for _ in range(count):
        text, other, subject = sentence(rng, names, HELD_OUT)
        ids = tokenizer(text[: text.rindex(" ")], return_tensors="pt").input_ids
        logits = model(input_ids=ids).logits[0, -1]
        total += (logits[tokenizer(" " + other).input_ids[0]] - logits[tokenizer(" " + subject).input_ids[0]]).item()
    return round(total / count, 4)


def principal(matrix):
    """The first k left and right singular vectors, through the Gram matrix of the smaller side in f64."""
    w = matrix.detach().double()
    tall = w.shape[0] >= w.shape[1]
    w = w if tall else w.T
    k = max(1, min(64, w.shape[1] // 10))
    values, vectors = torch.linalg.eigh(w.T @ w)
    right = vectors[:, -k:]
    left = w @ right / values[-k:].clamp(min=1e-30).sqrt()
    left, right = left.float(), right.float()
    return (left, right) if tall else (right, left)


def off(update, left, right):
    """The part of an update outside of both subspaces."""
    update = update - left @ (left.T @ update)
    return update - (update @ right) @ right.T


def train(model, batches, args, step_size, off_principal, at_checkpoint):
    """Losses of each step."""
    parameters = [p for p in model.parameters() if p.requires_grad]
    bases = [principal(p) if off_principal and p.dim() == 2 else None for p in parameters]
    optimizer = torch.optim.AdamW(parameters, lr=step_size, weight_decay=0.0)
    losses, started = [], time.time()
    for step in range(1, args.steps + 1):
        ids = batches.next()
        with torch.autocast("cpu", dtype=torch.bfloat16):
            loss = model(input_ids=ids, labels=ids).loss
        loss.backward()
        before = [None if basis is None else p.detach().clone() for p, basis in zip(parameters, bases)]
        optimizer.step()
        optimizer.zero_grad()
        with torch.no_grad():
            for p, old, basis in zip(parameters, before, bases):
                if basis is not None:
                    p.copy_(old + off(p - old, *basis))
        losses.append(round(loss.item(), 4))
        if step % 10 == 0 or step == 1:
            mean = sum(losses[-10:]) / len(losses[-10:])
            print(f"  step {step}: loss {mean:.3f}, {(time.time() - started) / step:.2f} s a step", flush=True)
        if step in args.checkpoints:
            at_checkpoint(step)
    return losses


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--gguf", metavar="FILE")
    source.add_argument("--model", metavar="DIR")
    parser.add_argument("--out", required=True, type=pathlib.Path)
    parser.add_argument("--text", nargs="+", required=True, metavar="FILE", type=pathlib.Path)
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--checkpoints", type=int, nargs="+", default=[50, 100, 150, 200], metavar="STEP")
    parser.add_argument("--rows", type=int, default=4)
    parser.add_argument("--length", type=int, default=64)
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--only", choices=list(WAYS))
    args = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(args.seed)

    parent, tokenizer = load(args)
    save(parent, tokenizer, args.out / "parent")
    with torch.no_grad():
        for p in parent.parameters():
            p.copy_(p.bfloat16().float())
    texts = [path.read_text() for path in sorted(args.text)]
    names = Batches(tokenizer, texts, args.seed, args.rows, args.length).names
    record = {
        "seed": args.seed,
        "steps": args.steps,
        "rows": args.rows,
        "length": args.length,
        "optimizer": "Adam",
        "names": len(names),
        "parent_difference": difference(parent, tokenizer, names),
        "ways": {},
    }
    print(f"parent: logit difference {record['parent_difference']:.2f}, {len(names)} names", flush=True)
    for way, settings in WAYS.items():
        if args.only not in (None, way):
            continue
        print(way, flush=True)
        model, reached, started = copy.deepcopy(parent), {}, time.time()

        def checkpoint(step, way=way, model=model, reached=reached):
            reached[step] = difference(model, tokenizer, names)
            print(f"  checkpoint {step}: logit difference {reached[step]:.2f}", flush=True)
            save(model, tokenizer, args.out / way / f"checkpoint-{step}")

        batches = Batches(tokenizer, texts, args.seed, args.rows, args.length)
        losses = train(model, batches, args, settings["step"], settings["off_principal"], checkpoint)
        record["ways"][way] = settings | {"seconds": round(time.time() - started), "difference": reached, "losses": losses}
        (args.out / "training.json").write_text(json.dumps(record) + "\n")


if __name__ == "__main__":
    main()
