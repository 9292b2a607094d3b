"""The PyTorch peer of the benchmark suite: reads one JSON object a line, answers with one (see src/peers/serve.ts for the protocol).

Needs torch; decode needs transformers too.
"""
import json
import math
import sys
import time

import numpy
import torch
import torch.nn.functional as F

SAMPLE_COUNT = 16
STEP = 7919


def values(number, shape, seed=0, scale=1.0):
    """Input `number` of a task: the formula that every side shares, in float64, rounded once to float32."""
    size = math.prod(shape)
    residues = (numpy.arange(size, dtype=numpy.int64) * STEP + number * 104729 + seed * 31) % 1009
    return torch.from_numpy(((residues / 1009 - 0.5) * scale).astype(numpy.float32)).reshape(shape)


def token_ids(count, vocab):
    return torch.arange(count, dtype=torch.int64) * STEP % vocab


def sample_of(result):
    flat = result.detach().reshape(-1)
    return [float(flat[i * STEP % flat.numel()]) for i in range(SAMPLE_COUNT)]


def repeat(function):
    """A task whose repetitions are calls of one function without gradients; the result is read at the end."""

    def run(count):
        with torch.inference_mode():
            for _ in range(count):
                result = function()
        return float(result.reshape(-1)[0])

    with torch.inference_mode():
        return sample_of(function()), run


def matmul(task):
    m, n, k, seed = task["m"], task["n"], task["k"], task.get("seed", 0)
    batch = [task["batch"]] if task.get("batch") else []
    is_a_flipped, is_b_flipped = task.get("transA", False), task.get("transB", False)
    a = values(0, batch + ([k, m] if is_a_flipped else [m, k]), seed)
    b = values(1, batch + ([n, k] if is_b_flipped else [k, n]), seed)
    left = a.mT if is_a_flipped else a
    right = b.mT if is_b_flipped else b
    return repeat(lambda: torch.matmul(left, right))


def elementwise(task):
    a, b, c = (values(j, [task["size"]], task.get("seed", 0)) for j in range(3))
    return repeat(lambda: F.gelu(torch.addcmul(c, a, b), approximate="tanh"))


def row_input(task):
    return values(0, [task["rows"], task["columns"]], task.get("seed", 0))


def row_sum(task):
    x = row_input(task)
    return repeat(lambda: x.sum(-1))


def softmax(task):
    x = row_input(task)
    return repeat(lambda: F.softmax(x, -1))


def layernorm(task):
    x = row_input(task)
    columns = task["columns"]
    weight, bias = torch.ones(columns), torch.zeros(columns)
    return repeat(lambda: F.layer_norm(x, [columns], weight, bias, 1e-5))


def attention(task):
    """Forward: the sample is the output. With `backward` the gradients of queries, keys and values for the output gradient number 3: the
    sample is the queries' gradient."""
    shape = [task["batch"], task["heads"], task["length"], task["headDim"]]
    seed, is_causal = task.get("seed", 0), task.get("causal", False)
    queries, keys, states = inputs = [values(j, shape, seed) for j in range(3)]
    if not task.get("backward"):
        return repeat(lambda: F.scaled_dot_product_attention(queries, keys, states, is_causal=is_causal))
    upstream = values(3, shape, seed)
    for x in inputs:
        x.requires_grad_()

    def step():
        return torch.autograd.grad(F.scaled_dot_product_attention(queries, keys, states, is_causal=is_causal), inputs, upstream)[0]

    def run(count):
        for _ in range(count):
            result = step()
        return float(result.reshape(-1)[0])

    return sample_of(step()), run


def cross_entropy(task):
    """Head and mean cross-entropy of hidden rows; with `backward` the hidden rows' gradient too, which is then the sample."""
    rows, width, vocab, seed = task["rows"], task["width"], task["vocab"], task.get("seed", 0)
    hidden, head = values(0, [rows, width], seed), values(1, [vocab, width], seed)
    targets = token_ids(rows, vocab)
    if not task.get("backward"):
        return repeat(lambda: F.cross_entropy(F.linear(hidden, head), targets))
    hidden.requires_grad_()

    def step():
        return torch.autograd.grad(F.cross_entropy(F.linear(hidden, head), targets), hidden)[0]

    def run(count):
        for _ in range(count):
            result = step()
        return float(result[0, 0])

    return sample_of(step()), run


