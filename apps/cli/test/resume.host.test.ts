import { cpSync, existsSync, mkdirSync, readdirSync, readFileSync, rmSync, symlinkSync, utimesSync, writeFileSync } from "node:fs";
import { join, relative } from "node:path";
import { bytesSource, DeviceLostError, readHeader } from "@lowrank/tensor";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { describeFailure } from "../src/failure.js";
import { withResumeAdvice } from "../src/resume.js";
import { shownAround } from "../src/terminal/printable.js";
import { lowrankHere, type Outcome, scratchFolder, tinyProject } from "./cli.js";

const folder = scratchFolder();
const { model, train } = await tinyProject(folder, { layers: 1 });
const [whole, interrupted] = [join(folder, "whole"), join(folder, "interrupted")];
afterAll(() => rmSync(folder, { recursive: true, force: true }));

let count = 0;
const fresh = (): string => join(folder, `out-${count++}`);

type Places = { readonly model?: string; readonly data?: string };
const own = [
  "--rank",
  "2",
  "--targets",
  "q_proj",
  "--dropout",
  "0.1",
  "--batch-size",
  "4",
  "--steps",
  "3",
  "--lr",
  "1e-2",
  "--set",
  "rslora=true",
];
const reads = ({ model: m = model, data = train }: Places = {}): string[] => ["--model", m, "--data", data];
const started = (out: string, places: Places = {}, extra: readonly string[] = []): string[] => [
  ...["train", ...reads(places), ...own, "--device", "cpu", "--out", out],
  ...extra,
];
const resumed = (out: string, places: Places, ...extra: readonly string[]): string[] => started(out, places, ["--resume", ...extra]);

/** A copy of the interrupted run. */
function copyOf(run = interrupted, out = fresh()): string {
  cpSync(run, out, { recursive: true });
  return out;
}

/** A copy of the model's folder in which one file is changed. */
function changedModel(file: string, change: (bytes: Buffer) => Buffer): string {
  const copy = fresh();
  cpSync(model, copy, { recursive: true });
  writeFileSync(join(copy, file), change(readFileSync(join(copy, file))));
  return copy;
}

function changedRows(change: (rows: string[]) => string[]): string {
  const path = fresh();
  writeFileSync(path, `${change(readFileSync(train, "utf8").trim().split("\n")).join("\n")}\n`);
  return path;
}

const adapterFile = "adapter_model.safetensors";
const bytesOf = (out: string, name = adapterFile): string => readFileSync(join(out, name)).toString("base64");
const changedLines = (out: string): unknown[] =>
  readFileSync(join(out, "metrics.jsonl"), "utf8")
    .trim()
    .split("\n")
    .flatMap((line) => (JSON.parse(line) as { changed?: unknown[] }).changed ?? []);

function ended(outcome: Outcome, code: number): string {
  expect(outcome.code, `${outcome.stdout}${outcome.stderr}`).toBe(code);
  return outcome.stderr;
}

beforeAll(async () => {
  ended(await lowrankHere(started(whole)), 0);
  ended(await lowrankHere(started(interrupted), { stopAt: "step 1/" }), 130);
});

describe("a run resumes to the bytes of one that was not interrupted", () => {
  const link = join(folder, "link");
  const cases: readonly (readonly [name: string, args: (out: string) => readonly string[]])[] = [
    ["with its flags", (out) => resumed(out, {})],
    ["with --resume and --out alone", (out) => ["train", "--resume", "--out", out]],
    ["with some of its flags", (out) => ["train", "--resume", "--out", out, "--rank", "2", "--data", train]],
    ["with relative paths", (out) => resumed(out, { model: relative(process.cwd(), model), data: relative(process.cwd(), train) })],
    ["through a symbolic link", (out) => resumed(out, { model: link })],
    ["when files were touched", (out) => resumed(out, {})],
    [
      "with a copy of the model, whose config.json is laid out otherwise",
      (out) => resumed(out, { model: changedModel("config.json", (bytes) => Buffer.from(JSON.stringify(JSON.parse(String(bytes))))) }),
    ],
    [
      "with a copy of the rows",
      (out) =>
        resumed(out, { data: changedRows((rows) => rows.map((row) => JSON.stringify(JSON.parse(row), null, " ").replace(/\n/g, ""))) }),
    ],
  ];
  // What is the same, a run with nothing left to do tells as well as one that trains, which costs half a second.
  test.each(cases)("%s", async (name, args) => {
    if (!existsSync(link)) symlinkSync(model, link);
    if (name.includes("touched")) for (const path of [train, join(model, "model.safetensors")]) utimesSync(path, 1e9, 1e9);
    const isTraining = name.includes("flags") || name.includes("alone");
    const out = copyOf(isTraining ? interrupted : whole);
    const stderr = ended(await lowrankHere(args(out)), 0);
    expect(stderr).toContain(`resuming at step ${isTraining ? 1 : 3} of 3`);
    expect(stderr).not.toContain("warning");
    expect(bytesOf(out)).toBe(bytesOf(whole));
  });

  test("from another working folder, where paths were relative", async () => {
    const before = process.cwd();
    const [from, to] = [join(folder, "from"), join(folder, "to")];
    for (const each of [from, to]) mkdirSync(each);
    const out = fresh();
    try {
      process.chdir(from);
      const places = { model: relative(from, model), data: relative(from, train) };
      ended(await lowrankHere(started(relative(from, out), places), { stopAt: "step 1/" }), 130);
      process.chdir(to);
      ended(await lowrankHere(["train", "--resume", "--out", relative(to, out)]), 0);
    } finally {
      process.chdir(before);
    }
    expect(bytesOf(out)).toBe(bytesOf(whole));
  });
});

