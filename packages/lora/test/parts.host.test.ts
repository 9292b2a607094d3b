import { grad, nn } from "@lowrank/autograd";
import { type Device, device, Generator, memoryFiles, realizeNow, type Tensor } from "@lowrank/tensor";
import { beforeAll, describe, expect, test } from "vitest";
import { type Adapter, AdapterError, type AdapterOptions, applyAdapter, loadAdapter, merge, saveAdapter, unmerge } from "../src/index.js";
import { rows } from "./tiny.js";

let dev: Device;
beforeAll(async () => {
  dev = await device("reference");
});

/** GPT-2's: queries, keys and values of all heads. */
const thirds = ["q", "k", "v"].map((name, i) => ({ name, start: 8 * i, size: 8 }));

/** Two blocks with GPT-2's fused projection, weight [8, 24], of which all three parts matter. */
class Fused extends nn.Module {
  readonly h: Block[];

  constructor() {
    super();
    const generator = new Generator(dev, 1);
    this.h = Array.from({ length: 2 }, () => new Block(generator));
  }

  forward(x: Tensor): Tensor {
    return this.h.reduce((hidden, block) => block.forward(hidden), x);
  }
}

class Block extends nn.Module {
  readonly c_attn: nn.Linear;
  readonly c_proj: nn.Linear;

  constructor(generator: Generator) {
    super();
    this.c_attn = new nn.Linear(generator.normal([8, 24], 0, 0.3), generator.normal([24], 0, 0.3), {
      isTransposed: true,
      fusedParts: thirds,
    });
    this.c_proj = new nn.Linear(generator.normal([8, 8], 0, 0.3), generator.normal([8]), { isTransposed: true });
    realizeNow([this.c_attn.weight, this.c_proj.weight]);
  }

  forward(x: Tensor): Tensor {
    const [q, k, v] = this.c_attn.forward(x).split(3, -1) as [Tensor, Tensor, Tensor];
    return x.add(this.c_proj.forward(q.mul(k.tanh()).add(v)));
  }
}

const values = async (t: Tensor): Promise<number[]> => Array.from(await t.data());
const distance = async (a: Tensor, b: readonly number[]): Promise<number> =>
  Math.max(...(await values(a)).map((value, i) => Math.abs(value - (b[i] ?? Number.NaN))));

function disturb(adapter: Adapter): void {
  let seed = 5;
  for (const parameter of adapter.parameters()) parameter.assign(new Generator(dev, seed++).normal([...parameter.shape], 0, 0.3));
  realizeNow(adapter.parameters());
}

type Given = Partial<Extract<AdapterOptions, { method: "lora" }>>;
const apply = (model: Fused, given: Given = {}): Adapter =>
  applyAdapter(model, { method: "lora", rank: 2, alpha: 3, targets: ["c_attn.q", "c_attn.v"], ...given } as AdapterOptions);

test("only the parts that are named have parameters, and only their outputs change", async () => {
  const model = new Fused();
  const [block] = model.h;
  const x = rows(dev, 3, 8, 2);
  const base = await values(model.forward(x));
  const before = await block?.c_attn.forward(x).data();
  const adapter = apply(model, { targets: ["h.0.c_attn.q", "h.0.c_attn.v"] });
  expect([...adapter.namedParameters()].map(([name, { shape }]) => `${name} ${shape.join("x")}`)).toEqual([
    "base_model.model.h.0.c_attn.q.lora_A.weight 2x8",
    "base_model.model.h.0.c_attn.q.lora_B.weight 8x2",
    "base_model.model.h.0.c_attn.v.lora_A.weight 2x8",
    "base_model.model.h.0.c_attn.v.lora_B.weight 8x2",
  ]);
  expect(await values(model.forward(x))).toEqual(base);
  disturb(adapter);
  const after = await block?.c_attn.forward(x).data();
  const changed = Array.from({ length: 24 }, (_, i) => before?.[i] !== after?.[i]);
  expect(changed).toEqual(Array.from({ length: 24 }, (_, i) => i < 8 || i >= 16));
  adapter.disable();
  expect(await values(model.forward(x))).toEqual(base);
});

