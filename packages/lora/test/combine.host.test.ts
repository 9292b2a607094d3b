import { readFileSync } from "node:fs";
import { type Device, device, memoryFiles, realizeNow, tensor } from "@lowrank/tensor";
import { beforeAll, describe, expect, test } from "vitest";
import {
  type Adapter,
  AdapterError,
  adapterOutline,
  applyAdapter,
  type CombineMethod,
  type CombineOptions,
  combineAdapters,
  loadAdapter,
  type MajoritySign,
  merge,
  resizeAdapter,
  saveAdapter,
  unmerge,
} from "../src/index.js";
import { rows, TinyModel } from "./tiny.js";

type Numbers = Readonly<Record<string, readonly number[]>>;
interface Case {
  readonly name: string;
  readonly method: CombineMethod;
  readonly weights: readonly number[];
  readonly density?: number;
  readonly svd_rank?: number;
  readonly majority_sign_method?: MajoritySign;
  readonly deltas: Numbers;
}
interface Setup {
  readonly name: string;
  readonly targets: readonly [readonly string[], readonly string[]];
  readonly ranks: readonly [number, number];
  readonly one: Readonly<Record<string, { readonly A: readonly number[]; readonly B: readonly number[] }>>;
  readonly two: Setup["one"];
  readonly cases: readonly Case[];
}
const setups = JSON.parse(readFileSync(new URL("./goldens-combine/combine.json", import.meta.url), "utf8")) as readonly Setup[];

let dev: Device;
beforeAll(async () => {
  dev = await device("reference");
});

const onWarning = (): void => undefined;

function fill(adapter: Adapter, values: Setup["one"]): Adapter {
  for (const [name, { A, B }] of Object.entries(values)) {
    const { "lora_A.weight": a, "lora_B.weight": b } = adapter.attachments.get(name)?.parameters ?? expect.fail(name);
    a?.assign(tensor(A, { device: dev, shape: a.shape }));
    b?.assign(tensor(B, { device: dev, shape: b.shape }));
  }
  realizeNow(adapter.parameters());
  adapter.disable();
  return adapter;
}

/** The two adapters of the golden, neither of them in the forward. */
function pairOf({ targets, ranks, one, two }: Setup): readonly [Adapter, Adapter] {
  const model = new TinyModel(dev);
  const [first, second] = ranks;
  return [
    fill(applyAdapter(model, { method: "lora", rank: first, alpha: 2 * first, targets: targets[0] }), one),
    fill(applyAdapter(model, { method: "lora", rank: second, alpha: 3, rslora: true, targets: targets[1] }), two),
  ];
}

/** scaling · B A of each layer: what merging adds to the weight. */
async function deltas(adapter: Adapter): Promise<Record<string, number[]>> {
  const found: Record<string, number[]> = {};
  for (const [name, attachment] of adapter.attachments) {
    const [change] = attachment.merge?.() ?? [];
    const { isTransposed } = adapter.places.get(name) as { isTransposed: boolean };
    const delta = change ? change.value.sub(change.weight) : expect.fail(name);
    found[name] = Array.from(await (isTransposed ? delta.t() : delta).data());
  }
  return found;
}

function expectClose(found: Numbers, expected: Numbers, tolerance: number): void {
  expect(Object.keys(found).sort()).toEqual(Object.keys(expected).sort());
  for (const [name, values] of Object.entries(expected)) {
    const worst = Math.max(...values.map((value, i) => Math.abs(value - (found[name]?.[i] ?? Number.NaN))));
    expect(worst, name).toBeLessThan(tolerance);
  }
}

describe.each(setups)("as PEFT, adapters of $name ranks and targets", (setup) => {
  test.each(setup.cases)("$name", async ({ method, weights, density, svd_rank, majority_sign_method, deltas: expected }) => {
    const both = pairOf(setup);
    const combined = await combineAdapters(both.slice(0, weights.length), {
      method,
      weights,
      onWarning,
      ...(density !== undefined && { density }),
      ...(svd_rank !== undefined && { rank: svd_rank }),
      ...(majority_sign_method !== undefined && { majoritySign: majority_sign_method }),
    });
    // PEFT computes in float32, on values around 1.
    expectClose(await deltas(combined), expected, 1e-5);
  });
});

const [same, different] = setups as readonly [Setup, Setup];

test("concatenated, the deltas add up, whatever the weights", async () => {
  for (const weights of [
    [1, 1],
    [0.3, -2],
  ] as const) {
    const both = pairOf(different);
    const combined = await combineAdapters(both, { method: "cat", weights, onWarning });
    const [one, two] = await Promise.all(both.map(deltas));
    const sum = Object.fromEntries(
      Object.entries(one ?? {}).map(([name, values]) => [
        name,
        values.map((value, i) => weights[0] * value + weights[1] * (two?.[name]?.[i] ?? 0)),
      ]),
    );
    expectClose(await deltas(combined), sum, 1e-6);
  }
});

test("DARE drops what the seed says, and on average keeps the sum", async () => {
  const both = pairOf(same);
  const at = async (seed: number): Promise<number[]> => {
    const combined = await combineAdapters(both, { method: "dare_linear_svd", density: 0.5, seed, rank: 8, onWarning });
    return (await deltas(combined))["layers.0.q_proj"] ?? [];
  };
  expect(await at(3)).toEqual(await at(3));
  expect(await at(3)).not.toEqual(await at(4));
  const [one, two] = await Promise.all(both.map(deltas));
  // Each number of the sum is one adapter's doubled, the other's, both or none.
  const dropped = await at(3);
  for (const [i, value] of dropped.entries()) {
    const [x, y] = [2 * (one?.["layers.0.q_proj"]?.[i] ?? 0), 2 * (two?.["layers.0.q_proj"]?.[i] ?? 0)];
    expect(Math.min(...[0, x, y, x + y].map((choice) => Math.abs(choice - value)))).toBeLessThan(1e-5);
  }
});

