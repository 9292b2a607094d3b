"""Ids, masks and losses of rows as transformers and TRL have them. Reads JSON requests from stdin, writes JSON results.

A request is a kind of rows with its tokenizer.json, its model and perhaps a chat template; a result {"rows": [{"ids", "learned", "by"} or
{"leftOut"}], "loss"}: the mean cross-entropy over the learned tokens of the first `lossRows` rows.
"""

import json
import re
import sys

import torch
from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast

tokenizers = {}
models = {}


def tokenizer_of(request):
    name = request["tokenizer"]
    if name not in tokenizers:
        with open(request["model"] + "/tokens.json", encoding="utf8") as file:
            tokens = {key: value for key, value in json.load(file).items() if value is not None}
        tokenizers[name] = PreTrainedTokenizerFast(tokenizer_file=request["file"], **tokens)
    return tokenizers[name]


def ended(ids, tokenizer):
    end = tokenizer.eos_token_id
    return ids if ids[-1] == end else [*ids, end]


def completion(row, tokenizer):
    """TRL's rows of prompt and completion: the prompt's tokens begin those of both."""
    prompt = tokenizer(row["prompt"])["input_ids"]
    ids = ended(tokenizer(row["prompt"] + row["completion"])["input_ids"], tokenizer)
    if ids[: len(prompt)] != prompt:
        return {"leftOut": "with the border inside a token left out"}
    return {"ids": ids, "learned": [i >= len(prompt) for i in range(len(ids))], "by": "by the prompt's tokens"}


def conversation(row, tokenizer, request):
    def written(template):
        return tokenizer.apply_chat_template(row["messages"], tools=row.get("tools"), chat_template=template, tokenize=False)

    try:
        text = written(request["template"])
    except Exception:
        return {"leftOut": "refused by the template left out"}
    encoded = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
    ids = encoded["input_ids"]
    spans = [match.span(1) for match in re.finditer(request["turn"], text)]
    learned = [any(end > first and start < last and end > start for first, last in spans) for start, end in encoded["offset_mapping"]]
    by = "by the template's markers"
    if "training" in request and written(request["training"]) == text:
        given = tokenizer.apply_chat_template(
            row["messages"],
            tools=row.get("tools"),
            chat_template=request["training"],
            return_assistant_tokens_mask=True,
            return_dict=True,
            tokenize=True,
        )
        if request["marksHeader"]:
            by = "by markers, as TRL's marks have the turn's header too"
        else:
            by = "by TRL's marks"
            learned = [mask == 1 for mask in given["assistant_masks"]]
    return {"ids": ids, "learned": learned, "by": by}


def loss_of(rows, model):
    total, count = 0.0, 0
    with torch.no_grad():
        for row in rows:
            if "leftOut" in row:
                continue
            at = [i for i, learned in enumerate(row["learned"]) if learned and i > 0]
            hidden = model.model(torch.tensor([row["ids"]])).last_hidden_state[0]
            logits = model.lm_head(hidden[[i - 1 for i in at]])
            total += torch.nn.functional.cross_entropy(logits, torch.tensor([row["ids"][i] for i in at]), reduction="sum").item()
            count += len(at)
    return total / count


def answer(request):
    tokenizer = tokenizer_of(request)
    rows = []
    for row in request["rows"]:
        if "messages" in row:
            rows.append(conversation(row, tokenizer, request))
        elif "text" in row:
            ids = ended(tokenizer(row["text"])["input_ids"], tokenizer)
            rows.append({"ids": ids, "learned": [True] * len(ids), "by": "whole"})
        else:
            rows.append(completion(row, tokenizer))
    path = request["model"]
    if path not in models:
        models[path] = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32).eval()
    return {"rows": rows, "loss": loss_of(rows[: request["lossRows"]], models[path])}


json.dump([answer(request) for request in json.load(sys.stdin)], sys.stdout)
