import { execFileSync } from "node:child_process";
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import {
  bytesSource,
  CheckpointError,
  type DType,
  device,
  fileSource,
  joined,
  memoryFiles,
  readSafetensors,
  sealName,
  sealOf,
  type Tensor,
  tensor,
  writeFileAtomic,
  writeSafetensors,
  writeWeights,
} from "@lowrank/tensor";
import fc from "fast-check";
import { sharedDir } from "test-support";
import { afterAll, describe, expect, test } from "vitest";

const dev = await device("reference");

/** A file with the given header text and number of data bytes. */
function fileOf(header: string | Uint8Array, dataBytes: number, claimed?: number): Uint8Array {
  const head = typeof header === "string" ? new TextEncoder().encode(header) : header;
  const bytes = new Uint8Array(8 + head.byteLength + dataBytes);
  new DataView(bytes.buffer).setBigUint64(0, BigInt(claimed ?? head.byteLength), true);
  bytes.set(head, 8);
  return bytes;
}

const entry = (dtype: unknown, shape: unknown, from: unknown, to: unknown): unknown => ({ dtype, shape, data_offsets: [from, to] });

const badFiles: readonly (readonly [name: string, bytes: Uint8Array, says: RegExp])[] = [
  ["an empty file", new Uint8Array(0), /too few/],
  ["a header length beyond the file", fileOf("{}", 0, 1000), /claims 1000 bytes, the file holds 2/],
  ["an absurd header length", fileOf("{}", 0, Number.MAX_SAFE_INTEGER), /claims \d+ bytes/],
  ["a header that is no JSON", fileOf("{oops", 0), /not a JSON object/],
  ["a header that is no UTF-8", fileOf(new Uint8Array([0x7b, 0xff, 0x7d]), 0), /not a JSON object/],
  ["a header that is an array", fileOf("[]", 0), /not a JSON object/],
  ["metadata that are no strings", fileOf('{"__metadata__":{"format":1}}', 0), /__metadata__/],
  ["an entry that is a number", fileOf('{"a":1}', 0), /"a" is not described/],
  ["an entry without dtype", fileOf('{"a":{"shape":[1],"data_offsets":[0,4]}}', 4), /"a" has no dtype/],
  ["an unknown dtype", fileOf(JSON.stringify({ a: entry("Q3", [1], 0, 4) }), 4), /unknown dtype Q3/],
  ["a dtype named like an Object property", fileOf(JSON.stringify({ a: entry("constructor", [1], 0, 4) }), 4), /unknown dtype constructor/],
  ["a negative size", fileOf(JSON.stringify({ a: entry("F32", [-1], 0, 4) }), 4), /"a" has a shape/],
  ["a fractional size", fileOf(JSON.stringify({ a: entry("F32", [0.5], 0, 4) }), 4), /"a" has a shape/],
  [
    "a shape whose product overflows",
    fileOf(JSON.stringify({ a: entry("F32", [2 ** 40, 2 ** 40, 2 ** 40], 0, 4) }), 4),
    /needs .* bytes, its range holds 4/,
  ],
  [
    "a shape that needs more than its range",
    fileOf(JSON.stringify({ a: entry("F32", [3], 0, 4) }), 4),
    /needs 12 bytes, its range holds 4/,
  ],
  ["a range beyond the file", fileOf(JSON.stringify({ a: entry("F32", [2], 0, 8) }), 4), /beyond the 4 bytes/],
  ["a range that ends before it begins", fileOf(JSON.stringify({ a: entry("F32", [1], 4, 0) }), 4), /before its begin/],
  ["ranges that overlap", fileOf(JSON.stringify({ a: entry("F32", [2], 0, 8), b: entry("F32", [1], 4, 8) }), 8), /overlap by 4/],
  [
    "two tensors over the same range",
    fileOf(JSON.stringify({ a: entry("F32", [1], 0, 4), b: entry("F32", [1], 0, 4) }), 4),
    /overlap by 4/,
  ],
  ["a gap between ranges", fileOf(JSON.stringify({ a: entry("F32", [1], 0, 4), b: entry("F32", [1], 8, 12) }), 12), /4 bytes between/],
  ["bytes after the last tensor", fileOf(JSON.stringify({ a: entry("F32", [1], 0, 4) }), 8), /4 bytes after "a"/],
  ["a PyTorch pickle", new Uint8Array([0x80, 2, 0x8a, 0x0a, 0x6c, 0xfc, 0x9c, 0x46, 0xf9, 0x20]), /a Python pickle/],
  ["a framed pickle", new Uint8Array([0x80, 4, 0x95, 0x1e, 0, 0, 0, 0, 0, 0, 0, 0x7d]), /a Python pickle/],
  ["a zipped PyTorch checkpoint", new Uint8Array([0x50, 0x4b, 3, 4, 0, 0, 8, 8, 0, 0]), /a zip archive/],
  ["a Git LFS pointer", new TextEncoder().encode("version https://git-lfs.github.com/spec/v1\n"), /Git LFS pointer/],
  ["an HTML page", new TextEncoder().encode("<!DOCTYPE html><html></html>"), /HTML page/],
];

