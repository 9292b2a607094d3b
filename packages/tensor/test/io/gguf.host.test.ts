import { readFileSync } from "node:fs";
import { join } from "node:path";
import { type ByteSource, bytesSource, CheckpointError, device, memoryFiles, readGguf, readGgufHeader } from "@lowrank/tensor";
import { sharedDir } from "test-support";
import { describe, expect, test } from "vitest";
import { everyKind, type GgufParts, ggufBytes, mutateGguf } from "../../../../scripts/fuzz/gguf.mjs";
import { randomOf } from "../../../../scripts/fuzz/random.mjs";

const header = (bytes: Uint8Array) => readGgufHeader(bytesSource(bytes, "x.gguf"));

test("metadata of every type, and the tensors with their types, shapes and ranges", async () => {
  const { version, alignment, metadata, entries } = await header(everyKind());
  expect({ version, alignment }).toEqual({ version: 3, alignment: 32 });
  expect(Object.fromEntries(metadata)).toEqual({
    "general.architecture": "llama",
    "a.u8": 200,
    "a.i8": -100,
    "a.u16": 60000,
    "a.i16": -30000,
    "a.u32": 4000000000,
    "a.i32": -2000000000,
    "a.f32": 0.15625,
    "a.bool": true,
    "a.text": "zwölf 日本語 🙂",
    "a.u64": 9007199254740993n,
    "a.i64": -5,
    "a.f64": Math.PI,
    "list.i32": new Int32Array([1, -2, 2147483647]),
    "list.u64": new BigUint64Array([1n, 2n ** 63n]),
    "list.bool": [true, false, true],
    "list.text": ["a", "", "ö b", "🙂", "a text that is longer than most"],
    "list.list": [new Uint8Array([1, 2]), new Uint8Array(0), new Uint8Array([3])],
  });
  expect(entries.map(({ name, type, shape, bytes }) => [name, type.name, shape, bytes])).toEqual([
    ["token_embd.weight", "F32", [2, 3, 5], 120],
    ["blk.0.attn_q.weight", "Q8_0", [3, 64], 204],
    ["blk.0.attn_k.weight", "Q4_K", [1, 256], 144],
    ["output_norm.weight", "F16", [7], 14],
  ]);
});

test("a tensor's bytes are those of its place, and one that is not there is named", async () => {
  const file = await readGguf(bytesSource(everyKind(), "x.gguf"));
  expect(await file.bytes("blk.0.attn_k.weight")).toEqual(new Uint8Array(144).fill(3));
  expect(await file.bytes("output_norm.weight")).toEqual(new Uint8Array(14).fill(4));
  await expect(file.bytes("nothing")).rejects.toThrow(/x\.gguf: there is no tensor "nothing"\. It holds token_embd/);
});

test("a tensor lies on a device as it is stored, and a type that is not read is refused by its name and the tensor's", async () => {
  const dev = await device("reference");
  const tensors = [
    { name: "half", type: 1, shape: [2], bytes: new Uint8Array([0, 0x3c, 0, 0xc0]) },
    // d = 2, codes 8 + 1 and 8 − 1.
    { name: "blocks", type: 2, shape: [1, 32], bytes: new Uint8Array(18).fill(0x79).fill(0, 0, 1).fill(0x40, 1, 2) },
    { name: "odd", type: 15, shape: [1, 256], bytes: new Uint8Array(292) },
  ];
  const file = await readGguf(bytesSource(ggufBytes({ tensors }), "x.gguf"));
  const [half, blocks] = [await file.weight("half", { device: dev }), await file.weight("blocks", { device: dev })];
  expect(half.dtype).toBe("f16");
  expect(Array.from(await half.data())).toEqual([1, -2]);
  expect([blocks.packing?.bytes, blocks.shape]).toEqual([18, [1, 32]]);
  expect(Array.from(await blocks.data())).toEqual([...Array(16).fill(2), ...Array(16).fill(-2)]);
  await expect(file.weight("odd", { device: dev })).rejects.toThrow(
    /x\.gguf: tensor "odd" is Q8_K, which is not read\. Convert the model to one of F32/,
  );
});

test("version 2 and another alignment are read", async () => {
  const parts: GgufParts = {
    version: 2,
    alignment: 64,
    metadata: [["general.alignment", { kind: "u32", value: 64 }]],
    tensors: [
      { name: "a", type: 0, shape: [1], bytes: new Uint8Array(4) },
      { name: "b", type: 0, shape: [1], bytes: new Uint8Array(4).fill(9) },
    ],
  };
  const file = await readGguf(bytesSource(ggufBytes(parts), "x.gguf"));
  expect((file.entries.get("b")?.offset ?? 1) % 64).toBe(0);
  expect(await file.bytes("b")).toEqual(new Uint8Array(4).fill(9));
});

