import { type CausalLM, initModel, loadModel, saveModel } from "@lowrank/models";
import { CheckpointError, device, joined, memoryFiles, type Tensor, tensor, writeSafetensors } from "@lowrank/tensor";
import { describe, expect, test } from "vitest";
import { describingFiles, templateFolder } from "../../src/checkpoint/files.js";

const dev = await device("cpu", { threads: 1 });
const llama = {
  model_type: "llama",
  vocab_size: 11,
  hidden_size: 8,
  intermediate_size: 12,
  num_hidden_layers: 2,
  num_attention_heads: 2,
  num_key_value_heads: 1,
  max_position_embeddings: 32,
  tie_word_embeddings: true,
};
type Config = Readonly<Record<string, unknown>>;
const untied = { ...llama, tie_word_embeddings: false };
const ids = tensor([[1, 2, 3, 4]], { device: dev, dtype: "i32" });
const logitsOf = async (model: CausalLM): Promise<number[]> => [...(await model.forward(ids).data())];
const weightsOf = async (config: Config): Promise<Map<string, Tensor>> =>
  new Map((await initModel(config, { device: dev, seed: 1 })).namedParameters());
const bytesOf = (tensors: ReadonlyMap<string, Tensor>): Promise<Uint8Array> => joined(writeSafetensors(tensors, { format: "pt" }));
const load = (config: Config, files: Readonly<Record<string, Uint8Array | string>>) =>
  loadModel("m", {
    device: dev,
    files: memoryFiles({
      "m/config.json": JSON.stringify(config),
      ...Object.fromEntries(Object.entries(files).map(([name, bytes]) => [`m/${name}`, bytes])),
    }),
  });

async function failure(work: Promise<unknown>): Promise<string> {
  const error = await work.then(
    () => new Error("it loaded"),
    (error: unknown) => error as Error,
  );
  expect(error, error.stack ?? "").toBeInstanceOf(CheckpointError);
  return error.message;
}

/** A tensor as a file holds it. */
interface Raw {
  readonly dtype: string;
  readonly shape: readonly number[];
  readonly bytes: Uint8Array;
}

/** A safetensors file of any dtypes. */
function rawFile(tensors: Readonly<Record<string, Raw>>): Uint8Array {
  const header: Record<string, unknown> = {};
  let end = 0;
  for (const [name, { dtype, shape, bytes }] of Object.entries(tensors)) {
    header[name] = { dtype, shape, data_offsets: [end, end + bytes.length] };
    end += bytes.length;
  }
  const text = new TextEncoder().encode(JSON.stringify(header));
  const whole = new Uint8Array(8 + text.length + end);
  new DataView(whole.buffer).setBigUint64(0, BigInt(text.length), true);
  whole.set(text, 8);
  let at = 8 + text.length;
  for (const { bytes } of Object.values(tensors)) {
    whole.set(bytes, at);
    at += bytes.length;
  }
  return whole;
}

const float32 = (shape: readonly number[], values: ArrayLike<number>): Raw => ({
  dtype: "F32",
  shape,
  bytes: new Uint8Array(Float32Array.from(values).buffer),
});
async function rawOf(weights: ReadonlyMap<string, Tensor>): Promise<Record<string, Raw>> {
  const raw: Record<string, Raw> = {};
  for (const [name, weight] of weights) raw[name] = float32(weight.shape, (await weight.data()) as Float32Array);
  return raw;
}

