// Laws of the methods that are not LoRA, on a small model that has layers of both layouts, biases and norms.
import { grad, nn, optim } from "@lowrank/autograd";
import { compile, type Device, device, memoryFiles, realizeNow, type Tensor } from "@lowrank/tensor";
import { beforeAll, describe, expect, test } from "vitest";
import { type Adapter, AdapterError, type AdapterOptions, applyAdapter, loadAdapter, merge, saveAdapter, unmerge } from "../src/index.js";
import { cayley, cayleyNeumann, skewSymmetric } from "../src/methods/rotation.js";
import { rows, TinyModel } from "./tiny.js";

let dev: Device;
beforeAll(async () => {
  dev = await device("reference");
});

/** TinyModel behind a norm. */
class NormedModel extends TinyModel {
  readonly norm: nn.LayerNorm;

  constructor(on: Device) {
    super(on);
    this.norm = nn.LayerNorm.init(8, { device: on });
  }

  override forward(x: Tensor): Tensor {
    return super.forward(this.norm.forward(x));
  }
}

const quiet = { onWarning: (): void => undefined };
const values = async (t: Tensor): Promise<number[]> => Array.from(await t.data());
const expectClose = (a: readonly number[], b: readonly number[], tolerance: number): void => {
  expect(a.length).toBe(b.length);
  expect(Math.max(0, ...a.map((value, i) => Math.abs(value - (b[i] ?? Number.NaN))))).toBeLessThan(tolerance);
};
const targets = ["q_proj", "c_fc"];
const methodOptions: readonly AdapterOptions[] = [
  { method: "ia3", targets, feedforward: ["c_fc"] },
  { method: "ia3", targets: "all-linear", feedforward: ["q_proj"] },
  { method: "norms", targets: ["norm"] },
  { method: "norms", targets: ["layers.1"] },
  { method: "bitfit" },
  { method: "vera", rank: 3, targets },
  { method: "vera", rank: 3, saveProjection: false, projectionKey: 5, targets },
  { method: "loha", rank: 2, targets },
  { method: "lokr", rank: 1, targets, decomposeBoth: true },
  { method: "lokr", rank: 4, targets, init: "lycoris" },
  { method: "oft", blockSize: 4, targets },
  { method: "oft", blocks: 2, targets, neumannTerms: 0, shared: true },
  { method: "oft", blockSize: 3, targets, constrained: true, epsilon: 0.3 },
  { method: "adalora", initRank: 3, targetRank: 2, totalSteps: 6, finalSteps: 2, targets },
];
const named = methodOptions.map((options) => [Object.values(options).map(String).join(" "), options] as const);

/** Every parameter away from its first value. */
function disturb(adapter: Adapter): void {
  for (const [name, parameter] of adapter.namedParameters()) {
    parameter.assign(parameter.add(rows(dev, parameter.size, 1, name.length).mul(0.2).reshape(parameter.shape)));
  }
  realizeNow(adapter.parameters());
}

const weightsOf = async (model: TinyModel): Promise<number[]> => (await Promise.all(model.parameters().map(values))).flat();

describe.each(named)("%s", (_, options) => {
  test("at first the output is the base's; disabled it is so bit for bit", async () => {
    const model = new NormedModel(dev);
    const x = rows(dev, 3, 8, 2);
    const base = await values(model.forward(x));
    const adapter = applyAdapter(model, options);
    expectClose(await values(model.forward(x)), base, 1e-6);
    disturb(adapter);
    expect(await values(model.forward(x))).not.toEqual(base);
    adapter.disable();
    expect(await values(model.forward(x))).toEqual(base);
  });

  test("merged it computes the same; unmerged the weights are as they were", async () => {
    const model = new NormedModel(dev);
    const x = rows(dev, 3, 8, 2);
    const before = await weightsOf(model);
    const adapter = applyAdapter(model, options);
    disturb(adapter);
    const unmerged = await values(model.forward(x));
    merge(adapter);
    expect(await weightsOf(model)).not.toEqual(before);
    expectClose(await values(model.forward(x)), unmerged, 1e-5);
    unmerge(adapter);
    expectClose(await weightsOf(model), before, 1e-6);
    expectClose(await values(model.forward(x)), unmerged, 1e-5);
  });

  test("saved and loaded it computes the same, and saves the same bytes again", async () => {
    const x = rows(dev, 3, 8, 2);
    const model = new NormedModel(dev);
    const adapter = applyAdapter(model, options);
    disturb(adapter);
    const files = memoryFiles();
    await saveAdapter(adapter, "a", { files });
    const other = new NormedModel(dev);
    const again = await loadAdapter(other, "a", { files, ...quiet });
    expect(again.method.name).toBe(options.method);
    // The reference device keeps in float64 what a file rounds to f32.
    expectClose(await values(other.forward(x)), await values(model.forward(x)), 1e-6);
    await saveAdapter(again, "b", { files });
    for (const name of ["adapter_model.safetensors", "adapter_config.json"])
      expect(files.files.get(`b/${name}`)).toEqual(files.files.get(`a/${name}`));
  });

  test("training changes the adapter's parameters and none of the base's", async () => {
    const model = new NormedModel(dev);
    const before = await weightsOf(model);
    const adapter = applyAdapter(model, options);
    disturb(adapter);
    const start = await Promise.all(adapter.parameters().map(values));
    await train(model, adapter, 1, 2);
    expect(await weightsOf(model)).toEqual(before);
    for (const [i, parameter] of adapter.parameters().entries()) expect(await values(parameter)).not.toEqual(start[i]);
  });
});

