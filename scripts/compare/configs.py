"""Random checkpoints of transformers' classes, and what they compute. Reads a request a line from stdin, writes an answer a line.

{"make": FOLDER, "seed", "rows", "prompt", "count", "adapter"?}  writes a checkpoint of FOLDER/config.json beside it, which stays as it is; the logits
    of the rows to FOLDER/logits.bin; an adapter of PEFT's to FOLDER/adapter, and its logits to FOLDER/adapter.bin.
    {"noise", "greedy", "margins", "whole", "adapter"} or {"refused": REASON}
{"load": FOLDER, "rows", "adapter"?}  the logits of a checkpoint, or of an adapter on it, to FOLDER/loaded.bin: {"wrong": [NAME]} or {"refused"}
"""

import copy
import json
import random
import sys
import warnings

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForImageTextToText, logging

warnings.filterwarnings("ignore")
logging.set_verbosity_error()
logging.disable_progress_bar()
torch.set_num_threads(1)
eager = {"attn_implementation": "eager", "experts_implementation": "eager"}


def kind_of(config):
    """Of a model that sees as well the class that PEFT's users load."""
    return AutoModelForImageTextToText if hasattr(config, "text_config") else AutoModelForCausalLM


def drawn(model, seed):
    """Weights that give every part a say: matrices that keep the scale of what they read, the rest beside what it begins with."""
    torch.manual_seed(seed)
    kept = model.state_dict()
    with torch.no_grad():
        for name, value in kept.items():
            if not value.is_floating_point():
                continue
            noise = torch.randn(value.shape)
            if value.dim() < 2 or min(value.shape) == 1:
                value.add_(0.3 * noise)
            elif "embed" in name or "wte" in name or "wpe" in name:
                value.copy_(noise)
            else:
                value.copy_(noise / value.shape[-1] ** 0.5)
    # What is tied has one memory, and was drawn last under one of its names.
    return model.eval()


def logits_of(model, rows):
    """A rotary embedding remembers how long its texts were: each pass has a model of its own."""
    with torch.no_grad():
        return copy.deepcopy(model)(input_ids=torch.tensor(rows), use_cache=False).logits.float()


def noise_of(model, rows, logits):
    """What f32 rounds: how far logits are from those in f64; 0 where a class cannot compute in it."""
    try:
        with torch.no_grad():
            exact = copy.deepcopy(model).double()(input_ids=torch.tensor(rows), use_cache=False).logits.double()
        return (logits - exact).abs().max().item()
    except RuntimeError:
        return 0


def write(path, logits):
    logits.contiguous().numpy().astype("<f4").tofile(path)


def generated(model, prompt, count, cached):
    """The greedy continuation, what its best two tokens are apart by, and what the whole text says of each token."""
    if not cached:
        tokens, best = list(prompt), []
        for _ in range(count):
            last = logits_of(model, [tokens])[0, -1]
            best.append(last.topk(2).values)
            tokens.append(last.argmax().item())
        return {"greedy": tokens[len(prompt) :], "margins": [(a - b).item() for a, b in best], "whole": tokens[len(prompt) :]}
    own = copy.deepcopy(model)
    own.generation_config.eos_token_id = None
    ids = torch.tensor([prompt])
    out = own.generate(
        ids,
        attention_mask=torch.ones_like(ids),
        max_new_tokens=count,
        do_sample=False,
        pad_token_id=0,
        output_logits=True,
        return_dict_in_generate=True,
    )
    best = [step[0].topk(2).values for step in out.logits]
    tokens = out.sequences[0].tolist()
    whole = logits_of(model, [tokens])[0, len(prompt) - 1 : -1].argmax(-1).tolist()
    return {"greedy": tokens[len(prompt) :], "margins": [(a - b).item() for a, b in best], "whole": whole}


def foreign(name):
    return any(part in name for part in ("vision", "visual", "multi_modal"))


