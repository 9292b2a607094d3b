import { readFileSync } from "node:fs";
import { join } from "node:path";
import {
  type BlockType,
  blockTensor,
  blockTypes,
  bytesSource,
  type Device,
  fourBitValues,
  ggufTypes,
  nestedScales,
  readGguf,
  readSafetensors,
  rowwiseValues,
  type Tensor,
  tensor,
} from "@lowrank/tensor";
import { expectSameNumbers, sharedDir, testBackend, testDevice } from "test-support";
import { beforeAll, describe, expect, test } from "vitest";
import golden from "./blocks.json" with { type: "json" };

let tested: Device;
beforeAll(async () => {
  tested = await testDevice();
});

const isCpu = testBackend() === "cpu";
/** The smallest normal number times the largest that MXFP4's codes multiply it by. */
const least = 12 * 2 ** -126;

/** The same, bit for bit; a GPU may take a factor or result below the smallest normal number for 0 (WGSL, 15.7.2). */
function same(got: ArrayLike<number>, wanted: ArrayLike<number>): void {
  if (isCpu) {
    expectSameNumbers(got, wanted);
    return;
  }
  const isSmall = (i: number): boolean => got[i] === 0 && Math.abs(wanted[i] ?? 1) < least;
  // Without the sign of zero, which such a number may lose too.
  expectSameNumbers(
    Array.from(got, (value) => value + 0),
    Array.from(wanted, (value, i) => (isSmall(i) ? 0 : value + 0)),
  );
}

const bytesOf = (text: string): Uint8Array => new Uint8Array(Buffer.from(text, "base64"));
const floatsOf = (text: string): Float32Array => new Float32Array(bytesOf(text).buffer);
const typeOf = (name: string): BlockType => {
  const type = blockTypes.get(name);
  if (!type) throw new Error(`there is no type ${name}`);
  return type;
};

test("there is a golden of every type", () => expect(Object.keys(golden).sort()).toEqual([...blockTypes.keys()].sort()));

test("the fields of each type fill its block without gap or overlap, and GGUF's table has its sizes", () => {
  for (const { name, blockSize, blockBytes, fields } of blockTypes.values()) {
    let end = 0;
    for (const { at, bytes } of Object.values(fields).sort((a, b) => a.at - b.at)) {
      expect(at, name).toBe(end);
      end += bytes;
    }
    expect(end, name).toBe(blockBytes);
    expect([...ggufTypes.values()]).toContainEqual({ name, blockSize, blockBytes });
  }
});

for (const [name, { shape, packed, values }] of Object.entries(golden))
  test(`${name}: the numbers that the gguf package reads, bit for bit`, async () => {
    const blocks = blockTensor(typeOf(name), bytesOf(packed), shape, tested);
    same(await blocks.data(), floatsOf(values));
    blocks.dispose();
  });

