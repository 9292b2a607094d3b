import { grad, optim } from "@lowrank/autograd";
import { CheckpointError, type Device, device, ShapeError, type Tensor, tensor } from "@lowrank/tensor";
import { beforeAll, describe, expect, test } from "vitest";

let dev: Device;

beforeAll(async () => {
  dev = await device("reference");
});

const start = [0.5, -1.5, 2];
/** Gradients of step t: any fixed numbers, of different sizes. */
const gradientAt = (t: number): number[] => start.map((_, i) => Math.fround(Math.sin(3 * t + i) * 10 ** (i - 1)));
const steps = 12;

/** Runs an optimizer on the gradients above and reads the parameter. */
async function run(make: (parameter: Tensor) => optim.Optimizer, learningRate?: (t: number) => number): Promise<number[]> {
  const parameter = tensor(start, { device: dev });
  const optimizer = make(parameter);
  for (let t = 0; t < steps; t++) {
    optimizer.update(
      [tensor(gradientAt(t), { device: dev })],
      learningRate ? { learningRate: tensor(learningRate(t), { device: dev }) } : {},
    );
    await parameter.realize();
  }
  return Array.from(await parameter.data());
}

/** One parameter element after all steps, by a loop in float64 numbers. */
type Loop = (p: number, gradient: (t: number) => number) => number;

const adamwLoop =
  ({ rate = 1e-3, beta1 = 0.9, beta2 = 0.999, eps = 1e-8, decay = 0.01, at = (_t: number): number => rate }): Loop =>
  (p, gradient) => {
    let [m, v] = [0, 0];
    for (let t = 0; t < steps; t++) {
      const g = gradient(t);
      p *= 1 - at(t) * decay;
      m = beta1 * m + (1 - beta1) * g;
      v = beta2 * v + (1 - beta2) * g * g;
      p -= ((at(t) / (1 - beta1 ** (t + 1))) * m) / (Math.sqrt(v) / Math.sqrt(1 - beta2 ** (t + 1)) + eps);
    }
    return p;
  };

/** transformers' old AdamW: eps beside the uncorrected root, and the decay last. */
const oldAdamwLoop =
  ({ rate = 1e-3, beta1 = 0.9, beta2 = 0.999, eps = 1e-6, decay = 0 }): Loop =>
  (p, gradient) => {
    let [m, v] = [0, 0];
    for (let t = 0; t < steps; t++) {
      const g = gradient(t);
      m = beta1 * m + (1 - beta1) * g;
      v = beta2 * v + (1 - beta2) * g * g;
      p -= ((rate * Math.sqrt(1 - beta2 ** (t + 1))) / (1 - beta1 ** (t + 1))) * (m / (Math.sqrt(v) + eps));
      p -= rate * decay * p;
    }
    return p;
  };

const sgdLoop =
  ({ rate = 1e-3, momentum = 0, nesterov = false, decay = 0 }): Loop =>
  (p, gradient) => {
    let buffer = 0;
    for (let t = 0; t < steps; t++) {
      const g = gradient(t) + decay * p;
      buffer = t === 0 ? g : momentum * buffer + g;
      p -= rate * (momentum === 0 ? g : nesterov ? g + momentum * buffer : buffer);
    }
    return p;
  };

const falling = (t: number): number => Math.fround(0.02 / (t + 1));

describe.each<[string, (p: Tensor) => optim.Optimizer, Loop, ((t: number) => number)?]>([
  ["adamw", (p) => optim.adamw([p]), adamwLoop({})],
  [
    "adamw with settings of its own",
    (p) => optim.adamw([p], { learningRate: 0.03, betas: [0.8, 0.95], eps: 1e-4, weightDecay: 0.1 }),
    adamwLoop({ rate: 0.03, beta1: 0.8, beta2: 0.95, eps: 1e-4, decay: 0.1 }),
  ],
  ["adamw with a learning rate that falls", (p) => optim.adamw([p]), adamwLoop({ at: falling }), falling],
  [
    "adamw with a group",
    (p) => optim.adamw([{ parameters: [p], learningRateFactor: 16, weightDecay: 0 }], { learningRate: 0.01 }),
    adamwLoop({ rate: 0.16, decay: 0 }),
  ],
  [
    "adamw in transformers' form",
    (p) => optim.adamw([p], { learningRate: 0.03, eps: 1e-3, weightDecay: 0.1, form: "transformers" }),
    oldAdamwLoop({ rate: 0.03, eps: 1e-3, decay: 0.1 }),
  ],
  ["sgd", (p) => optim.sgd([p], { learningRate: 0.1 }), sgdLoop({ rate: 0.1 })],
  ["sgd with momentum", (p) => optim.sgd([p], { learningRate: 0.1, momentum: 0.9 }), sgdLoop({ rate: 0.1, momentum: 0.9 })],
  [
    "sgd with Nesterov's momentum and decay",
    (p) => optim.sgd([p], { learningRate: 0.1, momentum: 0.9, nesterov: true, weightDecay: 0.1 }),
    sgdLoop({ rate: 0.1, momentum: 0.9, nesterov: true, decay: 0.1 }),
  ],
  ["sgd with a group", (p) => optim.sgd([{ parameters: [p], learningRateFactor: 2 }], { learningRate: 0.1 }), sgdLoop({ rate: 0.2 })],
])("%s", (_name, make, loop, learningRate) => {
  test("moves a parameter as torch's formula does in float64", async () => {
    const got = await run(make, learningRate);
    for (const [i, p] of start.entries()) {
      const want = loop(p, (t) => gradientAt(t)[i] as number);
      // Reading rounds to f32.
      expect(Math.abs((got[i] as number) - want)).toBeLessThan(2e-7 * (1 + Math.abs(want)));
    }
  });
});

