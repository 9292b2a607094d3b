// config.json files that say a model otherwise than transformers 5 writes them, or leave things out, against what transformers computes of them.
import { readFileSync } from "node:fs";
import { modelOf, modelOutline } from "@lowrank/models";
import { type Device, device, type Tensor, tensor } from "@lowrank/tensor";
import { beforeAll, expect, test } from "vitest";
import { tolerance } from "./golden.js";

interface Row {
  readonly about: string;
  readonly config: Readonly<Record<string, unknown>> & { readonly vocab_size: number };
  readonly tokens: number;
  /** Of the last three tokens, [3, vocab]. */
  readonly logits: readonly (readonly number[])[];
}

const rows = JSON.parse(readFileSync(new URL("./goldens-families/layouts.json", import.meta.url), "utf8")) as readonly Row[];

let dev: Device;
beforeAll(async () => {
  dev = await device("cpu", { threads: 1 });
  return () => dev.dispose();
});

/** As `drawn` of make_layouts.py. */
function drawn(name: string, shape: readonly number[]): Tensor {
  let state = 2166136261;
  for (const byte of new TextEncoder().encode(name)) state = Math.imul(state ^ byte, 16777619) >>> 0;
  const columns = shape.at(-1) ?? 1;
  const [spread, base] = shape.length < 2 ? [0.5, name.endsWith("weight") ? 1 : 0] : [1.5 / Math.sqrt(columns), 0];
  const values = Float32Array.from({ length: shape.reduce((product, size) => product * size, 1) }, () => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return (state / 2 ** 31 - 1) * spread + base;
  });
  return tensor(values, { device: dev, shape });
}

test.each(rows.map((row) => [row.about, row] as const))("%s", async (_, { config, tokens, logits }) => {
  const outline = modelOutline(config, { device: dev });
  const weights = new Map([...outline.namedParameters()].map(([name, { shape }]) => [name, drawn(name, shape)]));
  const model = modelOf(config, weights);
  const ids = Array.from({ length: tokens }, (_, at) => (at + 1) % config.vocab_size);
  const all = await model.forward(tensor([ids], { dtype: "i32", device: dev })).data();
  const wanted = logits.flat();
  const last = all.slice(all.length - wanted.length);
  expect(Math.max(...wanted.map((value, i) => Math.abs(value - (last[i] ?? Number.NaN))))).toBeLessThan(tolerance.logits);
  model.dispose();
});
