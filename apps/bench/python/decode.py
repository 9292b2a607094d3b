"""Greedy decoding with transformers on the cpu, in the folder's own dtype, batch 1.

    python decode.py --model DIR --tokens 64 --prompt TEXT

Prints one line of JSON: the seconds of each new token after the first, without start and prompt.
"""
import argparse
import json
import time

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer


@torch.inference_mode()
def main():
    parser = argparse.ArgumentParser(description="Greedy decoding in transformers on the cpu.")
    parser.add_argument("--model", required=True)
    parser.add_argument("--prompt", required=True)
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--threads", type=int, default=0, help="0: PyTorch's own choice")
    given = parser.parse_args()
    if given.threads:
        torch.set_num_threads(given.threads)
    tokenizer = AutoTokenizer.from_pretrained(given.model)
    model = AutoModelForCausalLM.from_pretrained(given.model, dtype="auto").eval()
    ids = torch.tensor([tokenizer(given.prompt).input_ids])
    out = model(ids, use_cache=True)
    seconds = []
    for _ in range(given.tokens):
        start = time.perf_counter()
        ids = out.logits[:, -1].argmax(-1, keepdim=True)
        out = model(ids, past_key_values=out.past_key_values, use_cache=True)
        seconds.append(time.perf_counter() - start)
    print(json.dumps({"dtype": str(model.dtype), "seconds": seconds}))


if __name__ == "__main__":
    main()
