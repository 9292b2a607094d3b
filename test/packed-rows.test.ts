// Rows laid one behind the other are learned from as rows padded to one length are.
import { grad, optim } from "@lowrank/autograd";
import { type Adapter, applyAdapter } from "@lowrank/lora";
import {
  type Batch,
  type BatchLayout,
  type CausalLM,
  collate,
  type Example,
  evaluationBatches,
  evaluator,
  initModel,
  type PackedRows,
  type TrainableModel,
  train,
} from "@lowrank/models";
import { attention, type Device, Generator, hasOwnKernel, planningDevice, realize, type Tensor, tensor } from "@lowrank/tensor";
import fc from "fast-check";
import { testBackend, testDevice } from "test-support";
import { beforeAll, describe, expect, it } from "vitest";

const vocabSize = 53;
const lengthLimit = 40;
const configs = {
  gpt2: { model_type: "gpt2", n_layer: 2, n_embd: 24, n_head: 3, vocab_size: vocabSize, n_positions: lengthLimit },
  llama: {
    model_type: "llama",
    vocab_size: vocabSize,
    hidden_size: 32,
    intermediate_size: 44,
    num_hidden_layers: 2,
    num_attention_heads: 4,
    num_key_value_heads: 2,
    max_position_embeddings: lengthLimit,
  },
} as const;
type Family = keyof typeof configs | keyof typeof others;

/** Llama's sizes with what else depends on a token's place in its row: windows, rotary positions of two kinds, queries scaled by position. */
const others = {
  gemma3_text: {
    ...configs.llama,
    model_type: "gemma3_text",
    head_dim: 8,
    sliding_window: 5,
    sliding_window_pattern: 2,
    final_logit_softcapping: 4,
  },
  gemma2: { ...configs.llama, model_type: "gemma2", head_dim: 8, sliding_window: 5 },
  ministral3: {
    ...configs.llama,
    model_type: "ministral3",
    head_dim: 8,
    rope_parameters: { rope_type: "yarn", rope_theta: 100, factor: 4, original_max_position_embeddings: 7, llama_4_scaling_beta: 0.4 },
  },
  dynamic: { ...configs.llama, rope_scaling: { type: "dynamic", factor: 2 } },
} as const;

/** A software adapter compiles the shaders of one shape for minutes: there one case says that the graph is right. */
const isFast = testBackend() === "cpu";

let dev: Device;
beforeAll(async () => {
  dev = await testDevice();
});

/** A model with LoRA on every linear layer, whose B is not zero, so that no gradient is. */
async function adapted(family: Family): Promise<{ model: CausalLM; adapter: Adapter }> {
  const model = await initModel({ ...configs, ...others }[family], { device: dev, seed: 3 });
  const adapter = applyAdapter(model, { method: "lora", rank: 3, alpha: 6, targets: "all-linear", seed: 4 });
  const generator = new Generator(dev, 5);
  for (const [name, t] of adapter.namedParameters()) if (name.includes("lora_B")) t.assign(generator.normal(t.shape).mul(0.05));
  return { model, adapter };
}

/** A model behind a prefix of three keys for each layer. */
async function prefixed(family: Family): Promise<{ model: CausalLM; adapter: Adapter }> {
  const model = await initModel({ ...configs, ...others }[family], { device: dev, seed: 3 });
  const adapter = applyAdapter(model, { method: "prefix", virtualTokens: 3, seed: 4 });
  const generator = new Generator(dev, 5);
  for (const t of adapter.parameters()) t.assign(generator.normal(t.shape));
  return { model, adapter };
}

/** A row of `length` tokens; the first `prompt` of them are not learned. */
const row = (line: number, length: number, prompt = 0): Example => {
  const ids = Array.from({ length }, (_, i) => (line * 17 + i * i * 5 + i) % vocabSize);
  return { line, ids, labels: ids.map((id, i) => (i < prompt ? -100 : id)) };
};
const rowsOf = (...lengths: readonly number[]): Example[] => lengths.map((length, line) => row(line, length));