describe("a run on changed inputs is refused with what changed, unless that is allowed", () => {
  const flipped = async (bytes: Buffer): Promise<Buffer> => {
    const { entries } = await readHeader(bytesSource(bytes));
    const entry = entries.find(({ name }) => name === "model.layers.0.mlp.up_proj.weight");
    const copy = Buffer.from(bytes);
    // The sign of a single weight.
    const at = (entry?.offset ?? 0) + 4 * 77 + 3;
    copy[at] = (copy[at] ?? 0) ^ 0x80;
    return copy;
  };
  const swapped = (bytes: Buffer): Buffer => {
    const tokenizer = JSON.parse(String(bytes)) as { model: { vocab: Record<string, number> } };
    const { vocab } = tokenizer.model;
    [vocab["q"], vocab["z"]] = [vocab["z"] ?? 0, vocab["q"] ?? 0];
    return Buffer.from(JSON.stringify(tokenizer));
  };
  type Change = { readonly places?: Places; readonly flags?: readonly string[] };
  const rows = "the rows of --data changed";
  const cases: readonly (readonly [name: string, change: () => Change | Promise<Change>, says: string])[] = [
    ["reversed rows", () => ({ places: { data: changedRows((lines) => lines.reverse()) } }), rows],
    ["half of the rows", () => ({ places: { data: changedRows((lines) => lines.slice(0, lines.length / 2)) } }), rows],
    [
      "an edited row",
      () => ({ places: { data: changedRows((lines) => lines.with(9, (lines[9] ?? "").replace('"completion":" ', '"completion":" a '))) } }),
      rows,
    ],
    ["a row more", () => ({ places: { data: changedRows((lines) => [...lines, lines[0] ?? ""]) } }), rows],
    [
      "a flipped sign of one weight",
      async () => {
        const bytes = await flipped(readFileSync(join(model, "model.safetensors")));
        return { places: { model: changedModel("model.safetensors", () => bytes) } };
      },
      "the weights or config.json of --model changed",
    ],
    [
      "another epsilon in config.json",
      () => ({
        places: {
          model: changedModel("config.json", (bytes) => Buffer.from(JSON.stringify({ ...JSON.parse(String(bytes)), rms_norm_eps: 1e-3 }))),
        },
      }),
      "the weights or config.json of --model changed",
    ],
    ["two token ids swapped", () => ({ places: { model: changedModel("tokenizer.json", swapped) } }), "the tokenizer of --model changed"],
    ["another learning rate", () => ({ flags: ["--lr", "1e-3"] }), "--lr was 0.01 and is 0.001"],
    ["another seed", () => ({ flags: ["--seed", "9"] }), "--seed was 0 and is 9"],
    ["more steps", () => ({ flags: ["--steps", "4"] }), "--steps was 3 and is 4"],
  ];
  test.each(cases)("%s", async (_name, change, says) => {
    const { places = {}, flags = [] } = await change();
    const out = copyOf(whole);
    const stderr = ended(await lowrankHere(resumed(out, places, ...flags)), 2);
    expect(stderr).toContain(says);
    expect(stderr).toContain("--allow-changed");
    expect(bytesOf(out)).toBe(bytesOf(whole));
    const log = ended(await lowrankHere(resumed(out, places, ...flags, "--allow-changed")), 0);
    expect(log).toContain(`warning: since the run was started, ${says}`);
    expect(changedLines(out)).toContain(says);
  });

  test("--resume --out alone finds that the rows in the place of before are others", async () => {
    const data = changedRows((lines) => lines);
    const out = fresh();
    ended(await lowrankHere(started(out, { data }), { stopAt: "step 1/" }), 130);
    cpSync(
      changedRows((lines) => lines.reverse()),
      data,
    );
    expect(ended(await lowrankHere(["train", "--resume", "--out", out]), 2)).toContain(rows);
    ended(await lowrankHere(["train", "--resume", "--allow-changed", "--out", out]), 0);
    // From then on the run is the changed one.
    expect(ended(await lowrankHere(["train", "--resume", "--out", out]), 0)).not.toContain("warning");
  });

  test("another rank, which no state fits, is refused whatever is allowed", async () => {
    const out = copyOf();
    expect(ended(await lowrankHere(["train", "--resume", "--out", out, "--rank", "3"]), 2)).toContain("--rank was 2 and is 3");
    expect(ended(await lowrankHere(["train", "--resume", "--out", out, "--rank", "3", "--allow-changed"]), 2)).toMatch(
      /state is of another run/,
    );
  });

  test("the adapter in the state", async () => {
    const out = copyOf(whole);
    const path = join(out, "training-state.safetensors");
    const bytes = readFileSync(path);
    const entry = (await readHeader(bytesSource(bytes))).entries.find(({ name }) => name.startsWith("parameter."));
    bytes[entry?.offset ?? 0] = (bytes[entry?.offset ?? 0] ?? 0) ^ 1;
    writeFileSync(path, bytes);
    expect(ended(await lowrankHere(["train", "--resume", "--out", out]), 2)).toMatch(/not those that were written/);
    expect(ended(await lowrankHere(["train", "--resume", "--out", out, "--allow-changed"]), 0)).toContain("the adapter or the optimizer");
    expect(changedLines(out)).toHaveLength(1);
  });

  test("--allow-changed without --resume is a mistake", async () => {
    expect(ended(await lowrankHere(started(fresh(), {}, ["--allow-changed"])), 2)).toContain("--resume");
  });
});

