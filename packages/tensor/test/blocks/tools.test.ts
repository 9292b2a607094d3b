import { readFileSync } from "node:fs";
import { join } from "node:path";
import {
  awqValues,
  bytesSource,
  type Device,
  gptqValues,
  mlxAffineValues,
  mxfp4Tensor,
  readSafetensors,
  type SafetensorsFile,
  type Tensor,
  tensor,
} from "@lowrank/tensor";
import { expectSameNumbers, sharedDir, testBackend, testDevice } from "test-support";
import { beforeAll, describe, expect, test } from "vitest";

let dev: Device;
beforeAll(async () => {
  dev = await testDevice();
});

const f32 = Math.fround;

/** Bit for bit; on a GPU a product and a sum may be one operation with one rounding (WGSL, 15.7.3), half a unit in the last place of either. */
function same(got: ArrayLike<number>, wanted: ArrayLike<number>): void {
  if (testBackend() === "cpu") {
    expectSameNumbers(got, wanted);
    return;
  }
  const scale = Array.from(wanted).reduce((most, value) => Math.max(most, Math.abs(value)), 0);
  expect(got.length).toBe(wanted.length);
  for (let i = 0; i < wanted.length; i++)
    if (!(Math.abs((got[i] ?? Number.NaN) - (wanted[i] ?? 0)) <= scale * 2 ** -22))
      throw new Error(`${i}: ${got[i]} instead of ${wanted[i]}`);
}

const random = (count: number, below: number, seed = 1): number[] => {
  let state = seed;
  return Array.from({ length: count }, () => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return (state >>> 8) % below;
  });
};
const words = (values: ArrayLike<number>, shape: readonly number[], dtype: "u32" | "i32" = "u32"): Tensor =>
  tensor(dtype === "i32" ? Int32Array.from(values) : values, { shape, dtype, device: dev });
const floats = (values: ArrayLike<number>, shape: readonly number[]): Tensor => tensor(values, { shape, device: dev });

/** Codes as a stream of bits in words, lowest first. */
function stream(codes: readonly number[], bits: number): Uint32Array {
  const made = new Uint32Array((codes.length * bits) / 32);
  for (const [i, code] of codes.entries())
    for (let bit = 0; bit < bits; bit++) {
      const at = i * bits + bit;
      made[at >> 5] = (made[at >> 5] ?? 0) | (((code >> bit) & 1) << (at & 31));
    }
  return made;
}

for (const bits of [2, 3, 4, 5, 6, 8])
  test(`MLX affine in ${bits} bits: scale · q + bias of a stream that runs over the ends of words`, async () => {
    const [rows, columns, groups] = [3, 64, 2];
    const codes = random(rows * columns, 2 ** bits, bits);
    const [scales, biases] = [
      random(rows * groups, 1000).map((x) => f32(x / 777 - 0.6)),
      random(rows * groups, 1000, 5).map((x) => f32(x / 99)),
    ];
    const wanted = codes.map((q, i) => f32(f32(q * (scales[i >> 5] ?? 0)) + (biases[i >> 5] ?? 0)));
    const values = mlxAffineValues({
      packed: words(stream(codes, bits), [rows, (columns * bits) / 32]),
      scales: floats(scales, [rows, groups]),
      biases: floats(biases, [rows, groups]),
      bits,
    });
    expect(values.shape).toEqual([rows, columns]);
    same(await values.data(), wanted);
  });

test("MLX affine with the wrong number of bits is refused", () =>
  expect(() =>
    mlxAffineValues({ packed: words([1, 2, 3], [1, 3]), scales: floats([1], [1, 1]), biases: floats([1], [1, 1]), bits: 5 }),
  ).toThrow(/\[1, 3\] words of 5 bits a number are not 1 groups/));

