import { grad } from "@lowrank/autograd";
import { compile, type Device, realizeNow, type Tensor, tensor } from "@lowrank/tensor";
import { testDevice } from "test-support";
import { beforeAll, describe, expect, test } from "vitest";
import { type Adapter, AdapterError, adapterBatch, applyAdapter, merge, withoutAdapter } from "../src/index.js";
import { rows, TinyModel } from "./tiny.js";

let dev: Device;
beforeAll(async () => {
  dev = await testDevice();
});

const values = async (t: Tensor): Promise<number[]> => Array.from(await t.data());
const expectClose = (found: readonly number[], expected: readonly number[], tolerance: number): void => {
  expect(found.length).toBe(expected.length);
  expect(Math.max(...found.map((value, i) => Math.abs(value - (expected[i] ?? Number.NaN))))).toBeLessThan(tolerance);
};

/** B away from zero, another for each seed. */
function disturb(adapter: Adapter, seed: number): Adapter {
  for (const [name, parameter] of adapter.namedParameters())
    if (name.includes("lora_B")) parameter.assign(rows(dev, parameter.shape[0] ?? 0, parameter.shape[1] ?? 0, seed).mul(0.3));
  realizeNow(adapter.parameters());
  return adapter;
}

/** Adapters of different ranks, scalings and targets. */
function three(model: TinyModel): readonly [Adapter, Adapter, Adapter] {
  return [
    disturb(applyAdapter(model, { method: "lora", rank: 2, alpha: 4, targets: ["q_proj", "c_fc"] }), 5),
    disturb(applyAdapter(model, { method: "lora", rank: 4, alpha: 3, rslora: true, seed: 1, targets: ["c_fc", "lm_head"] }), 6),
    disturb(
      applyAdapter(model, { method: "lora", rank: 1, seed: 2, targets: ["q_proj"], rankPattern: { "0.q_proj": 3 }, dropout: 0.5 }),
      7,
    ),
  ];
}

describe("withoutAdapter", () => {
  test("runs the base bit for bit, and puts all adapters back, also after an error and after a promise", async () => {
    const model = new TinyModel(dev);
    const x = rows(dev, 3, 8, 2);
    const base = await values(model.forward(x));
    const [one, two, off] = three(model);
    off.disable();
    const stacked = await values(model.forward(x));
    expect(await values(withoutAdapter(model, () => model.forward(x)))).toEqual(base);
    expect(await values(model.forward(x))).toEqual(stacked);
    expect(await withoutAdapter(model, async () => values(model.forward(x)))).toEqual(base);
    expect(() =>
      withoutAdapter(model, () => {
        throw new Error("no");
      }),
    ).toThrow("no");
    await expect(withoutAdapter(model, () => Promise.reject(new Error("later")))).rejects.toThrow("later");
    expect([one.isEnabled, two.isEnabled, off.isEnabled]).toEqual([true, true, false]);
    expect(await values(model.forward(x))).toEqual(stacked);
    one.disable();
    two.disable();
    merge(one);
    expect(() => withoutAdapter(model, () => 0)).toThrow(/merged/);
  });

  test("adapters switch and stack: together they add what each adds to a layer alone", async () => {
    const model = new TinyModel(dev, 1, 1);
    const head = { method: "lora", rank: 2, targets: ["lm_head"] } as const;
    const one = disturb(applyAdapter(model, head), 5);
    const two = disturb(applyAdapter(model, { ...head, seed: 3 }), 6);
    const x = rows(dev, 3, 8, 2);
    const both = await values(model.forward(x));
    one.disable();
    const second = await values(model.forward(x));
    two.disable();
    const base = await values(model.forward(x));
    one.enable();
    const first = await values(model.forward(x));
    expectClose(
      both,
      first.map((value, i) => value + (second[i] ?? 0) - (base[i] ?? 0)),
      1e-5,
    );
  });
});

