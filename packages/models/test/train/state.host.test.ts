import { CheckpointError, type Device, device, memoryFiles, type Tensor, tensor, writeSafetensors } from "@lowrank/tensor";
import { describe, expect, test } from "vitest";
import { metricsLines, type RunState, readState, restoreState, saveState, stateFileName } from "../../src/train/index.js";

const dev: Device = await device("cpu", { threads: 1 });
const path = `run/${stateFileName}`;
const state: RunState = {
  step: 3,
  settings: { steps: 8, model: "m", rslora: true, "max-length": null },
  hashes: { data: "0123" },
  command: { flags: { targets: ["q_proj"], set: { gain: 2 } } },
  evalLossBefore: 2.5,
  evalLoss: null,
  recentLosses: [3, 2.5],
};
const tensors = (first = 1): Map<string, Tensor> =>
  new Map([
    ["parameter.a", tensor([first, 2, 3], { device: dev })],
    ["random.0", tensor([7, 9], { device: dev, dtype: "u32" })],
  ]);

async function saved(): Promise<ReturnType<typeof memoryFiles>> {
  const files = memoryFiles();
  await saveState(files, "run", tensors(), state);
  return files;
}

/** The file with other plain values, or with other tensors, as somebody would write them by hand. */
async function withMetadata(text: string, own = tensors()): Promise<ReturnType<typeof memoryFiles>> {
  const files = memoryFiles();
  await files.write(path, writeSafetensors(own, { lowrank: text }));
  return files;
}

async function failure(promise: Promise<unknown>): Promise<Error> {
  const result = await promise.then(
    () => new Error("nothing was thrown"),
    (error: unknown) => error as Error,
  );
  expect(result, result.message).toBeInstanceOf(CheckpointError);
  expect((result as CheckpointError).path).toBe(path);
  return result;
}

test("a state comes back as it was", async () => {
  const files = await saved();
  expect(await readState(files, "run")).toMatchObject(state);
  const into = tensors(0);
  expect(await restoreState(files, "run", into)).toMatchObject(state);
  expect([...((await into.get("parameter.a")?.data()) ?? [])]).toEqual([1, 2, 3]);
});

test("a state of before there were digests and seals is read", async () => {
  const { hashes: _, command: __, ...old } = state;
  const files = await withMetadata(JSON.stringify({ version: 1, ...old }));
  expect(await readState(files, "run")).toMatchObject({ ...old, hashes: null, command: null });
  expect((await restoreState(files, "run", tensors())).step).toBe(3);
});

const damaged: readonly (readonly [name: string, change: Readonly<Record<string, unknown>>])[] = [
  ["a step of 1e9", { step: 1e9 }],
  ["a step of 1e9 where nothing says how many there are", { step: 1e9, settings: {} }],
  ["a step of 30.5", { step: 3.5 }],
  ["a step below 0", { step: -1 }],
  ["a step that is a text", { step: "3" }],
  ["no step", { step: undefined }],
  ["settings that are a list", { settings: ["lr"] }],
  ["a setting that is an object", { settings: { toString: {} } }],
  ["digests that are numbers", { hashes: { data: 1 } }],
  ["losses that are no list", { recentLosses: 2 }],
  ["a loss that is null", { recentLosses: [null] }],
  ["an evaluation that is a text", { evalLoss: "low" }],
];

describe("plain values that were damaged are a CheckpointError", () => {
  test.each(damaged)("%s", async (_name, change) => {
    const files = await withMetadata(JSON.stringify({ version: 1, ...state, ...change }));
    expect((await failure(readState(files, "run"))).message).toMatch(/is damaged: .*Train into another folder/);
    await failure(restoreState(files, "run", tensors()));
  });

  test.each(["", "{", "null", "3", "[]", '{"version":2,"step":1}', '{"step":1}'])("%j", async (text) => {
    expect((await failure(readState(await withMetadata(text), "run"))).message).toMatch(/no training state of this version/);
  });
});

