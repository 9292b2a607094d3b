import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { gunzipSync } from "node:zlib";
import { afterAll, expect, test } from "vitest";
import { lowrankHere } from "./cli.js";

const folder = mkdtempSync(join(tmpdir(), "lowrank-inspect-"));
afterAll(() => rmSync(folder, { recursive: true, force: true }));

test("a weight in blocks is one line of its own shape, with the type of its blocks and the bytes of all its parts", async () => {
  const at = new URL("../../../packages/models/test/checkpoint/quantised/mlx-tied-unaligned.json", import.meta.url);
  const { config, files } = JSON.parse(readFileSync(at, "utf8"));
  const size = Object.entries(files as Record<string, string>).reduce((sum, [name, text]) => {
    const bytes = gunzipSync(Buffer.from(text, "base64"));
    writeFileSync(join(folder, name), bytes);
    return sum + bytes.length - 8 - Number(bytes.readBigUInt64LE(0));
  }, 0);
  writeFileSync(join(folder, "config.json"), JSON.stringify(config));
  const { code, stdout } = await lowrankHere(["inspect", folder, "--json"]);
  expect(code).toBe(0);
  const { tensors, parameters, bytes, types } = JSON.parse(stdout);
  expect(types).toHaveLength(5);
  expect(types).toContainEqual({ type: "mlx 5 bits", tensors: 1, parameters: 16 * 32, bytes: 16 * (4 * 5 + 2 * 2) });
  expect(tensors).toContainEqual({ name: "model.layers.0.self_attn.k_proj.weight", shape: [16, 32], dtype: "mlx 5 bits" });
  expect(tensors).toContainEqual({ name: "model.embed_tokens.weight", shape: [24, 32], dtype: "mlx 3 bits" });
  expect(tensors.every(({ name }: { readonly name: string }) => !/scales|biases/.test(name))).toBe(true);
  expect(bytes).toBe(size);
  // Embeddings, four projections of 2 heads and 1, three of the feed-forward layer, three norms.
  expect(parameters).toBe(24 * 32 + 2 * 32 * 32 + 2 * 16 * 32 + 3 * 96 * 32 + 3 * 32);
});