test("a part equals a pair on the whole layer whose B is zero elsewhere, gradients too", async () => {
  const x = rows(dev, 3, 8, 2);
  const parts = new Fused();
  const whole = new Fused();
  const onParts = apply(parts, { targets: ["c_attn.k"] });
  const onWhole = apply(whole, { targets: ["c_attn"] });
  disturb(onParts);
  const named = onParts.savedTensors();
  for (const [name, parameter] of onWhole.namedParameters()) parameter.assign(named.get(name) ?? expect.fail(name));
  realizeNow(onWhole.parameters());
  expect(await distance(parts.forward(x), await values(whole.forward(x)))).toBeLessThan(1e-9);
  const [a] = grad(parts.forward(x).square().sum(), onParts.parameters());
  const [wholeA] = grad(whole.forward(x).square().sum(), onWhole.parameters());
  expect(await distance(a ?? expect.fail(), await values(wholeA ?? expect.fail()))).toBeLessThan(1e-6);
});

test("merged and unmerged", async () => {
  const model = new Fused();
  const x = rows(dev, 3, 8, 2);
  const weights = async (): Promise<number[]> => (await Promise.all(model.parameters().map(values))).flat();
  const before = await weights();
  const adapter = apply(model);
  disturb(adapter);
  const wanted = await values(model.forward(x));
  merge(adapter);
  expect(await distance(model.forward(x), wanted)).toBeLessThan(1e-6);
  unmerge(adapter);
  expect(await distance(model.forward(x), wanted)).toBeLessThan(1e-6);
  expect(Math.max(...(await weights()).map((value, i) => Math.abs(value - (before[i] ?? Number.NaN))))).toBeLessThan(1e-6);
});

describe("saved as a pair on the whole layer, which computes the same", () => {
  const cases: readonly [string, Given, Record<string, unknown>][] = [
    ["two parts of every layer", {}, { r: 4, lora_alpha: 6, rank_pattern: {}, target_modules: ["h.0.c_attn", "h.1.c_attn"] }],
    ["scaled by the root of the rank", { rslora: true }, { r: 4, lora_alpha: 3 * Math.SQRT2, use_rslora: true }],
    ["in one layer only", { layers: 1, layersPattern: "h" }, { target_modules: ["h.1.c_attn"], layers_to_transform: null }],
    [
      "beside another layer",
      { targets: ["c_attn.q", "c_attn.v", "c_proj"], rankPattern: { c_proj: 1 } },
      {
        r: 2,
        rank_pattern: { "h.0.c_attn": 4, "h.1.c_attn": 4, c_proj: 1 },
        alpha_pattern: { "h.0.c_attn": 6, "h.1.c_attn": 6 },
      },
    ],
    [
      "another rank in one layer",
      { rankPattern: { "h.1.c_attn.[qv]": 3 } },
      { rank_pattern: { "h.0.c_attn": 4, "h.1.c_attn": 6, "h.1.c_attn.[qv]": 3 } },
    ],
  ];
  test.each(cases)("%s", async (_, given, config) => {
    const model = new Fused();
    const x = rows(dev, 3, 8, 2);
    const adapter = apply(model, given);
    disturb(adapter);
    const files = memoryFiles();
    await saveAdapter(adapter, "a", { files });
    expect(JSON.parse(new TextDecoder().decode(files.files.get("a/adapter_config.json")))).toMatchObject({
      fan_in_fan_out: true,
      ...config,
    });
    const again = new Fused();
    await loadAdapter(again, "a", { files });
    expect(await distance(again.forward(x), await values(model.forward(x)))).toBeLessThan(1e-5);
  });
});

