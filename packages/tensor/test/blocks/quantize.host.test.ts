import { readFileSync } from "node:fs";
import { join } from "node:path";
import {
  type BlockType,
  blockTensor,
  blockTypes,
  bytesSource,
  type Device,
  device,
  FourBitQuantizer,
  NotFiniteError,
  quantizeBlocks,
  quantizeFourBit,
  quantizeRowwise,
  readSafetensors,
  ShapeError,
  writableBlockTypes,
} from "@lowrank/tensor";
import { expectSameNumbers, sharedDir } from "test-support";
import { beforeAll, describe, expect, test } from "vitest";
import golden from "./quantize.json" with { type: "json" };

let reference: Device;
beforeAll(async () => {
  reference = await device("reference");
});

const bytesOf = (text: string): Uint8Array => new Uint8Array(Buffer.from(text, "base64"));
const floatsOf = (text: string): Float32Array => new Float32Array(bytesOf(text).buffer);
const typeOf = (name: string): BlockType => {
  const type = blockTypes.get(name);
  if (!type) throw new Error(`there is no type ${name}`);
  return type;
};

/** Numbers that quantize.py makes too. */
function congruent(count: number): Float32Array {
  let state = 7;
  return Float32Array.from({ length: count }, (_, i) => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return ((state >>> 8) / 2 ** 24 - 0.5) * 2 ** -(Math.floor(i / 64) % 5);
  });
}

/** What blocks say. */
async function numbers(type: BlockType, packed: Uint8Array): Promise<Float32Array> {
  const blocks = blockTensor(type, packed, [1, (packed.length / type.blockBytes) * type.blockSize], reference);
  const values = await blocks.data();
  blocks.dispose();
  return values as Float32Array;
}

async function meanSquaredError(type: BlockType, values: Float32Array): Promise<number> {
  const read = await numbers(type, quantizeBlocks(type, values));
  return values.reduce((sum, value, i) => sum + (value - (read[i] ?? 0)) ** 2, 0) / values.length;
}

const exact = ["Q8_0", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "MXFP4"] as const;
const searched = ["Q4_K", "Q5_K", "Q6_K"] as const;

test("what is written is in the two tables", () =>
  expect(writableBlockTypes.map(({ name }) => name).sort()).toEqual([...exact, ...searched].sort()));

for (const name of exact)
  test(`${name}: the bytes that the gguf package writes`, () =>
    expectSameNumbers(quantizeBlocks(typeOf(name), floatsOf(golden.legacy.source)), bytesOf(golden.legacy[name])));

for (const name of searched)
  test(`${name}: no more squared error than llama.cpp's`, async () => {
    const { source, [name]: theirs } = golden.kQuants;
    expect(await meanSquaredError(typeOf(name), floatsOf(source))).toBeLessThanOrEqual(theirs);
  });

test.each([...exact, ...searched])("%s: zeros stay zeros, and what is quantised again is the same", async (name) => {
  const type = typeOf(name);
  expect((await numbers(type, quantizeBlocks(type, new Float32Array(512)))).every((value) => value === 0)).toBe(true);
  const once = await numbers(type, quantizeBlocks(type, floatsOf(golden.kQuants.source)));
  const twice = await numbers(type, quantizeBlocks(type, once));
  // Scales are rounded to f16 a second time where they come out of differences.
  const isExact = ["Q8_0", "Q4_0", "Q5_0", "MXFP4"].includes(name);
  const step = Math.max(...once.map(Math.abs)) * (isExact ? 0 : 2 ** -7);
  for (const [i, value] of twice.entries()) expect(Math.abs(value - (once[i] ?? 0))).toBeLessThanOrEqual(step);
});

test.each([...exact, ...searched])("%s: parts give the bytes of the whole", (name) => {
  const type = typeOf(name);
  const values = floatsOf(golden.kQuants.source);
  const parts = [values.subarray(0, 256), values.subarray(256, 2048), values.subarray(2048)].map((part) => quantizeBlocks(type, part));
  expectSameNumbers(Buffer.concat(parts), quantizeBlocks(type, values));
});

for (const kind of ["nf4", "fp4"] as const)
  describe(kind, () => {
    const values = congruent(64 * 300 + 13).fill(0, 64, 128);
    const { packed, absmax, scales, nestedAbsmax, offset } = golden.fourBit[kind];

    test("codes and scales of bitsandbytes", () => {
      const made = quantizeFourBit(kind, values, { isNested: false });
      expectSameNumbers(made.packed, bytesOf(packed));
      expectSameNumbers(made.scales as Float32Array, floatsOf(absmax));
    });

    test("scales that are quantised themselves", () => {
      const { scales: made } = quantizeFourBit(kind, values);
      if (made instanceof Float32Array) throw new Error("they are not nested");
      expectSameNumbers(made.code, floatsOf(golden.fourBit.dynamic));
      expect(made.offset).toBe(offset);
      expectSameNumbers(made.nestedAbsmax, floatsOf(nestedAbsmax));
      expectSameNumbers(made.absmax, bytesOf(scales));
    });

    test("parts give the bytes of the whole", () => {
      const quantizer = new FourBitQuantizer(kind, values.length);
      for (const [from, to] of [
        [0, 64],
        [64, 1280],
        [1280, values.length],
      ])
        quantizer.add(values.subarray(from, to));
      expect(quantizer.finish()).toEqual(quantizeFourBit(kind, values));
    });
  });

test("int8 by rows, of f16 numbers, is bitsandbytes'", () => {
  const { source, scb, quantized } = golden.int8;
  const made = quantizeRowwise(floatsOf(source), 7);
  expectSameNumbers(made.scb, floatsOf(scb));
  expectSameNumbers(made.quantized, bytesOf(quantized));
});

