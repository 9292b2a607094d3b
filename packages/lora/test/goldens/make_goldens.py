"""Makes the reference values in this folder: every adapter method on tiny random models, in PyTorch, transformers and PEFT.

    pip install torch==2.13.0 transformers==5.18.0 peft==0.21.0 safetensors
    python make_goldens.py [FOLDER [CASE ...]]

FOLDER (this one when left out) then holds

    models/<kind>/           a checkpoint as transformers saves it
    <case>/case.json         the checkpoint, the method, the optimizer's settings, the number of trained values, what else there is to know
    <case>/io.safetensors    every tensor of the case, described at `record`
    <case>/adapter_init/     the adapter before training, as PEFT saves it; every trained value is moved off its usual first one
    <case>/adapter_final/    the adapter after the last optimizer step

Everything is float32, on one CPU thread, without dropout, from fixed seeds. A case without adapter folders trains all of the model.

case.json
    model, method, trainable, optimizer, its settings, peft
    merge            whether logits_merged is there. merge_exact is false where PEFT's merged model differs from its adapted one: in a tied
                     model the sum lands in the one tensor that the embedding and the head share.
    init             "pissa", "olora", "eva": adapter_init is what PEFT initialised, untouched, and belongs to the base that it left behind
    virtual_tokens   prompt methods: their number n
    loss_on_virtual  prompt methods: what happens to the labels
    adalora          the schedule, and the step number of the first update_and_allocate

Prompt methods. Prefix tuning (and P-tuning v2) puts keys and values before those of the real tokens and returns logits of the T real
positions; labels are used as they are. Prompt tuning and p-tuning put n embeddings before the real ones, -100 before the labels, and PEFT
returns logits of all n + T positions; `logits_*` here are the last T of them, so all methods agree on [B, T, V]. Position n is the first
real token's position in all of them. PEFT saves what the encoder makes, `prompt_embeddings`, and loses the encoder; its parameters are
`init.<parameter>` and `final.<parameter>` in io.safetensors.

Bottleneck adapters, as AdapterHub's `adapters` library places them in these pre-norm blocks. With h the residual stream at the sublayer's
start, f the sublayer's output (after `attn.c_proj` / `self_attn.o_proj`; after `mlp`), D and U the linear layers with their biases, and
s the activation, the sublayer leaves

    Houlsby 2019    h + f + U s(D f)                         at attention and at the MLP
    Pfeiffer 2021   h + f + U s(D (h + f))                   at the MLP; AdapterHub's original_ln_before: the sum goes in, f is the skip
    He 2021         h + f + scaling * U s(D h)               at the MLP: beside it, from the residual stream before the norm; no skip
                    h + f + scaling * U s(D norm(h))         with "input": "norm", from what the MLP itself reads

At the MLP, h is the stream after attention: what ln_2 / post_attention_layernorm reads. Tensors have AdapterHub's names, with the adapter
called "default", the same in the file and in PyTorch:

    transformer.h.<i> or model.layers.<i>  .attention_adapters or .output_adapters
        .adapters.default.adapter_down.0.weight [bottleneck, d], .adapter_down.0.bias, .adapter_up.weight [d, bottleneck], .adapter_up.bias

adapter_config.json is our own, with AdapterHub's words where it has them: peft_type "BOTTLENECK", kind ("houlsby", "pfeiffer",
"parallel"), mh_adapter and output_adapter (places), bottleneck_size, reduction_factor (d / bottleneck_size), non_linearity ("relu",
"swish", "gelu_new"), scaling, is_parallel, original_ln_before, input ("sublayer": f, "sum": h + f, "residual": h, "norm": norm(h)).

P-tuning v2 (Liu 2022) saves PEFT's prefix-tuning file. BitFit (Ben Zaken 2022) saves base_model.model.<name>.bias with
{"peft_type": "BITFIT"}.
"""
import json
import sys
import warnings
from pathlib import Path

import peft
import torch
from peft import (AdaLoraConfig, IA3Config, LNTuningConfig, LoHaConfig, LoKrConfig, LoraConfig, OFTConfig, PrefixTuningConfig,
                  MissConfig, PromptEncoderConfig, PromptTuningConfig, VeraConfig, get_peft_model, initialize_lora_eva_weights)
from peft.optimizers import create_lorafa_optimizer, create_loraplus_optimizer, lorafa
from peft.utils.incremental_pca import IncrementalPCA
from safetensors.torch import save_file
from torch import nn
from transformers import AutoModelForCausalLM, DynamicCache, GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM
from transformers.activations import ACT2FN

BATCH, SEQ, STEPS = 2, 10, 10
IGNORED = -100
VOCABULARY = {"gpt2": 48, "llama": 50, "llama-tied": 50}

