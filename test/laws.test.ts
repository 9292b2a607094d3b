// What must hold of LoRA whatever the numbers (Hu et al. 2021): h = W0 x + (α / r) B A x, with W0 frozen.
import { grad, nn, optim } from "@lowrank/autograd";
import { type Adapter, applyAdapter, merge, unmerge } from "@lowrank/lora";
import { initModel } from "@lowrank/models";
import { compile, type Device, Generator, type Tensor, tensor } from "@lowrank/tensor";
import { testDevice } from "test-support";
import { beforeAll, describe, expect, test } from "vitest";

// Sizes that occur nowhere else, so that a buffer of a weight's size can be told from all others.
const hidden = 56;
const intermediate = 92;
const config = {
  model_type: "llama",
  vocab_size: 61,
  hidden_size: hidden,
  intermediate_size: intermediate,
  num_hidden_layers: 2,
  num_attention_heads: 4,
  num_key_value_heads: 2,
  max_position_embeddings: 32,
};

let dev: Device;
beforeAll(async () => {
  dev = await testDevice();
});

type Model = Awaited<ReturnType<typeof initModel>>;
const options = { method: "lora", rank: 4, alpha: 8, targets: "all-linear", seed: 2 } as const;
const ids = (): Tensor =>
  tensor(
    Int32Array.from({ length: 30 }, (_, i) => (i * 17 + 5) % 61),
    { dtype: "i32", shape: [2, 15], device: dev },
  );

async function adapted(): Promise<{ model: Model; adapter: Adapter }> {
  const model = await initModel(config, { device: dev, seed: 1 });
  return { model, adapter: applyAdapter(model, options) };
}

const named = (adapter: Adapter, part: string): Tensor[] =>
  [...adapter.namedParameters()].filter(([name]) => name.includes(part)).map(([, t]) => t);
const norm = async (tensors: readonly Tensor[]): Promise<number> => {
  const sums = await Promise.all(tensors.map((t) => t.square().sum().item()));
  return Math.sqrt(sums.reduce((total, value) => total + value, 0));
};
const copies = (tensors: Iterable<Tensor>): Promise<number[][]> => Promise.all([...tensors].map(async (t) => Array.from(await t.data())));

/** Trains for some steps and returns the last loss. */
async function trained(model: Model, parameters: readonly Tensor[], steps: number): Promise<number> {
  const optimizer = optim.adamw(parameters, { learningRate: 1e-2, weightDecay: 0 });
  const step = compile((batch: Tensor) => {
    const loss = model.loss(batch, batch);
    optimizer.update(grad(loss, parameters));
    return loss;
  });
  let last = Number.NaN;
  for (let i = 0; i < steps; i++) last = await step(ids()).item();
  step.dispose();
  return last;
}

test("B = 0 at the start: W0 x + (α/r) B A x = W0 x, bit for bit", async () => {
  const base = await initModel(config, { device: dev, seed: 1 });
  const { model } = await adapted();
  expect(Array.from(await model.forward(ids()).data())).toEqual(Array.from(await base.forward(ids()).data()));
});

test("at the start dL/dA = (α/r) Bᵀ dh xᵀ = 0 and dL/dB = (α/r) dh (A x)ᵀ ≠ 0", async () => {
  const { model, adapter } = await adapted();
  const [a, b] = [named(adapter, "lora_A"), named(adapter, "lora_B")];
  const grads = grad(model.loss(ids(), ids()), [...a, ...b]);
  expect(await norm(grads.slice(0, a.length))).toBe(0);
  for (const g of grads.slice(a.length)) expect(await norm([g])).toBeGreaterThan(0);
});

test("A = 0 and B = 0 never move: each one's gradient has the other as a factor, so A must not start at zero", async () => {
  const { model, adapter } = await adapted();
  for (const a of named(adapter, "lora_A")) a.assign(a.mul(0));
  const loss = await trained(model, adapter.parameters(), 1);
  expect(await trained(model, adapter.parameters(), 5)).toBe(loss);
  expect(await norm(adapter.parameters())).toBe(0);
});

test("frozen weights are the same bits after training, and the loss falls", async () => {
  const { model, adapter } = await adapted();
  const before = await copies(model.namedParameters().values());
  const first = await trained(model, adapter.parameters(), 1);
  expect(await trained(model, adapter.parameters(), 20)).toBeLessThan(first - 0.1);
  expect(await copies(model.namedParameters().values())).toEqual(before);
});