test("the result is an adapter like others: off at first, in the forward, merged, saved and loaded", async () => {
  const both = pairOf(different);
  const { model } = both[0] as unknown as { model: TinyModel };
  const combined = await combineAdapters(both, { method: "svd", weights: [0.5, 0.5], onWarning });
  const x = rows(dev, 3, 8, 2);
  const run = async (): Promise<number[]> => Array.from(await model.forward(x).data());
  const base = await run();
  combined.enable();
  const on = await run();
  expect(on).not.toEqual(base);
  merge(combined);
  const merged = await run();
  expect(Math.max(...merged.map((value, i) => Math.abs(value - (on[i] ?? 0))))).toBeLessThan(1e-5);
  unmerge(combined);
  const files = memoryFiles();
  await saveAdapter(combined, "out", { files });
  const other = new TinyModel(dev);
  await loadAdapter(other, "out", { files, onWarning });
  const loaded = Array.from(await other.forward(x).data());
  expect(Math.max(...loaded.map((value, i) => Math.abs(value - (on[i] ?? 0))))).toBeLessThan(1e-5);
});

const mistakes: readonly (readonly [name: string, options: CombineOptions, setup: Setup, message: RegExp])[] = [
  ["ranks that differ", { method: "linear" }, different, /mixes A with A.*ranks 2, 3/],
  ["no density", { method: "ties" }, same, /density is not given/],
  ["a density above 1", { method: "dare_ties", density: 1.5 }, same, /density is 1\.5/],
  ["a weight too few", { weights: [1] }, same, /weights are \[1\] for 2 adapters/],
  ["an unknown method", { method: "average" as CombineMethod }, same, /no way "average".*linear/],
  ["a rank where none can be chosen", { method: "cat", rank: 4 }, same, /rank is 4 with the method "cat"/],
  ["an unknown majority", { method: "ties", density: 0.5, majoritySign: "most" as MajoritySign }, same, /majoritySign is "most"/],
];
test.each(mistakes)("refused: %s", async (_, options, setup, message) => {
  const attempt = combineAdapters(pairOf(setup), { onWarning, ...options });
  await expect(attempt).rejects.toThrow(AdapterError);
  await expect(attempt).rejects.toThrow(message);
});

test("refused: DoRA, adapters of two models, and lists of targets beside an expression", async () => {
  const model = new TinyModel(dev);
  const dora = applyAdapter(model, { method: "dora", rank: 2, targets: ["q_proj"] });
  await expect(combineAdapters([dora])).rejects.toThrow(/of method "dora"/);
  const list = applyAdapter(model, { method: "lora", rank: 2, targets: ["q_proj"] });
  const elsewhere = applyAdapter(new TinyModel(dev), { method: "lora", rank: 2, targets: ["q_proj"] });
  await expect(combineAdapters([list, elsewhere])).rejects.toThrow(/on one model/);
  const expression = applyAdapter(model, { method: "lora", rank: 2, targets: ".*c_fc" });
  await expect(combineAdapters([list, expression])).rejects.toThrow(/expression/);
});

describe("what adapters leave out", () => {
  // As an adapter of a model's text part has it: layers of the same names elsewhere are no targets.
  const rest = "(?!layers\\.).*";
  const saved = async (exclude: string | readonly string[], targets: readonly string[]): Promise<(name: string) => Promise<Adapter>> => {
    const files = memoryFiles();
    const adapter = applyAdapter(new TinyModel(dev), { method: "lora", rank: 2, targets, exclude });
    await saveAdapter(adapter, "a", { files });
    const one = applyAdapter(new TinyModel(dev), { method: "lora", rank: 2, targets: ["q_proj", "c_fc"] });
    await saveAdapter(one, "b", { files });
    const outline = await adapterOutline(["a", "b"], { files, device: dev });
    return (name) => loadAdapter(outline, name, { files, onWarning });
  };
  const excludedIn = async (adapter: Adapter): Promise<unknown> => {
    const files = memoryFiles();
    await saveAdapter(adapter, "out", { files });
    const source = await files.open("out/adapter_config.json");
    return (JSON.parse(new TextDecoder().decode(await source?.read(0, source.byteLength))) as Record<string, unknown>)["exclude_modules"];
  };

  test.each<readonly [string, string | readonly string[], readonly string[], unknown]>([
    ["stays left out where all that is combined fits it", rest, ["q_proj"], rest],
    ["is let go where another adapter is on it", ["c_fc"], ["q_proj"], null],
  ])("%s", async (_, exclude, targets, expected) => {
    const open = await saved(exclude, targets);
    const both = await combineAdapters([await open("a"), await open("b")], { method: "cat", onWarning });
    expect(await excludedIn(both)).toEqual(expected);
  });

  test("stays left out of one that is resized", async () => {
    const open = await saved(rest, ["q_proj"]);
    const { adapter } = await resizeAdapter(await open("a"), { rank: 1, onWarning });
    expect(await excludedIn(adapter)).toBe(rest);
  });
});
