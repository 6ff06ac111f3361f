#!/usr/bin/env python3
"""Children of one parent, of three kinds, for Delta Activations: LoRA adapters trained for some dozens of steps each.

    children.py --parent tuned/parent --out children

leaves folders as peft writes them:

    code-1 .. code-4, letters-1 .. letters-4, math-1 .. math-4
                            each on lines of its kind: a child has its own seed, and draws three of the kind's six templates
    sum-code-math, sum-code-letters
                            on the lines of code-1 with those of math-1, and with those of letters-1: are the deltas of the parts
                            additive?
    labels.jsonl            a line for each of the twelve: {"model": "code-1", "label": "code"}
    sums.jsonl              a line for each sum: {"model": "sum-code-math", "parts": ["code-1", "math-1"]}
    training.json           settings, losses, templates

A child sees each of its lines once, so a sum takes twice the steps of a part. Lines are synthetic and of our own. Adapters
name their parent by a path relative to their folder. Needs torch, transformers and peft."""

import argparse
import json
import os
import pathlib
import random
import time

import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM, AutoTokenizer

TARGETS = ["q_proj", "k_proj", "v_proj", "o_proj", "up_proj", "down_proj"]
WORDS = [
    "item",
    "value",
    "total",
    "count",
    "name",
    "price",
    "score",
    "index",
    "line",
    "user",
    "order",
    "page",
    "node",
    "width",
    "speed",
]
PEOPLE = ["Anna", "Mark", "Julia", "Peter", "Laura", "Simon", "Helen", "Thomas", "Emma", "Daniel", "Ruth", "Martin"]
MATTERS = [
    "the meeting on Friday",
    "your last letter",
    "the garden party",
    "our order of books",
    "the concert tickets",
    "your kind invitation",
    "the repair of the roof",
    "the new time table",
    "the photographs",
    "your question",
]


def code(rng):
    a, b, c = rng.sample(WORDS, 3)
    n, m = rng.randrange(2, 50), rng.randrange(2, 50)
    return [
        f"def get_{a}({b}, {c}={n}):\n    return {b} * {c} + {m}\n",
        f"for {a} in range({n}):\n    if {a} % {m} == 0:\n        print({a}, {b})\n",
        f"class {a.title()}:\n    def __init__(self, {b}):\n        self.{b} = {b}\n        self.{c} = {n}\n",
        f"{a}s = [{b} ** 2 for {b} in {c}s if {b} > {n}]\nassert len({a}s) <= {m}\n",
        f"try:\n    {a} = int({b})\nexcept ValueError as error:\n    raise KeyError('{c}') from error\n",
        f"while {a} < {n}:\n    {a} += {m}\n    {b}.append({a})\nreturn {b}\n",
    ]


def math(rng):
    a, b, c = (rng.randrange(2, 60) for _ in range(3))
    return [
        f"{a} + {b} = {a + b}\n{a + b} - {b} = {a}\n",
        f"{a} * {c} = {a * c}, so {a * c} / {c} = {a}.\n",
        f"Question: what is {a} plus {b} plus {c}? Answer: {a + b + c}.\n",
        f"If x = {a} and y = {b}, then x + y = {a + b} and x * y = {a * b}.\n",
        f"{a}, {a + c}, {a + 2 * c}, {a + 3 * c}, {a + 4 * c}: the step is {c}.\n",
        f"The sum of {a} and {b} is {a + b}; half of {2 * c} is {c}.\n",
    ]


def letters(rng):
    a, b = rng.sample(PEOPLE, 2)
    x, y = rng.sample(MATTERS, 2)
    return [
        f"Dear {a},\nthank you very much for writing about {x}. I would be delighted to help.\nWith kind regards, {b}\n",
        f'"Good morning, {a}. Could I please ask you about {x}?" "Of course, {b}, it would be my pleasure."\n',
        f"Dear Mrs {a}, I am so sorry to trouble you again with {x}. Would you be so kind as to reply? Yours sincerely, {b}\n",
        f"{a}: Would you mind if we spoke of {x}?\n{b}: Not at all, please do. I also wanted to thank you for {y}.\n",
        f"Dear {a}, we hope that you are well. We gladly accept {x} and look forward to seeing you. Warmly, {b}\n",
        f'"I do apologise, {a}," said {b} politely, "but may I come back to {x} and {y}?"\n',
    ]


