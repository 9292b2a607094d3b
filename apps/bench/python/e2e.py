"""The run of `lowrank train` in PEFT and transformers on the cpu, a whole command: read, evaluate, train, evaluate, save.

    python e2e.py --model DIR --data FILE --out DIR [--eval-data FILE --rank 8 --alpha 16 --targets q_proj,v_proj --steps 300 --batch-size 8
                  --lr 5e-3 --max-length N]

Rows, loss, AdamW, schedule, clipping, evaluations, metrics and checkpoints are those of `lowrank train` with its defaults; batches are
padded to their longest row. Without --eval-data nothing is evaluated. Prints one line of JSON at the end.
"""
import argparse
import json
import os
import random
import time

import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM, AutoTokenizer, get_cosine_schedule_with_warmup

IGNORED = -100


def arguments():
    parser = argparse.ArgumentParser(description="A LoRA run in PEFT on the cpu.")
    for name in ("model", "data", "out"):
        parser.add_argument(f"--{name}", required=True)
    parser.add_argument("--eval-data")
    parser.add_argument("--max-length", type=int, help="cut longer rows to so many tokens")
    parser.add_argument("--rank", type=int, default=8)
    parser.add_argument("--alpha", type=float, default=16)
    parser.add_argument("--targets", default="q_proj,v_proj")
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--lr", type=float, default=5e-3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--eval-rows", type=int, default=500)
    parser.add_argument("--save-every", type=int, default=100)
    parser.add_argument("--threads", type=int, default=0, help="0: PyTorch's own choice")
    return parser.parse_args()


def read_rows(path, limit=None):
    """All rows, or `limit` of them evenly spread over the file."""
    with open(path, encoding="utf-8") as file:
        rows = [json.loads(line) for line in file if line.strip()]
    if limit is None or limit >= len(rows):
        return rows
    return [rows[i * len(rows) // limit] for i in range(limit)]


def encode(rows, tokenizer, most=None):
    """(ids, labels) of each row: a text and the end token, or prompt, completion, end token, where the loss counts the completion and the end."""
    return [(ids[:most], labels[:most]) for ids, labels in encode_texts(rows, tokenizer) + encode_pairs(rows, tokenizer)]


def encode_texts(rows, tokenizer):
    texts = [tokenizer(row["text"]).input_ids + [tokenizer.eos_token_id] for row in rows if "text" in row]
    return [(ids, ids) for ids in texts]


def encode_pairs(rows, tokenizer):
    rows = [row for row in rows if "text" not in row]
    if not rows:
        return []
    prompts = [row["prompt"] for row in rows]
    tails = [
        row["completion"] if row["prompt"] == "" or row["prompt"][-1].isspace() or row["completion"][:1].isspace() else " " + row["completion"]
        for row in rows
    ]
    before = tokenizer(prompts).input_ids
    joined = tokenizer([prompt + tail for prompt, tail in zip(prompts, tails)]).input_ids
    examples = []
    for head, whole, tail in zip(before, joined, tails):
        after = whole[len(head) :] if whole[: len(head)] == head else tokenizer(tail, add_special_tokens=False).input_ids
        after = after + [tokenizer.eos_token_id]
        examples.append((head + after, [IGNORED] * len(head) + after))
    return examples


def collate(examples):
    """Padding is on the right, where causal attention never looks: no mask is needed."""
    length = max(len(ids) for ids, _ in examples)
    ids = torch.tensor([row + [0] * (length - len(row)) for row, _ in examples])
    labels = torch.tensor([row + [IGNORED] * (length - len(row)) for _, row in examples])
    return ids, labels


def batches(examples, size, seed):
    """Endless: every epoch in an order of its own, batches run across the epochs' border."""
    order = random.Random(seed)
    queue = []
    while True:
        while len(queue) < size:
            queue += order.sample(examples, len(examples))
        yield collate(queue[:size])
        queue = queue[size:]


@torch.inference_mode()
def evaluate(model, examples):
    """Mean loss over the learned tokens."""
    model.eval()
    ordered = sorted(examples, key=lambda example: len(example[0]))
    total, count = 0.0, 0
    for start in range(0, len(ordered), 16):
        ids, labels = collate(ordered[start : start + 16])
        learned = int((labels[:, 1:] != IGNORED).sum())
        total += float(model(input_ids=ids, labels=labels, use_cache=False).loss) * learned
        count += learned
    model.train()
    return total / count


def main():
    given = arguments()
    if given.threads:
        torch.set_num_threads(given.threads)
    torch.manual_seed(given.seed)
    os.makedirs(given.out, exist_ok=True)
    tokenizer = AutoTokenizer.from_pretrained(given.model)
    base = AutoModelForCausalLM.from_pretrained(given.model, dtype=torch.float32)
    targets = given.targets if given.targets == "all-linear" else given.targets.split(",")
    lora = LoraConfig(task_type="CAUSAL_LM", r=given.rank, lora_alpha=given.alpha, target_modules=targets)
    model = get_peft_model(base, lora)
    examples = encode(read_rows(given.data), tokenizer, given.max_length)
    held_out = encode(read_rows(given.eval_data, given.eval_rows), tokenizer, given.max_length) if given.eval_data else None

    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=given.lr, weight_decay=0.0, fused=True)
    schedule = get_cosine_schedule_with_warmup(optimizer, 0, given.steps)

    def checkpoint(step):
        torch.save({"step": step, "optimizer": optimizer.state_dict()}, os.path.join(given.out, "state.pt"))
        model.save_pretrained(given.out)

    loss_before = evaluate(model, held_out) if held_out else None
    model.train()
    data = batches(examples, given.batch_size, given.seed)
    losses = []
    start = time.perf_counter()
    with open(os.path.join(given.out, "metrics.jsonl"), "w", encoding="utf-8") as metrics:
        for step in range(1, given.steps + 1):
            began = time.perf_counter()
            ids, labels = next(data)
            rate = schedule.get_last_lr()[0]
            optimizer.zero_grad(set_to_none=True)
            loss = model(input_ids=ids, labels=labels, use_cache=False).loss
            loss.backward()
            norm = torch.nn.utils.clip_grad_norm_(trained, 1.0)
            optimizer.step()
            schedule.step()
            losses.append(loss.item())
            line = {"step": step, "loss": losses[-1], "learningRate": rate, "gradNorm": norm.item()}
            line["stepMs"] = 1000 * (time.perf_counter() - began)
            metrics.write(json.dumps(line) + "\n")
            if given.save_every and step % given.save_every == 0 and step < given.steps:
                checkpoint(step)
    seconds = time.perf_counter() - start
    loss_after = evaluate(model, held_out) if held_out else None
    checkpoint(given.steps)
    recent = losses[-20:]
    print(
        json.dumps(
            {
                "steps": given.steps,
                "trainLoss": sum(recent) / len(recent),
                "evalLossBefore": loss_before,
                "evalLossAfter": loss_after,
                "trainSeconds": seconds,
            }
        )
    )


if __name__ == "__main__":
    main()
