import type { nn } from "@lowrank/autograd";
import { type CausalLM, generate, initModel, loadModel, TextGenerator } from "@lowrank/models";
import { type Device, tensor } from "@lowrank/tensor";
import { inShare, sharedDir, testDevice } from "test-support";
import { beforeAll, describe, expect, test, vi } from "vitest";
import { KeyValueCache } from "../../src/cache.js";

const stories = sharedDir("models", "stories260K");
/** Documented by the model's author. */
const documented =
  "Once upon a time, there was a little girl named Lily. She loved to play outside in the park. One day, she saw a big, red ball. She wanted to play with it, but it was too high.\nLily's mom said, \"Lily, let's go to the park.\" Lily was sad and didn't know what to do. She said, \"I want to play with your ball, but I can't find it.\"";

const tiny = {
  llama: {
    model_type: "llama",
    vocab_size: 40,
    hidden_size: 16,
    intermediate_size: 24,
    num_hidden_layers: 2,
    num_attention_heads: 4,
    num_key_value_heads: 2,
    max_position_embeddings: 96,
    initializer_range: 0.5,
  },
  gpt2: { model_type: "gpt2", vocab_size: 40, n_embd: 16, n_layer: 2, n_head: 2, n_positions: 96, initializer_range: 0.5 },
} as const;

let dev: Device;
beforeAll(async () => {
  dev = await testDevice();
});

/**
 * Greedy continuation without a cache: the whole text again for each token. It is padded to one length, which the causal mask hides, so
 * that an adapter compiles one plan and not one for each token.
 */
async function withoutCache(model: CausalLM, prompt: readonly number[], count: number): Promise<number[]> {
  const ids = [...prompt];
  const length = model.contextLength - model.virtualTokens.length;
  const padded = new Int32Array(length);
  for (let i = 0; i < count; i++) {
    padded.set(ids);
    const logits = model.forward(tensor(padded, { device: dev, dtype: "i32", shape: [1, length] }));
    const [, rows = 0, width = 0] = logits.shape;
    const row = rows - length + ids.length - 1;
    const values = [...(await logits.data())].slice(row * width, (row + 1) * width);
    ids.push(values.indexOf(Math.max(...values)));
  }
  return ids.slice(prompt.length);
}

describe.skipIf(stories === null)("stories260K", () => {
  test("the greedy continuation is the documented text, token for token", async () => {
    const { model, tokenizer } = await loadModel(stories as string, { device: dev });
    if (!tokenizer) return expect.fail("it ships a tokenizer");
    const prompt = tokenizer.encode("Once upon a time, there was a little girl");
    const whole = tokenizer.encode(documented);
    expect(whole.slice(0, prompt.length)).toEqual(prompt);
    const streamed: number[] = [];
    const tokens = await generate(model, prompt, { maxNewTokens: whole.length - prompt.length, onToken: (token) => streamed.push(token) });
    expect(tokenizer.decode([...prompt, ...tokens])).toBe(documented);
    expect([...prompt, ...tokens]).toEqual(whole);
    expect(streamed).toEqual(tokens);
  });
});