for (const [bits, version] of [
  [3, 1],
  [4, 1],
  [8, 2],
] as const)
  test(`GPTQ in ${bits} bits, version ${version}: scale · (q − zero) by the group of each input`, async () => {
    const [inputs, outputs, groups] = [64, 32, 2];
    const [codes, zeros] = [random(inputs * outputs, 2 ** bits), random(groups * outputs, 2 ** bits - 1, 3)];
    const scales = random(groups * outputs, 1000, 4).map((x) => f32(x / 777));
    const groupOf = random(inputs, groups, 9);
    // Codes are [outputs, inputs] here; a column of words holds those of one output.
    const columns = Array.from({ length: outputs }, (_, n) => stream(codes.slice(n * inputs, (n + 1) * inputs), bits));
    const qweight = Array.from({ length: (inputs * bits) / 32 }, (_, row) => columns.map((column) => column[row] ?? 0)).flat();
    const wanted = codes.map((q, i) => {
      const at = (groupOf[i % inputs] ?? 0) * outputs + Math.floor(i / inputs);
      return f32(f32(q - (zeros[at] ?? 0) - (version === 1 ? 1 : 0)) * (scales[at] ?? 0));
    });
    const values = gptqValues({
      qweight: words(qweight, [(inputs * bits) / 32, outputs], "i32"),
      qzeros: words(stream(zeros, bits), [groups, (outputs * bits) / 32], "i32"),
      scales: floats(scales, [groups, outputs]),
      groupOf: words(groupOf, [inputs], "i32"),
      bits,
      version,
    });
    same(await values.data(), wanted);
  });

test("AWQ: scale · (q − zero), the even outputs of eight in the low half of a word", async () => {
  const [inputs, outputs, groups] = [64, 16, 2];
  const order = [0, 2, 4, 6, 1, 3, 5, 7];
  const [codes, zeros] = [random(inputs * outputs, 16), random(groups * outputs, 16, 3)];
  const scales = random(groups * outputs, 1000, 4).map((x) => f32(x / 777));
  const packed = (rows: number, from: readonly number[]): Uint32Array =>
    Uint32Array.from({ length: (rows * outputs) / 8 }, (_, word) =>
      order.reduce((bits, output, nibble) => (bits | ((from[word * 8 + output] ?? 0) << (4 * nibble))) >>> 0, 0),
    );
  const values = awqValues({
    qweight: words(packed(inputs, codes), [inputs, outputs / 8], "i32"),
    qzeros: words(packed(groups, zeros), [groups, outputs / 8], "i32"),
    scales: floats(scales, [groups, outputs]),
  });
  const wanted = Array.from({ length: outputs * inputs }, (_, i) => {
    const [output, input] = [Math.floor(i / inputs), i % inputs];
    const group = Math.floor(input / (inputs / groups)) * outputs + output;
    return f32(((codes[input * outputs + output] ?? 0) - (zeros[group] ?? 0)) * (scales[group] ?? 0));
  });
  expect(values.shape).toEqual([outputs, inputs]);
  same(await values.data(), wanted);
});

test("MXFP4 in two tensors: 2^(s − 127) · v, the first code of a byte in its low half", async () => {
  const v = [0, 0.5, 1, 1.5, 2, 3, 4, 6, 0, -0.5, -1, -1.5, -2, -3, -4, -6];
  const [blocks, scales] = [Uint8Array.from(random(2 * 2 * 16, 256)), Uint8Array.from([127, 120, 1, 250])];
  const wanted = Array.from({ length: 128 }, (_, i) => {
    const byte = blocks[i >> 1] ?? 0;
    return (v[i % 2 === 0 ? byte & 15 : byte >> 4] ?? 0) * 2 ** ((scales[i >> 5] ?? 0) - 127);
  });
  const weight = mxfp4Tensor(blocks, scales, [2, 64], dev);
  same(await weight.data(), wanted);
  weight.dispose();
  expect(() => mxfp4Tensor(blocks, scales.subarray(1), [2, 64], dev)).toThrow(/64 bytes of codes and 3 scales are not \[2, 64\]/);
});