/** The loss and, one list a parameter, its gradients: of the adapter's pairs and of every weight. */
async function learned(model: CausalLM, adapter: Adapter, { ids, labels, positions, rowCount, length, rowLimit }: Batch) {
  const put = (values: Int32Array): Tensor => tensor(values, { device: dev, dtype: "i32", shape: [rowCount, length] });
  const packed: PackedRows | null = positions && { positions: put(positions), rowLimit };
  const loss = model.loss(put(ids), put(labels), { packed });
  const wrt = new Map([...adapter.namedParameters(), ...model.namedParameters()]);
  const grads = grad(loss, [...wrt.values()]);
  await realize(loss, ...grads);
  return { loss: await loss.item(), grads: await Promise.all(grads.map(async (g) => Array.from(await g.data()))), names: [...wrt.keys()] };
}

async function expectAlike(family: Family, examples: readonly Example[], make = adapted): Promise<void> {
  const { model, adapter } = await make(family);
  const limit = lengthLimit - model.virtualTokens.length;
  const padded = await learned(model, adapter, collate(examples, { layout: "padded", lengthLimit: limit }));
  const packed = await learned(model, adapter, collate(examples, { layout: "packed", lengthLimit: limit }));
  // Both are sums of the same f32 numbers in another order: some 2^-24 times the square root of a hundred terms, through two layers.
  expect(Math.abs(packed.loss - padded.loss)).toBeLessThan(2e-6 * padded.loss);
  for (const [i, expected] of padded.grads.entries()) {
    const size = Math.hypot(...expected);
    const apart = Math.hypot(...expected.map((value, j) => value - (packed.grads[i]?.[j] ?? Number.NaN)));
    // Keys' biases would have a gradient of zero but for rounding, so that the size of the whole counts too.
    expect(apart, padded.names[i]).toBeLessThan(2e-5 * size + 1e-7);
  }
}

const cases: readonly (readonly [string, readonly Example[]])[] = [
  ["with a row of one token, which nothing predicts", rowsOf(7, 1, 12)],
  ["of several lengths", rowsOf(9, 23, 2, 40, 17)],
  ["longest first", rowsOf(40, 31, 12, 3)],
  ["with a single row", rowsOf(21)],
  ["with rows of which the end is learned", [row(0, 20, 11), row(1, 33, 30), row(2, 8, 1)]],
  ["as long as a bucket", rowsOf(20, 12, 32)],
];

describe.each(isFast ? (["gpt2", "llama"] as const) : (["gpt2"] as const))("packed rows of %s", (family) => {
  it.each(isFast ? cases : cases.slice(0, 1))("have the loss and the gradients of padded ones: %s", (_, examples) =>
    expectAlike(family, examples),
  );

  it.runIf(isFast)("have the loss and the gradients of padded ones behind one prefix that all of them see", () =>
    expectAlike(family, rowsOf(9, 23, 2, 37, 17), prefixed),
  );

  it.runIf(isFast)("have the loss and the gradients of padded ones, whatever the lengths", async () => {
    const lengths = fc.array(fc.tuple(fc.integer({ min: 2, max: lengthLimit }), fc.nat({ max: 30 })), { minLength: 1, maxLength: 6 });
    const law = fc.asyncProperty(lengths, (drawn) =>
      expectAlike(
        family,
        drawn.map(([length, prompt], line) => row(line, length, Math.min(prompt, length - 1))),
      ),
    );
    await fc.assert(law, { numRuns: 10, seed: 1 });
  });

  it.runIf(isFast)("train and are measured as padded ones", async () => {
    const examples = Array.from({ length: 11 }, (_, line) => row(line, 3 + ((line * 7) % 30), line % 3));
    const trained = async (batchLayout: BatchLayout): Promise<number[]> => {
      const { model, adapter } = await adapted(family);
      const chosen: TrainableModel = {
        device: dev,
        batchLayout,
        loss: (ids, labels, options) => model.loss(ids, labels, options),
        train: (isTraining) => model.train(isTraining),
      };
      const losses: number[] = [];
      const { evalLossBefore, evalLossAfter } = await train({
        model: chosen,
        parameters: adapter.namedParameters(),
        examples,
        lengthLimit,
        steps: 4,
        batchSize: 3,
        accumulate: 2,
        seed: 6,
        schedule: optim.constant({ peak: 1e-2 }),
        evaluation: { examples, every: 0, batchSize: 4 },
        onStep: ({ loss }) => void losses.push(loss),
      });
      return [evalLossBefore ?? Number.NaN, ...losses, evalLossAfter ?? Number.NaN];
    };
    const packed = await trained("packed");
    // Adam's first steps divide by the gradient's own size and so carry its rounding on.
    for (const [i, value] of (await trained("padded")).entries()) expect(Math.abs((packed[i] ?? Number.NaN) - value)).toBeLessThan(1e-4);
  });

  it.runIf(isFast)("are evaluated in batches of one shape", async () => {
    const { model } = await adapted(family);
    const examples = Array.from({ length: 11 }, (_, line) => row(line, 3 + ((line * 7) % 30)));
    const meter = evaluator(model);
    const losses = [];
    for (const layout of ["padded", "packed"] as const) {
      const batches = evaluationBatches(examples, 4, { layout, lengthLimit });
      if (layout === "packed") expect(new Set(batches.map(({ length }) => length)).size).toBe(1);
      losses.push(await meter.run(batches));
    }
    meter.dispose();
    const [padded, packed] = losses;
    expect(packed?.tokenCount).toBe(padded?.tokenCount);
    expect(packed?.loss).toBeCloseTo(padded?.loss ?? Number.NaN, 5);
  });
});

