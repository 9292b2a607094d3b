import { execFileSync } from "node:child_process";
import { mkdtempSync, readdirSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import {
  bytesSource,
  CheckpointError,
  type GgufTensorToWrite,
  type GgufToWrite,
  type GgufValueToWrite,
  joined,
  memoryFiles,
  nodeFiles,
  readGguf,
  writeGguf,
} from "@lowrank/tensor";
import { pythonWith } from "test-support";
import { describe, expect, onTestFinished, test } from "vitest";

/** A tensor whose bytes come in pieces of odd sizes. */
function tensor(name: string, type: string, shape: readonly number[], byteCount: number, first = 0): GgufTensorToWrite {
  const bytes = Uint8Array.from({ length: byteCount }, (_, i) => first + 7 * i);
  return {
    name,
    type,
    shape,
    async *chunks() {
      for (let at = 0; at < byteCount; at += 13) yield bytes.subarray(at, at + 13);
    },
  };
}

const metadata: ReadonlyMap<string, GgufValueToWrite> = new Map<string, GgufValueToWrite>([
  ["general.architecture", { type: "string", value: "llama" }],
  ["a.u8", { type: "u8", value: 200 }],
  ["a.i8", { type: "i8", value: -100 }],
  ["a.u16", { type: "u16", value: 60000 }],
  ["a.i16", { type: "i16", value: -30000 }],
  ["a.u32", { type: "u32", value: 4000000000 }],
  ["a.i32", { type: "i32", value: -2000000000 }],
  ["a.f32", { type: "f32", value: 0.15625 }],
  ["a.bool", { type: "bool", value: true }],
  ["a.text", { type: "string", value: "zwölf 日本語 🙂\u0000" }],
  ["a.u64", { type: "u64", value: 9007199254740993n }],
  ["a.i64", { type: "i64", value: -5 }],
  ["a.f64", { type: "f64", value: Math.PI }],
  ["list.i32", { type: "i32[]", value: [1, -2, 2147483647] }],
  ["list.f32", { type: "f32[]", value: new Float32Array([0.5, -1]) }],
  ["list.u64", { type: "u64[]", value: new BigUint64Array([1n, 2n ** 63n]) }],
  ["list.bool", { type: "bool[]", value: [true, false, true] }],
  ["list.text", { type: "string[]", value: ["a", "", "ö b", "🙂", "x".repeat(70_000)] }],
  ["list.none", { type: "string[]", value: [] }],
]);

const file: GgufToWrite = {
  metadata,
  tensors: [
    tensor("token_embd.weight", "F32", [2, 3, 5], 120),
    tensor("blk.0.attn_q.weight", "Q8_0", [3, 64], 204, 1),
    tensor("blk.0.attn_k.weight", "Q4_K", [1, 256], 144, 2),
    tensor("empty", "F32", [0, 4], 0),
    tensor("output_norm.weight", "F16", [7], 14, 3),
  ],
};

test("what is written is read back: metadata of every type, tensors in their order, aligned, the file's end too", async () => {
  const lists: GgufValueToWrite = {
    type: "list[]",
    value: [
      { type: "u8[]", value: [1, 2] },
      { type: "u8[]", value: [] },
    ],
  };
  const given = { ...file, metadata: new Map([...metadata, ["list.list", lists]]) };
  const bytes = await joined(writeGguf("x.gguf", given));
  expect(bytes.byteLength % 32).toBe(0);
  const read = await readGguf(bytesSource(bytes, "x.gguf"));
  expect(Object.fromEntries(read.metadata)).toEqual({
    ...Object.fromEntries([...metadata].map(([key, { value }]) => [key, value])),
    "list.i32": new Int32Array([1, -2, 2147483647]),
    "list.list": [new Uint8Array([1, 2]), new Uint8Array()],
  });
  expect([...read.metadata.keys()]).toEqual([...given.metadata.keys()]);
  for (const { name, type, shape, chunks } of file.tensors) {
    const entry = read.entries.get(name);
    expect([entry?.type.name, entry?.shape, (entry?.offset ?? 1) % 32]).toEqual([type, shape, 0]);
    expect(await read.bytes(name)).toEqual(await joined(chunks()));
  }
});

test("another alignment is kept to", async () => {
  const aligned = { ...file, metadata: new Map<string, GgufValueToWrite>([["general.alignment", { type: "u32", value: 128 }]]) };
  const read = await readGguf(bytesSource(await joined(writeGguf("x.gguf", aligned)), "x.gguf"));
  expect([...read.entries.values()].map(({ offset }) => offset % 128)).toEqual([0, 0, 0, 0, 0]);
});

const python = pythonWith("gguf", "numpy");

test.skipIf(python === null)("the gguf package reads the same", async () => {
  const folder = mkdtempSync(join(tmpdir(), "lowrank-gguf-"));
  onTestFinished(() => rmSync(folder, { recursive: true }));
  const path = join(folder, "x.gguf");
  // The package reads no text list of none, and no tensor of none.
  const given = {
    metadata: new Map([...metadata].filter(([key]) => key !== "list.none")),
    tensors: file.tensors.filter(({ name }) => name !== "empty"),
  };
  await nodeFiles.write(path, writeGguf(path, given));
  const script = `
import gguf, json, sys
r = gguf.GGUFReader(sys.argv[1])
fields = {k: f.contents() for k, f in r.fields.items() if not k.startswith("GGUF.")}
tensors = [[t.name, t.tensor_type.name, [int(n) for n in t.shape], t.data.tobytes().hex()] for t in r.tensors]
print(json.dumps({"fields": fields, "tensors": tensors}))`;
  const { fields, tensors } = JSON.parse(execFileSync(python ?? "", ["-c", script, path], { encoding: "utf8", maxBuffer: 2 ** 26 }));
  const plain = (value: unknown): unknown =>
    typeof value === "bigint" ? Number(value) : ArrayBuffer.isView(value) ? Array.from(value as never, Number) : value;
  expect(fields).toEqual(Object.fromEntries([...given.metadata].map(([key, { value }]) => [key, plain(value)])));
  const hex = async (part: GgufTensorToWrite): Promise<string> => Buffer.from(await joined(part.chunks())).toString("hex");
  expect(tensors).toEqual(
    await Promise.all(given.tensors.map(async (part) => [part.name, part.type, [...part.shape].reverse(), await hex(part)])),
  );
});

describe("what no reader takes is refused, and what was there stays", () => {
  const one = (given: Partial<GgufToWrite>): GgufToWrite => ({ metadata: new Map(), tensors: [], ...given });
  const pair = (key: string, value: GgufValueToWrite): GgufToWrite => one({ metadata: new Map([[key, value]]) });
  test.each<readonly [string, GgufToWrite, RegExp]>([
    [
      "a number beyond its type",
      pair("a.b", { type: "u8", value: 256 }),
      /metadata "a\.b" is 256, which is no u8\. Give a whole number from 0 to 255/,
    ],
    ["a fraction", pair("a.b", { type: "i32", value: 0.5 }), /is 0\.5, which is no i32/],
    ["no number", pair("a.b", { type: "u32", value: Number.NaN }), /is NaN, which is no u32/],
    ["an element beyond its type", pair("a.b", { type: "i8[]", value: [0, 128] }), /is 128, which is no i8/],
    ["an integer beyond 64 bits", pair("a.b", { type: "u64", value: 2n ** 64n }), /which is no u64/],
    ["half a character", pair("a.b", { type: "string", value: "\ud800" }), /half a surrogate pair/],
    ["an empty key", pair("", { type: "u32", value: 1 }), /a key of the metadata has 0 characters/],
    ["an alignment that is none", pair("general.alignment", { type: "u32", value: 48 }), /general\.alignment is 48 as u32/],
    ["an unknown type", one({ tensors: [tensor("a", "Q9_0", [32], 0)] }), /tensor "a" is to be Q9_0, which GGUF does not have/],
    ["a name twice", one({ tensors: [tensor("a", "F32", [1], 4), tensor("a", "F32", [1], 4)] }), /tensor "a" is there twice/],
    ["a long name", one({ tensors: [tensor("a".repeat(64), "F32", [1], 4)] }), /has 64 bytes\. ggml reads names of 1 to 63/],
    ["five axes", one({ tensors: [tensor("a", "F32", [1, 1, 1, 1, 1], 4)] }), /has 5 axes/],
    ["rows of half blocks", one({ tensors: [tensor("a", "Q8_0", [2, 48], 102)] }), /rows of 48, not whole blocks of Q8_0, 32 each/],
    ["too few bytes", one({ tensors: [tensor("a", "F32", [3], 11)] }), /"a" of shape \[3\] in F32 has 12 bytes, and 11 were given/],
    ["too many bytes", one({ tensors: [tensor("a", "F32", [3], 14)] }), /has 12 bytes, and more were given/],
  ])("%s", async (_, given, says) => {
    const files = memoryFiles({ "x.gguf": "before" });
    const error: unknown = await files.write("x.gguf", writeGguf("x.gguf", given)).catch((reason: unknown) => reason);
    expect(error).toBeInstanceOf(CheckpointError);
    expect(String(error)).toMatch(says);
    expect(new TextDecoder().decode(files.files.get("x.gguf"))).toBe("before");
  });

  test("on a disk", async () => {
    const folder = mkdtempSync(join(tmpdir(), "lowrank-gguf-"));
    onTestFinished(() => rmSync(folder, { recursive: true }));
    const path = join(folder, "x.gguf");
    await expect(nodeFiles.write(path, writeGguf(path, one({ tensors: [tensor("a", "F32", [3], 11)] })))).rejects.toThrow(CheckpointError);
    expect(readdirSync(folder)).toEqual([]);
  });
});