def gather(task):
    table = values(0, [task["rows"], task["width"]], task.get("seed", 0))
    ids = token_ids(task["count"], task["rows"])
    return repeat(lambda: F.embedding(ids, table))


LORA_ALPHA = 16
WEIGHT_SCALE = 0.04


def gpt_parameters(task):
    """GPT-2's parameters in the checkpoint's order, by name without the leading "transformer."."""
    width, vocab, length = task["width"], task["vocab"], task["length"]
    block = [
        ("ln_1.weight", [width]),
        ("ln_1.bias", [width]),
        ("attn.c_attn.weight", [width, 3 * width]),
        ("attn.c_attn.bias", [3 * width]),
        ("attn.c_proj.weight", [width, width]),
        ("attn.c_proj.bias", [width]),
        ("ln_2.weight", [width]),
        ("ln_2.bias", [width]),
        ("mlp.c_fc.weight", [width, 4 * width]),
        ("mlp.c_fc.bias", [4 * width]),
        ("mlp.c_proj.weight", [4 * width, width]),
        ("mlp.c_proj.bias", [width]),
    ]
    shapes = [("wte.weight", [vocab, width]), ("wpe.weight", [length, width])]
    for layer in range(task["layers"]):
        shapes += [(f"h.{layer}.{name}", shape) for name, shape in block]
    shapes += [("ln_f.weight", [width]), ("ln_f.bias", [width])]

    def start(number, name, shape):
        if name.endswith(".bias"):
            return torch.zeros(shape)
        return torch.ones(shape) if ".ln_" in f".{name}" else values(number, shape, task.get("seed", 0), WEIGHT_SCALE)

    return {name: start(number, name, shape) for number, (name, shape) in enumerate(shapes)}


def lora_parameters(task, first_number):
    """A [rank, width] and B [width, rank] of q and v of each layer; B starts at zero."""
    rank, width = task["rank"], task["width"]
    pairs = {}
    for layer in range(task["layers"]):
        for part, offset in (("q", 0), ("v", 2)):
            number = first_number + 4 * layer + offset
            pairs[f"h.{layer}.{part}.A"] = values(number, [rank, width], task.get("seed", 0), WEIGHT_SCALE)
            pairs[f"h.{layer}.{part}.B"] = torch.zeros(width, rank)
    return pairs