const shared = sharedDir("quant");
describe.skipIf(shared === null)("../shared/quant", () => {
  const opened = async (...path: string[]): Promise<SafetensorsFile> =>
    readSafetensors(bytesSource(new Uint8Array(readFileSync(join(shared ?? "", ...path))), path.join("/")));
  const cases: Record<string, { mode: string; bits: number }> =
    shared === null ? {} : JSON.parse(readFileSync(join(shared, "mlx-blocks.json"), "utf8")).cases;

  for (const [name, { bits }] of Object.entries(cases).filter(([, { mode }]) => mode === "affine"))
    test(`${name} = mlx's values, bit for bit`, async () => {
      const file = await opened("mlx-blocks.safetensors");
      const get = (key: string): Promise<Tensor> => file.tensor(`${name}.${key}`, { device: dev });
      const values = mlxAffineValues({ packed: await get("packed"), scales: await get("scales"), biases: await get("biases"), bits });
      same(await values.data(), await file.values(`${name}.values`));
    });

  /** Every quantised weight of a folder against what the tool itself decodes. */
  async function compare(folder: readonly string[], values: (get: (key: string) => Promise<Tensor>) => Promise<Tensor>): Promise<void> {
    const [model, truth] = [await opened(...folder, "model", "model.safetensors"), await opened(...folder, "weights.safetensors")];
    let compared = 0;
    for (const key of model.entries.keys()) {
      if (!key.endsWith(".qweight")) continue;
      const module = key.slice(0, -".qweight".length);
      const found = [...truth.entries.keys()].find((name) => name === module || name === `${module}.weight`);
      if (found === undefined) throw new Error(`${module}: no truth among ${[...truth.entries.keys()].slice(0, 3)}`);
      const made = await values((part) => model.tensor(`${module}.${part}`, { device: dev }));
      same(await made.data(), await truth.values(found));
      compared++;
    }
    expect(compared).toBeGreaterThan(0);
  }

  for (const [folder, bits, version] of [
    ["v1-3bit", 3, 1],
    ["v1-4bit", 4, 1],
    ["v1-8bit", 8, 1],
    ["v2-4bit", 4, 2],
  ] as const)
    test(`gptq-llama/${folder} = the tools' values, bit for bit`, () =>
      compare(["gptq-llama", folder], async (get) =>
        gptqValues({
          qweight: await get("qweight"),
          qzeros: await get("qzeros"),
          scales: await get("scales"),
          groupOf: await get("g_idx"),
          bits,
          version,
        }),
      ));

  test("mxfp4-hf = transformers' values, bit for bit", async () => {
    const file = await opened("mxfp4-hf.safetensors");
    const names = [...file.entries.keys()].filter((key) => key.endsWith("_blocks")).map((key) => key.slice(0, -"_blocks".length));
    expect(names.length).toBeGreaterThan(0);
    for (const name of names) {
      const [blocks, scales] = [file.entries.get(`${name}_blocks`), file.entries.get(`${name}_scales`)];
      const bytes = async (key: string): Promise<Uint8Array> => Uint8Array.from(await file.values(key));
      const shape = [...(scales?.shape.slice(0, -1) ?? []), (blocks?.shape.at(-2) ?? 0) * 32];
      const weight = mxfp4Tensor(await bytes(`${name}_blocks`), await bytes(`${name}_scales`), shape, dev);
      const values = await weight.transpose().data();
      const wanted = await file.values(name);
      // -0 and 0 are one number here: the format's code 8 is -0, ggml's table has 0.
      same(
        values.map((value) => value + 0),
        wanted.map((value) => value + 0),
      );
      weight.dispose();
    }
  });

  test("awq-llama = AutoAWQ's values, bit for bit", () =>
    compare(["awq-llama"], async (get) =>
      awqValues({ qweight: await get("qweight"), qzeros: await get("qzeros"), scales: await get("scales") }),
    ));
});