# Two approximations of PEFT's are switched off: LoRA-FA would project its gradients in bfloat16, and EVA's PCA would use a random
# low-rank SVD, whose third component may be off by 0.05 here.
lorafa.is_bf16_available = lambda: False
IncrementalPCA._svd_fn_lowrank = IncrementalPCA._svd_fn_full


def gpt2():
    return GPT2LMHeadModel(GPT2Config(
        vocab_size=48, n_positions=32, n_embd=16, n_layer=2, n_head=2, bos_token_id=0, eos_token_id=0,
        resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0))


def llama(**options):
    return LlamaForCausalLM(LlamaConfig(**(dict(
        vocab_size=50, hidden_size=24, intermediate_size=36, num_hidden_layers=2, num_attention_heads=3, num_key_value_heads=1,
        max_position_embeddings=64, rms_norm_eps=1e-6, rope_theta=500.0, tie_word_embeddings=False, bos_token_id=0, eos_token_id=0,
    ) | options)))


MODELS = {"gpt2": gpt2, "llama": llama, "llama-tied": lambda: llama(tie_word_embeddings=True, attention_bias=True)}


def make_model(kind, folder):
    """A random checkpoint. Every parameter is moved off its usual first value: a bias of 0 or a norm weight of 1 would prove little."""
    torch.manual_seed(2025)
    model = MODELS[kind]()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.08)
    model.save_pretrained(folder)
    (folder / "generation_config.json").unlink(missing_ok=True)


def load(kind, models):
    return AutoModelForCausalLM.from_pretrained(models / kind, dtype=torch.float32).eval()


def tokens(kind, seed):
    return torch.randint(1, VOCABULARY[kind], (BATCH, SEQ), generator=torch.Generator().manual_seed(seed))


def trained(model):
    return {name: p for name, p in model.named_parameters() if p.requires_grad}


def logits(model, ids):
    """Of the real positions: PEFT returns those of prompt tuning's virtual tokens as well."""
    with torch.no_grad():
        return model(input_ids=ids).logits[:, -SEQ:]


def adamw(model, lr=3e-3, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.0):
    settings = dict(lr=lr, betas=betas, eps=eps, weight_decay=weight_decay)
    return torch.optim.AdamW(trained(model).values(), **settings), dict(optimizer="AdamW", **settings)


def loraplus(model, lr=2e-3, **options):
    shared = dict(betas=(0.9, 0.999), eps=1e-8)
    optimizer = create_loraplus_optimizer(model, torch.optim.AdamW, lr=lr, **shared, **options)
    return optimizer, dict(optimizer="LoRA+", lr=lr, **shared, **options)


def lora_fa(model, lr=3e-3, weight_decay=0.0):
    config = model.peft_config["default"]
    optimizer = create_lorafa_optimizer(model, r=config.r, lora_alpha=config.lora_alpha, lr=lr, weight_decay=weight_decay)
    return optimizer, dict(optimizer="LoRA-FA", lr=lr, betas=(0.9, 0.999), eps=1e-6, weight_decay=weight_decay)


def record(model, kind, optimizer, after_step=lambda step: None):
    """One forward and backward, then STEPS optimizer steps on other batches.

    input_ids, labels [B, T] i64; logits_adapter [B, T, V]; loss [1]; grads.<torch parameter>, all of them; batches [STEPS, B, T] i64;
    losses [STEPS], each before its step. The callers add logits_base (the model without adapter), logits_final (after training),
    logits_merged (final, merged by PEFT), eva_batches [n, B, T] i64, vera_A and vera_B where the files leave them out, and ranks
    [STEPS, matrices]: how many of AdaLoRA's singular values are not 0 after each step, the matrices in the model's order.
    """
    ids = tokens(kind, 1)
    labels = ids.clone()
    labels[0, :3] = IGNORED
    labels[1, 7:] = IGNORED
    result = model(input_ids=ids, labels=labels)
    result.loss.backward()
    found = {"input_ids": ids, "labels": labels, "logits_adapter": result.logits[:, -SEQ:], "loss": result.loss.reshape(1)}
    found |= {f"grads.{name}": p.grad.clone() for name, p in trained(model).items()}

    batches = [tokens(kind, 1000 + step) for step in range(STEPS)]
    losses = []
    for step, batch in enumerate(batches):
        optimizer.zero_grad()
        loss = model(input_ids=batch, labels=batch).loss
        loss.backward()
        optimizer.step()
        after_step(step)
        losses.append(loss.item())
    found |= {"batches": torch.stack(batches), "losses": torch.tensor(losses), "logits_final": logits(model, ids)}
    return found


def size(model):
    return sum(p.numel() for p in trained(model).values())


