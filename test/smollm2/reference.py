"""What transformers and PEFT compute with SmolLM2-135M-Instruct on its bfloat16 folder: answers and steps in float32 arithmetic, losses of a text
in float64, because cross-entropy sums 49,152 float32 terms to no more than five digits.

    python reference.py MODEL E2E.jsonl > reference.json        answers, a loss, and the losses of 60 steps (about ten minutes on two cores)
    python reference.py MODEL E2E.jsonl --adapter DIR           the loss of the same text with an adapter that was read by PEFT

The rows' texts, prompt and completion and the end of text, stand one behind the other and are cut into windows of 512 tokens; step i trains on
window i. A begins as `first_values` says, B as zeros, so that another program can begin the same way.
"""
import argparse
import json
import math
import sys

import numpy as np
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import AutoModelForCausalLM, AutoTokenizer

PROMPTS = [
    "What is the capital of France?",
    "Write one sentence about the sea.",
    "Name three colours.",
    "What is 7 plus 5?",
    "Translate to French: Good morning, my friend.",
    "Who wrote Romeo and Juliet?",
    "Give me a title for a story about a lost dog.",
    "Is water wet? Answer in one sentence.",
    "List two animals that live in the desert.",
    "Explain photosynthesis to a child.",
    "What does the word 'brave' mean?",
    "Write a Python function that adds two numbers.",
]
ANSWER_TOKENS = 16
WINDOW = 512
STEPS = 60
RATE = 1e-3
RANK, ALPHA = 8, 16
TARGETS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


def windows(tokenizer, path, count):
    """The first `count` windows of the rows' tokens."""
    ids = []
    with open(path, encoding="utf-8") as rows:
        for line in rows:
            row = json.loads(line)
            ids += tokenizer(row["prompt"] + " " + row["completion"], add_special_tokens=False).input_ids + [tokenizer.eos_token_id]
            if len(ids) >= count * WINDOW:
                break
    return [ids[i * WINDOW : (i + 1) * WINDOW] for i in range(count)]


def first_values(tensor_index, shape):
    """Numbers in (-1, 1) / sqrt(in) out of an integer hash (the finalizer of MurmurHash3) of where they stand."""
    with np.errstate(over="ignore"):
        h = np.arange(shape[0] * shape[1], dtype=np.uint32) + np.uint32(tensor_index) * np.uint32(0x9E3779B9)
        h = (h ^ (h >> np.uint32(16))) * np.uint32(0x85EBCA6B)
        h = (h ^ (h >> np.uint32(13))) * np.uint32(0xC2B2AE35)
        h = h ^ (h >> np.uint32(16))
    return torch.from_numpy(((h / 2**31 - 1) / math.sqrt(shape[1])).astype(np.float32).reshape(shape))


def loss_of(model, ids):
    row = torch.tensor([ids])
    return model(input_ids=row, labels=row, use_cache=False).loss


@torch.inference_mode()
def exact_loss(model, ids):
    logits = model.double()(input_ids=torch.tensor([ids]), use_cache=False).logits[0, :-1]
    return -torch.log_softmax(logits.double(), -1).gather(1, torch.tensor(ids[1:])[:, None]).mean().item()


@torch.inference_mode()
def answers(model, tokenizer):
    found = []
    for prompt in PROMPTS:
        ids = tokenizer.apply_chat_template([{"role": "user", "content": prompt}], add_generation_prompt=True, return_dict=False)
        out = model.generate(torch.tensor([ids]), max_new_tokens=ANSWER_TOKENS, do_sample=False)
        found.append({"prompt": prompt, "ids": ids, "answer": out[0, len(ids) :].tolist()})
    return found


def curve(model, texts):
    model = get_peft_model(model, LoraConfig(task_type="CAUSAL_LM", r=RANK, lora_alpha=ALPHA, target_modules=TARGETS))
    pairs = sorted((name, p) for name, p in model.named_parameters() if "lora_A" in name)
    for index, (_, parameter) in enumerate(pairs):
        parameter.data.copy_(first_values(index, parameter.shape))
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=RATE, weight_decay=0.0)
    model.train()
    losses = []
    for ids in texts:
        optimizer.zero_grad(set_to_none=True)
        loss = loss_of(model, ids)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        losses.append(loss.item())
        print(f"step {len(losses)}: {losses[-1]:.4f}", file=sys.stderr, flush=True)
    return losses


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("model")
    parser.add_argument("data")
    parser.add_argument("--adapter")
    given = parser.parse_args()
    tokenizer = AutoTokenizer.from_pretrained(given.model)
    model = AutoModelForCausalLM.from_pretrained(given.model, dtype=torch.float32)
    texts = windows(tokenizer, given.data, STEPS)
    if given.adapter:
        print(json.dumps({"loss": exact_loss(PeftModel.from_pretrained(model, given.adapter).eval(), texts[0])}))
        return
    result = {"answers": answers(model, tokenizer), "window": texts[0], "loss": exact_loss(model, texts[0])}
    result["curve"] = {"rate": RATE, "rank": RANK, "alpha": ALPHA, "losses": curve(model.float(), texts)}
    print(json.dumps(result, ensure_ascii=False))


if __name__ == "__main__":
    main()