describe("contents that are not those that were written", () => {
  const changes: readonly (readonly [name: string, change: (bytes: Uint8Array) => Promise<Uint8Array> | Uint8Array])[] = [
    // The seal is behind the tensors: 32 bytes, after 8 of the random key.
    ["a bit of a parameter", (bytes) => flipped(bytes, bytes.length - 32 - 8 - 4)],
    ["the random key", (bytes) => flipped(bytes, bytes.length - 32 - 1)],
    ["the step", (bytes) => replaced(bytes, '\\"step\\":3', '\\"step\\":4')],
    ["a digest of the data", (bytes) => replaced(bytes, "0123", "0124")],
  ];
  const flipped = (bytes: Uint8Array, at: number): Uint8Array => bytes.map((byte, i) => (i === at ? byte ^ 1 : byte));
  const replaced = (bytes: Uint8Array, from: string, to: string): Uint8Array => {
    const text = Buffer.from(bytes).toString("latin1");
    expect(text).toContain(from);
    return Uint8Array.from(Buffer.from(text.replace(from, to), "latin1"));
  };
  test.each(changes)("%s: refused, unless changes are allowed", async (_name, change) => {
    const files = await saved();
    files.files.set(path, await change(files.files.get(path) ?? new Uint8Array()));
    expect((await failure(restoreState(files, "run", tensors()))).message).toMatch(/not those that were written.*--allow-changed/);
    const told: string[] = [];
    await restoreState(files, "run", tensors(), { onChanged: (what) => void told.push(what) });
    expect(told).toHaveLength(1);
  });
});

test("tensors of another name, shape or dtype are another run's, and nothing is changed", async () => {
  const [a, key] = [tensor([1, 2, 3], { device: dev }), tensor([7, 9], { device: dev, dtype: "u32" })];
  const others: readonly (readonly [string, Tensor])[][] = [
    [["parameter.a", a]],
    [
      ["parameter.b", a],
      ["random.0", key],
    ],
    [
      ["parameter.a", tensor([[1, 2, 3]], { device: dev })],
      ["random.0", key],
    ],
    [
      ["parameter.a", tensor([1, 2, 3], { device: dev, dtype: "i32" })],
      ["random.0", key],
    ],
    [
      ["parameter.a", a],
      ["random.0", key],
      ["more", a],
    ],
  ];
  for (const other of others) {
    const files = await withMetadata(JSON.stringify({ version: 1, ...state }), new Map(other));
    const into = tensors(0);
    expect((await failure(restoreState(files, "run", into))).message).toMatch(/state is of another run/);
    expect([...((await into.get("parameter.a")?.data()) ?? [])]).toEqual([0, 2, 3]);
  }
});

test("2,000 mutants are read, or refused as a CheckpointError", async () => {
  const bytes = (await saved()).files.get(path) ?? new Uint8Array();
  let seed = 17;
  const random = (below: number): number => {
    seed = (Math.imul(seed, 1664525) + 1013904223) >>> 0;
    return Math.floor((seed / 2 ** 32) * below);
  };
  let refused = 0;
  for (let i = 0; i < 2000; i++) {
    const mutant = bytes.slice(0, random(10) === 0 ? random(bytes.length) : bytes.length);
    for (let k = random(3); k >= 0 && mutant.length > 0; k--) {
      const at = random(mutant.length);
      // Digits and punctuation reach further into JSON than any byte does.
      mutant[at] = random(2) === 0 ? random(256) : '0123456789eE-.,:"{}[]'.charCodeAt(random(21));
    }
    const files = memoryFiles({ [path]: mutant });
    for (const read of [readState(files, "run"), restoreState(files, "run", tensors())]) {
      const error = await read.then(
        () => null,
        (caught: unknown) => caught,
      );
      if (error !== null) refused++;
      if (error !== null && !(error instanceof CheckpointError)) throw new Error(`mutant ${i}: ${String(error)}`, { cause: error });
    }
  }
  expect(refused).toBeGreaterThan(2000);
});

test("lines of metrics.jsonl that are damaged are left out", () => {
  const whole = '{"step":1,"loss":2}';
  const text = [whole, "", "{", "null", "3", '{"step":30.5}', '{"step":"2"}', '{"loss":1}', '{"step":-1}', '{"step":2,"evalLoss":1}'].join(
    "\n",
  );
  expect(metricsLines(text).map(({ step }) => step)).toEqual([1, 2]);
  expect(metricsLines(text)[0]).toEqual({ step: 1, text: whole, fields: { step: 1, loss: 2 } });
});
