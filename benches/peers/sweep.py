"""One sweep by several toolkits, timed in one run: every head's interchange at the last position, one pair of 64 tokens, one direction.

    python3 -m venv peers && peers/bin/pip install -r benches/peers/requirements.txt
    peers/bin/python benches/peers/to_folder.py models/smollm2.gguf models/smollm2
    peers/bin/python benches/peers/sweep.py models/smollm2 [--only transformer_lens,gatelens] [--threads 2]

Each toolkit runs in a process of its own, with the recipe that its documentation gives, in f32 on the CPU. A row is the sweep alone
(loading, one warm-up pass and the donor's activations are not in it), in seconds of wall clock and of processor time, the process' peak
memory, and the largest difference of an effect from gatelens'. gatelens is `target/release/gatelens interchange`, whose row is
`compute_s` of its run.json (statistics included)."""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ANSWER, FOIL, LENGTH = 11, 23, 64


def pair(vocabulary):
    """Two prompts that differ in four tokens; the same on every machine."""
    state, ids = 1, []
    for _ in range(LENGTH + 4):
        state = state * 6364136223846793005 + 1442695040888963407 & (1 << 64) - 1
        ids.append(100 + (state >> 33) % (vocabulary - 100))
    first = ids[:LENGTH]
    return first, first[:20] + ids[LENGTH:] + first[24:]


class Torch:
    """What the toolkits on torch share: the prompts, the model's sizes, the metric."""

    def __init__(self, folder):
        import torch

        torch.set_grad_enabled(False)
        config = json.loads((Path(folder) / "config.json").read_text())
        self.folder, self.torch = folder, torch
        self.layers, self.heads = config["num_hidden_layers"], config["num_attention_heads"]
        self.width = config.get("head_dim") or config["hidden_size"] // self.heads
        self.base, self.donor = (torch.tensor([ids]) for ids in pair(config["vocab_size"]))

    def transformers(self):
        from transformers import AutoModelForCausalLM

        return AutoModelForCausalLM.from_pretrained(self.folder, dtype=self.torch.float32).eval()

    def metric(self, logits):
        """Of logits [batch, positions, vocabulary] at the last position."""
        return logits[:, -1, ANSWER] - logits[:, -1, FOIL]

    def each(self, patched):
        """Effects of `patched(layer, head)` beside the clean metric."""
        clean = float(self.clean())
        return [[float(patched(layer, head)) - clean for head in range(self.heads)] for layer in range(self.layers)]


class TransformerLens(Torch):
    package = "transformer-lens"

    def __init__(self, folder):
        super().__init__(folder)
        from transformer_lens.model_bridge import TransformerBridge

        self.model = TransformerBridge.boot_transformers(folder, device="cpu", dtype=self.torch.float32)
        _, self.cache = self.model.run_with_cache(self.donor)
        self.clean()

    def clean(self):
        return self.metric(self.model.run_with_hooks(self.base, fwd_hooks=[]))

    def sweep(self):
        from transformer_lens import patching

        def last_position(activation, index, donor):
            layer, head = index
            activation[:, -1, head] = donor[:, -1, head]
            return activation

        clean = float(self.clean())
        found = patching.generic_activation_patch(
            self.model,
            self.base,
            self.cache,
            lambda logits: self.metric(logits)[0],
            patch_setter=last_position,
            activation_name="z",
            index_axis_names=("layer", "head"),
        )
        return (found - clean).tolist()