describe("a state of before contents were compared", () => {
  /** The interrupted run as an older version wrote it: without digests, arguments, and seal. */
  function older(): string {
    const out = copyOf();
    const path = join(out, "training-state.safetensors");
    const bytes = readFileSync(path);
    const length = Number(bytes.readBigUInt64LE());
    const header = JSON.parse(bytes.subarray(8, 8 + length).toString()) as Record<string, { lowrank: string }>;
    delete header["lowrank.seal"];
    const { hashes: _, command: __, ...state } = JSON.parse(header["__metadata__"]?.lowrank ?? "") as Record<string, unknown>;
    const text = Buffer.from(JSON.stringify({ ...header, __metadata__: { lowrank: JSON.stringify(state) } }));
    const size = Buffer.alloc(8);
    size.writeBigUInt64LE(BigInt(text.length));
    writeFileSync(path, Buffer.concat([size, text, bytes.subarray(8 + length, -32)]));
    return out;
  }

  test("resumes with one warning", async () => {
    const out = older();
    const stderr = ended(await lowrankHere(resumed(out, { model: relative(process.cwd(), model) })), 0);
    expect(stderr.match(/^warning/gm)).toHaveLength(1);
    expect(stderr).toContain("cannot be compared");
    expect(bytesOf(out)).toBe(bytesOf(whole));
  });

  test("needs its flags once more", async () => {
    expect(ended(await lowrankHere(["train", "--resume", "--out", older()]), 2)).toContain("did not keep the flags");
  });
});

