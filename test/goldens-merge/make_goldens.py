"""Reference values for merging into 16 bits and for two adapters at once: what PEFT 0.21 computes on the tiny Llamas of packages/lora/test/goldens.

    pip install torch==2.13.0 transformers==5.18.0 peft==0.21.0 safetensors && python make_goldens.py

merge.safetensors holds, for each case:

| name | is |
|---|---|
| `input_ids` | i64 [2, 12], for all |
| `CASE.beside` | f32 logits of the adapters beside the base, in float32 whatever the base is stored in |
| `CASE.merged` | f32 logits of PEFT's merged model, in float32 |
| `CASE.weight.NAME` | the merged weights as PEFT stores them |

Cases: `bf16` and `f16` merge one adapter into a base in these; `two` merges two adapters into the base in f32, `two-bf16` in bf16.
"""
import os

import torch
from peft import PeftModel
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM

torch.set_num_threads(1)
here = os.path.dirname(os.path.abspath(__file__))
goldens = os.path.join(here, "..", "..", "packages", "lora", "test", "goldens")
ids = torch.tensor([[(7 * row + 3 * i + i * i) % 50 for i in range(12)] for row in range(2)])


def adapted(base, adapters, dtype, lora_dtype):
    """The base with its weights rounded to dtype and computed with in lora_dtype."""
    model = AutoModelForCausalLM.from_pretrained(os.path.join(goldens, "models", base), dtype=dtype).to(lora_dtype)
    peft = PeftModel.from_pretrained(model, os.path.join(goldens, adapters[0], "adapter_final"), adapter_name="0")
    for number, name in enumerate(adapters[1:], 1):
        peft.load_adapter(os.path.join(goldens, name, "adapter_final"), adapter_name=str(number))
    peft.base_model.set_adapter([str(number) for number in range(len(adapters))])
    return peft.eval()


def logits(model):
    with torch.no_grad():
        return model(input_ids=ids).logits.float().contiguous()


out = {"input_ids": ids}
one, two = "llama-all-linear", "llama-odd-ranks"
for case, adapters, dtype in [
    ("bf16", [one], torch.bfloat16),
    ("f16", [one], torch.float16),
    ("two", [one, two], torch.float32),
    ("two-bf16", [one, two], torch.bfloat16),
]:
    out[f"{case}.beside"] = logits(adapted("llama", adapters, dtype, torch.float32))
    merged = adapted("llama", adapters, dtype, dtype).merge_and_unload(adapter_names=[str(i) for i in range(len(adapters))])
    for name, weight in merged.state_dict().items():
        if name.endswith("_proj.weight"):
            out[f"{case}.weight.{name}"] = weight.contiguous()
    out[f"{case}.merged"] = logits(merged.float())
save_file(out, os.path.join(here, "merge.safetensors"))