describe("what no one pair can say is refused, and nothing is changed", () => {
  const cases: readonly [string, object, RegExp][] = [
    ["DoRA", { method: "dora" }, /h\.0\.c_attn: DoRA's norms are of whole layers/],
    ["dropout", { dropout: 0.1 }, /dropout of their own/],
    ["a bias in B", { loraBias: true }, /loraBias is for whole layers/],
    ["other ranks", { rankPattern: { "c_attn.q": 3 } }, /h\.0\.c_attn\.q and h\.0\.c_attn\.v have ranks 3, 2 and alphas 3, 3/],
    ["the whole layer as well", { targets: ["c_attn", "c_attn.q"] }, /name h\.0\.c_attn and its part h\.0\.c_attn\.q/],
    ["a part of what is not fused", { targets: ["c_proj.q"] }, /"c_proj\.q" match no/],
    ["a part that there is not", { targets: ["c_attn.x"] }, /"c_attn\.x" match no/],
  ];
  test.each(cases)("%s", (_, given, message) => {
    const model = new Fused();
    expect(() => apply(model, given as Given)).toThrow(AdapterError);
    expect(() => apply(model, given as Given)).toThrow(message);
    expect([...model.namedModules().values()].every(({ wrappers }) => wrappers.length === 0)).toBe(true);
  });
});

test("LoRA-FA trains B of each part along the gradient that makes up for a fixed A", async () => {
  const model = new Fused();
  const adapter = applyAdapter(model, { method: "lora", rank: 2, alpha: 6, freezeA: true, targets: ["c_attn.q", "c_attn.v"] });
  await adapter.initialize();
  const named = adapter.namedParameters();
  expect([...named.keys()].map((name) => name.replace(/.*c_attn\./, ""))).toEqual(
    Array.from({ length: 2 }, () => ["q.lora_B.weight", "v.lora_B.weight"]).flat(),
  );
  const gradients = grad(
    model
      .forward(rows(dev, 4, 8, 2))
      .square()
      .mean(),
    [...named.values()],
  );
  const given = new Map([...named.keys()].map((name, i) => [name, gradients[i] as Tensor] as const)); // one a parameter
  const changed = adapter.training.changeGradients?.(given) ?? expect.fail("no rule");
  const tensors = adapter.namedTensors();
  for (const [name, gradient] of given) {
    const a = tensors.get(name.replace("lora_B", "lora_A")) ?? expect.fail(name);
    // g (A Aᵀ) s² is the gradient again.
    const back = (changed.get(name) ?? expect.fail(name)).matmul(a.matmul(a.t())).mul(9);
    expect(await distance(back, await values(gradient)), name).toBeLessThan(1e-5);
  }
});

test.each(["pissa", "olora", "eva"] as const)('init "%s" needs a whole weight', (init) => {
  expect(() => applyAdapter(new Fused(), { method: "lora", rank: 2, init, targets: ["c_attn.q"] })).toThrow(/needs a whole weight/);
});

describe("a part of a fused layer whose parts", () => {
  const kinds = {
    "are of several sizes": [
      { name: "q", start: 0, size: 12 },
      { name: "k", start: 12, size: 4 },
      { name: "v", start: 16, size: 4 },
    ],
    "lie beside each other head by head": [
      { name: "q", start: 0, size: 6, period: 10 },
      { name: "k", start: 6, size: 2, period: 10 },
      { name: "v", start: 8, size: 2, period: 10 },
    ],
  };
  /** Outputs of each part, by their places in the layer. */
  const places = (parts: (typeof kinds)[keyof typeof kinds], name: string): number[] =>
    Array.from({ length: 20 }, (_, i) => i).filter((i) =>
      parts.some(({ name: own, start, size, ...more }) => {
        const at = "period" in more ? i % Number(more.period) : i;
        return own === name && at >= start && at < start + size;
      }),
    );
  class One extends nn.Module {
    readonly qkv: nn.Linear;
    constructor(fusedParts: (typeof kinds)[keyof typeof kinds], isTransposed: boolean) {
      super();
      const generator = new Generator(dev, 3);
      const weight = generator.normal(isTransposed ? [8, 20] : [20, 8], 0, 0.3);
      this.qkv = new nn.Linear(weight, generator.normal([20]), { isTransposed, fusedParts });
      realizeNow([this.qkv.weight]);
    }
    forward(x: Tensor): Tensor {
      return this.qkv.forward(x);
    }
  }
  test.each(Object.entries(kinds).flatMap(([name, parts]) => [true, false].map((isTransposed) => [name, isTransposed, parts] as const)))(
    "%s (transposed: %s) changes its own outputs, merges, and is saved as a pair on the whole",
    async (_, isTransposed, parts) => {
      const x = rows(dev, 3, 8, 2);
      const model = new One(parts, isTransposed);
      const before = await values(model.forward(x));
      const adapter = applyAdapter(model, { method: "lora", rank: 2, alpha: 3, targets: ["qkv.q", "qkv.v"] });
      disturb(adapter);
      const after = await values(model.forward(x));
      const changed = after.map((value, i) => value !== before[i]).slice(0, 20);
      const own = new Set([...places(parts, "q"), ...places(parts, "v")]);
      expect(changed).toEqual(changed.map((_value, i) => own.has(i)));
      const files = memoryFiles();
      await saveAdapter(adapter, "a", { files });
      const again = new One(parts, isTransposed);
      await loadAdapter(again, "a", { files });
      expect(await distance(again.forward(x), after)).toBeLessThan(1e-5);
      merge(adapter);
      expect(await distance(model.forward(x), after)).toBeLessThan(1e-6);
      unmerge(adapter);
      adapter.disable();
      expect(await distance(model.forward(x), before)).toBeLessThan(1e-6);
    },
  );
});