const f32 = (name: string, more: object = {}) => ({ name, type: 0, shape: [2], bytes: new Uint8Array(8), ...more });
const badFiles: readonly (readonly [name: string, parts: GgufParts | Uint8Array, says: RegExp])[] = [
  ["an empty file", new Uint8Array(0), /0 bytes are too few/],
  ["another format", new TextEncoder().encode("PK and many other letters, more than 24"), /does not begin with the letters "GGUF"/],
  ["version 1", { version: 1 }, /version 1, and versions 2 and 3/],
  ["big-endian numbers", { version: 3 << 24 }, /big-endian/],
  ["more keys than bytes", { keyCount: 2 ** 40 }, /metadata of 1099511627776 keys needs .* bytes or more/],
  ["more tensors than bytes", { tensorCount: 2 ** 40 }, /table of 1099511627776 tensors needs/],
  ["a key that is not there", { keyCount: 1, tensors: [f32("a"), f32("b")] }, /x\.gguf: /],
  [
    "a key twice",
    {
      metadata: [
        ["a", { kind: "u8", value: 1 }],
        ["a", { kind: "u8", value: 1 }],
      ],
    },
    /metadata "a" is there twice/,
  ],
  ["a truth value of 2", { metadata: [["yes", { kind: "bool", value: 2 }]] }, /"yes" is a truth value of 2/],
  ["an alignment of 3", { metadata: [["general.alignment", { kind: "u32", value: 3 }]] }, /general\.alignment is 3/],
  ["a tensor twice", { tensors: [f32("a"), f32("a")] }, /tensor "a" is there twice/],
  ["a type that was withdrawn", { tensors: [f32("a", { type: 4 })] }, /tensor "a" has the unknown type 4/],
  ["a type of the future", { tensors: [f32("a", { type: 99 })] }, /tensor "a" has the unknown type 99/],
  ["rows that are not whole blocks", { tensors: [f32("a", { type: 2, shape: [4, 33] })] }, /rows of 33, not whole blocks of Q4_0, 32 each/],
  [
    "a tensor larger than the file",
    { tensors: [f32("a", { shape: [2 ** 20, 2 ** 20] })] },
    /tensor "a" of shape .* needs 4398046511104 bytes/,
  ],
  ["nine axes", { tensors: [f32("a", { shape: Array(9).fill(1) })] }, /tensor "a" has 9 axes/],
  [
    "a tensor that begins off its alignment",
    { tensors: [f32("a", { offset: 4 })] },
    /tensor "a" begins at byte \d+, which is not a multiple of 32/,
  ],
  ["a tensor that ends beyond the file", { tensors: [f32("a", { offset: 3200 })] }, /tensor "a" ends at byte \d+, and the file has/],
  ["tensors that overlap", { tensors: [f32("a"), f32("b", { offset: 0 })] }, /tensor "b" overlaps "a" by 8 bytes/],
];

for (const [name, parts, says] of badFiles)
  test(`${name}: an error that names it`, async () => {
    const error = await header(parts instanceof Uint8Array ? parts : ggufBytes(parts)).catch((reason: unknown) => reason);
    expect(error).toBeInstanceOf(CheckpointError);
    expect((error as Error).message).toMatch(says);
  });

test("a file that ends anywhere in its header or its tensors: an error that names the file", async () => {
  const whole = everyKind();
  const { entries } = await header(whole);
  const last = entries.at(-1);
  const end = (last?.offset ?? 0) + (last?.bytes ?? 0);
  for (let length = 0; length < end; length += 11)
    await expect(header(whole.subarray(0, length)), `${length} bytes`).rejects.toThrow(/^x\.gguf: /);
  await header(whole.subarray(0, end));
});

test("of mutated files, each is read or a typed error, in little time and without asking for more bytes than there are", async () => {
  const samples = [everyKind(), ggufBytes({ tensors: [f32("a"), f32("b")] })];
  const outcomes = { read: 0, refused: 0 };
  for (let index = 0; index < 2500; index++) {
    const random = randomOf(21, index);
    const bytes = mutateGguf(random.pick(samples), random, random.pick(samples));
    let asked = 0;
    const source: ByteSource = {
      name: "x.gguf",
      byteLength: bytes.length,
      read: async (offset, length) => {
        if (!(offset >= 0 && length >= 0 && offset + length <= bytes.length))
          throw new Error(`mutant ${index}: ${length} bytes from ${offset}`);
        asked += length;
        return bytes.subarray(offset, offset + length);
      },
    };
    try {
      const file = await readGguf(source);
      for (const name of file.entries.keys()) await file.bytes(name);
      outcomes.read++;
    } catch (error) {
      if (!(error instanceof CheckpointError)) throw new Error(`mutant ${index}`, { cause: error });
      expect(error.message.length, `mutant ${index}`).toBeLessThan(1000);
      outcomes.refused++;
    }
    expect(asked, `mutant ${index}`).toBeLessThanOrEqual(3 * bytes.length);
  }
  expect(Math.min(outcomes.read, outcomes.refused)).toBeGreaterThan(250);
});