/** Steps `from` to `to` on one batch, with what the method asks of training. */
async function train(model: TinyModel, adapter: Adapter, from: number, to: number): Promise<void> {
  const { training: rules } = adapter;
  const parameters = adapter.namedParameters();
  const optimizer = optim.sgd(parameters, { learningRate: 0.05 });
  const [x, y] = [await rows(dev, 3, 8, 2).realize(), await rows(dev, 3, 5, 3).realize()];
  const step = compile((input: Tensor) => {
    const loss = rules.regularization ? model.loss(input, y).add(rules.regularization()) : model.loss(input, y);
    const grads = grad(loss, [...parameters.values()]);
    rules.beforeUpdate?.();
    optimizer.update(grads);
    rules.afterUpdate?.(new Map([...parameters.keys()].map((name, i) => [name, grads[i] as Tensor]))); // one a parameter
    return loss;
  });
  for (let i = from; i <= to; i++) {
    await step(x).item();
    await rules.afterStep?.(i);
  }
  step.dispose();
}

test("AdaLoRA's allocation resumed from its state goes on to the same tensors and ranks", async () => {
  const options = { method: "adalora", initRank: 3, targetRank: 2, totalSteps: 6, finalSteps: 2, targets } as const;
  const whole = new TinyModel(dev);
  const wholeAdapter = applyAdapter(whole, options);
  disturb(wholeAdapter);
  await train(whole, wholeAdapter, 1, 6);

  const first = new TinyModel(dev);
  const firstAdapter = applyAdapter(first, options);
  disturb(firstAdapter);
  await train(first, firstAdapter, 1, 3);
  const second = new TinyModel(dev);
  const secondAdapter = applyAdapter(second, options);
  const pairs = [
    ...[...firstAdapter.namedParameters()].map(([name, from]) => [from, secondAdapter.namedParameters().get(name)] as const),
    ...[...(firstAdapter.training.state?.() ?? [])].map(([name, from]) => [from, secondAdapter.training.state?.().get(name)] as const),
  ];
  for (const [from, to] of pairs) to?.assign(from);
  realizeNow(pairs.flatMap(([, to]) => (to ? [to] : [])));
  await secondAdapter.training.restored?.();
  const shapes = (adapter: Adapter): string[] => [...adapter.savedTensors()].map(([name, { shape }]) => `${name} ${shape.join()}`);
  expect(shapes(secondAdapter)).toEqual(shapes(firstAdapter));
  await train(second, secondAdapter, 4, 6);

  expect(shapes(secondAdapter)).toEqual(shapes(wholeAdapter));
  expect([...wholeAdapter.savedTensors()].filter(([name]) => name.endsWith("lora_E")).reduce((sum, [, { size }]) => sum + size, 0)).toBe(8);
  const saved = wholeAdapter.savedTensors();
  for (const [name, value] of secondAdapter.savedTensors()) {
    const other = saved.get(name);
    if (other && value.size > 0) expect(await values(value)).toEqual(await values(other));
  }
});

test("Cayley's transform is orthogonal, its gradient the true one, and the series approaches it", async () => {
  const triangles = await rows(dev, 2, 6, 4).mul(0.5).realize();
  const skew = skewSymmetric(4, dev);
  const rotations = cayley(skew.of(triangles));
  const identity = [...Array(2)].flatMap(() => [1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1]);
  expectClose(await values(rotations.matmul(rotations.transpose(1, 2))), identity, 1e-6);
  const small = skew.of(triangles.mul(0.1));
  // The first term left out, 2 ‖Q‖¹¹ and below.
  expectClose(await values(cayleyNeumann(small, 11)), await values(cayley(small.neg())), 1e-6);
  const weights = await rows(dev, 2, 16, 9).realize();
  const measure = (t: Tensor): Tensor =>
    cayley(skew.of(t))
      .mul(weights.reshape([2, 4, 4]))
      .sum();
  const [gradient] = grad(measure(triangles), [triangles]);
  if (!gradient) expect.fail("no gradient");
  const direction = await rows(dev, 2, 6, 7).realize();
  const along = await gradient.mul(direction).sum().item();
  const measured =
    ((await measure(triangles.add(direction.mul(1e-3))).item()) - (await measure(triangles.sub(direction.mul(1e-3))).item())) / 2e-3;
  expect(Math.abs(measured - along)).toBeLessThan(1e-3 * Math.max(1, Math.abs(along)));
});

describe("bad options are refused", () => {
  const cases: readonly [string, AdapterOptions, RegExp][] = [
    ["AdaLoRA without its length", { method: "adalora", targets }, /totalSteps is missing/],
    ["AdaLoRA without a step to change ranks in", { method: "adalora", targets, totalSteps: 3, finalSteps: 3 }, /leave no step/],
    ["OFT with blocks and their size", { method: "oft", targets, blocks: 2, blockSize: 4 }, /blocks is 2 and blockSize is 4/],
    [
      "feed-forward layers that are no targets",
      { method: "ia3", targets, feedforward: ["lm_head"] },
      /names lm_head, which targets do not/,
    ],
    ["norms that do not exist", { method: "norms", targets: ["ln_9"] }, /match no module/],
    ["a rank of half", { method: "loha", targets, rank: 0.5 }, /rank is 0\.5/],
    ["a factor of zero", { method: "lokr", targets, decomposeFactor: 0 }, /decomposeFactor is 0/],
  ];
  test.each(cases)("%s", (_, options, message) => {
    const attempt = (): Adapter => applyAdapter(new NormedModel(dev), options);
    expect(attempt).toThrow(AdapterError);
    expect(attempt).toThrow(message);
  });
});