test("rows that are not whole blocks, or bytes that are too few, are refused with the type's name", () => {
  const type = typeOf("Q4_0");
  expect(() => blockTensor(type, new Uint8Array(18), [1, 33], tested)).toThrow(/18 bytes are not \[1, 33\] of Q4_0 \(18 bytes for each 32/);
  expect(() => blockTensor(type, new Uint8Array(17), [1, 32], tested)).toThrow(/17 bytes are not \[1, 32\] of Q4_0/);
});

test("a weight in blocks takes their bytes, and gives them back", () => {
  const before = tested.backend.counters.bytesInUse;
  const weight = blockTensor(typeOf("Q4_0"), new Uint8Array(18 * 64), [8, 256], tested);
  expect(weight.packing).toMatchObject({ type: "Q4_0", bytes: 18 * 64 });
  expect(tested.backend.counters.bytesInUse).toBeGreaterThan(before);
  weight.dispose();
  expect(tested.backend.counters.bytesInUse).toBe(before);
});

const f32 = Math.fround;
const make = (values: ArrayLike<number>, dtype: "f32" | "u8" = "f32"): Tensor =>
  tensor(values, { shape: [values.length], dtype, device: tested });

describe("bitsandbytes' 4 bits", () => {
  const code = Float32Array.from({ length: 16 }, (_, i) => Math.sin(i - 8));
  for (const [shape, blockSize] of [
    [[4, 128], 64],
    [[6, 48], 64],
    [[5, 13], 64],
  ] as const)
    test(`[${shape}] in blocks of ${blockSize} that run over the ends of rows, the first code in the high half`, async () => {
      const size = shape[0] * shape[1];
      const packed = Uint8Array.from({ length: Math.ceil(size / 2) }, (_, i) => (i * 37) & 255);
      const absmax = Float32Array.from({ length: Math.ceil(size / blockSize) }, (_, i) => 0.3 + i / 7);
      const wanted = Float32Array.from({ length: size }, (_, i) => {
        const byte = packed[i >> 1] ?? 0;
        return f32((code[i % 2 === 0 ? byte >> 4 : byte & 15] ?? 0) * (absmax[Math.floor(i / blockSize)] ?? 0));
      });
      const values = fourBitValues({ packed: make(packed, "u8"), code: make(code), absmax: make(absmax), blockSize, shape });
      expect(values.shape).toEqual(shape);
      same(await values.data(), wanted);
    });

  test("scales that are quantised themselves", async () => {
    const [absmax, map] = [
      Uint8Array.from({ length: 300 }, (_, i) => (i * 7) & 255),
      Float32Array.from({ length: 256 }, (_, i) => i / 128 - 1),
    ];
    const wanted = Float32Array.from(absmax, (q, i) => f32(f32((map[q] ?? 0) * f32(i < 256 ? 0.75 : 0.5)) + f32(1.1)));
    const scales = nestedScales({
      absmax: make(absmax, "u8"),
      code: make(map),
      nestedAbsmax: make([0.75, 0.5]),
      offset: make([1.1]),
      blockSize: 256,
    });
    same(await scales.data(), wanted);
  });

  test("too few scales are refused with both counts", () =>
    expect(() =>
      fourBitValues({ packed: make(new Uint8Array(64), "u8"), code: make(code), absmax: make([1]), blockSize: 64, shape: [2, 64] }),
    ).toThrow(/needs 64 bytes of codes and 2 scales, and there are 64 and 1/));
});

const gguf = sharedDir("gguf");
describe.skipIf(gguf === null)("../shared/gguf", () => {
  const read = (name: string) => bytesSource(new Uint8Array(readFileSync(join(gguf ?? "", name))), name);
  for (const name of blockTypes.keys())
    test(`${name} = the gguf package's values, bit for bit`, async () => {
      const [file, truth] = [await readGguf(read("types.gguf")), await readSafetensors(read("types.safetensors"))];
      const entry = file.entries.get(name);
      expect(entry?.type).toEqual({ name, blockSize: typeOf(name).blockSize, blockBytes: typeOf(name).blockBytes });
      const weight = await file.weight(name, { device: tested });
      same(await weight.data(), await truth.values(`${name}.values`));
      weight.dispose();
    });

  test("numbers that stand alone are the gguf package's too, and types that are not read are refused by name", async () => {
    const [file, truth] = [await readGguf(read("types.gguf")), await readSafetensors(read("types.safetensors"))];
    for (const name of ["F32", "F16", "BF16", "three_dimensions"]) {
      const weight = await file.weight(name, { device: tested });
      same(await weight.data(), await truth.values(`${name}.values`));
    }
    for (const name of ["IQ2_XS", "TQ1_0", "NVFP4"])
      await expect(file.weight(name, { device: tested })).rejects.toThrow(`tensor "${name}" is ${name}, which is not read. Convert`);
  });
});

const quant = sharedDir("quant");
describe.skipIf(quant === null)("../shared/quant", () => {
  const { cases } = quant === null ? { cases: {} } : JSON.parse(readFileSync(join(quant, "blocks.json"), "utf8"));
  for (const [name, { kind, shape, blocksize, nested }] of Object.entries(
    cases as Record<string, { kind: string; shape: [number, number]; blocksize: number; nested: boolean }>,
  ).filter(([, { kind }]) => kind !== "dynamic"))
    test(`${name} = bitsandbytes' values, bit for bit`, async () => {
      const file = await readSafetensors(bytesSource(new Uint8Array(readFileSync(join(quant ?? "", "blocks.safetensors"))), "blocks"));
      const get = async (key: string): Promise<Tensor> => make(await file.values(`${name}.${key}`));
      const wanted = await file.values(`${name}.values`);
      if (kind === "int8") {
        const { offset, bytes } = file.entries.get(`${name}.quantized`) ?? { offset: 0, bytes: 0 };
        const quantized = new Uint8Array(readFileSync(join(quant ?? "", "blocks.safetensors"))).subarray(offset, offset + bytes);
        const got = await rowwiseValues(make(quantized, "u8").reshape(shape), await get("SCB")).data();
        // A GPU's compiler may multiply the two scales first (WGSL, 15.7.3): three roundings of half a unit in the last place in place of two.
        const isNear = (value: number, at: number): boolean => Math.abs(value - (wanted[at] ?? 0)) <= Math.abs(value) * 2 ** -22;
        same(isCpu ? got : Array.from(got, (value, at) => (isNear(value, at) ? (wanted[at] ?? 0) : value)), wanted);
        return;
      }
      const u8 = async (key: string): Promise<Tensor> => make(await file.values(`${name}.${key}`), "u8");
      const absmax = nested
        ? nestedScales({
            absmax: await u8("absmax"),
            code: await get("nested_code"),
            nestedAbsmax: await get("nested_absmax"),
            offset: await get("offset"),
            blockSize: 256,
          })
        : await get("absmax");
      const values = fourBitValues({ packed: await u8("packed"), code: await get("code"), absmax, blockSize: blocksize, shape });
      same(await values.data(), wanted);
    });
});
