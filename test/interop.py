"""Loads adapters and merged checkpoints with PEFT and transformers and writes the logits they give.

    python interop.py JOBS.json      [{"base": DIR, "adapter": DIR | null, "ids": [[...]], "out": FILE, "sees": BOOL?}, ...]

`sees`: the base is a model that sees as well, and is loaded whole.

Each job's logits, float32 [batch, seq, vocab], go to its `out` as raw little-endian bytes. Prints one line of JSON a job, with the modules
that PEFT put pairs on.
"""
import json
import sys

import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoModelForImageTextToText

torch.set_num_threads(1)
for job in json.load(open(sys.argv[1])):
    try:
        kind = AutoModelForImageTextToText if job.get("sees") else AutoModelForCausalLM
        # PyTorch's grouped product takes no matrices whose rows are no multiple of 16 bytes long.
        model = kind.from_pretrained(job["base"], dtype=torch.float32, experts_implementation="eager")
        if job["adapter"] is not None:
            model = PeftModel.from_pretrained(model, job["adapter"])
        model.eval()
        with torch.no_grad():
            logits = model(input_ids=torch.tensor(job["ids"])).logits
        logits.numpy().astype("<f4").tofile(job["out"])
        adapted = [name for name, module in model.named_modules() if len(getattr(module, "lora_A", ())) > 0]
        print(json.dumps({"shape": list(logits.shape), "adapted": adapted}), flush=True)
    except Exception as error:  # the test shows it
        print(json.dumps({"error": f"{type(error).__name__}: {error}"}), flush=True)
