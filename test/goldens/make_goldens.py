"""Makes the reference values in this folder: random tiny GPT-2 and Llama models in PyTorch, transformers and PEFT.

    pip install torch==2.13.0 transformers peft safetensors
    python make_goldens.py [FOLDER]

FOLDER (this one when left out) then holds

    models/<kind>/           a checkpoint as transformers saves it
    <case>/case.json         the checkpoint, the optimizer's settings, the number of trained parameters
    <case>/io.safetensors    every tensor of the case, described at `record`
    <case>/adapter_init/     the adapter before training, as PEFT saves it; A and B are both random, so that nothing hides behind a zero
    <case>/adapter_final/    the adapter after the last optimizer step

A case without adapter folders trains all of the model. Everything is float32, on one CPU thread, without dropout, from fixed seeds.
"""
import json
import sys
from pathlib import Path

import peft
import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM, GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM

BATCH, SEQ = 2, 12
IGNORED = -100


def gpt2():
    return GPT2LMHeadModel(GPT2Config(
        vocab_size=80, n_positions=24, n_embd=24, n_layer=2, n_head=3, bos_token_id=0, eos_token_id=0,
        resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0))


def llama():
    # Untied, grouped queries, sizes that are no powers of two.
    return LlamaForCausalLM(LlamaConfig(
        vocab_size=90, hidden_size=40, intermediate_size=56, num_hidden_layers=2, num_attention_heads=5, num_key_value_heads=1,
        max_position_embeddings=64, rms_norm_eps=1e-6, rope_theta=500.0, tie_word_embeddings=False, bos_token_id=0, eos_token_id=0))


MODELS = {"gpt2": gpt2, "llama": llama}


def make_model(kind, folder):
    """A random checkpoint. Every parameter is moved off its usual first value: a bias of 0 or a norm weight of 1 would prove little."""
    torch.manual_seed(2024)
    model = MODELS[kind]()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.08)
    model.save_pretrained(folder)
    (folder / "generation_config.json").unlink(missing_ok=True)


def tokens(kind, seed):
    vocabulary = {"gpt2": 80, "llama": 90}[kind]
    return torch.randint(1, vocabulary, (BATCH, SEQ), generator=torch.Generator().manual_seed(seed))


def record(model, kind, steps, optimizer_settings):
    """One forward and backward, then `steps` AdamW steps on other batches. Returns the tensors and the optimizer's settings.

    input_ids, labels [B, T] i64; logits [B, T, V]; loss [1]; grads.<parameter>; batches [steps, B, T] i64; losses [steps] before each step
    """
    ids = tokens(kind, 1)
    labels = ids.clone()
    labels[0, :3] = IGNORED
    labels[1, 7:] = IGNORED
    result = model(input_ids=ids, labels=labels)
    result.loss.backward()
    trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
    found = {"input_ids": ids, "labels": labels, "logits": result.logits, "loss": result.loss.reshape(1)}
    found |= {f"grads.{name}": p.grad.clone() for name, p in trained.items()}

    optimizer = torch.optim.AdamW(trained.values(), **optimizer_settings)
    batches = [tokens(kind, 1000 + step) for step in range(steps)]
    losses = []
    for batch in batches:
        optimizer.zero_grad()
        loss = model(input_ids=batch, labels=batch).loss
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    found |= {"batches": torch.stack(batches), "losses": torch.tensor(losses)}
    return found, sum(p.numel() for p in trained.values())


def write(folder, kind, found, trainable, settings):
    save_file({name: t.detach().contiguous() for name, t in found.items()}, folder / "io.safetensors")
    about = dict(model=f"../models/{kind}", trainable=trainable, optimizer="AdamW", peft=peft.__version__, **settings)
    (folder / "case.json").write_text(json.dumps(about, indent=1) + "\n")
    print(f"{folder.name:24} {trainable:6} trained, losses {found['losses'][0]:.4f} .. {found['losses'][-1]:.4f}")


def full(folder, kind, models):
    folder.mkdir(exist_ok=True)
    settings = dict(lr=2e-3, betas=(0.9, 0.98), eps=1e-8, weight_decay=0.1)
    model = AutoModelForCausalLM.from_pretrained(models / kind, dtype=torch.float32).eval()
    write(folder, kind, *record(model, kind, 5, settings), settings)


def adapted(folder, kind, models, config):
    """As `record`; `logits` are the adapter's, with logits_base without it and logits_final, logits_merged after training."""
    folder.mkdir(exist_ok=True)
    settings = dict(lr=3e-3, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.0)
    base = AutoModelForCausalLM.from_pretrained(models / kind, dtype=torch.float32).eval()
    with torch.no_grad():
        logits_base = base(input_ids=tokens(kind, 1)).logits
    model = get_peft_model(base, config).eval()
    random = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.requires_grad:
                noise = torch.randn(parameter.shape, generator=random)
                # A magnitude stays near the norm that it starts from.
                parameter.copy_(parameter + 0.05 * noise if "magnitude" in name else 0.15 * noise)
    save(model, folder / "adapter_init", kind)
    found, trainable = record(model, kind, 10, settings)
    save(model, folder / "adapter_final", kind)
    with torch.no_grad():
        found["logits_base"] = logits_base
        found["logits_final"] = model(input_ids=found["input_ids"]).logits
        found["logits_merged"] = model.merge_and_unload()(input_ids=found["input_ids"]).logits
    found["logits_adapter"] = found.pop("logits")
    write(folder, kind, found, trainable, settings)


def save(model, folder, kind):
    model.save_pretrained(folder)
    (folder / "README.md").unlink(missing_ok=True)
    path = folder / "adapter_config.json"
    config = json.loads(path.read_text())
    config["base_model_name_or_path"] = f"models/{kind}"
    for name, value in config.items():  # Sets come out in any order.
        if isinstance(value, list):
            config[name] = sorted(value)
    path.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")


def lora(**options):
    return LoraConfig(task_type="CAUSAL_LM", **options)


ADAPTED = {
    "gpt2-lora-every-layer": ("gpt2", lora(
        r=3, lora_alpha=5, target_modules=["c_attn", "c_proj", "c_fc"], fan_in_fan_out=True,
        rank_pattern={"mlp.c_proj": 5}, alpha_pattern={"h.0.attn.c_attn": 7})),
    "gpt2-dora": ("gpt2", lora(r=2, lora_alpha=4, target_modules=["c_attn", "c_fc"], fan_in_fan_out=True, use_dora=True)),
    "llama-lora-pattern": ("llama", lora(r=4, lora_alpha=8, target_modules=r".*\.1\.(self_attn\.(q|k)_proj|mlp\..*_proj)")),
    "llama-lora-some-layers": ("llama", lora(
        r=4, lora_alpha=6, target_modules=["q_proj", "o_proj", "down_proj"], exclude_modules=["self_attn.o_proj"],
        layers_to_transform=[0], layers_pattern="layers")),
    "llama-lora-all-linear": ("llama", lora(r=3, lora_alpha=4, target_modules="all-linear")),
    "llama-rsdora": ("llama", lora(r=5, lora_alpha=4, target_modules=["v_proj", "up_proj"], use_rslora=True, use_dora=True)),
}


if __name__ == "__main__":
    torch.set_num_threads(1)
    target = Path(sys.argv[1] if len(sys.argv) > 1 else __file__)
    target = target.parent if target.is_file() else target
    models = target / "models"
    for kind in MODELS:
        make_model(kind, models / kind)
        full(target / f"{kind}-full", kind, models)
    for name, (kind, config) in ADAPTED.items():
        adapted(target / name, kind, models, config)