test("the header of a vocabulary of 151,936 takes less than half a second of processor time", async () => {
  const texts = (count: number, length: number) =>
    Array.from({ length: count }, (_, i) => `${i % 7 === 0 ? "Ġ" : ""}${i}`.padEnd(length, "x"));
  const bytes = ggufBytes({
    metadata: [
      ["tokenizer.ggml.tokens", { kind: "list", of: "text", value: texts(151_936, 7) }],
      ["tokenizer.ggml.merges", { kind: "list", of: "text", value: texts(151_387, 9) }],
    ],
  });
  const seconds: number[] = [];
  for (let round = 0; round < 3; round++) {
    const start = process.cpuUsage();
    const { metadata } = await header(bytes);
    const { user, system } = process.cpuUsage(start);
    seconds.push((user + system) / 1e6);
    expect((metadata.get("tokenizer.ggml.tokens") as readonly string[])[151_935]).toBe("Ġ151935");
  }
  // Some 0.1 s, and 0.25 where the first touch of memory is slow. The process is shared with other files, whose garbage may be collected meanwhile: that adds time to a round and never takes any.
  expect(Math.min(...seconds), seconds.join()).toBeLessThan(0.5);
});

describe("a model in several files", () => {
  const part = (number: unknown, name: string, count = 2, total = 2): Uint8Array =>
    ggufBytes({
      metadata: [
        ["split.no", { kind: "u16", value: number }],
        ["split.count", { kind: "u16", value: count }],
        ["split.tensors.count", { kind: "i32", value: total }],
      ],
      tensors: [{ name, type: 0, shape: [1], bytes: new Uint8Array(4).fill(name.charCodeAt(0)) }],
    });
  const opened = async (files: Readonly<Record<string, Uint8Array>>, first = "m-00001-of-00002.gguf") => {
    const folder = memoryFiles(files);
    return readGguf(bytesSource(files[first] ?? new Uint8Array(0), `folder/${first}`), (name) => folder.open(name));
  };
  const [one, two] = ["m-00001-of-00002.gguf", "m-00002-of-00002.gguf"] as const;

  test("is read as one", async () => {
    const file = await opened({ [one]: part(0, "a"), [two]: part(1, "b") });
    expect([...file.entries.keys()]).toEqual(["a", "b"]);
    expect(await file.bytes("b")).toEqual(new Uint8Array(4).fill(98));
  });
  test("whose second is missing: its name", () =>
    expect(opened({ [one]: part(0, "a") })).rejects.toThrow(/"m-00002-of-00002\.gguf", another part of the model, is not beside it/));
  test("whose second is another's: its name", () =>
    expect(opened({ [one]: part(0, "a"), [two]: part(0, "b") })).rejects.toThrow(/m-00002.* does not say that it is part 2/));
  test("of which two hold one tensor: its name", () =>
    expect(opened({ [one]: part(0, "a"), [two]: part(1, "a") })).rejects.toThrow(/tensor "a" is in another part too/));
  test("that hold too few tensors: the counts", () =>
    expect(opened({ [one]: part(0, "a", 2, 5), [two]: part(1, "b") })).rejects.toThrow(/hold 2 tensors, and it says 5/));
  test("of which a later one is given: that the first is wanted", () =>
    expect(opened({ [two]: part(1, "b") }, two)).rejects.toThrow(/a later part of a model in 2 files/));
  test("whose first was renamed: what its name must be", () =>
    expect(opened({ "m.gguf": part(0, "a") }, "m.gguf")).rejects.toThrow(/does not end with -00001-of-00002\.gguf/));
});

const shared = sharedDir("gguf");
describe.skipIf(shared === null)("../shared/gguf", () => {
  const read = (name: string): Uint8Array => new Uint8Array(readFileSync(join(shared ?? "", name)));

  test("types.gguf holds what types.json says", async () => {
    const truth = JSON.parse(new TextDecoder().decode(read("types.json")));
    const { metadata, entries } = await header(read("types.gguf"));
    for (const [key, value] of Object.entries(truth.metadata)) {
      const got = metadata.get(key);
      const plain = ArrayBuffer.isView(got) ? Array.from(got as Int32Array) : typeof value === "string" ? String(got) : got;
      expect(plain, key).toEqual(value);
    }
    expect(Object.fromEntries(entries.map(({ name, shape }) => [name, shape]))).toEqual(truth.tensors);
  });

  test("llama.gguf holds a vocabulary, a template and tensors of several types", async () => {
    const { metadata, entries } = await header(read("llama.gguf"));
    expect(metadata.get("general.architecture")).toBe("llama");
    expect(metadata.get("tokenizer.ggml.pre")).toBe("llama-bpe");
    expect(new Set(entries.map(({ type }) => type.name)).size).toBeGreaterThan(5);
  });
});