test("MLX's files, whose metadata are null and whose data begin at any byte, are read", async () => {
  const source = fileOf(JSON.stringify({ __metadata__: null, a: entry("F32", [2], 0, 8) }), 8);
  expect(source.byteLength % 4).not.toBe(0);
  const file = await readSafetensors(bytesSource(source, "x.safetensors"));
  expect(file.metadata).toEqual({});
  expect([...file.entries.keys()]).toEqual(["a"]);
  expect(await file.values("a")).toHaveLength(2);
});

describe("a safetensors file that lies is refused with a CheckpointError that names the lie", () => {
  test.each(badFiles)("%s", async (_name, bytes, says) => {
    const error = await readSafetensors(bytesSource(bytes, "x.safetensors")).then(
      () => null,
      (reason: unknown) => reason,
    );
    expect(error).toBeInstanceOf(CheckpointError);
    expect((error as CheckpointError).message).toMatch(says);
    expect((error as CheckpointError).path).toBe("x.safetensors");
  });

  test("random bytes and mutated headers end in a CheckpointError or in a file whose tensors can all be read", async () => {
    const sound = fileOf(JSON.stringify({ a: entry("F32", [2, 3], 0, 24), b: entry("I64", [1], 24, 32) }), 32);
    const mutated = fc
      .tuple(fc.array(fc.tuple(fc.nat(sound.byteLength - 1), fc.nat(255)), { minLength: 1, maxLength: 8 }), fc.nat(sound.byteLength))
      .map(([edits, length]) => {
        const bytes = sound.slice();
        for (const [at, value] of edits) bytes[at] = value;
        return length % 3 === 0 ? bytes.slice(0, length) : bytes;
      });
    const json = fc.json({ maxDepth: 4 }).map((text) => fileOf(text, 16));
    const entries = fc
      .dictionary(
        fc.string(),
        fc.record({
          dtype: fc.constantFrom("F32", "U8", "I64", "F4", "x"),
          shape: fc.array(fc.oneof(fc.nat(4), fc.double())),
          data_offsets: fc.array(fc.nat(32)),
        }),
      )
      .map((header) => fileOf(JSON.stringify(header), 32));
    await fc.assert(
      fc.asyncProperty(fc.oneof(fc.uint8Array({ maxLength: 64 }), mutated, json, entries), async (bytes) => {
        try {
          const file = await readSafetensors(bytesSource(bytes));
          for (const name of file.entries.keys()) await file.values(name);
        } catch (error) {
          expect(error).toBeInstanceOf(CheckpointError);
        }
      }),
      { numRuns: 2000 },
    );
  });
});

