import { checkpoint, grad, nn, optim } from "@lowrank/autograd";
import { compile, type Device, device, Generator, realize, type Tensor, tensor } from "@lowrank/tensor";
import { testDevice } from "test-support";
import { beforeAll, expect, test } from "vitest";

let dev: Device;

beforeAll(async () => {
  dev = await testDevice();
});

/** y = sin(3x) by a small network, from one seed. */
function problem(dropout = 0): { step: (x: Tensor, y: Tensor, learningRate: Tensor) => Tensor; layers: nn.Linear[]; x: Tensor; y: Tensor } {
  const generator = new Generator(dev, 5);
  const layers = [nn.Linear.init(1, 16, { generator }), nn.Linear.init(16, 16, { generator }), nn.Linear.init(16, 1, { generator })];
  const x = generator.uniform([32, 1], -1, 1);
  const y = x.mul(3).sin();
  const optimizer = optim.adamw(layers.flatMap((layer) => layer.parameters()));
  const masks = new Generator(dev, 6);
  const step = (input: Tensor, target: Tensor, learningRate: Tensor): Tensor => {
    const hidden = layers.slice(0, -1).reduce((h, layer) => nn.dropout(layer.forward(h).tanh(), dropout, masks), input);
    const loss = (layers.at(-1) as nn.Linear).forward(hidden).sub(target).square().mean();
    optimizer.update(optim.clipByGlobalNorm(grad(loss, optimizer.parameters), 1), { learningRate });
    return loss;
  };
  return { step, layers, x, y };
}

const schedule = optim.cosine({ peak: 0.02, warmup: 5, steps: 60 });

test("a compiled step gives the losses of eager steps, and trains", async () => {
  const [eager, recorded] = [problem(), problem()];
  const step = compile(recorded.step);
  const losses: [number[], number[]] = [[], []];
  for (let t = 0; t < 60; t++) {
    const rate = (): Tensor => tensor(schedule(t), { device: dev });
    losses[0].push(await eager.step(eager.x, eager.y, rate()).item());
    losses[1].push(await step(recorded.x, recorded.y, rate()).item());
  }
  // The same kernels in another order of fusion: last digits may differ and grow over the steps.
  for (const [t, loss] of losses[0].entries()) expect(Math.abs((losses[1][t] ?? 0) - loss)).toBeLessThan(1e-4 * (1 + loss));
  expect(losses[0][0]).toBeGreaterThan(0.3);
  expect(losses[0].at(-1)).toBeLessThan(0.1);
  const weights = await Promise.all([eager, recorded].map(({ layers }) => (layers[1] as nn.Linear).weight.data()));
  for (const [i, value] of (weights[0] ?? []).entries()) expect(weights[1]?.[i]).toBeCloseTo(value, 2);
});

test("every compiled step draws new dropout masks", async () => {
  const { step, x, y } = problem(0.5);
  const run = compile(step);
  const losses = new Set<number>();
  for (let t = 0; t < 4; t++) losses.add(await run(x, y, tensor(0, { device: dev })).item());
  expect(losses.size).toBe(4);
});

test("checkpointed segments give the same gradients, dropout and captured weights included", async () => {
  const generator = new Generator(dev, 8);
  const [w1, w2] = [generator.normal([6, 6]), generator.normal([6, 6])];
  const x = generator.normal([4, 6]);
  await Promise.all([w1, w2, x].map((t) => t.realize()));
  const masks = () => new Generator(dev, 9);
  const gradients = (wrap: boolean): Promise<ArrayLike<number>[]> => {
    const random = masks();
    const segment = (h: Tensor): Tensor => nn.dropout(h.matmul(w1).tanh(), 0.3, random).matmul(w2).sin();
    const run = (h: Tensor): Tensor => (wrap ? checkpoint(segment, h) : segment(h));
    const loss = run(run(x)).square().sum();
    return Promise.all(grad(loss, [x, w1, w2]).map((t) => t.data()));
  };
  const [plain, recomputed] = [await gradients(false), await gradients(true)];
  for (const [i, values] of plain.entries()) {
    for (let j = 0; j < values.length; j++) {
      const want = values[j] as number;
      expect(Math.abs((recomputed[i]?.[j] as number) - want)).toBeLessThan(1e-4 * (1 + Math.abs(want)));
    }
  }
});

test("checkpointing halves the memory of a deep network's step, or better", async () => {
  const depth = 24;
  const peak = async (every: number): Promise<number> => {
    // One of its own: the memory of plans that ran before serves later ones.
    const own = await device(dev.backend.name === "cpu" ? "cpu" : "webgpu");
    const generator = new Generator(own, 10);
    const weights = Array.from({ length: depth }, () => generator.normal([64, 64], 0, 0.1));
    const x = generator.normal([256, 64]);
    await realize(x, ...weights);
    let h = x;
    for (let from = 0; from < depth; from += every) {
      const segment = (input: Tensor): Tensor => {
        let inner = input;
        for (const w of weights.slice(from, from + every)) inner = inner.matmul(w).sin();
        return inner;
      };
      h = every === 1 ? segment(h) : checkpoint(segment, h);
    }
    const before = own.counters.bytesInUse;
    const step = compile(() => grad(h.square().sum(), weights));
    const gradients = step();
    await realize(...gradients);
    const used = own.counters.bytesInUse - before;
    own.dispose();
    return used;
  };
  const [all, segments] = [await peak(1), await peak(6)];
  expect(all).toBeGreaterThan(0);
  expect(segments).toBeLessThan(0.5 * all);
});

test("a step that gets less memory rematerializes values, and the losses stay the same to the last bit", async () => {
  const run = async (budgetBytes?: number): Promise<{ losses: number[]; peakBytes: number; kernels: number }> => {
    const own = await device(dev.backend.name === "cpu" ? "cpu" : "webgpu", budgetBytes === undefined ? {} : { budgetBytes });
    try {
      const generator = new Generator(own, 5);
      const layers = Array.from({ length: 6 }, () => nn.Linear.init(64, 64, { generator }));
      const optimizer = optim.adamw(layers.flatMap((layer) => layer.parameters()));
      const step = compile((x: Tensor) => {
        const loss = layers
          .reduce((h, layer) => layer.forward(h).tanh().add(h), x)
          .square()
          .mean();
        optimizer.update(grad(loss, optimizer.parameters), { learningRate: tensor(0.01, { device: own }) });
        return loss;
      });
      const x = tensor(new Float32Array(4096 * 64).fill(0.1), { device: own, shape: [4096, 64] });
      const losses: number[] = [];
      for (let t = 0; t < 3; t++) losses.push(await step(x).item());
      const { peakBytes, kernelsRun } = own.counters;
      return { losses, peakBytes, kernels: kernelsRun };
    } finally {
      own.dispose();
    }
  };
  const free = await run();
  const budget = Math.round(free.peakBytes * 0.75);
  const tight = await run(budget);
  expect(tight.peakBytes).toBeLessThanOrEqual(budget);
  expect(tight.kernels).toBeGreaterThan(free.kernels);
  expect(tight.losses).toEqual(free.losses);
});