describe("adapterBatch", () => {
  test.each([
    ["a position a row", [6, 8]],
    ["several positions a row", [6, 5, 8]],
  ] as const)("a mixed batch equals its rows one by one: %s", async (_, shape) => {
    const model = new TinyModel(dev);
    const adapters = three(model);
    for (const adapter of adapters) adapter.disable();
    const x = await rows(
      dev,
      6,
      shape.slice(1).reduce<number>((a, b) => a * b, 1),
      2,
    )
      .reshape([...shape])
      .realize();
    const chosen = [2, 0, null, 1, 1, 0];
    const alone: number[] = [];
    for (const [row, index] of chosen.entries()) {
      const adapter = index === null ? null : adapters[index];
      adapter?.enable();
      alone.push(...(await values(model.forward(x.narrow(0, row, 1)))));
      adapter?.disable();
    }
    const batch = adapterBatch(model, adapters, chosen);
    expectClose(await values(model.forward(x)), alone, 1e-5);
    expect(await values(withoutAdapter(model, () => model.forward(x)))).not.toEqual(await values(model.forward(x)));
    batch.disable();
    const base = await values(model.forward(x));
    expect([...model.namedModules().values()].every(({ wrappers }) => wrappers.length === 0)).toBe(true);
    // The row without an adapter is the base's.
    const size = base.length / 6;
    expectClose(alone.slice(2 * size, 3 * size), base.slice(2 * size, 3 * size), 1e-6);
  });

  test("one recording of a compiled function serves every mix, with rows as its argument and by choose", async () => {
    const model = new TinyModel(dev);
    const adapters = three(model);
    const x = await rows(dev, 3, 8, 2).realize();
    const batch = adapterBatch(model, adapters, [0, 0, 0]);
    let recordings = 0;
    const mixed = compile((input: Tensor, chosen: Tensor) => {
      recordings++;
      return batch.withRows(chosen, () => model.forward(input));
    });
    let followed = 0;
    const follow = compile((input: Tensor) => {
      followed++;
      return model.forward(input);
    });
    for (const chosen of [
      [0, 1, 2],
      [2, null, 0],
      [1, 1, null],
    ]) {
      batch.choose(chosen);
      const plain = await values(model.forward(x));
      expectClose(await values(follow(x)), plain, 1e-5);
      const indices = tensor(
        chosen.map((row) => row ?? -1),
        { device: dev, dtype: "i32" },
      );
      expectClose(await values(mixed(x, indices)), plain, 1e-5);
    }
    expect([recordings, followed]).toEqual([1, 1]);
  });

  test("gradients of the input go through each row's own adapter", async () => {
    const model = new TinyModel(dev);
    const adapters = three(model);
    const x = await rows(dev, 2, 8, 2).realize();
    const batch = adapterBatch(model, adapters, [1, 0]);
    const [mixed = x] = grad(model.forward(x).square().sum(), [x]);
    const found = await values(mixed);
    batch.disable();
    for (const [row, index] of [1, 0].entries()) {
      adapters[index]?.enable();
      const [own = x] = grad(model.forward(x).square().sum(), [x]);
      expectClose(found.slice(8 * row, 8 * row + 8), (await values(own)).slice(8 * row, 8 * row + 8), 1e-4);
      adapters[index]?.disable();
    }
  });

  test("the batch reads the values that the adapters have when it is put in, and takes another number of rows", async () => {
    const model = new TinyModel(dev);
    const [one, two] = three(model);
    const batch = adapterBatch(model, [one, two], [0, 1]);
    const x = rows(dev, 2, 8, 2);
    const before = await values(model.forward(x));
    disturb(one, 9);
    batch.disable();
    batch.enable();
    expect(await values(model.forward(x))).not.toEqual(before);
    batch.choose([0, 1, null]);
    expect((await values(model.forward(rows(dev, 3, 8, 2)))).length).toBe(15);
    expect(() => model.forward(rows(dev, 2, 8, 2))).toThrow(/3 rows were chosen, and the batch has 2/);
  });

  test("refused: an index too large, other models, other methods, merged adapters", () => {
    const model = new TinyModel(dev);
    const [one, two, other] = three(model);
    other.disable();
    expect(() => adapterBatch(model, [one, two], [0, 2])).toThrow(/rows are \[0, 2\], and there are 2 adapters/);
    expect(() => adapterBatch(model, [], [0])).toThrow(AdapterError);
    expect(() => adapterBatch(new TinyModel(dev), [one], [0])).toThrow(/on the model given/);
    two.disable();
    const dora = applyAdapter(model, { method: "dora", rank: 2, targets: ["q_proj"] });
    expect(() => adapterBatch(model, [one, dora], [0, 1])).toThrow(/method "dora"/);
    dora.disable();
    merge(one);
    expect(() => adapterBatch(model, [one], [0])).toThrow(/merged/);
  });
});