def write(folder, kind, count, found, about):
    # Copies: tensors that share memory may not go into one file.
    save_file({name: t.detach().clone().contiguous() for name, t in found.items()}, folder / "io.safetensors")
    about = dict(model=f"../models/{kind}", trainable=count, peft=peft.__version__) | about
    (folder / "case.json").write_text(json.dumps(about, indent=1) + "\n")
    moved = (found["logits_final"] - found["logits_base"]).abs().max()
    print(f"{folder.name:34} {count:6} trained, losses {found['losses'][0]:.4f} .. {found['losses'][-1]:.4f}, logits moved {moved:.3f}")


def noise(shape, random):
    return torch.randn(shape, generator=random)


# What is normally near a value of its own stays near it, at a distance; what is normally 0 or small noise becomes noise of this size.
NEAR = {"magnitude": 0.05, "ia3_l": 0.15, "ln_tuning": 0.1, "modules_to_save": 0.05, "token_adapter": 0.1, "bias": 0.05, "lambda_d": 0.05}
NOISE = {"hada_": 0.5, "lokr_": 0.4, "lora_E": 0.5, "lora_embedding": 0.3, "prompt_encoder": 0.4, "oft_R": 0.1, "lambda_b": 0.5}


def randomise(model):
    random = torch.Generator().manual_seed(5)
    seen = set()
    with torch.no_grad():
        for name, parameter in trained(model).items():
            values = noise(parameter.shape, random)
            if parameter.data_ptr() in seen:  # The second half of a tied pair.
                continue
            seen.add(parameter.data_ptr())
            ours = "lora_B" in name or "prompt_encoder" in name
            near = next((size for word, size in NEAR.items() if word in name and not ours), None)
            far = next((size for word, size in NOISE.items() if word in name), 0.15)
            parameter.copy_(far * values if near is None else parameter + near * values)


def tidy(folder, kind):
    (folder / "README.md").unlink(missing_ok=True)
    path = folder / "adapter_config.json"
    config = json.loads(path.read_text())
    config["base_model_name_or_path"] = f"models/{kind}"
    for name in ("target_modules", "exclude_modules", "feedforward_modules"):  # Sets come out in any order.
        if isinstance(config.get(name), list):
            config[name] = sorted(config[name])
    path.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")


def save(model, folder, kind):
    model.save_pretrained(folder)
    tidy(folder, kind)


def adapted(config, kind="llama", optimizer=adamw, init=None, merge=True, merge_exact=True, **about):
    """A case of PEFT's. `init` keeps what PEFT initialised."""
    def run(folder, models):
        base = load(kind, models)
        logits_base = logits(base, tokens(kind, 1))
        torch.manual_seed(11)
        model = get_peft_model(base, config).eval()
        extra, facts = {}, dict(about)
        if init == "eva":
            extra["eva_batches"] = torch.stack([tokens(kind, 500 + i) for i in range(4)])
            initialize_lora_eva_weights(model, [{"input_ids": ids} for ids in extra["eva_batches"]], show_progress_bar=False)
        if init is None:
            randomise(model)
        else:
            facts["init"] = init
        save(model, folder / "adapter_init", kind)
        if config.peft_type == "VERA" and not config.save_projection:
            extra |= {f"vera_{side}": getattr(model.base_model, f"vera_{side}")["default"] for side in "AB"}
        if config.is_prompt_learning:
            facts |= prompt_facts(config)
            extra |= {f"init.{name}": p.detach().clone() for name, p in trained(model).items()}

        opt, settings = optimizer(model)
        is_adalora = config.peft_type == "ADALORA"
        ranks = []

        def after_step(step):
            if is_adalora:
                model.base_model.update_and_allocate(step)
                ranks.append([int((p != 0).sum()) for name, p in trained(model).items() if "lora_E" in name])
        found = record(model, kind, opt, after_step) | extra | {"logits_base": logits_base}
        if is_adalora:
            found["ranks"] = torch.tensor(ranks)
            facts["adalora"] = dict(first_step=0) | {name: getattr(config, name) for name in (
                "init_r", "target_r", "tinit", "tfinal", "deltaT", "beta1", "beta2", "orth_reg_weight", "total_step")}
        save(model, folder / "adapter_final", kind)
        facts["merge"] = merge and not config.is_prompt_learning
        if config.is_prompt_learning:
            found |= {f"final.{name}": p.detach().clone() for name, p in trained(model).items()}
        count = size(model)  # Merging takes the model apart.
        if facts["merge"]:
            found["logits_merged"] = logits(model.merge_and_unload(), found["input_ids"])
            apart = (found["logits_merged"] - found["logits_final"]).abs().max().item()
            assert (apart < 2e-5) == merge_exact, f"{folder.name}: merged and unmerged are {apart} apart"
            facts["merge_exact"] = merge_exact
        write(folder, kind, count, found, dict(method=config.peft_type.value, **settings, **facts))
    return run