def adapter_of(model, seed):
    """A LoRA as PEFT's users make them, with random options."""
    dice = random.Random(seed)
    dense = sorted({name for name, module in model.named_modules() if type(module).__name__ in ("Linear", "Conv1D")})
    dense = [name for name in dense if "lm_head" not in name and not foreign(name)]
    some = sorted({name.split(".")[-1] for name in dense if not name[-1].isdigit()})
    suffixes = dice.sample(some, dice.randint(1, len(some))) if some else []
    # Where transformers keeps both in one, PEFT takes both or neither.
    if {"gate_proj", "up_proj"} & set(suffixes):
        suffixes = sorted({*suffixes, "gate_proj", "up_proj"} & set(some))
    # PEFT refuses it where a model has Mamba's layers.
    if any(name.endswith(".A_log") for name, _ in model.named_parameters()):
        dense = [name for name in dense if not name.endswith("out_proj")]
        suffixes = [name for name in suffixes if name != "out_proj"] or ["in_proj"]
    options = {"r": dice.randint(1, 4), "lora_alpha": dice.choice([1, 4, 7]), "init_lora_weights": False, "use_rslora": dice.random() < 0.3}
    stacked = sorted({name for name, value in model.named_parameters() if value.dim() == 3 and "conv" not in name and not foreign(name)})
    if stacked and dice.random() < 0.5:
        options["target_parameters"] = sorted({".".join(name.split(".")[-2:]) for name in stacked})[: dice.randint(1, 2)]
        options["target_modules"] = suffixes if dice.random() < 0.5 else []
    elif dice.random() < 0.2:
        chosen = dice.sample(dense, dice.randint(1, len(dense)))
        options["target_modules"] = "|".join(name.replace(".", r"\.") for name in chosen)
    elif dice.random() < 0.3:
        options["target_modules"] = dice.sample(dense, dice.randint(1, len(dense)))
    else:
        options["target_modules"] = suffixes
        if dice.random() < 0.3:
            options["layers_to_transform"] = [0]
        elif dice.random() < 0.3:
            options["exclude_modules"] = [dice.choice(suffixes)] if len(suffixes) > 1 else None
    if suffixes and dice.random() < 0.3:
        options["rank_pattern"] = {dice.choice(suffixes): 5}
        options["alpha_pattern"] = {dice.choice(suffixes): 3}
    if "target_parameters" not in options:
        options["use_dora"] = dice.random() < 0.2
        options["bias"] = dice.choice(["none", "none", "all", "lora_only"])
        if dice.random() < 0.3:
            saved = [name for name, module in model.named_modules() if ("norm" in name or "embed" in name or "head" in name) and not foreign(name)
                     and next(iter(module.parameters(recurse=False)), None) is not None]
            options["modules_to_save"] = [dice.choice(sorted({name.split(".")[-1] for name in saved}))]
    config = LoraConfig(task_type="CAUSAL_LM", **options)
    adapted = get_peft_model(copy.deepcopy(model), config)
    torch.manual_seed(seed)
    with torch.no_grad():
        for name, value in adapted.named_parameters():
            if value.requires_grad:
                value.add_(torch.randn(value.shape) * 0.3)
    return adapted.eval(), {name: value for name, value in options.items() if value is not None}


def gradients(adapted, rows, folder):
    """The loss of the rows; its gradients in the place of the adapter's numbers, so that PEFT saves them under the names of these."""
    ids = torch.tensor(rows)
    loss = adapted(input_ids=ids, labels=ids, use_cache=False).loss
    loss.backward()
    for value in adapted.parameters():
        if value.requires_grad:
            value.data = torch.zeros_like(value) if value.grad is None else value.grad
    adapted.save_pretrained(folder)
    return loss.item()


def has_cache(config):
    """transformers 5.18 keeps nothing of a model whose layers are all recurrent, of a window of 1 everything, and of Phi-3's longrope, once its
    long factors begin, no token but the last: then the whole text says what comes next."""
    own = config.get_text_config()
    types = getattr(own, "layer_types", None) or ["full_attention"]
    has_attention = any("attention" in kind and "linear" not in kind for kind in types)
    # A single token's step of Mamba's is not limited, where those of a whole text are.
    is_limited = getattr(own, "time_step_min", 0) > 0.01 or tuple(getattr(own, "time_step_limit", None) or (0.0,))[0] > 0
    starts_anew = own.model_type == "phi3" and own.rope_parameters["rope_type"] == "longrope"
    return has_attention and getattr(own, "sliding_window", None) != 1 and not starts_anew and not is_limited


def make(request):
    folder, rows = request["make"], request["rows"]
    config = AutoConfig.from_pretrained(folder)
    model = drawn(kind_of(config).from_config(config, dtype=torch.float32, **eager), request["seed"])
    with open(f"{folder}/config.json", encoding="utf8") as file:
        text = file.read()
    model.save_pretrained(folder)
    # As it was drawn, not as transformers writes it.
    with open(f"{folder}/config.json", "w", encoding="utf8") as file:
        file.write(text)
    logits = logits_of(model, rows)
    write(f"{folder}/logits.bin", logits)
    answer = {"noise": noise_of(model, rows, logits), **generated(model, request["prompt"], request["count"], has_cache(config))}
    if "adapter" not in request:
        return answer
    try:
        adapted, options = adapter_of(model, request["adapter"])
        adapted.save_pretrained(f"{folder}/adapter")
    except Exception as problem:
        return {**answer, "adapter": {"refused": said(problem)}}
    logits = logits_of(adapted, rows)
    write(f"{folder}/adapter.bin", logits)
    noise = noise_of(adapted, rows, logits)
    return {**answer, "adapter": {"options": options, "noise": noise, "loss": gradients(adapted, rows, f"{folder}/gradients")}}


def load(request):
    folder = request["load"]
    kind = kind_of(AutoConfig.from_pretrained(folder))
    model, info = kind.from_pretrained(folder, dtype=torch.float32, output_loading_info=True, **eager)
    wrong = [str(key) for kind in ("missing_keys", "unexpected_keys", "mismatched_keys") for key in info.get(kind) or []]
    if "adapter" in request:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            model = PeftModel.from_pretrained(model, request["adapter"])
        wrong += [str(warning.message)[:300] for warning in caught if "missing" in str(warning.message)]
    write(f"{folder}/loaded.bin", logits_of(model.eval(), request["rows"]))
    return {"wrong": wrong}


def said(problem):
    lines = [line.strip() for line in str(problem).splitlines() if line.strip()]
    return f"{type(problem).__name__}: {' '.join(lines)[:300]}"


for line in sys.stdin:
    request = json.loads(line)
    try:
        answer = make(request) if "make" in request else load(request)
    except Exception as problem:
        answer = {"refused": said(problem)}
    print(json.dumps(answer), flush=True)