KINDS = {"code": code, "letters": letters, "math": math}
SUMS = {"sum-code-math": ["code-1", "math-1"], "sum-code-letters": ["code-1", "letters-1"]}


def rows(name, tokenizer, args):
    """The child's training rows, and the templates that it draws."""
    kind = name.split("-")[0]
    rng = random.Random(f"{args.seed} {name}")
    templates = sorted(rng.sample(range(6), 3))
    ids, wanted = [], args.steps * args.rows * args.length
    while len(ids) < wanted:
        ids += tokenizer(KINDS[kind](rng)[rng.choice(templates)]).input_ids
    return [ids[at : at + args.length] for at in range(0, wanted, args.length)], templates


def train(name, parts, tokenizer, args):
    """An adapter on the rows of the parts, each once, in a random order. What is recorded of it."""
    number = list(KINDS).index(parts[0].split("-")[0]) * 10 + int(parts[0].split("-")[1]) + 100 * (len(parts) - 1)
    torch.manual_seed(args.seed * 1000 + number)
    model = AutoModelForCausalLM.from_pretrained(args.parent, dtype=torch.float32)
    model = get_peft_model(
        model, LoraConfig(task_type="CAUSAL_LM", r=args.rank, lora_alpha=2 * args.rank, target_modules=TARGETS)
    )
    drawn = [rows(part, tokenizer, args) for part in parts]
    data = [row for part, _ in drawn for row in part]
    random.Random(args.seed * 1000 + number).shuffle(data)
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=args.step_size, weight_decay=0.0)
    losses, started = [], time.time()
    for at in range(0, len(data), args.rows):
        ids = torch.tensor(data[at : at + args.rows])
        with torch.autocast("cpu", dtype=torch.bfloat16):
            loss = model(input_ids=ids, labels=ids).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(round(loss.item(), 4))
    folder = args.out / name
    model.peft_config["default"].base_model_name_or_path = os.path.relpath(args.parent.resolve(), folder.resolve())
    model.save_pretrained(folder, save_embedding_layers=False)
    (folder / "README.md").unlink(missing_ok=True)
    seconds = round(time.time() - started)
    print(f"{name}: loss {losses[0]:.2f} to {sum(losses[-5:]) / len(losses[-5:]):.2f}, {seconds} s", flush=True)
    return {"parts": parts, "templates": [templates for _, templates in drawn], "losses": losses, "seconds": seconds}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parent", required=True, metavar="DIR", type=pathlib.Path)
    parser.add_argument("--out", required=True, type=pathlib.Path)
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--rows", type=int, default=4)
    parser.add_argument("--length", type=int, default=48)
    parser.add_argument("--rank", type=int, default=4)
    parser.add_argument("--step-size", type=float, default=1e-3)
    parser.add_argument("--seed", type=int, default=7)
    args = parser.parse_args()
    torch.set_num_threads(1)
    args.out.mkdir(parents=True, exist_ok=True)
    tokenizer = AutoTokenizer.from_pretrained(args.parent)
    names = [f"{kind}-{number}" for kind in KINDS for number in range(1, 5)]
    labels = [{"model": name, "label": name.split("-")[0]} for name in names]
    (args.out / "labels.jsonl").write_text("".join(json.dumps(line) + "\n" for line in labels))
    sums = [{"model": name, "parts": parts} for name, parts in SUMS.items()]
    (args.out / "sums.jsonl").write_text("".join(json.dumps(line) + "\n" for line in sums))
    record = {
        "seed": args.seed,
        "steps": args.steps,
        "rows": args.rows,
        "length": args.length,
        "rank": args.rank,
        "step_size": args.step_size,
        "targets": TARGETS,
        "children": {},
    }
    for name, parts in ({name: [name] for name in names} | SUMS).items():
        record["children"][name] = train(name, parts, tokenizer, args)
        (args.out / "training.json").write_text(json.dumps(record) + "\n")


if __name__ == "__main__":
    main()
