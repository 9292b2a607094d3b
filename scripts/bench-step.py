"""The PyTorch side of bench-step.mjs: a LoRA step with transformers and PEFT on the cpu. Reads a number of steps a line, prints their seconds.

    python bench-step.py MODEL BATCH LENGTH THREADS
"""
import sys
import time

import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM

folder, batch, length, threads = sys.argv[1], *map(int, sys.argv[2:5])
torch.set_num_threads(threads)
torch.manual_seed(0)
base = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
model = get_peft_model(base, LoraConfig(task_type="CAUSAL_LM", r=8, lora_alpha=16, target_modules=["q_proj", "v_proj"]))
model.train()
trained = [p for p in model.parameters() if p.requires_grad]
optimizer = torch.optim.AdamW(trained, lr=1e-3, weight_decay=0.0)
ids = torch.randint(3, base.config.vocab_size, (batch, length))


def step():
    optimizer.zero_grad(set_to_none=True)
    model(input_ids=ids, labels=ids).loss.backward()
    torch.nn.utils.clip_grad_norm_(trained, 1.0)
    optimizer.step()


for line in sys.stdin:
    count = int(line)
    start = time.perf_counter()
    for _ in range(count):
        step()
    print(time.perf_counter() - start, flush=True)
