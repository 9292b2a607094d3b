import { readFileSync } from "node:fs";
import { join } from "node:path";
import { bytesSource, denseTypes, denseValues, ggufTypes, readGguf, readSafetensors, ShapeError } from "@lowrank/tensor";
import { expectSameNumbers, sharedDir } from "test-support";
import { describe, expect, test } from "vitest";
import golden from "./dense.json" with { type: "json" };

const bytesOf = (text: string): Uint8Array => new Uint8Array(Buffer.from(text, "base64"));
const typeOf = (name: string) => denseTypes.get(name) ?? expect.unreachable(name);

test("there is a golden of every type, and GGUF's table has its sizes", () => {
  expect(Object.keys(golden).sort()).toEqual([...denseTypes.keys()].sort());
  for (const { name, blockSize, blockBytes } of denseTypes.values())
    expect([...ggufTypes.values()]).toContainEqual({ name, blockSize, blockBytes });
});

for (const [name, { packed, values }] of Object.entries(golden))
  test(`${name}: the numbers that the gguf package reads, bit for bit`, () => {
    expectSameNumbers(denseValues(typeOf(name), bytesOf(packed)), new Float32Array(bytesOf(values).buffer));
  });

test("a part of a block is refused", () => {
  expect(() => denseValues(typeOf("TQ2_0"), new Uint8Array(65))).toThrow(ShapeError);
});

const shared = sharedDir("gguf");
describe.skipIf(shared === null)("types.gguf of the gguf package", async () => {
  if (shared === null) return;
  const source = (name: string) => bytesSource(readFileSync(join(shared, name)), name);
  const file = await readGguf(source("types.gguf"));
  const wanted = await readSafetensors(source("types.safetensors"));
  for (const type of denseTypes.values())
    test(`${type.name}: as gguf.dequantize, bit for bit`, async () => {
      expectSameNumbers(denseValues(type, await file.bytes(type.name)), await wanted.values(`${type.name}.values`));
    });
});