describe("what is written is read back", () => {
  const dtypes: readonly DType[] = ["f32", "f16", "bf16", "i32", "u32", "u8", "bool"];

  test("all dtypes, shapes with and without elements, and metadata", async () => {
    await fc.assert(
      fc.asyncProperty(
        fc.dictionary(
          fc.string({ minLength: 1 }).filter((name) => name !== "__metadata__"),
          fc.tuple(fc.constantFrom(...dtypes), fc.array(fc.nat(3), { maxLength: 3 })),
          { maxKeys: 6 },
        ),
        async (layout) => {
          const tensors = new Map<string, Tensor>();
          for (const [name, [dtype, shape]] of Object.entries(layout)) {
            const size = shape.reduce((a, b) => a * b, 1);
            tensors.set(
              name,
              tensor(
                Float32Array.from({ length: size }, (_, i) => (dtype === "bool" ? i % 2 : i + 1)),
                { device: dev, dtype, shape },
              ),
            );
          }
          const bytes = await joined(writeSafetensors(tensors, { format: "pt" }));
          expect(new DataView(bytes.buffer).getUint32(0, true) % 8).toBe(0);
          const file = await readSafetensors(bytesSource(bytes));
          expect(file.metadata).toEqual({ format: "pt" });
          expect([...file.entries.keys()].sort()).toEqual([...tensors.keys()].sort());
          for (const [name, t] of tensors) {
            const back = await file.tensor(name, { device: dev });
            expect(back.dtype).toBe(t.dtype);
            expect(back.shape).toEqual(t.shape);
            expect(await back.data()).toEqual(await t.data());
          }
        },
      ),
      { numRuns: 100 },
    );
  });

  test.skipIf(sharedDir("models") === null)("byte for byte what the reference implementation wrote", async () => {
    const path = sharedDir("models/stories260K/model.safetensors") as string;
    const file = await readSafetensors(await fileSource(path));
    const tensors = new Map<string, Tensor>();
    for (const name of [...file.entries.keys()].reverse()) tensors.set(name, await file.tensor(name, { device: dev }));
    await file.close();
    expect(Buffer.from(await joined(writeSafetensors(tensors, file.metadata))).equals(readFileSync(path))).toBe(true);
  });
});

test("a tensor whose source has everything at hand lets the event loop in while it is read", async () => {
  const size = 2 ** 24;
  const text = JSON.stringify({ a: entry("F32", [size], 0, 4 * size) });
  const bytes = fileOf(text.padEnd(Math.ceil(text.length / 8) * 8), 4 * size);
  const cpu = await device("cpu");
  const file = await readSafetensors(bytesSource(bytes));
  let [turns, isOver] = [0, false];
  const count = (): void => {
    turns++;
    if (!isOver) setImmediate(count);
  };
  setImmediate(count);
  await file.weight("a", { device: cpu });
  isOver = true;
  cpu.dispose();
  expect(turns).toBeGreaterThan(1);
});

describe("dtypes without a counterpart", () => {
  const i64 = (value: bigint): Uint8Array => {
    const bytes = fileOf(JSON.stringify({ a: entry("I64", [1], 0, 8) }), 8);
    new DataView(bytes.buffer).setBigInt64(bytes.byteLength - 8, value, true);
    return bytes;
  };
  test("I64 becomes i32 where it fits", async () => {
    const t = await (await readSafetensors(bytesSource(i64(-100n)))).tensor("a", { device: dev });
    expect(t.dtype).toBe("i32");
    expect(await t.item()).toBe(-100);
  });
  test("I64 beyond i32 is refused", async () => {
    const file = await readSafetensors(bytesSource(i64(2n ** 31n)));
    await expect(file.tensor("a", { device: dev })).rejects.toThrow(/2147483648, which does not fit/);
  });
  test("F64 becomes f32", async () => {
    const bytes = fileOf(JSON.stringify({ a: entry("F64", [1], 0, 8) }), 8);
    new DataView(bytes.buffer).setFloat64(bytes.byteLength - 8, Math.PI, true);
    const t = await (await readSafetensors(bytesSource(bytes))).tensor("a", { device: dev });
    expect(await t.item()).toBe(Math.fround(Math.PI));
  });
  test("bf16 and f16 can be widened while they are read", async () => {
    for (const dtype of ["bf16", "f16"] as const) {
      const bytes = await joined(writeSafetensors(new Map([["a", tensor([1.5, -0.25, 3], { device: dev, dtype })]])));
      const t = await (await readSafetensors(bytesSource(bytes))).tensor("a", { device: dev, dtype: "f32" });
      expect(t.dtype).toBe("f32");
      expect([...(await t.data())]).toEqual([1.5, -0.25, 3]);
    }
  });
  test("F8 is refused by name, with what can be read", async () => {
    const file = await readSafetensors(bytesSource(fileOf(JSON.stringify({ a: entry("F8_E4M3", [4], 0, 4) }), 4)));
    await expect(file.tensor("a", { device: dev })).rejects.toThrow(/F8_E4M3, which cannot be read\. Convert it to one of F32/);
  });
  test("a name that is not there lists those that are", async () => {
    const file = await readSafetensors(bytesSource(fileOf(JSON.stringify({ a: entry("F32", [1], 0, 4) }), 4)));
    await expect(file.tensor("b", { device: dev })).rejects.toThrow(/no tensor "b"\. It holds a/);
  });
});

