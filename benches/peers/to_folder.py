"""A GGUF file as the Hugging Face folder in f32 that other toolkits load:  python to_folder.py MODEL.gguf FOLDER"""

import os
import sys

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

source, folder = sys.argv[1:3]
where, file = os.path.split(os.path.abspath(source))
model = AutoModelForCausalLM.from_pretrained(where, gguf_file=file, dtype=torch.float32)
# The weights are plain f32 now; what says that they were quantized keeps them from being saved.
model.hf_quantizer, model.is_quantized = None, False
del model.config.quantization_config
model.save_pretrained(folder)
AutoTokenizer.from_pretrained(where, gguf_file=file).save_pretrained(folder)