describe.each(inShare(Object.entries(tiny), ([name]) => name))("a random %s", (_name, config) => {
  test("generates with its cache what it generates without, across growth of the cache", async () => {
    const model = await initModel(config, { device: dev, seed: 3 });
    const prompt = [1, 2, 3, 4, 5];
    const taken = vi.spyOn(KeyValueCache.prototype, "take");
    // A cache has room ahead for no more than twice of what it begins with.
    expect(await generate(model, prompt, { maxNewTokens: 70 })).toEqual(await withoutCache(model, prompt, 70));
    expect(taken).toHaveBeenCalledTimes(1);
    expect(await generate(model, prompt, { maxNewTokens: 20 })).toHaveLength(20);
    expect(taken).toHaveBeenCalledTimes(1);
    taken.mockRestore();
  });

  test("rows of different lengths in one batch go on as each does alone, also when the generator is used again", async () => {
    const model = await initModel(config, { device: dev, seed: 4 });
    const prompts = [[1, 2, 3], [7], Array.from({ length: 40 }, (_, i) => (i * 7) % 40)];
    const generator = new TextGenerator(model);
    for (let round = 0; round < 2; round++) {
      const together = await generator.generate(prompts, { maxNewTokens: 12 });
      for (const [row, prompt] of prompts.entries()) expect(together[row]).toEqual(await withoutCache(model, prompt, 12));
    }
    generator.dispose();
  });

  test("a stop token ends a row and is not part of it", async () => {
    const model = await initModel(config, { device: dev, seed: 5 });
    const all = await generate(model, [1, 2], { maxNewTokens: 10 });
    const stop = all[4] ?? 0;
    expect(await generate(model, [1, 2], { maxNewTokens: 10, stopTokens: [stop] })).toEqual(all.slice(0, all.indexOf(stop)));
    model.stopTokens = [stop];
    expect(await generate(model, [1, 2], { maxNewTokens: 10 })).toEqual(all.slice(0, all.indexOf(stop)));
  });

  test("the same seed samples the same tokens, topK 1 is greedy", async () => {
    const model = await initModel(config, { device: dev, seed: 6 });
    const options = { maxNewTokens: 12, temperature: 1, seed: 9 };
    const first = await generate(model, [1], options);
    expect(await generate(model, [1], options)).toEqual(first);
    expect(await generate(model, [1], { ...options, seed: 10 })).not.toEqual(first);
    expect(await generate(model, [1], { ...options, topK: 1 })).toEqual(await generate(model, [1], { maxNewTokens: 12 }));
    expect(await generate(model, [1], { ...options, topP: 1e-9 })).toEqual(await generate(model, [1], { maxNewTokens: 12 }));
  });

  test("fills its context to the last position", async () => {
    const model = await initModel(config, { device: dev, seed: 7 });
    const prompt = Array.from({ length: 90 }, (_, i) => i % 40);
    expect(await generate(model, prompt, { maxNewTokens: 6 })).toEqual(await withoutCache(model, prompt, 6));
  });

  test("a prefix and a virtual prompt give the same with and without cache", async () => {
    const model = await initModel(config, { device: dev, seed: 8 });
    const { kvHeads, headDim } = model.cacheShape ?? expect.fail("layers differ");
    const wave = (count: number, phase: number): Float32Array => Float32Array.from({ length: count }, (_, i) => Math.sin(i * 3 + phase));
    const plain = await withoutCache(model, [1, 2, 3], 8);
    const block = (phase: number) => tensor(wave(3 * kvHeads * headDim, phase), { device: dev, shape: [1, kvHeads, 3, headDim] });
    const blocks = [0, 1].map((layer) => ({ keys: block(layer), values: block(layer + 5) }));
    model.virtualTokens.prefix = { length: 3, layers: () => blocks };
    const embeddings = tensor(wave(5 * 16, 2), { device: dev, shape: [5, 16] });
    model.virtualTokens.prompt = { length: 5, embeddings: () => embeddings };
    const steered = await withoutCache(model, [1, 2, 3], 40);
    expect(steered.slice(0, 8)).not.toEqual(plain);
    expect(await generate(model, [1, 2, 3], { maxNewTokens: 40 })).toEqual(steered);
    const ids = tensor([[1, 2, 3]], { device: dev, dtype: "i32" });
    expect(Number.isFinite(await model.loss(ids, ids).item())).toBe(true);
  });

  test("what cannot be generated is a RangeError with the numbers", async () => {
    const model = await initModel(config, { device: dev, seed: 0 });
    const fails = (ids: readonly number[], options: Parameters<typeof generate>[2], says: RegExp): Promise<void> =>
      expect(generate(model, ids, options)).rejects.toThrow(says);
    await fails([1], { maxNewTokens: 96 }, /1 prompt tokens and 96 new ones are more than the model's context of 96/);
    await fails([], { maxNewTokens: 1 }, /no tokens/);
    await fails([40], { maxNewTokens: 1 }, /Token id 40 at position 0 is outside the model's vocabulary of 40/);
    await fails([1], { maxNewTokens: 1, temperature: -1 }, /temperature is -1/);
    await fails([1], { maxNewTokens: 1, topP: 0 }, /topP is 0/);
    await fails([1], { maxNewTokens: 1, topK: 0 }, /topK is 0/);
    await fails([1], { maxNewTokens: -1 }, /maxNewTokens is -1/);
    const long = tensor([Array.from({ length: 97 }, () => 1)], { device: dev, dtype: "i32" });
    expect(() => model.forward(long)).toThrow(/97 tokens are more than the model's context of 96/);
  });
});

describe.each(inShare(Object.entries(tiny), ([name]) => name))("the cache of a random %s", (_name, config) => {
  test("sampled rows of a batch go on as each does alone", async () => {
    const model = await initModel(config, { device: dev, seed: 12 });
    const prompts = [[1, 2, 3], Array.from({ length: 21 }, (_, i) => (i * 7) % 40), [9]];
    const generator = new TextGenerator(model);
    const options = { maxNewTokens: 14, temperature: 1.5, stopTokens: [] };
    const together = await generator.generate(prompts, { ...options, seed: 5 });
    for (const [row, prompt] of prompts.entries())
      expect(await generator.generate([prompt], { ...options, seed: 5 + row * 2 ** 32 })).toEqual([together[row]]);
    generator.dispose();
  });

  test("prompts of further lengths take no further plans", async () => {
    const model = await initModel({ ...config, max_position_embeddings: 160, n_positions: 160 }, { device: dev, seed: 13 });
    const generator = new TextGenerator(model);
    const read = async (length: number): Promise<void> => {
      const prompt = Array.from({ length }, (_, i) => (i * 7) % 40);
      await generator.generate([prompt], { maxNewTokens: 2, stopTokens: [] });
    };
    for (const length of [70, 100, 112]) await read(length);
    const before = dev.counters.plansPrepared;
    for (const length of [66, 75, 80, 97, 110, 125]) await read(length);
    expect(dev.counters.plansPrepared).toBe(before);
    generator.dispose();
  });

  test("stored in bf16 gives logits near those of f32, and texts", async () => {
    const model = await initModel(config, { device: dev, seed: 14 });
    const logitsWith = async (dtype: "f32" | "bf16"): Promise<ArrayLike<number>> => {
      const cache = new KeyValueCache(model.keeps, 1, 32, dev, dtype);
      const ints = (values: readonly number[] | readonly (readonly number[])[]) =>
        tensor(values as number[], { device: dev, dtype: "i32" });
      cache.begin({ positions: ints([0]), counts: ints([20]), lengths: ints([20]), isFirst: true });
      await model.forward(ints([Array.from({ length: 20 }, (_, i) => (i * 11) % 40)]), { cache }).data();
      cache.begin({ positions: ints([20]), counts: ints([1]), lengths: ints([21]), isFirst: false });
      return model.forward(ints([[7]]), { cache }).data();
    };
    const [want, got] = [await logitsWith("f32"), await logitsWith("bf16")];
    const largest = Array.from(want).reduce((size, x) => Math.max(size, Math.abs(x)), 0);
    const error = Array.from(want).reduce((most, x, i) => Math.max(most, Math.abs(x - (got[i] ?? Number.NaN))), 0);
    // Keys and values keep 8 bits, an error of 2^-9 each, which two layers of random weights make larger by some times.
    expect(error).toBeLessThan(largest * 2 ** -5);
    expect(error).toBeGreaterThan(0);
    expect((await generate(model, [1, 2, 3], { maxNewTokens: 8, cacheDType: "bf16", stopTokens: [] })).length).toBe(8);
  });
});

test("a signal ends a generation before its next token, and the generator goes on to be used", async () => {
  const model = await initModel(tiny.llama, { device: dev, seed: 3 });
  const generator = new TextGenerator(model);
  const [whole = []] = await generator.generate([[1, 2, 3]], { maxNewTokens: 12 });
  const stop = new AbortController();
  const tokens: number[] = [];
  const onToken = (token: number): void => {
    if (tokens.push(token) === 3) stop.abort(new Error("enough"));
  };
  await expect(generator.generate([[1, 2, 3]], { maxNewTokens: 12, onToken, signal: stop.signal })).rejects.toThrow("enough");
  expect(tokens).toEqual(whole.slice(0, 3));
  expect(await generator.generate([[1, 2, 3]], { maxNewTokens: 12 })).toEqual([whole]);
  generator.dispose();
});

test("a generator in use notices adapters that are put on and taken off", async () => {
  const model = await initModel(tiny.llama, { device: dev, seed: 11 });
  const generator = new TextGenerator(model);
  const speak = async (): Promise<number[] | undefined> => (await generator.generate([[1, 2, 3]], { maxNewTokens: 12 }))[0];
  const before = await speak();
  const remove = (model.namedModules().get("model.layers.0.mlp") as nn.Module).use((x, next) => next(x).mul(-3));
  const during = await speak();
  expect(during).not.toEqual(before);
  expect(during).toEqual(await withoutCache(model, [1, 2, 3], 12));
  remove();
  expect(await speak()).toEqual(before);
  generator.dispose();
});

describe("allowedTokens", () => {
  const bits = (isAllowed: (token: number) => boolean): Int32Array =>
    Int32Array.from({ length: 2 }, (_, word) =>
      Array.from({ length: 32 }, (_, bit) => Number(32 * word + bit < 40 && isAllowed(32 * word + bit)) << bit).reduce((a, b) => a | b, 0),
    );

  test("greedy choices are the likeliest of those that may come, in each row", async () => {
    const model = await initModel(tiny.llama, { device: dev, seed: 8 });
    const generator = new TextGenerator(model);
    // Row 0: what has the parity of the place; row 1: all.
    const allowedTokens = (row: number, { length }: readonly number[]): Int32Array | null =>
      row === 0 ? bits((token) => token % 2 === length % 2) : null;
    const prompts = [
      [1, 2, 3],
      [7, 8],
    ];
    const [first = [], second = []] = await generator.generate(prompts, {
      maxNewTokens: 10,
      temperature: 0,
      stopTokens: [],
      allowedTokens,
    });
    generator.dispose();
    expect(second).toEqual(await withoutCache(model, [7, 8], 10));
    expect(first).toHaveLength(10);
    const ids = [1, 2, 3];
    for (const [at, token] of first.entries()) {
      const logits = await model.forward(tensor([ids], { device: dev, dtype: "i32" })).data();
      const last = Array.from(logits.subarray(-40), (logit, i) => (i % 2 === at % 2 ? logit : Number.NEGATIVE_INFINITY));
      expect(token).toBe(last.indexOf(Math.max(...last)));
      ids.push(token);
    }
  });

  test.each([{ temperature: 1 }, { temperature: 1, topK: 3 }, { temperature: 1.5, topP: 0.9 }, { temperature: 1, minP: 0.2 }])(
    "drawn tokens are among them too: %j",
    async (sampling) => {
      const model = await initModel(tiny.gpt2, { device: dev, seed: 8 });
      const tokens = await generate(model, [1, 2], {
        ...{ maxNewTokens: 30, stopTokens: [], seed: 4, ...sampling },
        allowedTokens: () => bits((token) => token > 33),
      });
      expect(tokens).toHaveLength(30);
      expect(Math.min(...tokens)).toBeGreaterThan(33);
    },
  );

  test("where none may come, it says so", async () => {
    const model = await initModel(tiny.llama, { device: dev, seed: 8 });
    await expect(generate(model, [1], { maxNewTokens: 2, allowedTokens: () => new Int32Array(2) })).rejects.toThrow(/leaves no token/);
  });
});