def prompt_facts(config):
    inside = config.peft_type == "PREFIX_TUNING"
    return dict(virtual_tokens=config.num_virtual_tokens, loss_on_virtual=(
        "no virtual positions among logits and labels" if inside else "-100 before the labels, virtual logits dropped from logits_*"))


def full(kind, only=lambda name: True, method="FULL"):
    """Full fine-tuning and, with biases `only`, BitFit."""
    def run(folder, models):
        model = load(kind, models)
        logits_base = logits(model, tokens(kind, 1))
        for name, parameter in model.named_parameters():
            parameter.requires_grad_(only(name))
        if method != "FULL":
            randomise(model)
            save_own(folder / "adapter_init", kind, model, "base_model.model.", peft_type=method)
        optimizer, settings = adamw(model, lr=2e-3, betas=(0.9, 0.98), weight_decay=0.1)
        found = record(model, kind, optimizer) | {"logits_base": logits_base}
        if method != "FULL":
            save_own(folder / "adapter_final", kind, model, "base_model.model.", peft_type=method)
        write(folder, kind, size(model), found, dict(method=method, **settings, merge=False))
    return run


def save_own(folder, base, model, prefix="", **config):
    folder.mkdir(exist_ok=True)
    save_file({prefix + name: p.detach().contiguous() for name, p in trained(model).items()}, folder / "adapter_model.safetensors",
              metadata={"format": "pt"})
    config = dict(config, base_model_name_or_path=f"models/{base}", task_type="CAUSAL_LM", inference_mode=True)
    (folder / "adapter_config.json").write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")


class Bottleneck(nn.Module):
    def __init__(self, width, bottleneck_size, activation, scaling):
        super().__init__()
        self.adapter_down = nn.Sequential(nn.Linear(width, bottleneck_size), ACT2FN[activation])
        self.adapter_up = nn.Linear(bottleneck_size, width)
        self.scaling = scaling

    def forward(self, x):
        return self.adapter_up(self.adapter_down(x)) * self.scaling


class Adapters(nn.Module):
    def __init__(self, adapter):
        super().__init__()
        self.adapters = nn.ModuleDict({"default": adapter})


PLACES = {
    "gpt2": dict(blocks="transformer.h", attention_out="attn.c_proj", before_mlp="ln_2"),
    "llama": dict(blocks="model.layers", attention_out="self_attn.o_proj", before_mlp="post_attention_layernorm"),
}


def add_bottlenecks(model, kind, bottleneck_size, activation, scaling, source, at_attention):
    """Hooks on whole modules; nothing of the model's own code changes."""
    place = PLACES[kind.split("-")[0]]
    width = model.config.hidden_size
    for block in model.get_submodule(place["blocks"]):
        if at_attention:
            block.attention_adapters = Adapters(Bottleneck(width, bottleneck_size, activation, scaling))
            block.get_submodule(place["attention_out"]).register_forward_hook(
                lambda _m, _x, f, adapter=block.attention_adapters.adapters["default"]: f + adapter(f))
        block.output_adapters = Adapters(Bottleneck(width, bottleneck_size, activation, scaling))
        stream = {}
        block.get_submodule(place["before_mlp"]).register_forward_pre_hook(lambda _m, x, stream=stream: stream.update(h=x[0]))

        def beside(_m, x, f, stream=stream, adapter=block.output_adapters.adapters["default"]):
            return f + adapter({"sublayer": f, "sum": stream["h"] + f, "residual": stream["h"], "norm": x[0]}[source])
        block.mlp.register_forward_hook(beside)


def bottleneck(kind, name, bottleneck_size, activation, source, scaling=1.0, at_attention=False):
    def run(folder, models):
        model = load(kind, models)
        logits_base = logits(model, tokens(kind, 1))
        model.requires_grad_(False)
        add_bottlenecks(model, kind, bottleneck_size, activation, scaling, source, at_attention)
        random = torch.Generator().manual_seed(5)
        with torch.no_grad():
            for parameter in trained(model).values():
                parameter.copy_(0.2 * noise(parameter.shape, random))
        config = dict(
            peft_type="BOTTLENECK", kind=name, mh_adapter=at_attention, output_adapter=True, bottleneck_size=bottleneck_size,
            reduction_factor=model.config.hidden_size / bottleneck_size, non_linearity=activation, scaling=scaling, input=source,
            is_parallel=name == "parallel", original_ln_before=source == "sum")
        save_own(folder / "adapter_init", kind, model, **config)
        optimizer, settings = adamw(model)
        found = record(model, kind, optimizer) | {"logits_base": logits_base}
        save_own(folder / "adapter_final", kind, model, **config)
        write(folder, kind, size(model), found, dict(method="BOTTLENECK", **settings, merge=False))
    return run


