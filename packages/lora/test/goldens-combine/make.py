"""Combines two tiny LoRA adapters with PEFT 0.21's add_weighted_adapter, every way that it has, and writes combine.json: A and B of both
adapters by layer, and for each case what W gains on each layer (scaling B A, [out, in], rows one after another).
Run: python make.py (torch 2.13, peft 0.21)."""

import json
import torch
from peft import LoraConfig, get_peft_model

torch.manual_seed(0)


class Block(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.q_proj = torch.nn.Linear(8, 8, bias=False)
        self.c_fc = torch.nn.Linear(8, 8)

    def forward(self, x):
        return x + self.c_fc(torch.tanh(self.q_proj(x)))


class Tiny(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = torch.nn.ModuleList([Block(), Block()])

    def forward(self, x):
        for layer in self.layers:
            x = layer(x)
        return x


def model(targets, ranks):
    torch.manual_seed(1)
    wrapped = get_peft_model(Tiny(), LoraConfig(r=ranks[0], lora_alpha=2 * ranks[0], target_modules=targets[0]), "one")
    wrapped.add_adapter("two", LoraConfig(r=ranks[1], lora_alpha=3, use_rslora=True, target_modules=targets[1]))
    generator = torch.Generator().manual_seed(2)
    for name, parameter in wrapped.named_parameters():
        if "lora_" in name:
            parameter.data = torch.randn(parameter.shape, generator=generator) * 0.4
    return wrapped


def tensors(wrapped, adapter):
    found = {}
    for name, module in wrapped.base_model.model.named_modules():
        if adapter in getattr(module, "lora_A", {}):
            pair = {"A": module.lora_A[adapter].weight, "B": module.lora_B[adapter].weight}
            found[name] = {key: value.detach().flatten().tolist() for key, value in pair.items()}
    return found


def deltas(wrapped, adapter):
    found = {}
    for name, module in wrapped.base_model.model.named_modules():
        if adapter in getattr(module, "lora_A", {}):
            found[name] = module.get_delta_weight(adapter).detach().flatten().tolist()
    return found


ways = {
    "linear": {}, "cat": {}, "svd": {}, "svd-rank": {"svd_rank": 1}, "svd-full": {"svd_rank": 6}, "ties": {"density": 0.4},
    "ties-frequency": {"density": 0.4, "majority_sign_method": "frequency"}, "ties_svd": {"density": 0.3}, "magnitude_prune": {"density": 0.4},
    "magnitude_prune_svd": {"density": 0.5}, "dare_linear": {"density": 1.0}, "dare_ties": {"density": 1.0},
    "dare_linear_svd": {"density": 1.0}, "dare_ties_svd": {"density": 1.0},
}
both = ["q_proj", "c_fc"]
setups = {
    "same": {"targets": [both, both], "ranks": [2, 2], "ways": list(ways)},
    "different": {"targets": [both, ["q_proj"]], "ranks": [2, 3], "ways": [way for way in ways if way == "cat" or "svd" in way]},
}


def rounded(value):
    if isinstance(value, dict):
        return {key: rounded(item) for key, item in value.items()}
    return [float(f"{number:.7g}") for number in value]


result = []
for setup, spec in setups.items():
    wrapped = model(spec["targets"], spec["ranks"])
    cases = []
    for way in spec["ways"]:
        for weights in ([0.7, 0.3], [1.0, -0.5]):
            name = f"{way} {weights}"
            wrapped.add_weighted_adapter(["one", "two"], weights, "mixed", combination_type=way.split("-")[0], **ways[way])
            # PEFT keeps the first adapter's use_rslora for a scaling that should be 1, so "one", without it, comes first.
            cases.append({"name": name, "method": way.split("-")[0], "weights": weights, **ways[way], "deltas": rounded(deltas(wrapped, "mixed"))})
            wrapped.delete_adapter("mixed")
    if setup == "same":
        wrapped.add_weighted_adapter(["one"], [-1.0], "mixed", combination_type="linear")
        cases.append({"name": "negated", "method": "linear", "weights": [-1.0], "deltas": rounded(deltas(wrapped, "mixed"))})
    result.append({"name": setup, "targets": spec["targets"], "ranks": spec["ranks"],
                   "one": rounded(tensors(wrapped, "one")), "two": rounded(tensors(wrapped, "two")), "cases": cases})
with open("combine.json", "w") as file:
    json.dump(result, file, separators=(",", ":"))
    file.write("\n")