describe("weights", () => {
  const f64 = (value: number): Uint8Array => {
    const bytes = fileOf(JSON.stringify({ a: entry("F64", [1], 0, 8) }), 8);
    new DataView(bytes.buffer).setFloat64(bytes.byteLength - 8, value, true);
    return bytes;
  };
  const stored = (values: number[], dtype: DType): Promise<Uint8Array> =>
    joined(writeSafetensors(new Map([["a", tensor([values], { device: dev, dtype })]])));
  const bad: readonly (readonly [name: string, bytes: () => Uint8Array | Promise<Uint8Array>, asked: DType | undefined, says: RegExp])[] = [
    ["NaN", () => stored([1, Number.NaN], "f32"), undefined, /^x: tensor "a" is NaN at \[0, 1\]/],
    ["an infinity that is widened", () => stored([1, 2, Number.NEGATIVE_INFINITY], "bf16"), "f32", /"a" is -Infinity at \[0, 2\]/],
    ["f32 beyond f16", () => stored([1, 65520], "f32"), "f16", /"a" is 65520 at \[0, 1\], and f16 ends at 65504/],
    ["bf16 beyond f16", () => stored([1, 2 ** 17], "bf16"), "f16", /"a" is 131072 at \[0, 1\], and f16 ends at 65504/],
    ["f32 that rounds up beyond bf16", () => stored([3.4028234663852886e38], "f32"), "bf16", /and bf16 ends at 3\.4e38/],
    ["F64 beyond f32", () => f64(1e300), undefined, /"a" is 1e\+300 at \[0\], and f32 ends/],
    ["NaN in F64", () => f64(Number.NaN), undefined, /"a" is NaN at \[0\]/],
  ];
  test.each(bad)("that hold %s are refused", async (_name, bytes, asked, says) => {
    const file = await readSafetensors(bytesSource(await bytes(), "x"));
    const error = await file.weight("a", { device: dev, ...(asked && { dtype: asked }) }).catch((caught: unknown) => caught);
    expect(error).toBeInstanceOf(CheckpointError);
    expect((error as Error).message).toMatch(says);
  });

  test("come with a digest of dtype, shape and contents, whatever they are read as", async () => {
    const digest = async (values: readonly number[], dtype: DType, shape: readonly number[], asked: DType = dtype): Promise<string> => {
      const bytes = await joined(writeSafetensors(new Map([["a", tensor(values, { device: dev, dtype, shape })]])));
      return (await (await readSafetensors(bytesSource(bytes))).weight("a", { device: dev, dtype: asked })).digest;
    };
    const own = await digest([1, 2, 3, 4], "bf16", [2, 2]);
    expect(await digest([1, 2, 3, 4], "bf16", [2, 2], "f32")).toBe(own);
    const others = [
      await digest([1, 2, 4, 3], "bf16", [2, 2]),
      await digest([1, 2, 3, 4], "bf16", [4]),
      await digest([1, 2, 3, 4], "f16", [2, 2]),
    ];
    expect(new Set([own, ...others]).size).toBe(4);
  });

  test("that are infinite or NaN are not written, and what was there is kept", async () => {
    const files = memoryFiles({ "w.safetensors": "old" });
    const tensors = new Map([
      ["a", tensor([1, 2], { device: dev })],
      ["b", tensor([[1, 2, Number.NaN]], { device: dev, dtype: "bf16" })],
    ]);
    const wrong = files.write("w.safetensors", writeWeights("w.safetensors", tensors));
    await expect(wrong).rejects.toThrow(/^w\.safetensors is not written: tensor "b" would not be finite at \[0, 2\]/);
    await expect(wrong).rejects.toBeInstanceOf(CheckpointError);
    expect(new TextDecoder().decode(files.files.get("w.safetensors"))).toBe("old");
  });

  test("that are sealed hold the digest of themselves and of their metadata", async () => {
    const metadata = { lowrank: "{}" };
    const tensors = new Map([
      ["b", tensor([1, 2], { device: dev })],
      ["a", tensor([3], { device: dev, dtype: "u32" })],
    ]);
    const file = await readSafetensors(bytesSource(await joined(writeWeights("x", tensors, { metadata, isSealed: true }))));
    const digests = new Map<string, string>();
    for (const name of ["a", "b"]) digests.set(name, (await file.weight(name, { device: dev })).digest);
    const seal = String.fromCharCode(...(await file.values(sealName)));
    expect(seal).toBe(sealOf(digests, metadata));
    expect(seal).not.toBe(sealOf(digests, { lowrank: "{ }" }));
    expect(seal).not.toBe(sealOf(new Map([...digests, ["a", "0"]]), metadata));
  });
});

