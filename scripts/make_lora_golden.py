"""LoRA adapters as `peft` writes them, with the logits that `transformers` gives once they are merged.

Run from the repository's root: python scripts/make_lora_golden.py
Needs torch, transformers and peft. Writes tests/fixtures/lora_*/.
"""

import json
import pathlib

import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM

FIXTURES = pathlib.Path("tests/fixtures")
IDS = [5, 9, 17, 33, 71, 120, 2, 8]
CONFIGS = {
    "llama": dict(
        r=2, lora_alpha=6, target_modules=["q_proj", "v_proj", "down_proj"], use_rslora=True,
        rank_pattern={"layers.1.self_attn.q_proj": 3}, alpha_pattern={"down_proj": 1},
    ),
    "gpt2": dict(r=2, lora_alpha=8, target_modules=["c_attn", "c_proj"], fan_in_fan_out=True),
}

for family, options in CONFIGS.items():
    torch.manual_seed(7)
    base = AutoModelForCausalLM.from_pretrained(FIXTURES / family, dtype=torch.float32, attn_implementation="eager")
    model = get_peft_model(base, LoraConfig(task_type="CAUSAL_LM", **options))
    for name, weight in model.named_parameters():
        if "lora_" in name:
            torch.nn.init.normal_(weight, std=0.2)
    folder = FIXTURES / f"lora_{family}"
    model.peft_config["default"].base_model_name_or_path = f"../{family}"
    model.save_pretrained(folder)
    (folder / "README.md").unlink(missing_ok=True)
    with torch.no_grad():
        logits = model.merge_and_unload()(torch.tensor([IDS])).logits[0, -1]
    (folder / "golden.json").write_text(json.dumps({"ids": IDS, "logits": logits.tolist()}) + "\n")