class NNsight(Torch):
    package = "nnsight"

    def __init__(self, folder):
        super().__init__(folder)
        from nnsight import LanguageModel

        self.model = LanguageModel(folder, device_map="cpu", dtype=self.torch.float32, dispatch=True)
        modules = [self.model.model.layers[layer].self_attn.o_proj for layer in range(self.layers)]
        self.donors = donors = []
        with self.model.trace(self.donor):
            for module in modules:
                donors.append(module.input.save())
        self.clean()

    def clean(self):
        with self.model.trace(self.base):
            logits = self.model.lm_head.output.save()
        return self.metric(logits)

    def sweep(self):
        return self.each(self.patched)

    def patched(self, layer, head):
        at = slice(head * self.width, (head + 1) * self.width)
        donor = self.donors[layer][:, -1, at]
        with self.model.trace(self.base):
            self.model.model.layers[layer].self_attn.o_proj.input[:, -1, at] = donor
            logits = self.model.lm_head.output.save()
        return self.metric(logits)


class Pyvene(Torch):
    package = "pyvene"

    def __init__(self, folder):
        super().__init__(folder)
        self.model = self.transformers()
        self.clean()

    def clean(self):
        return self.metric(self.model(self.base).logits)

    def sweep(self):
        return self.each(self.patched)

    def patched(self, layer, head):
        import pyvene

        config = pyvene.IntervenableConfig(
            [
                {
                    "layer": layer,
                    "component": "head_attention_value_output",
                    "unit": "h.pos",
                    "intervention_type": pyvene.VanillaIntervention,
                }
            ]
        )
        where = [[[[head]], [[LENGTH - 1]]]]
        model = pyvene.IntervenableModel(config, model=self.model)
        _, out = model({"input_ids": self.base}, [{"input_ids": self.donor}], {"sources->base": (where, where)})
        return self.metric(out.logits)


class Hooked(Torch):
    """The model of `transformers` itself, with what each layer's heads read of the donor."""

    def __init__(self, folder):
        super().__init__(folder)
        self.model = self.transformers()
        self.modules = [layer.self_attn.o_proj for layer in self.model.model.layers]
        self.donors = {}
        hooks = [
            module.register_forward_pre_hook(lambda _, inputs, at=at: self.donors.__setitem__(at, inputs[0].clone()))
            for at, module in enumerate(self.modules)
        ]
        self.model(self.donor)
        for hook in hooks:
            hook.remove()
        self.clean()

    def clean(self):
        return self.metric(self.model(self.base).logits)


class Captum(Hooked):
    package = "captum"

    def sweep(self):
        from captum.attr import LayerFeatureAblation

        heads = self.torch.arange(self.heads).repeat_interleave(self.width)
        # Every number belongs to a feature: what is no head at the last position is one more.
        mask = self.torch.full((1, LENGTH, self.heads * self.width), self.heads)
        mask[0, -1] = heads
        effects = []
        for layer, module in enumerate(self.modules):
            ablation = LayerFeatureAblation(lambda ids: self.metric(self.model(ids).logits), module)
            found = ablation.attribute(
                self.base, layer_baselines=self.donors[layer], layer_mask=mask, attribute_to_layer_input=True
            )
            effects.append((-found[0, -1, :: self.width]).tolist())
        return effects


class Batched(Hooked):
    """What one writes by hand: a layer's heads as copies in one batch, each with its own head exchanged by a hook."""

    package = "transformers"

    def sweep(self):
        clean = float(self.clean())
        copies = self.base.repeat(self.heads, 1)
        effects = []
        for layer, module in enumerate(self.modules):

            def exchange(_, inputs, donor=self.donors[layer]):
                z = inputs[0].clone()
                for head in range(self.heads):
                    at = slice(head * self.width, (head + 1) * self.width)
                    z[head, -1, at] = donor[0, -1, at]
                return (z,)

            hook = module.register_forward_pre_hook(exchange)
            logits = self.model(copies, logits_to_keep=1).logits
            hook.remove()
            effects.append([float(value) - clean for value in self.metric(logits)])
        return effects


TOOLS = {"batched": Batched, "transformer_lens": TransformerLens, "nnsight": NNsight, "pyvene": Pyvene, "captum": Captum}