class DeepPrompts(nn.Module):
    """P-tuning v2 (Liu et al. 2022) without reparametrisation: in layer i, row 2i of the prompt is its keys and row 2i + 1 its values."""

    def __init__(self, base, count):
        super().__init__()
        config = base.config
        self.heads = getattr(config, "num_key_value_heads", config.num_attention_heads)
        self.width = config.hidden_size // config.num_attention_heads
        self.layers = config.num_hidden_layers
        self.prompt_encoder = nn.ModuleDict({"default": nn.ModuleDict({
            "embedding": nn.Embedding(count, self.layers * 2 * self.heads * self.width)})})
        self.base = [base]

    def forward(self, input_ids, labels=None):
        prompt = self.prompt_encoder["default"]["embedding"].weight
        past = prompt.view(len(prompt), self.layers, 2, self.heads, self.width).permute(1, 2, 3, 0, 4)
        past = past.unsqueeze(2).expand(-1, -1, len(input_ids), -1, -1, -1)
        return self.base[0](input_ids=input_ids, labels=labels, past_key_values=DynamicCache([(keys, values) for keys, values in past]))


def deep_prompts(kind, count):
    def run(folder, models):
        base = load(kind, models)
        logits_base = logits(base, tokens(kind, 1))
        base.requires_grad_(False)
        torch.manual_seed(12)
        model = DeepPrompts(base, count)
        randomise(model)
        config = PrefixTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=count)
        twin = get_peft_model(load(kind, models), config).eval()  # Only to write PEFT's file and to agree with it.

        def save_as_prefix(name):
            twin.prompt_encoder["default"].load_state_dict(model.prompt_encoder["default"].state_dict())
            save(twin, folder / name, kind)
            assert torch.allclose(logits(twin, tokens(kind, 1)), logits(model, tokens(kind, 1)), atol=1e-6)
        save_as_prefix("adapter_init")
        optimizer, settings = adamw(model)
        found = record(model, kind, optimizer) | {"logits_base": logits_base}
        save_as_prefix("adapter_final")
        write(folder, kind, size(model), found, dict(method="P_TUNING_V2", **settings, **prompt_facts(config), merge=False))
    return run


def of(make):
    def config(*targets, **options):
        if targets:
            options["target_modules"] = list(targets)
        return make(task_type="CAUSAL_LM", **options)
    return config


miss = of(MissConfig)
lora, adalora, vera, loha, lokr = of(LoraConfig), of(AdaLoraConfig), of(VeraConfig), of(LoHaConfig), of(LoKrConfig)
oft, ia3, norms = of(OFTConfig), of(IA3Config), of(LNTuningConfig)
prefix, prompt, p_tuning = of(PrefixTuningConfig), of(PromptTuningConfig), of(PromptEncoderConfig)

PATTERNS = dict(rank_pattern={"mlp.c_proj": 5, r"h\.1\.attn\.c_attn": 2}, alpha_pattern={"h.0.attn.c_attn": 7})
# Schedules whose scores lie 20% apart where they are cut, so that rounding cannot choose other triplets.
SCHEDULE = dict(target_r=2, total_step=STEPS, lora_alpha=6)