describe("a run needs --model and --data", () => {
  const nothing = (): string => fresh();
  const foreign = (): string => {
    const out = fresh();
    mkdirSync(out);
    writeFileSync(join(out, "notes.txt"), "mine");
    return out;
  };
  const [missing, none] = ["--model is missing. Add --model DIR", "there is no run to resume here. Check --out"];
  const cases: readonly (readonly [name: string, place: () => string, args: readonly string[], says: string])[] = [
    ["without --resume", nothing, ["--data", train], missing],
    ["with --resume where there is no folder", nothing, ["--resume"], none],
    ["with --resume and --data where there is no folder", nothing, ["--data", train, "--resume"], none],
    ["with --resume in a folder without a run", foreign, ["--resume"], none],
  ];
  test.each(cases)("%s", async (_name, place, args, says) => {
    const out = place();
    const before = existsSync(out) ? readdirSync(out) : null;
    const stderr = ended(await lowrankHere(["train", ...args, "--out", out]), 2);
    expect(stderr).toContain(says);
    if (says === none) expect(stderr).toContain(`error: ${out}: `);
    expect(existsSync(out) ? readdirSync(out) : null).toEqual(before);
  });
});

test("commands to be copied are whole, however long the run's path is", async () => {
  const out = copyOf(interrupted, join(folder, "n".repeat(150), "o".repeat(150)));
  const stderr = ended(await lowrankHere(resumed(out, {}, "--allow-changed", "--lr", "3e38", "--weight-decay", "10")), 2);
  expect(stderr).toMatch(new RegExp(` train --resume --allow-changed --lr \\S+ --out ${out}$`, "m"));
  const { code, stdout } = await lowrankHere(["train", "--resume", "--out", out]);
  expect(code).toBe(0);
  expect(stdout).toMatch(new RegExp(`^  \\S.* generate --model ${model} --adapter ${out} --prompt "…"$`, "m"));
  const loss = new DeviceLostError("The WebGPU device was lost: it hung.", "Open the device again.", "webgpu");
  const error = await withResumeAdvice(out, () => Promise.reject(loss)).catch((caught: unknown) => caught);
  const { text, command } = describeFailure(error, false);
  expect(shownAround(text, command)).toContain(` train --resume --out ${out} (with --memory`);
});

describe("numbers that are not finite", () => {
  test("a last update that overflows writes nothing", async () => {
    const out = fresh();
    const stderr = ended(await lowrankHere(started(out, {}, ["--steps", "1", "--lr", "3e38", "--weight-decay", "10"])), 2);
    expect(stderr).toMatch(/Step 1: its update left parameter\.\S+ without a finite value at \[\d+, \d+\].*No checkpoint was written/);
    expect(existsSync(join(out, adapterFile))).toBe(false);
    expect(existsSync(join(out, "training-state.safetensors"))).toBe(false);
  });

  test("after one the advice is accepted", async () => {
    const out = copyOf();
    const stderr = ended(await lowrankHere(resumed(out, {}, "--allow-changed", "--lr", "3e38", "--weight-decay", "10")), 2);
    const advice =
      /The checkpoint of step 1 is kept\. Resume with: \S.* (train --resume --allow-changed --lr \S+ --out \S+)$/m.exec(stderr)?.[1] ?? "";
    expect(advice, stderr).not.toBe("");
    expect(bytesOf(out)).toBe(bytesOf(interrupted));
    // A tenth of that rate is still beyond reason; the advice is taken, with a better one.
    ended(await lowrankHere([...advice.split(" "), "--lr", "1e-3"]), 0);
  });
});

describe("a device that is lost", () => {
  const loss = new DeviceLostError("The WebGPU device was lost: it hung.", "Open the device again.", "webgpu");

  test("ends a run with the command that resumes it, which does", async () => {
    const out = copyOf();
    const error = await withResumeAdvice(out, () => Promise.reject(loss)).catch((caught: unknown) => caught);
    const { text, exitCode } = describeFailure(error, false);
    expect(exitCode).toBe(2);
    expect(text).toMatch(/^error: The WebGPU device was lost: it hung\. The checkpoint of step 1 is kept\. Resume with: \S+( \S+)? train /);
    expect(text).not.toContain("Open the device");
    const args = / (train --resume --out \S+) \(/.exec(text)?.[1]?.split(" ") ?? [];
    ended(await lowrankHere(args), 0);
    expect(bytesOf(out)).toBe(bytesOf(whole));
  });

  test("before the first checkpoint, and in other commands, says to run the command again", async () => {
    const error = await withResumeAdvice(fresh(), () => Promise.reject(loss)).catch((caught: unknown) => caught);
    for (const each of [error, loss]) {
      const { text } = describeFailure(each, false);
      expect(text).toMatch(/was lost: it hung\..* Run the command again/);
      expect(text).not.toContain("Open the device");
    }
    await expect(withResumeAdvice(fresh(), () => Promise.reject(new RangeError("other")))).rejects.toThrow("other");
  });
});