def run_tool(name, folder, threads):
    """In a process of its own: prints what it measured as JSON."""
    import importlib.metadata

    import torch

    torch.set_num_threads(threads)
    started = time.perf_counter()
    tool = TOOLS[name](folder)
    loaded = time.perf_counter() - started
    wall, cpu = time.perf_counter(), time.process_time()
    effects = tool.sweep()
    found = {
        "version": importlib.metadata.version(tool.package),
        "load_s": loaded,
        "wall_s": time.perf_counter() - wall,
        "cpu_s": time.process_time() - cpu,
        "peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        "effects": effects,
    }
    print("RESULT " + json.dumps(found))


def child(name, folder, threads):
    """Runs a toolkit; what it says is passed on if it fails."""
    words = [sys.executable, __file__, folder, "--run", name, "--threads", str(threads)]
    environment = os.environ | {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": str(threads), "TQDM_DISABLE": "1"}
    done = subprocess.run(words, capture_output=True, text=True, env=environment)
    lines = [line for line in done.stdout.splitlines() if line.startswith("RESULT ")]
    if done.returncode != 0 or not lines:
        sys.exit(f"{name} failed:\n{done.stdout[-2000:]}{done.stderr[-4000:]}")
    return json.loads(lines[-1].removeprefix("RESULT "))


def gatelens(binary, folder, threads):
    """Our sweep as a command, read from its tables."""
    import polars

    vocabulary = json.loads((Path(folder) / "config.json").read_text())["vocab_size"]
    with tempfile.TemporaryDirectory() as scratch:
        base, donor = pair(vocabulary)
        line = {"id": "pair", "positive": {"ids": base}, "negative": {"ids": donor}}
        (Path(scratch) / "pair.jsonl").write_text(json.dumps(line) + "\n")
        words = [binary, "interchange", folder, "--pairs", f"{scratch}/pair.jsonl", "--direction", "necessity"]
        words += ["--answer", f"id:{ANSWER}", "--foil", f"id:{FOIL}", "--out", f"{scratch}/run", "--quiet"]
        subprocess.run([*words, "--threads", str(threads)], check=True, stdout=subprocess.DEVNULL)
        record = json.loads((Path(scratch) / "run/run.json").read_text())
        heads = polars.read_parquet(f"{scratch}/run/heads.parquet").sort("layer", "head")
    effects = heads.group_by("layer", maintain_order=True).agg("effect_mean")["effect_mean"].to_list()
    return {
        "version": record["version"],
        "load_s": record["timings"]["load_s"],
        "wall_s": record["timings"]["compute_s"],
        "cpu_s": record["cpu_s"],
        "peak_mib": record["peak_rss_bytes"] / 2**20,
        "effects": effects,
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", help="a Hugging Face folder, as to_folder.py makes it")
    parser.add_argument("--only", default=",".join([*TOOLS, "gatelens"]), help="which, with commas")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--binary", default="target/release/gatelens")
    parser.add_argument("--run", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.run:
        return run_tool(args.run, args.folder, args.threads)
    names = [name for name in args.only.split(",") if name != "gatelens"]
    if unknown := [name for name in names if name not in TOOLS]:
        parser.error(f"{', '.join(unknown)}: not one of {', '.join(TOOLS)}, gatelens")
    ours = gatelens(args.binary, args.folder, args.threads)
    rows = [("gatelens", ours)] + [(name, child(name, args.folder, args.threads)) for name in names]
    print("| | sweep, s | CPU, s | sweep / gatelens | peak, MiB | largest difference, nats |\n|---|---|---|---|---|---|")
    for name, row in rows:
        pairs = [(a, b) for x, y in zip(row["effects"], ours["effects"], strict=True) for a, b in zip(x, y, strict=True)]
        apart = max(abs(a - b) for a, b in pairs)
        print(
            f"| {name} {row['version']} | {row['wall_s']:.2f} | {row['cpu_s']:.2f} | {row['wall_s'] / ours['wall_s']:.0f} "
            f"| {row['peak_mib']:.0f} | {apart:.1e} |"
        )


if __name__ == "__main__":
    main()
