"""Makes the reference values in this folder: a tiny random checkpoint of each family of models, with transformers' and PEFT's values.

    pip install torch==2.13.0 transformers==5.18.0 peft==0.21.0 safetensors
    python make_families.py [FOLDER [CASE ...]]

FOLDER (this one when left out) then holds, for each case of `cases.py`,

    <case>/model/            a checkpoint as `save_pretrained` writes it; with config.json rewritten as the hub has it where the case says so
    <case>/adapter/          a LoRA adapter as PEFT saves it, A and B both random
    <case>/io.safetensors    input_ids, labels [2, T]; logits_base, logits_adapter, logits_merged [2, T, V]; loss_base, loss [1], of the base and
                             with the adapter; grads.<PEFT's name of a LoRA parameter>; prompt [1, 4], greedy [1, 9], the base's likeliest
                             continuation with its cache, which no end token stops
    <case>/case.json         `sees`: changes of config.json, and how far each moves the logits; `noise`: float32 against float64;
                             `margin`: the smallest lead of a greedy token

Everything is float32 and eager, on one thread, from the files as they lie there. A change of `sees` that moves nothing, noise near the
tolerances and a greedy token without a lead are errors.
"""
import copy
import json
import shutil
import sys
import tempfile
import warnings
from pathlib import Path

import peft
import torch
import transformers
from cases import CASES, SPELLED
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import AutoConfig

BATCH, NEW, RANK, ALPHA = 2, 9, 2, 5


def fill(model, generator):
    """Values larger than an initialisation's, so that masks, norms, rotary kinds and multipliers show."""
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            if parameter.ndim < 2:
                parameter.add_(0.3 * noise)
            elif "embed" in name:
                parameter.copy_(0.7 * noise)
            else:
                parameter.copy_(1.4 * noise / parameter.shape[-1] ** 0.5)


def model_class(config):
    return getattr(transformers, config["architectures"][0])


def loaded(folder, dtype=torch.float32):
    """The model of a folder, whatever its config.json says of its dtype."""
    config = json.loads((folder / "config.json").read_text())
    return model_class(config).from_pretrained(folder, dtype=dtype, attn_implementation="eager", experts_implementation="eager").eval()


def write_config(folder, config):
    (folder / "config.json").write_text(json.dumps(config, indent=1, sort_keys=True) + "\n")


def as_on_the_hub(config, drop, put):
    """config.json as checkpoints of 2023 to 2025 have it: rope_theta and rope_scaling, torch_dtype, no layer_types."""
    rope = config.pop("rope_parameters", None) or {}
    if "rope_theta" in rope:
        config["rope_theta"] = rope.pop("rope_theta")
        share = rope.pop("partial_rotary_factor", None)
        if share is not None:
            config["partial_rotary_factor"] = share
        kind = rope.pop("rope_type")
        config["rope_scaling"] = None if kind == "default" else {"type": kind, **rope}
    config["torch_dtype"] = config.pop("dtype", "float32")
    for name in ("layer_types", *drop):
        config.pop(name, None)
    config.update(put)
    config["transformers_version"] = "4.51.0"
    return config