def cases():
    """A case's configurations are made anew each time: PEFT writes into them."""
    return {
        # LoRA: scaling, ranks, places
        "gpt2-rslora": adapted(lora("c_attn", "c_fc", r=4, lora_alpha=6, use_rslora=True, fan_in_fan_out=True), "gpt2"),
        "llama-rslora-patterns": adapted(lora(
            "q_proj", "v_proj", "down_proj", r=3, lora_alpha=5, use_rslora=True,
            rank_pattern={"down_proj": 5, "layers.1.self_attn.q_proj": 2}, alpha_pattern={"v_proj": 9})),
        "gpt2-patterns": adapted(lora("c_attn", "c_proj", "c_fc", r=3, lora_alpha=5, fan_in_fan_out=True, **PATTERNS), "gpt2"),
        "gpt2-exclude": adapted(lora(
            "c_attn", "c_proj", r=3, exclude_modules=["attn.c_proj", "h.1.attn.c_attn"], fan_in_fan_out=True), "gpt2"),
        "llama-exclude-regex": adapted(lora(
            "q_proj", "o_proj", "up_proj", r=3, exclude_modules=r".*layers\.0\.(self_attn\.o|mlp\.up)_proj")),
        "gpt2-layers": adapted(lora("c_attn", "c_fc", r=3, layers_to_transform=1, fan_in_fan_out=True), "gpt2"),
        "llama-layers-pattern": adapted(lora(
            "q_proj", "k_proj", "gate_proj", "lm_head", r=3, layers_to_transform=[1], layers_pattern="layers")),
        "gpt2-regex": adapted(lora(r=3, lora_alpha=4, target_modules=r".*\.h\.\d+\.(attn\.c_proj|mlp\.c_fc)", fan_in_fan_out=True), "gpt2"),
        "llama-regex": adapted(lora(r=4, lora_alpha=8, target_modules=r".*\.1\.(self_attn\.(q|k)_proj|mlp\..*_proj)")),
        "gpt2-all-linear": adapted(lora(r=2, target_modules="all-linear", fan_in_fan_out=True), "gpt2"),
        "llama-all-linear": adapted(lora(r=2, target_modules="all-linear")),
        "llama-odd-ranks": adapted(lora("q_proj", "k_proj", "up_proj", "down_proj", r=5, lora_alpha=4,
                                        rank_pattern={"up_proj": 7, "k_proj": 20, "down_proj": 1})),
        "llama-lm-head": adapted(lora("lm_head", "v_proj", r=3, lora_alpha=4)),
        # LoRA: biases
        "gpt2-bias-all": adapted(lora("c_attn", r=2, bias="all", fan_in_fan_out=True), "gpt2"),
        "gpt2-bias-lora-only": adapted(lora("c_attn", "c_fc", r=2, bias="lora_only", fan_in_fan_out=True), "gpt2"),
        "llama-tied-bias-all": adapted(lora("q_proj", "o_proj", r=2, bias="all"), "llama-tied"),
        "llama-tied-bias-lora-only": adapted(lora("k_proj", "down_proj", r=2, bias="lora_only"), "llama-tied"),
        "gpt2-lora-bias": adapted(lora("c_attn", "c_proj", r=2, lora_alpha=5, lora_bias=True, fan_in_fan_out=True), "gpt2"),
        "llama-tied-lora-bias": adapted(lora("q_proj", "v_proj", r=2, lora_alpha=5, lora_bias=True), "llama-tied"),
        "llama-lora-bias-unmergeable": adapted(lora("q_proj", "v_proj", r=2, lora_alpha=5, lora_bias=True), merge=False),
        # DoRA
        "gpt2-dora": adapted(lora("c_attn", "c_proj", r=2, lora_alpha=4, use_dora=True, fan_in_fan_out=True), "gpt2"),
        "llama-dora": adapted(lora("q_proj", "o_proj", "gate_proj", r=3, lora_alpha=4, use_dora=True)),
        "llama-tied-dora-bias": adapted(lora("k_proj", "v_proj", r=3, lora_alpha=4, use_dora=True, bias="lora_only"), "llama-tied"),
        "gpt2-dora-patterns-exclude": adapted(lora(
            "c_attn", "c_proj", "c_fc", r=3, lora_alpha=5, use_dora=True, use_rslora=True, fan_in_fan_out=True,
            exclude_modules=["attn.c_proj"], **PATTERNS), "gpt2"),
        "llama-dora-embedding": adapted(lora("embed_tokens", "q_proj", r=3, lora_alpha=4, use_dora=True)),
        # Whole modules, embeddings, tokens, parameters
        "llama-modules-to-save": adapted(lora("q_proj", "v_proj", r=2, modules_to_save=["lm_head", "norm"])),
        "gpt2-modules-to-save": adapted(lora("c_attn", r=2, modules_to_save=["ln_f"], fan_in_fan_out=True), "gpt2"),
        "llama-tied-modules-to-save": adapted(lora(
            "q_proj", r=2, modules_to_save=["embed_tokens"], ensure_weight_tying=True), "llama-tied"),
        "llama-tied-modules-to-save-untied": adapted(lora("q_proj", r=2, modules_to_save=["lm_head"]), "llama-tied"),
        "llama-embedding": adapted(lora("embed_tokens", "q_proj", r=3, lora_alpha=4)),
        "gpt2-embedding": adapted(lora("wte", "c_attn", r=3, lora_alpha=4, fan_in_fan_out=True), "gpt2", merge_exact=False),
        "llama-tied-embedding-ensured": adapted(lora(
            "embed_tokens", "q_proj", r=3, lora_alpha=4, ensure_weight_tying=True), "llama-tied", merge_exact=False),
        "llama-tokens-list": adapted(lora("q_proj", r=2, trainable_token_indices=[40, 3, 21])),
        "llama-tokens-dict": adapted(lora("q_proj", r=2, trainable_token_indices={"embed_tokens": [40, 3, 21], "lm_head": [1, 2]})),
        "gpt2-tokens-tied": adapted(lora("c_attn", r=2, trainable_token_indices=[32, 3, 24], fan_in_fan_out=True), "gpt2"),
        "llama-tied-tokens": adapted(lora(
            "v_proj", r=2, trainable_token_indices={"embed_tokens": [20, 9], "lm_head": [20, 9]}, ensure_weight_tying=True), "llama-tied"),
        "llama-tied-tokens-apart": adapted(lora(
            "v_proj", r=2, trainable_token_indices={"embed_tokens": [20, 9], "lm_head": [1, 2]}), "llama-tied", merge_exact=False),
        "llama-parameters": adapted(lora(
            r=3, lora_alpha=4, target_modules=[], target_parameters=["self_attn.q_proj.weight", "mlp.up_proj.weight"],
            rank_pattern={"up_proj.weight": 5})),
        "gpt2-parameters": adapted(lora(
            r=3, lora_alpha=4, target_modules=[], target_parameters=["attn.c_attn.weight", "mlp.c_proj.weight"]), "gpt2"),
        # LoRA: first values and optimizers
        "llama-gaussian": adapted(lora("q_proj", "up_proj", r=4, init_lora_weights="gaussian")),
        "gpt2-pissa": adapted(lora(
            "c_attn", "c_fc", r=4, lora_alpha=6, init_lora_weights="pissa", fan_in_fan_out=True), "gpt2", init="pissa"),
        "llama-pissa": adapted(lora("q_proj", "k_proj", "down_proj", r=3, lora_alpha=6, init_lora_weights="pissa"), init="pissa"),
        "llama-olora": adapted(lora("q_proj", "k_proj", "down_proj", r=3, lora_alpha=6, init_lora_weights="olora"), init="olora"),
        "llama-eva": adapted(lora(
            "q_proj", "k_proj", "down_proj", r=3, lora_alpha=6, init_lora_weights="eva", eva_config=peft.EvaConfig(rho=2.0)), init="eva"),
        "gpt2-eva-uniform": adapted(lora(
            "c_attn", "c_fc", r=3, init_lora_weights="eva", eva_config=peft.EvaConfig(rho=1.0), fan_in_fan_out=True), "gpt2", init="eva"),
        "gpt2-loraplus": adapted(
            lora("c_attn", "c_fc", r=3, lora_bias=True, fan_in_fan_out=True), "gpt2",
            optimizer=lambda m: loraplus(m, loraplus_lr_ratio=4, loraplus_weight_decay=0.1)),
        "llama-loraplus": adapted(
            lora("embed_tokens", "q_proj", "v_proj", r=3, use_dora=True, modules_to_save=["norm"]),
            optimizer=lambda m: loraplus(m, loraplus_lr_ratio=3, loraplus_lr_embedding=1e-3, loraplus_weight_decay=0.1)),
        "gpt2-lorafa": adapted(lora("c_attn", "c_fc", r=3, lora_alpha=5, fan_in_fan_out=True), "gpt2",
                               optimizer=lambda m: lora_fa(m, weight_decay=0.1)),
        "llama-lorafa": adapted(lora("q_proj", "down_proj", r=3, lora_alpha=5, rank_pattern={"down_proj": 5}, modules_to_save=["norm"]),
                                optimizer=lora_fa),
        # AdaLoRA
        "gpt2-adalora": adapted(adalora("c_attn", "c_fc", fan_in_fan_out=True, init_r=3, tinit=2, tfinal=2, deltaT=2, **SCHEDULE), "gpt2"),
        "llama-adalora": adapted(adalora(
            "q_proj", "v_proj", "down_proj", init_r=4, tinit=3, tfinal=3, deltaT=1, orth_reg_weight=0.1, **SCHEDULE)),
        # VeRA
        "llama-miss": adapted(miss("q_proj", "v_proj", "down_proj", r=5)),
        "llama-miss-mini": adapted(miss("k_proj", "up_proj", r=4, init_weights="mini", mini_r=2)),
        "llama-miss-random": adapted(miss("q_proj", "down_proj", r=7, init_weights=False, exclude_modules=["layers.0.self_attn.q_proj"])),
        "gpt2-vera": adapted(vera("c_attn", "c_proj", r=5, projection_prng_key=3, fan_in_fan_out=True), "gpt2"),
        "llama-vera": adapted(vera("q_proj", "down_proj", r=4, projection_prng_key=7, save_projection=False, d_initial=0.2)),
        # LoHa, LoKr, OFT: PEFT has them for nn.Linear only, which GPT-2's Conv1D is not
        "llama-loha": adapted(loha("q_proj", "up_proj", r=3, alpha=4)),
        "llama-loha-patterns": adapted(loha(
            "q_proj", "k_proj", "down_proj", r=2, alpha=3, rank_pattern={"down_proj": 4}, alpha_pattern={"k_proj": 5})),
        "llama-lokr": adapted(lokr("q_proj", "up_proj", r=2, alpha=3)),
        "llama-lokr-both": adapted(lokr("q_proj", "up_proj", "lm_head", r=1, alpha=2, decompose_both=True)),
        "llama-lokr-factor": adapted(lokr("q_proj", "up_proj", "k_proj", r=2, alpha=3, decompose_factor=4, rank_pattern={"k_proj": 1})),
        "llama-lokr-full": adapted(lokr("q_proj", "down_proj", r=16, alpha=8)),
        "llama-oft": adapted(oft("q_proj", "down_proj", oft_block_size=4)),
        "llama-oft-exact": adapted(oft("q_proj", "up_proj", r=6, oft_block_size=0, use_cayley_neumann=False)),
        "llama-oft-shared": adapted(oft("q_proj", "down_proj", oft_block_size=4, block_share=True, num_cayley_neumann_terms=7)),
        "llama-oft-coft": adapted(oft("q_proj", "v_proj", oft_block_size=4, coft=True, eps=0.4)),
        "llama-oft-adjusted": adapted(oft("k_proj", "down_proj", oft_block_size=5)),
        # IA3, norms
        "gpt2-ia3": adapted(ia3("c_attn", "mlp.c_proj", feedforward_modules=["mlp.c_proj"], fan_in_fan_out=True), "gpt2"),
        "llama-ia3": adapted(ia3("k_proj", "v_proj", "down_proj", feedforward_modules=["down_proj"])),
        "llama-tied-ia3": adapted(ia3("k_proj", "v_proj", "down_proj", feedforward_modules=["down_proj"]), "llama-tied"),
        "gpt2-norms": adapted(norms(), "gpt2"),
        "llama-norms": adapted(norms("input_layernorm", "norm")),
        # Prompts
        "gpt2-prefix": adapted(prefix(num_virtual_tokens=3), "gpt2"),
        "llama-prefix": adapted(prefix(num_virtual_tokens=4)),
        "gpt2-prefix-projection": adapted(prefix(num_virtual_tokens=3, prefix_projection=True, encoder_hidden_size=10), "gpt2"),
        "llama-prefix-projection": adapted(prefix(num_virtual_tokens=3, prefix_projection=True, encoder_hidden_size=10)),
        "gpt2-prompt": adapted(prompt(num_virtual_tokens=4), "gpt2"),
        "llama-prompt": adapted(prompt(num_virtual_tokens=3)),
        "gpt2-p-tuning-lstm": adapted(p_tuning(
            num_virtual_tokens=3, encoder_reparameterization_type="LSTM", encoder_hidden_size=5), "gpt2"),
        "llama-p-tuning-lstm": adapted(p_tuning(
            num_virtual_tokens=4, encoder_reparameterization_type="LSTM", encoder_hidden_size=4, encoder_num_layers=1)),
        "gpt2-p-tuning-mlp": adapted(p_tuning(num_virtual_tokens=4, encoder_hidden_size=7), "gpt2"),
        "llama-p-tuning-mlp": adapted(p_tuning(num_virtual_tokens=3, encoder_hidden_size=7)),
        "gpt2-p-tuning-v2": deep_prompts("gpt2", 4),
        "llama-p-tuning-v2": deep_prompts("llama", 3),
        # Without PEFT
        "gpt2-houlsby": bottleneck("gpt2", "houlsby", 4, "swish", "sublayer", at_attention=True),
        "llama-houlsby": bottleneck("llama", "houlsby", 5, "gelu_new", "sublayer", at_attention=True),
        "gpt2-pfeiffer": bottleneck("gpt2", "pfeiffer", 4, "relu", "sum"),
        "llama-pfeiffer": bottleneck("llama", "pfeiffer", 3, "relu", "sum"),
        "llama-pfeiffer-sublayer": bottleneck("llama", "pfeiffer", 3, "relu", "sublayer"),
        "gpt2-parallel": bottleneck("gpt2", "parallel", 8, "relu", "residual", scaling=4.0),
        "llama-parallel": bottleneck("llama", "parallel", 6, "relu", "residual", scaling=4.0),
        "llama-parallel-norm": bottleneck("llama", "parallel", 6, "swish", "norm", scaling=2.0),
        "gpt2-bitfit": full("gpt2", lambda name: name.endswith(".bias"), "BITFIT"),
        "llama-tied-bitfit": full("llama-tied", lambda name: name.endswith(".bias"), "BITFIT"),
        "gpt2-full": full("gpt2"),
        "llama-full": full("llama"),
        "llama-tied-full": full("llama-tied"),
    }


if __name__ == "__main__":
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore")
    target = Path(sys.argv[1] if len(sys.argv) > 1 else __file__)
    target = target.parent if target.is_file() else target
    chosen = sys.argv[2:]
    for kind in MODELS:
        make_model(kind, target / "models" / kind)
    for name, run in cases().items():
        if not chosen or name in chosen:
            (target / name).mkdir(exist_ok=True)
            run(target / name, target / "models")