describe("files are written whole or not at all", () => {
  const folder = mkdtempSync(join(tmpdir(), "lowrank-io-"));
  afterAll(() => rmSync(folder, { recursive: true }));
  test("a failure half way leaves the old file and no other", async () => {
    const path = join(folder, "a.safetensors");
    writeFileSync(path, "old");
    async function* broken(): AsyncGenerator<Uint8Array> {
      yield new Uint8Array(1000);
      throw new Error("the device was lost");
    }
    await expect(writeFileAtomic(path, broken())).rejects.toThrow("the device was lost");
    expect(readFileSync(path, "utf8")).toBe("old");
    expect(readdirSync(folder)).toEqual(["a.safetensors"]);
    await writeFileAtomic(path, "new");
    expect(readFileSync(path, "utf8")).toBe("new");
    expect(readdirSync(folder)).toEqual(["a.safetensors"]);
  });
  test("a full disk is a CheckpointError, the old file stays", async ({ skip }) => {
    const full = mkdtempSync(join(tmpdir(), "lowrank-full-"));
    try {
      execFileSync("mount", ["-t", "tmpfs", "-o", "size=64k", "tmpfs", full], { stdio: "ignore" });
    } catch {
      rmSync(full, { recursive: true });
      process.stderr.write("skipped: no right to mount a small file system here\n");
      skip();
    }
    try {
      const path = join(full, "a");
      await writeFileAtomic(path, "old");
      await expect(writeFileAtomic(path, new Uint8Array(2 ** 20))).rejects.toThrow(CheckpointError);
      await expect(writeFileAtomic(path, new Uint8Array(2 ** 20))).rejects.toThrow(/full/);
      expect(readdirSync(full)).toEqual(["a"]);
      expect(readFileSync(path, "utf8")).toBe("old");
    } finally {
      execFileSync("umount", [full]);
      rmSync(full, { recursive: true });
    }
  });
  test("a missing file and a folder are CheckpointErrors", async () => {
    await expect(fileSource(join(folder, "none"))).rejects.toThrow(/none: cannot be opened \(ENOENT\)\. There is no such file/);
    await expect(fileSource(folder)).rejects.toThrow(CheckpointError);
  });
});