it.runIf(isFast).each(["gemma3_text", "gemma2", "ministral3"] as const)(
  "packed rows of %s have the loss and the gradients of padded ones",
  (family) => expectAlike(family, rowsOf(9, 23, 2, 40, 17)),
);

describe("rows of a model are padded, and refused when packed,", () => {
  const ids = (): Tensor => tensor(new Int32Array(64), { device: dev, dtype: "i32", shape: [1, 64] });
  const lossOf = (model: CausalLM) => (): Tensor => model.loss(ids(), ids(), { packed: { positions: ids(), rowLimit: 20 } });
  it("where rotary frequencies depend on how long a text is", async () => {
    const { model } = await adapted("dynamic");
    expect(model.batchLayout).toBe("padded");
    expect(lossOf(model)).toThrow(/cannot be packed/);
  });
  it("where a window would hide a prefix", async () => {
    const { model } = await prefixed("gemma3_text");
    expect(model.batchLayout).toBe("padded");
    expect(lossOf(model)).toThrow(/cannot be packed/);
  });
});

it("a model asks for packed rows where attention is a kernel of the device's own, behind a prefix too, and for padded ones behind a prompt", async () => {
  const { model } = await adapted("llama");
  const heads = new Generator(dev, 1).normal([1, 2, 128, 8]);
  const starts = tensor(new Int32Array(128), { device: dev, dtype: "i32", shape: [1, 128] });
  const isNative = hasOwnKernel(attention(heads, heads, heads, { isCausal: true, starts }));
  expect(model.batchLayout).toBe(isNative ? "packed" : "padded");
  if (isFast) expect(isNative).toBe(true);
  const outline = await initModel(configs.llama, { device: planningDevice(dev).device });
  expect(outline.batchLayout).toBe(model.batchLayout);
  const prefix = applyAdapter(outline, { method: "prefix", virtualTokens: 2 });
  expect(outline.batchLayout).toBe(model.batchLayout);
  prefix.disable();
  applyAdapter(outline, { method: "prompt", virtualTokens: 2 });
  expect(outline.batchLayout).toBe("padded");
});

it("rows behind a prompt are refused when packed, and rows longer than the context in any case", async () => {
  const { model } = await adapted("gpt2");
  const ids = tensor(new Int32Array(64), { device: dev, dtype: "i32", shape: [1, 64] });
  const rows = { positions: ids, rowLimit: lengthLimit };
  expect(() => model.loss(ids, ids)).toThrow(/64 tokens are more than the model's context of 40/);
  expect(() => model.loss(ids, ids, { packed: { ...rows, rowLimit: 41 } })).toThrow(/41 tokens are more than the model's context of 40/);
  expect(() => model.loss(ids, ids, { packed: rows })).not.toThrow();
  applyAdapter(model, { method: "prompt", virtualTokens: 2 });
  expect(() => model.loss(ids, ids, { packed: rows })).toThrow(/no place for a cache or for a prompt/);
});
