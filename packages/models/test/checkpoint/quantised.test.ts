import { existsSync, readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { gunzipSync } from "node:zlib";
import { type LoadOptions, loadModel, saveModel } from "@lowrank/models";
import { bytesSource, CheckpointError, type Device, memoryFiles, readSafetensors, tensor } from "@lowrank/tensor";
import { sharedDir, testBackend, testDevice } from "test-support";
import { beforeAll, describe, expect, test } from "vitest";

let dev: Device;
beforeAll(async () => {
  dev = await testDevice();
});

/** A folder that quantised.py made, and the logits of its numbers. */
interface Golden {
  readonly config: Readonly<Record<string, unknown>>;
  /** gzip, base64. */
  readonly files: Readonly<Record<string, string>>;
  readonly ids: readonly (readonly number[])[];
  readonly logits: string;
}

/** What the weights of each are packed as. */
const types: Readonly<Record<string, readonly string[]>> = {
  "awq-bias": ["awq 4 bits"],
  "fp4-nested-bf16-storage": ["fp4"],
  "gpt-oss-mxfp4": ["mxfp4"],
  "gpt2-nf4-nested": ["nf4"],
  "gptq-2bit-v2": ["gptq 2 bits"],
  "gptq-3bit-zero-bias": ["gptq 3 bits"],
  "gptq-8bit-one-group": ["gptq 8 bits"],
  int8: ["int8"],
  "mixtral-gptq": ["gptq 4 bits"],
  "mixtral-mixed": ["fp4", "fp4 and int8"],
  "mixtral-nf4": ["nf4"],
  "mixtral-nf4-long-blocks": ["nf4"],
  "mlx-mxfp4": ["mlx 8 bits", "mxfp4"],
  "mlx-tied-unaligned": ["mlx 2 bits", "mlx 3 bits", "mlx 5 bits", "mlx 6 bits"],
  "nf4-bias-sharded": ["nf4"],
};

const told: Readonly<Record<string, readonly string[]>> = {
  "mixtral-mixed": [
    "m: model.layers.0.mlp.experts.down_proj: its pieces are fp4 and int8, too many for one expression over blocks; they are kept in bf16.",
  ],
};

const unpacked = (text: string): Uint8Array => new Uint8Array(gunzipSync(Buffer.from(text, "base64")));
const goldenOf = (name: string): Golden => JSON.parse(readFileSync(new URL(`./quantised/${name}.json`, import.meta.url), "utf8"));

/** The folder of a golden in memory, with a file in place of another. */
function folderOf({ config, files }: Golden, changed: Readonly<Record<string, Uint8Array | string>> = {}) {
  const held = Object.entries(files).map(([name, text]) => [`m/${name}`, unpacked(text)] as const);
  const others = Object.entries(changed).map(([name, content]) => [`m/${name}`, content] as const);
  return memoryFiles(Object.fromEntries([["m/config.json", JSON.stringify(config)], ...held, ...others]));
}

const worstOf = (a: ArrayLike<number>, b: ArrayLike<number>): number =>
  Math.max(...Array.from(a, (value, i) => Math.abs(value - (b[i] ?? Number.NaN))));

async function logitsOf(golden: Golden, options: Pick<LoadOptions, "dtype"> = {}) {
  const { model, warnings } = await loadModel("m", { device: dev, files: folderOf(golden), ...options });
  const logits = await model
    .forward(
      tensor(
        golden.ids.map((row) => [...row]),
        { dtype: "i32", device: dev },
      ),
    )
    .data();
  const packed = [...model.namedParameters().values()].flatMap(({ packing }) => packing?.type ?? []);
  model.dispose();
  return { logits, packed: [...new Set(packed)].sort(), warnings };
}

test("each golden is here", () =>
  expect(readdirSync(new URL("./quantised", import.meta.url)).sort()).toEqual(
    Object.keys(types)
      .map((name) => `${name}.json`)
      .sort(),
  ));

/** Shaders take a software adapter long: there, one of each tool. */
const here =
  testBackend() === "cpu" ? Object.keys(types) : ["awq-bias", "gpt-oss-mxfp4", "gptq-2bit-v2", "int8", "mixtral-nf4", "mlx-tied-unaligned"];
for (const name of here)
  test(`${name}: transformers' logits with the same numbers, from the blocks`, async () => {
    const golden = goldenOf(name);
    const { logits, packed, warnings } = await logitsOf(golden);
    expect(packed).toEqual(types[name]);
    expect(warnings).toEqual(told[name] ?? []);
    // Sums of some hundred products in another order; of bf16, where that is told.
    expect(worstOf(new Float32Array(unpacked(golden.logits).buffer), logits)).toBeLessThan(told[name] ? 0.02 : 5e-5);
  });

test("weights leave their blocks where a dtype is asked for", async () => {
  const golden = goldenOf("mixtral-nf4");
  const wanted = new Float32Array(unpacked(golden.logits).buffer);
  const { logits, packed } = await logitsOf(golden, { dtype: "f32" });
  expect(packed).toEqual([]);
  expect(worstOf(wanted, logits)).toBeLessThan(5e-5);
  // bf16 rounds weights by up to 2^-9 of each.
  expect(worstOf(wanted, (await logitsOf(golden, { dtype: "bf16" })).logits)).toBeLessThan(0.02);
});

test("the digest tells the codes, the scales and what is said beside them", async () => {
  const golden = goldenOf("nf4-bias-sharded");
  const hashOf = async (changed: Readonly<Record<string, Uint8Array>>): Promise<string> => {
    const { model, hashes } = await loadModel("m", { device: dev, files: folderOf(golden, changed) });
    model.dispose();
    return hashes.model;
  };
  const hashes = new Set([await hashOf({}), await hashOf({})]);
  expect(hashes.size).toBe(1);
  const [first = ""] = Object.keys(golden.files);
  const bytes = unpacked(golden.files[first] ?? "");
  const { entries } = await readSafetensors(bytesSource(bytes));
  for (const part of ["weight", "weight.absmax", "weight.quant_map"]) {
    const entry = [...entries.values()].find(({ name }) => name.endsWith(`_proj.${part}`));
    if (!entry) continue;
    const other = bytes.slice();
    other[entry.offset] = (other[entry.offset] ?? 0) ^ 1;
    hashes.add(await hashOf({ [first]: other }));
  }
  expect(hashes.size).toBe(4);
});

/** A safetensors file with its header and its bytes changed. */
async function damagedFile(bytes: Uint8Array, change: (tensors: Map<string, Raw>) => void): Promise<Uint8Array> {
  const { entries } = await readSafetensors(bytesSource(bytes));
  const tensors = new Map(
    [...entries.values()].map(({ name, dtype, shape, offset, bytes: length }) => [
      name,
      { dtype, shape, bytes: bytes.slice(offset, offset + length) },
    ]),
  );
  change(tensors);
  const header: Record<string, unknown> = {};
  let end = 0;
  for (const [name, { dtype, shape, bytes: held }] of tensors) {
    header[name] = { dtype, shape, data_offsets: [end, end + held.length] };
    end += held.length;
  }
  const text = new TextEncoder().encode(JSON.stringify(header));
  const file = new Uint8Array(8 + text.length + end);
  new DataView(file.buffer).setBigUint64(0, BigInt(text.length), true);
  file.set(text, 8);
  let at = 8 + text.length;
  for (const { bytes: held } of tensors.values()) {
    file.set(held, at);
    at += held.length;
  }
  return file;
}

interface Raw {
  dtype: string;
  shape: readonly number[];
  bytes: Uint8Array;
}

const q = "model.layers.0.self_attn.q_proj";
const withState = (change: (state: Record<string, unknown>) => unknown) => (tensors: Map<string, Raw>) => {
  const name = `${q}.weight.quant_state.bitsandbytes__fp4`;
  const raw = tensors.get(name) as Raw;
  const changed = new TextEncoder().encode(JSON.stringify(change(JSON.parse(new TextDecoder().decode(raw.bytes)))));
  tensors.set(name, { dtype: "U8", shape: [changed.length], bytes: changed });
};
const without = (name: string) => (tensors: Map<string, Raw>) => void tensors.delete(name);
const as = (name: string, change: Partial<Raw>) => (tensors: Map<string, Raw>) =>
  void tensors.set(name, { ...(tensors.get(name) as Raw), ...change });
const f32 = (...values: number[]): Uint8Array => new Uint8Array(Float32Array.from(values).buffer);
const i32 = (...values: number[]): Uint8Array => new Uint8Array(Int32Array.from(values).buffer);

test("a module of MLX's that has options of its own takes MLX's defaults for the others, not those of all modules", async () => {
  const golden = goldenOf("mlx-mxfp4");
  const { quantization, quantization_config: _again, ...config } = golden.config;
  const name = "model.layers.0.mlp.gate_proj";
  const { mode: _affine, ...own } = (quantization as Record<string, Record<string, unknown>>)[name] ?? {};
  expect(own).toEqual({ group_size: 32, bits: 8 });
  const { logits, packed } = await logitsOf({
    ...golden,
    config: { ...config, quantization: { ...(quantization as object), [name]: own } },
  });
  expect(packed).toEqual(types["mlx-mxfp4"]);
  expect(worstOf(new Float32Array(unpacked(golden.logits).buffer), logits)).toBeLessThan(5e-5); // as above
});

test("the bits of a module of GPTQ are those of its tensors, whatever is said of most", async () => {
  const golden = goldenOf("gptq-8bit-one-group");
  const said = { quant_method: "gptq", bits: 4, group_size: 32, dynamic: { "+:.*": { bits: 8, group_size: -1 } } };
  const { logits, packed } = await logitsOf({ ...golden, config: { ...golden.config, quantization_config: said } });
  expect(packed).toEqual(types["gptq-8bit-one-group"]);
  expect(worstOf(new Float32Array(unpacked(golden.logits).buffer), logits)).toBeLessThan(5e-5); // as above
});

test.each(["awq-bias", "fp4-nested-bf16-storage", "gpt-oss-mxfp4", "int8", "mlx-tied-unaligned", "nf4-bias-sharded"])(
  "%s without a word on quantization is refused with what it is",
  async (name) => {
    const golden = goldenOf(name);
    const { quantization: _mlx, quantization_config: _said, ...config } = golden.config;
    await expect(loadModel("m", { device: dev, files: folderOf({ ...golden, config }) })).rejects.toThrow(
      /^m\/config\.json: ".*" is part of a quantized weight, and no "quantization_config" says by which tool and how\. Fetch config\.json/,
    );
  },
);

test.each(["hqq", "bitsandbytes", "gptq", "fp8", "mxfp4"])("dense weights under a word of %s are read, with a warning", async (name) => {
  const golden = goldenOf("nf4-bias-sharded");
  const { model } = await loadModel("m", { device: dev, files: folderOf(golden), dtype: "f32" });
  const files = memoryFiles();
  await saveModel(model, "d", { files });
  model.dispose();
  const config = JSON.parse(new TextDecoder().decode(files.files.get("d/config.json"))) as object;
  expect(config).not.toHaveProperty("quantization_config");
  await files.write("d/config.json", new TextEncoder().encode(JSON.stringify({ ...config, quantization_config: { quant_method: name } })));
  const { model: dense, warnings } = await loadModel("d", { device: dev, files });
  expect(warnings).toEqual([
    `d/config.json: it says that weights are quantized by "${name}", and none is: they are read as they stand. Take "quantization_config" out of it if they were unpacked, else fetch the quantized files.`,
  ]);
  dense.dispose();
});

describe("what is damaged is refused with its name", () => {
  test.each<[string, string, (tensors: Map<string, Raw>) => void, RegExp]>([
    [
      "a state that is no JSON",
      "fp4-nested-bf16-storage",
      as(`${q}.weight.quant_state.bitsandbytes__fp4`, { shape: [2], bytes: new Uint8Array([123, 34]) }),
      /quant_state\.bitsandbytes__fp4" holds no JSON/,
    ],
    [
      "a state of another shape",
      "fp4-nested-bf16-storage",
      withState((state) => ({ ...state, shape: [32, 31] })),
      /q_proj\.weight" has 512 bytes, and its state asks for 496/,
    ],
    ["a state without a block size", "fp4-nested-bf16-storage", withState(({ blocksize: _, ...state }) => state), /"blocksize" is missing/],
    [
      "a state of a block size of 0",
      "fp4-nested-bf16-storage",
      withState((state) => ({ ...state, blocksize: 0 })),
      /"blocksize" is 0, not a positive integer/,
    ],
    [
      "blocks that end in the middle of a byte",
      "fp4-nested-bf16-storage",
      withState((state) => ({ ...state, blocksize: 63 })),
      /q_proj\.weight" has blocks of 63 numbers, which end in the middle of a byte/,
    ],
    ["a state that is a list", "fp4-nested-bf16-storage", withState(() => []), /Correct the file/],
    [
      "no scales",
      "fp4-nested-bf16-storage",
      without(`${q}.weight.absmax`),
      /"model\.layers\.0\.self_attn\.q_proj\.weight" is packed, and its "absmax" is missing/,
    ],
    ["no codes", "fp4-nested-bf16-storage", without(`${q}.weight`), /is packed, and its "" is missing|q_proj\.weight" is packed/],
    ["no table", "fp4-nested-bf16-storage", without(`${q}.weight.quant_map`), /its "quant_map" is missing/],
    [
      "too few scales",
      "fp4-nested-bf16-storage",
      as(`${q}.weight.absmax`, { shape: [1], bytes: new Uint8Array(1) }),
      /absmax" is not U8 of 16 elements/,
    ],
    [
      "a scale that is not finite",
      "fp4-nested-bf16-storage",
      as(`${q}.weight.nested_absmax`, { bytes: f32(Number.NaN) }),
      /nested_absmax" is NaN at \[0\]/,
    ],
    [
      "scales of rows that are too few",
      "int8",
      as(`${q}.SCB`, { shape: [1], bytes: f32(1) }),
      /SCB" is F32 of 1 elements, and 32 floats are needed/,
    ],
    ["rows in another layout", "int8", as(`${q}.weight_format`, { bytes: new Uint8Array([2]) }), /weight_format" names another layout/],
    [
      "codes that are no bytes",
      "int8",
      as(`${q}.weight`, { dtype: "F16", shape: [32, 16] }),
      /q_proj\.weight" is F16 of 2 axes, not I8 of two/,
    ],
    [
      "an input of no group",
      "gptq-2bit-v2",
      as(`${q}.g_idx`, { bytes: i32(...new Array(31).fill(0), 1) }),
      /g_idx" puts input 31 into group 1 of 1/,
    ],
    [
      "an input before all groups",
      "gptq-2bit-v2",
      as(`${q}.g_idx`, { bytes: i32(-1, ...new Array(31).fill(0)) }),
      /puts input 0 into group -1/,
    ],
    [
      "words of no codes",
      "gptq-2bit-v2",
      as(`${q}.g_idx`, { shape: [31], bytes: i32(...new Array(31).fill(0)) }),
      /qweight" has 2 words for 31 inputs, which are no codes/,
    ],
    [
      "zero points of other outputs",
      "gptq-2bit-v2",
      as(`${q}.qzeros`, { shape: [2, 1] }),
      /qzeros" has the shape \[2, 1\], and \[1, 2\] is needed/,
    ],
    ["scales that are integers", "awq-bias", as(`${q}.scales`, { dtype: "I16" }), /scales" is I16, not F32 or F16 or BF16/],
    ["scales of no whole groups", "awq-bias", without(`${q}.scales`), /its "scales" is missing/],
    [
      "biases that no group has",
      "mlx-tied-unaligned",
      as(`${q}.biases`, { shape: [1, 32] }),
      /biases" has the shape \[1, 32\], and \[32, 1\] is needed/,
    ],
    [
      "rows that are no whole groups",
      "mlx-tied-unaligned",
      as(`${q}.weight`, { shape: [48, 2] }),
      /q_proj\.weight" has rows of 2 words, which are no groups of 32 numbers of 3 bits/,
    ],
    [
      "experts that mlx-lm has stacked",
      "mlx-tied-unaligned",
      (tensors) => void tensors.set("model.layers.0.mlp.switch_mlp.up_proj.scales", tensors.get(`${q}.scales`) as Raw),
      /mlx-lm has put the experts into one stack \("model\.layers\.0\.mlp\.switch_mlp\.up_proj\.scales"\), which is not read/,
    ],
    [
      "activations that AutoAWQ divides",
      "awq-bias",
      (tensors) => void tensors.set("model.layers.0.mlp.act.scales", { dtype: "F16", shape: [96], bytes: new Uint8Array(192) }),
      /AutoAWQ divides activations by "model\.layers\.0\.mlp\.act\.scales", which is not read/,
    ],
    [
      "blocks of another size",
      "gpt-oss-mxfp4",
      as("model.layers.0.mlp.experts.down_proj_blocks", { shape: [3, 32, 2, 8] }),
      /down_proj_blocks" has the shape 3 x 32 x 2 x 8/,
    ],
    [
      "a bias that a layer has not",
      "gptq-3bit-zero-bias",
      as("model.layers.0.mlp.up_proj.bias", { bytes: new Uint8Array(192).fill(1) }),
      /unexpected: model\.layers\.0\.mlp\.up_proj\.bias/,
    ],
  ])("%s", async (_, name, change, says) => {
    const golden = goldenOf(name);
    const changed = await damagedFile(unpacked(golden.files["model.safetensors"] ?? ""), change);
    const failed = await loadModel("m", { device: dev, files: folderOf(golden, { "model.safetensors": changed }) }).then(
      () => null,
      (error: unknown) => error,
    );
    expect(failed).toBeInstanceOf(CheckpointError);
    expect((failed as Error).message).toMatch(says);
  });

  test.each<[string, Readonly<Record<string, unknown>>, RegExp]>([
    ["gptq-2bit-v2", { quantization_config: { quant_method: "gptq", bits: 5 } }, /"quantization_config\.bits" is 5, not 2, 3, 4 or 8/],
    [
      "gptq-2bit-v2",
      { quantization_config: { quant_method: "gptq", bits: 4, checkpoint_format: "marlin" } },
      /checkpoint_format" is "marlin", not one of gptq, gptq_v2/,
    ],
    ["awq-bias", { quantization_config: { quant_method: "awq", bits: 4, version: "gemv" } }, /version" is "gemv", not gemm/],
    [
      "mlx-mxfp4",
      { quantization: { bits: 4, group_size: 16, mode: "nvfp4" }, quantization_config: null },
      /"quantization\.mode" is "nvfp4", not one of affine, mxfp4/,
    ],
    ["awq-bias", { quantization_config: { quant_method: "hqq" } }, /quantized by "hqq", which is not read\. Use the checkpoint in bf16/],
    ["awq-bias", { quantization_config: { quant_method: 4 } }, /quant_method/],
    ["gptq-2bit-v2", { quantization_config: { quant_method: "gptq", bits: 2, pack_dtype: "int64" } }, /pack_dtype" is "int64", not int32/],
    [
      "mlx-mxfp4",
      {
        quantization: { bits: 4, group_size: 32, mode: "affine", "model.layers.0.mlp.up_proj": { mode: "mxfp8" } },
        quantization_config: null,
      },
      /"quantization\.model\.layers\.0\.mlp\.up_proj\.mode" is "mxfp8", not one of affine, mxfp4/,
    ],
  ])("%s with %j", async (name, said, says) => {
    const golden = goldenOf(name);
    await expect(loadModel("m", { device: dev, files: folderOf({ ...golden, config: { ...golden.config, ...said } }) })).rejects.toThrow(
      says,
    );
  });
});

const shared = sharedDir("quant");
const folders: Readonly<Record<string, readonly string[]>> = {
  "llama-nf4": ["nf4"],
  "llama-int8": ["int8"],
  "awq-llama": ["awq 4 bits"],
  "gptq-llama/v1-3bit": ["gptq 3 bits"],
  "gptq-llama/v1-4bit": ["gptq 4 bits"],
  "gptq-llama/v1-8bit": ["gptq 8 bits"],
  "gptq-llama/v2-4bit": ["gptq 4 bits"],
  "mlx-llama": ["mlx 4 bits", "mlx 6 bits", "mlx 8 bits"],
  "mlx-llama-mxfp4": ["mlx 8 bits", "mxfp4"],
};

describe.skipIf(shared === null)("../shared/quant", () => {
  for (const [name, packed] of Object.entries(folders))
    test(`${name} gives the tools' logits, from the blocks`, async () => {
      const folder = join(shared ?? "", name);
      expect(existsSync(folder)).toBe(true);
      const io = await readSafetensors(bytesSource(new Uint8Array(readFileSync(join(folder, "io.safetensors"))), "io"));
      const { model, warnings } = await loadModel(join(folder, "model"), { device: dev });
      const found = [...model.namedParameters().values()].flatMap(({ packing }) => packing?.type ?? []);
      expect([...new Set(found)].sort()).toEqual(packed);
      const key = io.entries.has("input_ids") ? "input_ids" : "ids";
      const ids = tensor(Array.from(await io.values(key)), { dtype: "i32", shape: io.entries.get(key)?.shape ?? [], device: dev });
      // Sums of some hundred products in another order.
      expect(worstOf(await io.values("logits"), await model.forward(ids).data())).toBeLessThan(5e-5);
      expect(warnings).toEqual([]);
      model.dispose();
    });
});

test.each(Object.keys(types))("%s is not quantized a second time", async (name) => {
  const files = folderOf(goldenOf(name));
  const load = loadModel("m", { device: dev, files, quantize: "nf4" });
  await expect(load).rejects.toThrow(CheckpointError);
  await expect(load).rejects.toThrow(
    /^m: ".*" is quantized already, in .*, and is not quantized to nf4 again\. Load it as it is, without `quantize`/,
  );
});