describe("W = W0 + (α/r) B A", () => {
  test("merging keeps the function, and unmerging restores W0 to 1e-6", async () => {
    const { model, adapter } = await adapted();
    await trained(model, adapter.parameters(), 5);
    const before = await copies(model.namedParameters().values());
    const unmerged = await model.forward(ids()).data();
    merge(adapter);
    const merged = await model.forward(ids()).data();
    for (const [i, value] of unmerged.entries()) expect(Math.abs((merged[i] ?? 0) - value)).toBeLessThan(1e-4);
    unmerge(adapter);
    const after = await copies(model.namedParameters().values());
    for (const [i, weights] of before.entries())
      for (const [j, value] of weights.entries()) expect(Math.abs((after[i]?.[j] ?? 0) - value)).toBeLessThan(1e-6);
  });

  test("a merged model runs exactly the kernels of its base", async () => {
    const base = await initModel(config, { device: dev, seed: 1 });
    const { model, adapter } = await adapted();
    const names = async (forward: () => Tensor): Promise<readonly string[]> => (await plansOf(forward)).flatMap((plan) => plan.names);
    const plain = await names(() => base.forward(ids()));
    expect((await names(() => model.forward(ids()))).length).toBeGreaterThan(plain.length);
    merge(adapter);
    await model.forward(ids()).data();
    expect(await names(() => model.forward(ids()))).toEqual(plain);
  });
});

/** The plans that the executor asks for while something is computed: the graph is new each time, so the cache is asked to forget nothing. */
async function plansOf(build: () => Tensor): Promise<{ names: readonly string[]; elementCounts: readonly number[] }[]> {
  const { backend } = dev;
  const run = backend.run.bind(backend);
  const seen: { names: readonly string[]; elementCounts: readonly number[] }[] = [];
  backend.run = (executable, bindings) => {
    const { names, slots } = executable.plan;
    seen.push({ names, elementCounts: slots.map((slot) => slot.elementCount) });
    run(executable, bindings);
  };
  try {
    await build().data();
  } finally {
    backend.run = run;
  }
  return seen;
}

test("no buffer of the plan has the size of a frozen weight's gradient, while full fine-tuning has them", async () => {
  const { model, adapter } = await adapted();
  const sizes = [hidden * intermediate, hidden * hidden];
  const buffers = async (wrt: readonly Tensor[], isGradient: (count: number) => boolean): Promise<number> => {
    const grads = grad(model.loss(ids(), ids()), wrt);
    const plans = await plansOf(() => grads.reduce((sum, g) => sum.add(g.square().sum()), tensor(0, { device: dev })));
    return plans.flatMap((plan) => plan.elementCounts).filter(isGradient).length;
  };
  const weightCount = [...model.namedParameters().values()].filter(({ size }) => sizes.includes(size)).length;
  const isWeightSized = (count: number): boolean => sizes.includes(count);
  // The weights themselves are bound once each; their gradients would come on top.
  expect(await buffers(adapter.parameters(), isWeightSized)).toBe(weightCount);
  expect(await buffers(model.parameters(), isWeightSized)).toBeGreaterThan(weightCount);
});

test("rank = min(d, k) on every linear reaches the loss of full fine-tuning, to 2 %", async () => {
  // Least squares with noise: the smallest loss is the noise's, for any way to parametrise all matrices.
  const regression = (): { model: nn.Module & { forward(x: Tensor): Tensor }; x: Tensor; y: Tensor } => {
    const generator = new Generator(dev, 9);
    class Regression extends nn.Module {
      readonly config = { model_type: "llama" };
      readonly q_proj = nn.Linear.init(6, 8, { generator, bias: false });
      readonly v_proj = nn.Linear.init(8, 5, { generator, bias: false });
      forward(x: Tensor): Tensor {
        return this.v_proj.forward(this.q_proj.forward(x));
      }
    }
    const model = new Regression();
    const x = generator.normal([64, 6]);
    return { model, x, y: x.matmul(generator.normal([6, 5])).add(generator.normal([64, 5])) };
  };
  const trainedLoss = async (rank: number | null): Promise<number> => {
    const { model, x, y } = regression();
    await Promise.all([x.realize(), y.realize()]);
    const parameters =
      rank === null
        ? model.parameters()
        : applyAdapter(model, { method: "lora", rank, alpha: rank, targets: ["q_proj", "v_proj"] }).parameters();
    const optimizer = optim.adamw(parameters, { weightDecay: 0 });
    const step = compile((rate: Tensor) => {
      const loss = model.forward(x).sub(y).square().mean();
      optimizer.update(grad(loss, parameters), { learningRate: rate });
      return loss;
    });
    const schedule = optim.cosine({ peak: 3e-2, warmup: 0, steps: 400 });
    let last = Number.NaN;
    for (let i = 0; i < 400; i++) last = await step(tensor(schedule(i), { device: dev })).item();
    return last;
  };
  const [full, fullRank, low] = [await trainedLoss(null), await trainedLoss(6), await trainedLoss(1)];
  expect(Math.abs(fullRank - full) / full).toBeLessThan(0.02);
  // The claim is not empty: rank 1 does not get there.
  expect(low).toBeGreaterThan(1.1 * full);
});