def make_model(case, seed, folder):
    fields = copy.deepcopy(case["config"])
    kind = fields.pop("model_type")
    config = AutoConfig.for_model(kind, **fields)
    config._attn_implementation = config._experts_implementation = "eager"
    torch.manual_seed(seed)
    model = getattr(transformers, case["class"])(config).eval()
    fill(model, torch.Generator().manual_seed(seed))
    model.save_pretrained(folder)
    written = json.loads((folder / "config.json").read_text())
    if "hub" in case:
        written = as_on_the_hub(written, **case["hub"])
    if "hub_text" in case:
        written["text_config"] = as_on_the_hub(written["text_config"], **case["hub_text"])
    write_config(folder, written)
    if "end" in case:
        (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": case["end"]}) + "\n")
    else:
        (folder / "generation_config.json").unlink(missing_ok=True)
    if case["vocab"] == SPELLED:
        write_tokenizer(folder)
    return model


def write_tokenizer(folder):
    """Of letters, for commands that read text: bytes as GPT-2 spells them, a merge, and a token for what is none of them."""
    symbols = ["<unk>", "<s>", "</s>", "\u0120", "\u010a", ".", *map(chr, range(ord("a"), ord("z") + 1)), "th"]
    tokenizer = Tokenizer(models.BPE({symbol: i for i, symbol in enumerate(symbols)}, [("t", "h")], unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(["<unk>", "<s>", "</s>"])
    tokenizer.save(str(folder / "tokenizer.json"))
    config = {"tokenizer_class": "PreTrainedTokenizerFast", "bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
    (folder / "tokenizer_config.json").write_text(json.dumps(config, indent=1) + "\n")


def ids_of(case, seed, rows, length):
    return torch.randint(3, case["vocab"], (rows, length), generator=torch.Generator().manual_seed(seed))


def change(config, path, value):
    *holders, last = path.split(".")
    for holder in holders:
        config = config[holder]
    if value is None and last not in config:
        raise KeyError(path)
    config[last] = value


def movements(case, folder, ids, logits):
    """How far each change of config.json moves the logits."""
    config = json.loads((folder / "config.json").read_text())
    found = []
    for path, value in case["sees"].items():
        with tempfile.TemporaryDirectory() as other:
            other = Path(other)
            shutil.copy(folder / "model.safetensors", other)
            changed = copy.deepcopy(config)
            change(changed, path, value)
            write_config(other, changed)
            moved = (loaded(other)(input_ids=ids).logits - logits).abs().max().item()
        assert moved > 0.01, f"{path} = {value} moves the logits by {moved}"
        found.append({"change": {path: value}, "moves_logits_by": moved})
    return found


def greedy(model, prompt):
    """The likeliest continuation, and the smallest lead of its tokens."""
    result = model.generate(prompt, max_new_tokens=NEW, do_sample=False, eos_token_id=None, pad_token_id=0, return_dict_in_generate=True,
                            output_logits=True)
    leads = [first - second for step in result.logits for first, second in [step[0].topk(2).values.tolist()]]
    return result.sequences[:, prompt.shape[1]:], min(leads)


def with_adapter(case, folder, adapter):
    base = loaded(folder)
    model = get_peft_model(base, LoraConfig(task_type="CAUSAL_LM", r=RANK, lora_alpha=ALPHA, **case["lora"])).eval()
    generator = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for parameter in (p for p in model.parameters() if p.requires_grad):
            parameter.copy_(0.25 * torch.randn(parameter.shape, generator=generator))
    model.save_pretrained(adapter)
    (adapter / "README.md").unlink(missing_ok=True)
    path = adapter / "adapter_config.json"
    config = json.loads(path.read_text())
    config["base_model_name_or_path"] = "model"
    for name, value in config.items():  # Sets come out in any order.
        if isinstance(value, list):
            config[name] = sorted(value)
    path.write_text(json.dumps(config, indent=1, sort_keys=True) + "\n")
    return PeftModel.from_pretrained(loaded(folder), adapter, is_trainable=True).eval()


def put_inside(folder, config, towers):
    """Puts a text model that was made by itself inside of a larger one, whose towers need packages that are not here."""
    def renamed(path, old, new):
        save_file({name.replace(old, new, 1): t for name, t in load_file(path).items()}, path, metadata={"format": "pt"})
    renamed(folder / "adapter" / "adapter_model.safetensors", "base_model.model.model.", "base_model.model.model.language_model.")
    renamed(folder / "io.safetensors", "base_model.model.model.", "base_model.model.model.language_model.")
    weights = folder / "model" / "model.safetensors"
    renamed(weights, "model.", "model.language_model.")
    save_file(load_file(weights) | {name: torch.zeros(shape) for name, shape in towers.items()}, weights, metadata={"format": "pt"})
    text = json.loads((folder / "model" / "config.json").read_text())
    write_config(folder / "model", {**config, "text_config": text})


def make(name, case, folder):
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    length = case.get("tokens", 10)
    seed = sum(map(ord, name))
    built = make_model(case, seed, folder / "model")
    base = loaded(folder / "model")
    ids = ids_of(case, 1, BATCH, length)
    labels = ids.clone()
    labels[0, 4] = labels[1, -2:] = labels[0, :2] = -100
    with torch.no_grad():
        result = base(input_ids=ids, labels=labels)
        assert torch.equal(result.logits, built(input_ids=ids).logits), "config.json means another model than the one it was made of"
        exact = loaded(folder / "model", torch.float64)(input_ids=ids).logits
        noise = (result.logits - exact).abs().max().item()
        assert noise < 2e-5, f"noise {noise}"
        sees = movements(case, folder / "model", ids, result.logits)
        for attempt in range(200):
            prompt = ids_of(case, 100 + attempt, 1, case.get("long_prompt", 4))
            tokens, margin = greedy(base, prompt)
            if margin > 0.003 and (attempt > 100 or len(set(tokens[0].tolist())) > 2):  # Some tied models say one token again and again.
                break
        else:
            raise AssertionError("no prompt whose continuation has a lead")
    model = with_adapter(case, folder / "model", folder / "adapter")
    adapted = model(input_ids=ids, labels=labels)
    adapted.loss.backward()
    trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
    found = {"input_ids": ids, "labels": labels, "prompt": prompt, "greedy": tokens, "logits_base": result.logits,
             "loss_base": result.loss.reshape(1), "logits_adapter": adapted.logits, "loss": adapted.loss.reshape(1)}
    found |= {f"grads.{name}": p.grad for name, p in trained.items()}
    with torch.no_grad():
        assert (adapted.logits - result.logits).abs().max() > 0.05, "the adapter changes nothing"
        found["logits_merged"] = model.merge_and_unload()(input_ids=ids).logits
    save_file({name: t.detach().contiguous() for name, t in found.items()}, folder / "io.safetensors")
    if "inside" in case:
        put_inside(folder, **case["inside"])
    about = {"about": case["about"], "layout": "hub" if {"hub", "hub_text"} & case.keys() else "new", "seed": seed, "noise": noise, "margin": margin, "sees": sees,
             "trainable": sum(p.numel() for p in trained.values()), "torch": torch.__version__, "transformers": transformers.__version__,
             "peft": peft.__version__}
    (folder / "case.json").write_text(json.dumps(about, indent=1) + "\n")
    size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    print(f"{name:28} {size / 1024:6.1f} KB, noise {noise:.1e}, margin {margin:.3f}, loss {result.loss.item():.3f}", flush=True)


if __name__ == "__main__":
    warnings.filterwarnings("ignore")
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    torch.set_num_threads(1)
    target = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).resolve().parent
    chosen = sys.argv[2:] or CASES
    for name in chosen:
        make(name, CASES[name], target / name)
