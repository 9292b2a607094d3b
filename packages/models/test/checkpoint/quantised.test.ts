import { existsSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { loadModel } from "@lowrank/models";
import { bytesSource, type Device, readSafetensors, tensor } from "@lowrank/tensor";
import { sharedDir, testDevice } from "test-support";
import { beforeAll, describe, expect, test } from "vitest";

let dev: Device;
beforeAll(async () => {
  dev = await testDevice();
});

const shared = sharedDir("quant");
const folders: Readonly<Record<string, { readonly types: readonly string[] }>> = {
  "llama-nf4": { types: ["nf4"] },
  "llama-int8": { types: ["int8"] },
  "awq-llama": { types: ["awq 4 bits"] },
  "gptq-llama/v1-3bit": { types: ["gptq 3 bits"] },
  "gptq-llama/v1-4bit": { types: ["gptq 4 bits"] },
  "gptq-llama/v1-8bit": { types: ["gptq 8 bits"] },
  "gptq-llama/v2-4bit": { types: ["gptq 4 bits"] },
  "mlx-llama": { types: ["mlx 4 bits", "mlx 6 bits", "mlx 8 bits"] },
  "mlx-llama-mxfp4": { types: ["mlx 8 bits", "mxfp4"] },
};

describe.skipIf(shared === null)("../shared/quant", () => {
  for (const [name, { types }] of Object.entries(folders))
    test(`${name} gives the reference's logits, in its blocks`, async () => {
      const folder = join(shared ?? "", name);
      expect(existsSync(folder)).toBe(true);
      const io = await readSafetensors(bytesSource(new Uint8Array(readFileSync(join(folder, "io.safetensors"))), "io"));
      const { model, warnings } = await loadModel(join(folder, "model"), { device: dev });
      const found = [...model.namedParameters().values()].flatMap(({ packing }) => packing?.type ?? []);
      expect([...new Set(found)].sort()).toEqual(types);
      const key = io.entries.has("input_ids") ? "input_ids" : "ids";
      const ids = tensor(Array.from(await io.values(key)), { dtype: "i32", shape: io.entries.get(key)?.shape ?? [], device: dev });
      const [logits, wanted] = [await model.forward(ids).data(), await io.values("logits")];
      const worst = wanted.reduce((most, value, i) => Math.max(most, Math.abs(value - (logits[i] ?? Number.NaN))), 0);
      // Sums of some hundred products in another order.
      expect(worst).toBeLessThan(5e-5);
      expect(warnings).toEqual([]);
      model.dispose();
    });
});