describe("an optimizer", () => {
  const make = (): { w: Tensor; b: Tensor; optimizer: optim.Optimizer } => {
    const w = tensor([1, 2], { device: dev });
    const b = tensor([3], { device: dev });
    return {
      w,
      b,
      optimizer: optim.adamw(
        new Map([
          ["layer.w", w],
          ["layer.b", b],
        ]),
      ),
    }; // prettier-ignore
  };
  const stepOf = ({ w, b, optimizer }: ReturnType<typeof make>): void => {
    const loss = w.square().sum().mul(b.sum());
    optimizer.update(grad(loss, optimizer.parameters));
  };

  test("goes on exactly from a saved state", async () => {
    const [whole, first, second] = [make(), make(), make()];
    for (let t = 0; t < 4; t++) stepOf(whole);
    for (let t = 0; t < 2; t++) stepOf(first);
    const state = new Map<string, Tensor>();
    for (const [name, t] of first.optimizer.state()) state.set(name, tensor(Array.from(await t.data()), { device: dev, shape: t.shape }));
    second.w.assign(tensor(Array.from(await first.w.data()), { device: dev }));
    second.b.assign(tensor(Array.from(await first.b.data()), { device: dev }));
    second.optimizer.load(state);
    for (let t = 0; t < 2; t++) stepOf(second);
    const [want, got] = [await whole.w.data(), await second.w.data()];
    for (const [i, value] of want.entries()) expect(got[i]).toBeCloseTo(value, 6);
  });

  test("names its state by parameter and counts its bytes", () => {
    const { optimizer } = make();
    expect([...optimizer.state().keys()].sort()).toEqual(
      ["bias_correction1", "bias_correction2", "exp_avg.layer.b", "exp_avg.layer.w", "exp_avg_sq.layer.b", "exp_avg_sq.layer.w"].sort(),
    );
    expect(optimizer.stateBytes).toBe(2 * 3 * 4 + 2 * 4);
  });

  test("refuses the state of other parameters, gradients that do not fit, and a parameter given twice", () => {
    const { w, b, optimizer } = make();
    expect(() => optimizer.load(optim.sgd([w], { momentum: 0.9 }).state())).toThrow(CheckpointError);
    expect(() =>
      optimizer.load(
        optim
          .adamw(
            new Map([
              ["layer.w", b],
              ["layer.b", w],
            ]),
          )
          .state(),
      ),
    ).toThrow("exp_avg.layer.w is [1]"); // prettier-ignore
    expect(() => optimizer.update([w])).toThrow("adamw: 1 gradients for 2 parameters");
    expect(() => optimizer.update([b, w])).toThrow("adamw: gradient [1] does not fit parameter layer.w [2]");
    expect(() => optim.sgd([w, w])).toThrow(ShapeError);
  });

  test("keeps a parameter's stored dtype", async () => {
    const p = tensor([1, 2], { device: dev, dtype: "bf16" });
    optim.sgd([p], { learningRate: 0.5 }).update([tensor([1, 1], { device: dev })]);
    expect([...(await p.data())]).toEqual([0.5, 1.5]);
    expect(p.dtype).toBe("bf16");
  });
});

describe("clipByGlobalNorm", () => {
  const gradients = (): Tensor[] => [tensor([3, 0], { device: dev }), tensor([[4]], { device: dev })];

  test.each([
    [10, 1],
    [2.5, 2.5 / (5 + 1e-6)],
  ])("to %f scales by min(1, maxNorm / (norm + 1e-6))", async (maxNorm, factor) => {
    const [a, b] = optim.clipByGlobalNorm(gradients(), maxNorm);
    expect(await b?.item()).toBeCloseTo(4 * factor, 6);
    expect((await a?.data())?.[0]).toBeCloseTo(3 * factor, 6);
  });

  test("the norm is that of all tensors together", async () => {
    expect(await optim.globalNorm(gradients()).item()).toBe(5);
  });
});

test.each([
  ["constant", optim.constant({ peak: 2, warmup: 4 }), [0, 0.5, 1, 1.5, 2, 2, 2, 2, 2]],
  ["linear", optim.linear({ peak: 2, warmup: 2, steps: 6 }), [0, 1, 2, 1.5, 1, 0.5, 0, 0]],
  ["cosine", optim.cosine({ peak: 2, warmup: 2, steps: 6 }), [0, 1, 2, 1 + Math.SQRT1_2, 1, 1 - Math.SQRT1_2, 0]],
  ["linear without warm-up", optim.linear({ peak: 1, steps: 4 }), [1, 0.75, 0.5, 0.25, 0]],
] as const)("the %s schedule follows transformers' formula", (_name, schedule, want) => {
  for (const [step, value] of want.entries()) expect(schedule(step)).toBeCloseTo(value, 12);
});
