// Merging into a base whose weights lie in blocks: the small folders of packages/models/test/checkpoint/quantised, as their tools write them.
import { readdirSync, readFileSync } from "node:fs";
import { gunzipSync } from "node:zlib";
import { applyAdapter, merge, mergedParameters } from "@lowrank/lora";
import { loadModel, saveModel } from "@lowrank/models";
import { type Device, memoryFiles, realize, type Tensor, tensor } from "@lowrank/tensor";
import { testDevice } from "test-support";
import { beforeAll, expect, test } from "vitest";

const folder = new URL("../packages/models/test/checkpoint/quantised/", import.meta.url);
interface Golden {
  readonly config: Readonly<Record<string, unknown>>;
  /** gzip, base64. */
  readonly files: Readonly<Record<string, string>>;
  readonly ids: readonly (readonly number[])[];
}
let dev: Device;
beforeAll(async () => {
  dev = await testDevice();
});

const names = readdirSync(folder).map((name) => name.replace(/\.json$/, ""));

test.each(names)("an adapter on %s is merged into bf16, rounded once, beside a base that keeps its blocks", async (name) => {
  const { config, files: packed, ids: rows } = JSON.parse(readFileSync(new URL(`${name}.json`, folder), "utf8")) as Golden;
  const files = memoryFiles({
    "m/config.json": JSON.stringify(config),
    ...Object.fromEntries(
      Object.entries(packed).map(([file, text]) => [`m/${file}`, new Uint8Array(gunzipSync(Buffer.from(text, "base64")))]),
    ),
  });
  const { model } = await loadModel("m", { device: dev, files });
  const ids = (): Tensor =>
    tensor(
      rows.map((row) => [...row]),
      { dtype: "i32", device: dev },
    );
  const adapter = applyAdapter(model, { method: "lora", rank: 2, alpha: 4, seed: 3, targets: "all-linear", onWarning: () => {} });
  for (const [key, parameter] of adapter.namedParameters()) if (key.includes("lora_B")) parameter.assign(parameter.add(0.05));
  await realize(...adapter.parameters());
  const beside = Float32Array.from(await model.forward(ids()).data());
  const tensors = mergedParameters([adapter]);
  const isPacked = (parameter: string): boolean => model.namedParameters().get(parameter)?.packing != null;
  // gpt-oss has its experts in blocks, and what stands between them as numbers.
  expect([...tensors.keys()].some(isPacked)).toBe(!name.startsWith("gpt-oss"));
  if ([...tensors.keys()].some(isPacked)) {
    // No sum fits into blocks.
    expect(() => merge(adapter)).toThrow(/lie in blocks/);
    expect(await model.forward(ids()).data()).toEqual(beside);
  }
  await saveModel(model, "merged", { files, tensors, dtype: "as-stored" });
  expect(await model.forward(ids()).data()).toEqual(beside);
  const merged = await loadModel("merged", { device: dev, files });
  expect(merged.config).not.toHaveProperty("quantization_config");
  const parameters = merged.model.namedParameters();
  expect([...parameters.values()].every(({ packing }) => packing === null)).toBe(true);
  for (const [parameter, value] of tensors) {
    const own = parameters.get(parameter);
    expect(await own?.data()).toEqual(
      await value
        .cast(own?.dtype ?? "f32")
        .cast("f32")
        .data(),
    );
    if (isPacked(parameter)) expect(own?.dtype).toBe("bf16");
  }
  const logits = await merged.model.forward(ids()).data();
  const largest = beside.reduce((most, value) => Math.max(most, Math.abs(value)), 0);
  // Eight bits of each weight.
  for (const [i, value] of beside.entries()) expect(Math.abs((logits[i] ?? Number.NaN) - value)).toBeLessThan(0.05 * largest);
});
