"""Loads checkpoints as transformers does and says how far their logits are from those of a case: a line of JSON for each [name, folder, io]."""

import json
import sys
import warnings

import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, logging

warnings.filterwarnings("ignore")
logging.set_verbosity_error()
torch.set_num_threads(1)
for name, folder, io in json.load(open(sys.argv[1])):
    try:
        given = load_file(io)
        model, info = AutoModelForCausalLM.from_pretrained(
            folder, attn_implementation="eager", experts_implementation="eager", dtype=torch.float32, output_loading_info=True
        )
        with torch.no_grad():
            logits = model.eval()(input_ids=given["input_ids"].long()).logits
        wrong = [key for kind in ("missing_keys", "unexpected_keys", "mismatched_keys") for key in info.get(kind) or []]
        answer = {"error": (logits - given["logits_base"]).abs().max().item(), "wrong": [str(key) for key in wrong]}
    except Exception as problem:  # the test says it
        answer = {"error": None, "wrong": [f"{type(problem).__name__}: {problem}"]}
    print(json.dumps({"name": name, **answer}), flush=True)