describe("shards are found whatever they are called", () => {
  const halves = async (): Promise<readonly [Uint8Array, Uint8Array, readonly string[]]> => {
    const weights = await weightsOf(llama);
    const names = [...weights.keys()];
    const half = (parity: number): Promise<Uint8Array> => bytesOf(new Map([...weights].filter((_, i) => i % 2 === parity)));
    return [await half(0), await half(1), names];
  };
  test.each<[string, readonly [string, string], string | null]>([
    ["the usual index and names", ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"], "model.safetensors.index.json"],
    ["the usual index and names of their own", ["first half.safetensors", "b.safetensors"], "model.safetensors.index.json"],
    ["an index of another name", ["weights-1.safetensors", "weights-2.safetensors"], "weights.safetensors.index.json"],
    ["no index", ["pytorch_model-00001-of-00002.safetensors", "pytorch_model-00002-of-00002.safetensors"], null],
    ["Mistral's names alone", ["consolidated.00.safetensors", "consolidated.01.safetensors"], null],
  ])("%s", async (_, [first, second], index) => {
    const [a, b, names] = await halves();
    const map = Object.fromEntries(names.map((name, i) => [name, i % 2 ? second : first]));
    const { model } = await load(llama, {
      [first]: a,
      [second]: b,
      ...(index && { [index]: JSON.stringify({ weight_map: map }) }),
      // Neither weights nor others': what lies about.
      "adapter_model.safetensors": rawFile({}),
      "training-state.safetensors": rawFile({}),
    });
    expect(await logitsOf(model)).toEqual(await logitsOf(await initModel(llama, { device: dev, seed: 1 })));
  });

  test("the same weights under Mistral's names beside them are not read", async () => {
    const [a, b] = await halves();
    const { model } = await load(llama, { "x.safetensors": a, "y.safetensors": b, "consolidated.safetensors": a });
    expect(model.vocabSize).toBe(11);
  });
});

test("all that loading asks a folder for is among what is fetched of the hub", async () => {
  const files = memoryFiles({
    "m/config.json": JSON.stringify(llama),
    "m/model.safetensors": await bytesOf(await weightsOf(llama)),
    "m/tokenizer.json": JSON.stringify({
      added_tokens: [],
      normalizer: null,
      pre_tokenizer: null,
      post_processor: null,
      decoder: null,
      model: { type: "BPE", vocab: { a: 0 }, merges: [] },
    }),
  });
  const asked = new Set<string>();
  const open = (path: string) => {
    asked.add(path.replace("m/", ""));
    return files.open(path);
  };
  expect((await loadModel("m", { device: dev, files: { ...files, open } })).tokenizer).not.toBeNull();
  const others = [...asked].filter((name) => !name.endsWith(".safetensors") && !name.startsWith(`${templateFolder}/`));
  expect(others.sort()).toEqual([...describingFiles].sort());
});

describe("the tensors say what the head is", () => {
  const headless = async (): Promise<Map<string, Tensor>> => weightsOf(llama);
  const own = async (): Promise<Map<string, Tensor>> => weightsOf(untied);
  const embeddings = async (weights: Map<string, Tensor>): Promise<Map<string, Tensor>> =>
    weights.set("lm_head.weight", weights.get("model.embed_tokens.weight") as Tensor);
  test.each<[string, Config, () => Promise<Map<string, Tensor>>, Config, RegExp | null]>([
    ["tied by the file, without a head", llama, headless, llama, null],
    ["tied by the file, with a head that is the embeddings", llama, async () => embeddings(await headless()), llama, null],
    [
      "tied by the file, with a head of its own",
      llama,
      own,
      untied,
      /"tie_word_embeddings" is true, but lm_head\.weight is there and differs/,
    ],
    ["untied by the file, without a head", untied, headless, llama, /"tie_word_embeddings" is false, but there is no lm_head\.weight/],
    [
      "tied by the file, the embeddings stored as the head",
      llama,
      async () => {
        const weights = await embeddings(await headless());
        weights.delete("model.embed_tokens.weight");
        return weights;
      },
      llama,
      null,
    ],
  ])("%s", async (_, config, weights, like, says) => {
    const { model, config: read, warnings } = await load(config, { "model.safetensors": await bytesOf(await weights()) });
    expect(await logitsOf(model)).toEqual(await logitsOf(await initModel(like, { device: dev, seed: 1 })));
    expect(read.tie_word_embeddings).toBe(like["tie_word_embeddings"]);
    if (says) expect(warnings).toEqual([expect.stringMatching(says)]);
    else expect(warnings).toEqual([]);
    // What is saved says what it is.
    const files = memoryFiles();
    await saveModel(model, "copy", { files });
    const copy = await loadModel("copy", { device: dev, files });
    expect(copy.warnings).toEqual([]);
    expect(await logitsOf(copy.model)).toEqual(await logitsOf(model));
  });
});

describe("a vocabulary that was resized", () => {
  test.each([
    ["grown, tied", llama, 14],
    ["shrunk, tied", llama, 9],
    ["grown, with its own head", untied, 14],
  ] as const)("%s, is as long as the embeddings", async (_, config, rows) => {
    const weights = await weightsOf({ ...config, vocab_size: rows });
    const { model, config: read, warnings } = await load(config, { "model.safetensors": await bytesOf(weights) });
    expect([model.vocabSize, read.vocab_size, model.forward(ids).shape.at(-1)]).toEqual([rows, rows, rows]);
    expect(warnings).toEqual([expect.stringMatching(new RegExp(`"vocab_size" is 11, but there are embeddings of ${rows} tokens`))]);
  });

  test("of embeddings and head that disagree is refused", async () => {
    const weights = await weightsOf(untied);
    weights.set("lm_head.weight", (await weightsOf({ ...untied, vocab_size: 14 })).get("lm_head.weight") as Tensor);
    expect(await failure(load(untied, { "model.safetensors": await bytesOf(weights) }))).toMatch(
      /"lm_head\.weight" has the shape \[14, 8\], config\.json asks for \[11, 8\]/,
    );
  });
});

describe("weights in F8_E4M3 with scales", () => {
  /** The number of a byte, as OCP's table of E4M3 has it. */
  const number = (byte: number): number => {
    const [sign, exponent, mantissa] = [byte & 128 ? -1 : 1, (byte >> 3) & 15, byte & 7];
    return sign * (exponent === 0 ? mantissa * 2 ** -9 : (8 + mantissa) * 2 ** (exponent - 10));
  };
  const toBf16 = (value: number): number => {
    const view = new DataView(new ArrayBuffer(4));
    view.setFloat32(0, value);
    const bits = view.getUint32(0);
    view.setUint32(0, (bits + 0x7fff + ((bits >>> 16) & 1)) & 0xffff0000);
    return view.getFloat32(0);
  };
  const wide = { ...llama, hidden_size: 130, intermediate_size: 260, head_dim: 8 };
  const layer = "model.layers.0.mlp.gate_proj.weight";
  const [rows, columns] = [260, 130];
  const bytes = Uint8Array.from({ length: rows * columns }, (_, i) => ((i * 37) % 254) + ((i * 37) % 254 >= 127 ? 1 : 0));

  /** A checkpoint with that weight in 8 bits, and the numbers that it stands for. */
  async function quantized(shape: readonly number[], scales: readonly number[], scaleAt: (row: number, column: number) => number) {
    const raw = await rawOf(await weightsOf(wide));
    raw[layer] = { dtype: "F8_E4M3", shape: [rows, columns], bytes };
    raw[`${layer}_scale_inv`] = float32(shape, scales);
    const numbers = Float32Array.from(bytes, (byte, i) =>
      toBf16(Math.fround(number(byte) * Math.fround(scaleAt(Math.floor(i / columns), i % columns)))),
    );
    return { raw, numbers };
  }
  const grid = Array.from({ length: 6 }, (_, i) => 0.001 * (i + 1) + 0.0003);
  const cases = {
    "one for all": () => quantized([], [0.0123], () => 0.0123),
    "one for all, in brackets": () => quantized([1], [0.0123], () => 0.0123),
    "one for each block of 128 x 128": () =>
      quantized([3, 2], grid, (row, column) => grid[2 * Math.floor(row / 128) + Math.floor(column / 128)] ?? 0),
    "one for each of equal blocks": () =>
      quantized(
        [2, 13],
        Array.from({ length: 26 }, (_, i) => 0.01 + i / 1000),
        (row, column) => 0.01 + (13 * Math.floor(row / 130) + Math.floor(column / 10)) / 1000,
      ),
  } as const;

  test.each(Object.keys(cases) as (keyof typeof cases)[])("%s become bf16", async (name) => {
    const { raw, numbers } = await cases[name]();
    const config = { ...wide, quantization_config: { quant_method: "fp8", weight_block_size: [128, 128] } };
    raw["model.layers.0.mlp.gate_proj.activation_scale"] = float32([], [2]);
    const { model, config: read, warnings } = await load(config, { "model.safetensors": rawFile(raw) });
    const weight = model.namedParameters().get(layer) as Tensor;
    expect(weight.dtype).toBe("bf16");
    expect((await weight.data()) as Float32Array).toEqual(numbers);
    expect(warnings).toEqual([]);
    expect(read).not.toHaveProperty("quantization_config");
    // It computes as the same numbers in a file of bf16 do.
    const { [`${layer}_scale_inv`]: _scale, "model.layers.0.mlp.gate_proj.activation_scale": _input, ...plain } = raw;
    plain[layer] = float32([rows, columns], numbers);
    const same = await load(wide, { "model.safetensors": rawFile(plain) });
    expect(await logitsOf(model)).toEqual(await logitsOf(same.model));
    const files = memoryFiles();
    await saveModel(model, "copy", { files });
    expect(await logitsOf((await loadModel("copy", { device: dev, files })).model)).toEqual(await logitsOf(model));
  });

  test("blocks are of the size that config.json says, where the grid is as large with others", async () => {
    const values = Array.from({ length: 9 }, (_, i) => 0.01 + i / 1000);
    const { raw, numbers } = await quantized(
      [3, 3],
      values,
      (row, column) => values[3 * Math.floor(row / 100) + Math.floor(column / 60)] ?? 0,
    );
    const config = { ...wide, quantization_config: { quant_method: "fp8", weight_block_size: [100, 60] } };
    const { model } = await load(config, { "model.safetensors": rawFile(raw) });
    expect((await (model.namedParameters().get(layer) as Tensor).data()) as Float32Array).toEqual(numbers);
    const wrong = { ...wide, quantization_config: { quant_method: "fp8", weight_block_size: [0, 60] } };
    expect(await failure(load(wrong, { "model.safetensors": rawFile(raw) }))).toMatch(
      /weight_block_size" is \[0,60\], not two positive integers/,
    );
  });

  test("scales in another shard, in bf16, under the names of a wrapper; and in f32 where that is asked for", async () => {
    const { raw } = await cases["one for all"]();
    const scale = new Uint16Array([0x3c4a]); // 0.01233
    const { [`${layer}_scale_inv`]: _scale, ...rest } = raw;
    const files = memoryFiles({
      "m/config.json": JSON.stringify(wide),
      "m/a.safetensors": rawFile(rest),
      "m/b.safetensors": rawFile({
        [`${layer.replace("model.", "")}_scale_inv`]: { dtype: "BF16", shape: [], bytes: new Uint8Array(scale.buffer) },
      }),
    });
    const { model } = await loadModel("m", { device: dev, files, dtype: "f32" });
    const weight = model.namedParameters().get(layer) as Tensor;
    expect([...((await weight.data()) as Float32Array)]).toEqual([...bytes].map((byte) => Math.fround(number(byte) * 0.0123291015625)));
  });

  test("another scale is another model", async () => {
    const [a, b] = [await cases["one for all"](), await quantized([], [0.02], () => 0.02)];
    const hashes = await Promise.all([a, b].map(async ({ raw }) => (await load(wide, { "model.safetensors": rawFile(raw) })).hashes.model));
    expect(hashes[0]).not.toBe(hashes[1]);
  });

  test.each<[string, (raw: Record<string, Raw>) => void, RegExp]>([
    [
      "another float of 8 bits",
      (raw) => {
        raw[layer] = { dtype: "F8_E5M2", shape: [rows, columns], bytes };
      },
      /"model\.layers\.0\.mlp\.gate_proj\.weight" is F8_E5M2; of 8-bit floats only F8_E4M3 with its scales .* is read/,
    ],
    [
      "no scales",
      (raw) => void delete raw[`${layer}_scale_inv`],
      /gate_proj\.weight" is F8_E4M3 without "model\.layers\.0\.mlp\.gate_proj\.weight_scale_inv"/,
    ],
    [
      "scales of another grid",
      (raw) => {
        raw[`${layer}_scale_inv`] = float32([7, 2], new Array(14).fill(1));
      },
      /gate_proj\.weight" has the shape \[260, 130\], and its scales \[7, 2\], which is neither one scale nor one for each block of 128 x 128/,
    ],
    [
      "NaN",
      (raw) => {
        raw[layer] = { dtype: "F8_E4M3", shape: [rows, columns], bytes: bytes.map((byte, i) => (i === 131 ? 0x7f : byte)) };
      },
      /gate_proj\.weight" is NaN at \[1, 1\]/,
    ],
    [
      "a scale that is not finite",
      (raw) => {
        raw[`${layer}_scale_inv`] = float32([], [Number.POSITIVE_INFINITY]);
      },
      /weight_scale_inv" is Infinity/,
    ],
    [
      "scales that are integers",
      (raw) => {
        raw[`${layer}_scale_inv`] = { dtype: "U8", shape: [], bytes: new Uint8Array([127]) };
      },
      /the scales ".*weight_scale_inv" are U8/,
    ],
  ])("%s: refused by name", async (_, change, says) => {
    const { raw } = await cases["one for all"]();
    change(raw);
    expect(await failure(load(wide, { "model.safetensors": rawFile(raw) }))).toMatch(says);
  });

  test("weights that are packed otherwise are refused by their method", async () => {
    const { raw } = await cases["one for all"]();
    const config = { ...wide, quantization_config: { quant_method: "compressed-tensors", format: "pack-quantized" } };
    expect(await failure(load(config, { "model.safetensors": rawFile(raw) }))).toMatch(
      /the weights are quantized by "compressed-tensors", which is not read\. Use the checkpoint in bf16, f16 or f32, or one that is quantized by awq, bitsandbytes/,
    );
  });

  test("weights that are dense again are read, whatever config.json says of before", async () => {
    const weights = await weightsOf(llama);
    const config = { ...llama, quantization_config: { quant_method: "bitsandbytes", load_in_4bit: true } };
    const { model, config: read } = await load(config, { "model.safetensors": await bytesOf(weights) });
    const { model: plain } = await load(llama, { "model.safetensors": await bytesOf(weights) });
    expect(await logitsOf(model)).toEqual(await logitsOf(plain));
    expect(read).not.toHaveProperty("quantization_config");
  });
});

describe("a tensor that is in two shards", () => {
  const shards = async (change: (weights: Map<string, Tensor>) => void): Promise<Readonly<Record<string, Uint8Array>>> => {
    const weights = await weightsOf(untied);
    const second = new Map([...weights].slice(5));
    second.set("model.norm.weight", weights.get("model.norm.weight") as Tensor);
    const first = new Map([...weights].slice(0, 5));
    first.set("model.norm.weight", weights.get("model.norm.weight") as Tensor);
    change(second);
    return { "model-00001-of-00002.safetensors": await bytesOf(first), "model-00002-of-00002.safetensors": await bytesOf(second) };
  };

  test("is read where both are the same", async () => {
    const { model } = await load(untied, await shards(() => {}));
    expect(await logitsOf(model)).toEqual(await logitsOf(await initModel(untied, { device: dev, seed: 1 })));
  });

  test.each<[string, (norm: Tensor) => Tensor]>([
    ["another number", (norm) => norm.add(tensor([0, 0, 0, 0, 0, 0, 0, 1e-6], { device: dev }))],
    ["another dtype", (norm) => norm.cast("bf16")],
    ["another shape", (norm) => norm.reshape([1, 8])],
  ])("is refused with both files where one has %s", async (_, change) => {
    const files = await shards((second) => void second.set("model.norm.weight", change(second.get("model.norm.weight") as Tensor)));
    expect(await failure(load(untied, files))).toMatch(
      /"model\.norm\.weight" is there twice, and m\/model-00002-of-00002\.safetensors has other contents than m\/model-00001-of-00002\.safetensors/,
    );
  });
});