def gpt_loss(weights, pairs, ids, task):
    """Mean loss of the next tokens. ids int64 [batch, length]."""
    batch, length = ids.shape
    width, heads = task["width"], task["heads"]
    scale = LORA_ALPHA / task["rank"] if pairs else 0.0

    def norm(x, name):
        return F.layer_norm(x, [width], weights[f"{name}.weight"], weights[f"{name}.bias"], 1e-5)

    def linear(x, name):
        return torch.addmm(weights[f"{name}.bias"], x, weights[f"{name}.weight"])

    x = (F.embedding(ids, weights["wte.weight"]) + weights["wpe.weight"][:length]).view(batch * length, width)
    for layer in range(task["layers"]):
        at = f"h.{layer}"
        hidden = norm(x, f"{at}.ln_1")
        parts = list(linear(hidden, f"{at}.attn.c_attn").split(width, -1))
        if pairs:
            for index, part in ((0, "q"), (2, "v")):
                low = F.linear(hidden, pairs[f"{at}.{part}.A"])
                parts[index] = torch.addmm(parts[index], low, pairs[f"{at}.{part}.B"].t(), alpha=scale)
        queries, keys, states = (part.view(batch, length, heads, width // heads).transpose(1, 2) for part in parts)
        attended = F.scaled_dot_product_attention(queries, keys, states, is_causal=True)
        x = x + linear(attended.transpose(1, 2).reshape(batch * length, width), f"{at}.attn.c_proj")
        hidden = F.gelu(linear(norm(x, f"{at}.ln_2"), f"{at}.mlp.c_fc"), approximate="tanh")
        x = x + linear(hidden, f"{at}.mlp.c_proj")
    rows = norm(x, "ln_f").view(batch, length, width)[:, :-1].reshape(-1, width)
    return F.cross_entropy(F.linear(rows, weights["wte.weight"]), ids[:, 1:].reshape(-1))


def training(task, weights, pairs):
    """A step is loss, gradients and AdamW of the LoRA pairs, or of all weights where there are none."""
    trained = list((pairs or weights).values())
    for parameter in trained:
        parameter.requires_grad_()
    optimizer = torch.optim.AdamW(trained, lr=1e-3, weight_decay=0.0, fused=True)
    ids = token_ids(task["batch"] * task["length"], task["vocab"]).view(task["batch"], task["length"])

    def step():
        optimizer.zero_grad(set_to_none=True)
        loss = gpt_loss(weights, pairs, ids, task)
        loss.backward()
        optimizer.step()
        return loss.detach()

    def run(count):
        for _ in range(count):
            loss = step()
        return float(loss)

    return [float(step()) for _ in range(3)], run


def lora_step(task):
    weights = gpt_parameters(task)
    return training(task, weights, lora_parameters(task, len(weights)))


def full_step(task):
    return training(task, gpt_parameters(task), {})


PROMPT_LENGTH = 8


def decode(task):
    """Greedy tokens of transformers' GPT-2 with its key-value cache; the sample is the first of them. A repetition is a whole generation."""
    from transformers import DynamicCache, GPT2Config, GPT2LMHeadModel

    tokens, vocab = task["tokens"], task["vocab"]
    length = max(task.get("length", 0), PROMPT_LENGTH + tokens)
    config = GPT2Config(
        vocab_size=vocab, n_positions=length, n_embd=task["width"], n_layer=task["layers"], n_head=task["heads"], attn_implementation="sdpa"
    )
    model = GPT2LMHeadModel(config).eval()
    weights = gpt_parameters({**task, "length": length})
    missing, unexpected = model.load_state_dict({f"transformer.{name}": w for name, w in weights.items()}, strict=False)
    if unexpected or any(name != "lm_head.weight" for name in missing):
        raise ValueError(f"GPT2LMHeadModel has other parameters: missing {missing}, unexpected {unexpected}")
    prompt = token_ids(PROMPT_LENGTH, vocab).view(1, -1)

    def generate():
        cache = DynamicCache(config=config)
        ids, made = prompt, []
        for _ in range(tokens):
            logits = model(input_ids=ids, past_key_values=cache, use_cache=True, logits_to_keep=1).logits
            ids = logits[:, -1].argmax(-1, keepdim=True)
            made.append(ids)
        return torch.cat(made, 1)[0].tolist()

    def run(count):
        with torch.inference_mode():
            for _ in range(count):
                made = generate()
        return made[-1]

    with torch.inference_mode():
        return generate()[:SAMPLE_COUNT], run


TASKS = {
    "matmul": matmul,
    "elementwise": elementwise,
    "sum": row_sum,
    "softmax": softmax,
    "layernorm": layernorm,
    "attention": attention,
    "crossEntropy": cross_entropy,
    "gather": gather,
    "loraStep": lora_step,
    "fullStep": full_step,
    "decode": decode,
}


def main():
    run = None
    for line in sys.stdin:
        message = json.loads(line)
        if "open" in message:
            threads = message["open"].get("threads")
            if threads:
                torch.set_num_threads(threads)
            answer = {"name": "pytorch", "version": torch.__version__, "detail": f"cpu eager, {torch.get_num_threads()} threads"}
        elif "prepare" in message:
            task = message["prepare"]
            prepare = TASKS.get(task["task"])
            if prepare is None:
                answer = {"skipped": f"no task {task['task']}"}
            else:
                try:
                    sample, run = prepare(task)
                    answer = {"ready": True, "sample": sample}
                except ImportError as error:
                    answer = {"skipped": str(error)}
        elif "run" in message:
            start = time.perf_counter()
            run(message["run"])
            answer = {"seconds": time.perf_counter() - start}
        else:
            return
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