describe("what cannot be quantised", () => {
  const with1 = (value: number): Float32Array => new Float32Array(256).fill(value, 70, 71);
  const cases: readonly (readonly [string, () => unknown, RegExp])[] = [
    ...[...exact, ...searched].flatMap((name) =>
      [Number.NaN, Number.POSITIVE_INFINITY, Number.NEGATIVE_INFINITY].map(
        (value) =>
          [`${value} in ${name}`, () => quantizeBlocks(typeOf(name), with1(value), "w"), /^w: number \[70\] is .*, which cannot/] as const,
      ),
    ),
    ["NaN in nf4", () => quantizeFourBit("nf4", with1(Number.NaN), {}, "w"), /^w: number \[70\] is NaN, which cannot be quantized/],
    ["infinity in int8", () => quantizeRowwise(with1(-1 / 0), 4, "w"), /^w: number \[70\] is -Infinity/],
    ["a number beyond f16 in int8", () => quantizeRowwise(with1(65520), 4, "w"), /\[70\] is 65520, beyond the ±65504 of f16/],
    ["a scale beyond f16 in Q4_0", () => quantizeBlocks(typeOf("Q4_0"), with1(-6e5), "w"), /\[70\] is -600000, beyond the ±524032 of Q4_0/],
  ];
  test.each(cases)("%s is refused by name and place", (_name, run, message) => {
    expect(run).toThrow(NotFiniteError);
    expect(run).toThrow(message);
  });

  const shapes: readonly (readonly [string, () => unknown, RegExp])[] = [
    [
      "numbers that are no whole blocks",
      () => quantizeBlocks(typeOf("Q4_K"), new Float32Array(288)),
      /288 numbers are not whole blocks of 256 of Q4_K/,
    ],
    ["a type that is only read", () => quantizeBlocks(typeOf("IQ4_NL"), new Float32Array(32)), /IQ4_NL is only read\. Choose among Q8_0/],
    ["rows that are not whole", () => quantizeRowwise(new Float32Array(10), 3), /10 numbers are not 3 rows/],
    ["blocks of 33", () => quantizeFourBit("nf4", new Float32Array(66), { blockSize: 33 }), /blocks of 33/],
    ["half a block before the last", () => new FourBitQuantizer("nf4", 100).add(new Float32Array(101)), /101 numbers behind 0 of 100/],
    ["an end before all is there", () => new FourBitQuantizer("nf4", 100).finish(), /0 numbers of 100 were given/],
  ];
  test.each(shapes)("%s: ShapeError", (_name, run, message) => {
    expect(run).toThrow(ShapeError);
    expect(run).toThrow(message);
  });
});

const gguf = sharedDir("gguf");
describe.skipIf(gguf === null)("../shared/gguf", () => {
  for (const name of exact)
    test(`${name} = the gguf package's bytes`, async () => {
      const truth = await readSafetensors(bytesSource(new Uint8Array(readFileSync(join(gguf ?? "", "types.safetensors"))), "types"));
      const source = Float32Array.from(await truth.values(`${name}.source`));
      expectSameNumbers(await numbers(typeOf(name), quantizeBlocks(typeOf(name), source)), await truth.values(`${name}.values`));
    });
});

const quant = sharedDir("quant");
describe.skipIf(quant === null)("../shared/quant", () => {
  const path = join(quant ?? "", "blocks.safetensors");
  const { cases } = quant === null ? { cases: {} } : JSON.parse(readFileSync(join(quant, "blocks.json"), "utf8"));
  for (const [name, { kind, shape, blocksize, nested }] of Object.entries(
    cases as Record<string, { kind: string; shape: [number, number]; blocksize: number; nested: boolean }>,
  ).filter(([, { kind }]) => kind !== "dynamic"))
    test(`${name} = bitsandbytes' codes and scales`, async () => {
      const file = await readSafetensors(bytesSource(new Uint8Array(readFileSync(path)), "blocks"));
      const raw = (key: string): Uint8Array => {
        const { offset = 0, bytes = 0 } = file.entries.get(`${name}.${key}`) ?? {};
        return new Uint8Array(readFileSync(path)).subarray(offset, offset + bytes);
      };
      const source = Float32Array.from(await file.values(`${name}.source`));
      if (kind === "int8") {
        const made = quantizeRowwise(source, shape[0]);
        expectSameNumbers(made.quantized, raw("quantized"));
        expectSameNumbers(made.scb, await file.values(`${name}.SCB`));
        return;
      }
      const made = quantizeFourBit(kind as "nf4" | "fp4", source, { blockSize: blocksize, isNested: nested });
      expectSameNumbers(made.packed, raw("packed"));
      expectSameNumbers(made.code, await file.values(`${name}.code`));
      if (made.scales instanceof Float32Array) {
        expectSameNumbers(made.scales, await file.values(`${name}.absmax`));
        return;
      }
      expectSameNumbers(made.scales.absmax, raw("absmax"));
      expectSameNumbers(made.scales.code, await file.values(`${name}.nested_code`));
      // torch sums a mean in its own order, in f32.
      const [offset = 0] = await file.values(`${name}.offset`);
      expect(Math.abs(made.scales.offset - offset)).toBeLessThanOrEqual(offset * 2 ** -22);
      const nestedAbsmax = await file.values(`${name}.nested_absmax`);
      for (const [i, value] of made.scales.nestedAbsmax.entries())
        expect(Math.abs(value - (nestedAbsmax[i] ?? 0))).toBeLessThanOrEqual(offset * 2 ** -21);
    });
});
