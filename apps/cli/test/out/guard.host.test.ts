import { link, mkdir, mkdtemp, readdir, readFile, realpath, rm, stat, symlink, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { dirname, join, relative } from "node:path";
import { stateFileName } from "@lowrank/models";
import { afterEach, beforeEach, describe, expect, test, vi } from "vitest";
import { commands } from "../../src/commands/table.js";
import type { Flag } from "../../src/flags.js";
import { lockName } from "../../src/out/lock.js";
import { adapterRunFiles, fullRunFiles, markName, writeMark } from "../../src/out/mark.js";
import { type OutClaim, type OutFolder, withOutFolder } from "../../src/out-folder.js";
import { lowrankHere } from "../cli.js";

let folder = "";
beforeEach(async () => {
  folder = await realpath(await mkdtemp(join(tmpdir(), "lowrank-out-")));
});
afterEach(() => rm(folder, { recursive: true, force: true }));

/** Every file below a folder with its content and when it was changed. */
async function snapshot(path: string): Promise<Readonly<Record<string, string>>> {
  const found: Record<string, string> = {};
  for (const entry of await readdir(path, { withFileTypes: true, recursive: true })) {
    const at = join(entry.parentPath, entry.name);
    const { mtimeMs } = await stat(at);
    found[relative(path, at)] = entry.isFile() ? `${await readFile(at, "latin1")} ${mtimeMs}` : "folder";
  }
  return found;
}

async function put(name: string, text = "theirs"): Promise<string> {
  const path = join(folder, name);
  await mkdir(dirname(path), { recursive: true });
  await writeFile(path, text);
  return path;
}

/** The run state of a run from before there were marks. */
function state(method: string): Uint8Array {
  const lowrank = JSON.stringify({ version: 1, step: 3, settings: { method }, recentLosses: [] });
  const header = new TextEncoder().encode(JSON.stringify({ __metadata__: { lowrank } }));
  const bytes = new Uint8Array(8 + header.length);
  new DataView(bytes.buffer).setBigUint64(0, BigInt(header.length), true);
  bytes.set(header, 8);
  return bytes;
}

const names = (flag: Flag): string => ("value" in flag ? flag.value : "");
const pathFlag = /^(DIR|FILE|OUT)/;

describe.each(Object.keys(commands))("lowrank %s", (name) => {
  test("says of each flag that names a file or a folder whether it is read or written", async () => {
    const { flags } = await (commands[name] as (typeof commands)[string])();
    for (const [flag, each] of Object.entries(flags))
      expect([flag, "path" in each && each.path !== undefined]).toEqual([flag, pathFlag.test(names(each))]);
  });
});

/** The flag that says where a command writes. */
const outFlag = (name: string): string => (name === "eval" ? "--predictions" : "--out");

/** A command line of each command that writes, without what it writes to: `<in>` stands for an input. */
const writing: Readonly<Record<string, readonly string[]>> = {
  train: ["--model", "<in>", "--data", "<in>", "--eval-data", "<in>"],
  compare: ["--model", "<in>", "--data", "<in>", "--eval-data", "<in>", "--general-text", "<in>"],
  "rank-study": ["--model", "<in>", "--data", "<in>", "--eval-data", "<in>"],
  merge: ["--model", "<in>", "--adapter", "<in>", "--check", "<in>"],
  combine: ["<in>", "<in>"],
  extract: ["--base", "<in>", "--tuned", "<in>", "--rank", "2"],
  resize: ["<in>", "--rank", "2"],
  quickstart: [],
  eval: ["--model", "<in>", "--adapter", "<in>", "--data", "<in>", "--metric", "<in>", "--generate"],
  export: ["<in>", "--model", "<in>", "--format", "peft"],
  data: ["convert", "<in>", "--model", "<in>", "--eval-data", "<in>"],
};

test("every command that writes is in this test's table, with all that it reads", async () => {
  const all = await Promise.all(Object.values(commands).map((load) => load()));
  const written = all.filter(({ flags }) => Object.values(flags).some((flag) => "path" in flag && flag.path === "written"));
  expect(written.map(({ name }) => name).sort()).toEqual(Object.keys(writing).sort());
  for (const { name, flags } of written) {
    const read = Object.entries(flags).filter(([, flag]) => "path" in flag && flag.path === "read");
    for (const [flag] of read) expect(writing[name]).toContain(`--${flag}`);
  }
});

/** Ways to write the same folder. */
const spellings: readonly (readonly [name: string, of: (path: string) => Promise<string>])[] = [
  ["as it is", async (path) => path],
  ["with a slash at the end", async (path) => `${path}/`],
  ["relative", async (path) => relative(process.cwd(), path)],
  ["with dots", async (path) => join(path, "x").replace(/x$/, "") + `../${path.split("/").at(-1)}`],
  [
    "through a link",
    async (path) => {
      await symlink(path, join(folder, "link"));
      return join(folder, "link");
    },
  ],
];

for (const [name, args] of Object.entries(writing)) {
  const count = args.filter((arg) => arg === "<in>").length;
  for (let i = 0; i < count; i++) {
    const flag = args.filter((arg, at) => arg !== "<in>" && args[at + 1] === "<in>")[i] ?? `argument ${i + 1}`;
    test.each(spellings)(`lowrank ${name} never writes to its input ${flag}, named %s`, async (_, spelled) => {
      let at = 0;
      const own = await put("own/model.safetensors").then(dirname);
      await put("own/config.json");
      await put(`other/${markName}`);
      // Marked as the command's own, too.
      await writeMark(own, { command: name, files: fullRunFiles });
      const line = args.map((arg) => (arg === "<in>" ? (at++ === i ? own : join(folder, "other")) : arg));
      const out = await spelled(own);
      const before = await snapshot(folder);
      for (const more of name === "train" ? [[], ["--overwrite"], ["--resume"]] : [[]]) {
        const { code, stderr } = await lowrankHere([name, ...line, outFlag(name), out, ...more]);
        expect(stderr).toMatch(new RegExp(`^error: ${outFlag(name)} is .*, which is read as well`));
        expect(code).toBe(2);
      }
      expect(await snapshot(folder)).toEqual(before);
    });
  }
}

const refused: readonly (readonly [name: string, mode: OutClaim["mode"], holds: Readonly<Record<string, string>>, says: RegExp])[] = [
  ["a full folder is refused by merge", "new", { "x.txt": "" }, /already holds files/],
  ["a folder that a run begins in is refused by merge", "new", { [markName]: mark("train") }, /already holds files/],
  ["an adapter without a run is not replaced by a new run", "start", { "adapter_config.json": "" }, /adapter_config\.json.*did not make/],
  ["a checkpoint in parts is not mixed with a run", "start", { "model-00001-of-00002.safetensors": "" }, /did not make/],
  ["a tokenizer is not replaced by a run of full", "start", { "tokenizer.json": "" }, /did not make/],
  ["an adapter without a run is not resumed", "resume", { "adapter_config.json": "", "adapter_model.safetensors": "" }, /did not make/],
  ["a checkpoint without a run is not resumed", "resume", { "config.json": "", "model.safetensors": "" }, /did not make/],
  ["weights of another format are not resumed", "resume", { "pytorch_model.bin": "" }, /did not make/],
  [
    "a run that has lost its state is not resumed",
    "resume",
    { [markName]: mark("train"), "adapter_config.json": "", "adapter_model.safetensors": "" },
    /holds adapter_config\.json, adapter_model\.safetensors and no training-state\.safetensors.*--overwrite/,
  ],
  [
    "a run is not replaced without --overwrite",
    "start",
    { [markName]: mark("train"), "metrics.jsonl": "" },
    /already holds a run.*--resume/,
  ],
  ["a folder without a mark is not replaced", "replace", { "config.json": "", "model.safetensors": "" }, /did not make/],
  ["other files without a mark are not replaced", "replace", { "notes.txt": "" }, /did not make/],
  ["a state that is not ours is no mark", "replace", { [stateFileName]: "x", "config.json": "" }, /did not make/],
  ["what another command made is not replaced", "replace", { [markName]: mark("compare"), "base.json": "" }, /what lowrank compare made/],
  ["what another command made is not resumed", "resume", { [markName]: mark("compare") }, /what lowrank compare made/],
  [
    "a file that the old run did not write is not replaced with it",
    "replace",
    { [markName]: mark("train", ["metrics.jsonl"]), "metrics.jsonl": "", "model.safetensors": "" },
    /holds model\.safetensors.*did not make/,
  ],
  ["a mark that names a path is no mark", "replace", { [markName]: mark("train", ["../x"]), "metrics.jsonl": "" }, /is damaged/],
  ["a mark that is not JSON is no mark", "resume", { [markName]: "{" }, /is damaged/],
  ["compare refuses a folder with other files", "own", { "settings.json": '{"editor":1}' }, /settings\.json, which lowrank/],
];

function mark(command: string, files: readonly string[] = adapterRunFiles): string {
  return JSON.stringify({ version: 1, command, files });
}

const context = { output: { note: () => undefined }, signal: new AbortController().signal };
const claimOf = (mode: OutClaim["mode"], more: Partial<OutClaim> = {}): OutClaim => ({
  command: mode === "own" ? "compare" : mode === "new" ? "merge" : "train",
  path: join(folder, "out"),
  inputs: [],
  writes: fullRunFiles,
  mode,
  ...more,
});

describe("a folder that is not the command's", () => {
  test.each(refused)("%s", async (_, mode, holds, says) => {
    for (const [name, text] of Object.entries(holds)) await put(`out/${name}`, text);
    const before = await snapshot(folder);
    await expect(withOutFolder(context, claimOf(mode), async () => 0)).rejects.toThrow(says);
    expect(await snapshot(folder)).toEqual(before);
  });
});

describe("a folder whose command was killed while it wrote", () => {
  const write = async ({ files, path }: OutFolder, names: readonly string[]): Promise<void> => {
    for (const name of names) await files.write(join(path, name), new TextEncoder().encode("ours"));
  };
  /** What SIGKILL leaves of `merge` once some files are whole: all of the folder but the lock, whose holder is gone. */
  async function killedAfter(names: readonly string[]): Promise<string> {
    await withOutFolder(context, claimOf("new", { path: join(folder, "whole") }), async (out) => {
      await write(out, names);
      for (const name of [markName, ...names]) await put(`out/${name}`, await readFile(join(out.path, name), "utf8"));
      return 0;
    });
    return join(folder, "out");
  }

  test("has a mark that lists what was written, and none when it is whole", async () => {
    const out = await killedAfter(["model.safetensors"]);
    expect(JSON.parse(await readFile(join(out, markName), "utf8"))).toEqual({
      version: 1,
      command: "merge",
      files: ["model.safetensors"],
      isUnfinished: true,
    });
    expect(await readdir(join(folder, "whole"))).toEqual(["model.safetensors"]);
  });

  test.each([
    ["merge", ["model.safetensors", "tokenizer.json"], ["config.json"]],
    ["resize", ["adapter_model.safetensors"], ["adapter_model.safetensors", "adapter_config.json"]],
  ])("is used by the next %s, and nothing of before stays", async (command, before, after) => {
    const path = await killedAfter(before);
    await put(`out/.${before[0]}.999999999-0123456789ab.tmp`);
    const note = vi.fn();
    const claim = claimOf("new", { command, path });
    expect(await withOutFolder({ ...context, output: { note } }, claim, async (out) => write(out, after).then(() => 0))).toBe(0);
    expect((await readdir(path)).sort()).toEqual([...after].sort());
    expect(note).toHaveBeenCalledWith(`${path} holds what a killed lowrank merge left unfinished: replacing it`);
  });

  test("is empty after the next command fails", async () => {
    const path = await killedAfter(["model.safetensors"]);
    const failing = withOutFolder(context, claimOf("new", { path }), async (out) => {
      await write(out, ["tokenizer.json"]);
      throw new Error("no more");
    });
    await expect(failing).rejects.toThrow("no more");
    expect(await readdir(path)).toEqual([]);
  });

  test.each([
    ["with a file that somebody put there since", { "notes.txt": "theirs" }, [], /already holds files/],
    ["whose files are read", {}, ["model.safetensors"], /may be written over/],
  ] as const)("%s is refused, and nothing changes", async (_, more, read, says) => {
    const path = await killedAfter(["model.safetensors"]);
    for (const [name, text] of Object.entries(more)) await put(`out/${name}`, text);
    const before = await snapshot(folder);
    const inputs = read.map((name) => ({ name: "--model", path: join(path, name) }));
    const claim = claimOf("new", { path, inputs, writes: adapterRunFiles });
    await expect(withOutFolder(context, claim, async () => 0)).rejects.toThrow(says);
    expect(await snapshot(folder)).toEqual(before);
  });
});

/** What a command that begins and writes one file leaves. */
const writeOne =
  (name = "config.json", code = 0) =>
  async ({ begin, files, path }: OutFolder): Promise<number> => {
    await begin();
    await files.write(join(path, name), new TextEncoder().encode("ours"));
    return code;
  };

describe("a folder that is the command's", () => {
  const accepted: readonly (readonly [name: string, mode: OutClaim["mode"], holds: Readonly<Record<string, string>>])[] = [
    ["is one that is not there", "start", {}],
    ["is one with other things beside the run", "start", { "notes.txt": "theirs" }],
    ["may be overwritten when it is empty", "replace", {}],
    ["may be resumed when it is empty", "resume", {}],
    ["goes on when it was killed before its first checkpoint", "resume", { [markName]: mark("train"), "metrics.jsonl": "" }],
    ["is compare's own", "own", { [markName]: mark("compare"), "settings.json": "{}" }],
    [
      "is compare's own from before the mark",
      "own",
      { "settings.json": '{"model":"m","data":"d","steps":3,"batch-size":8,"warmup":0,"eval-rows":200,"seed":0}' },
    ],
  ];
  test.each(accepted)("%s", async (_, mode, holds) => {
    for (const [name, text] of Object.entries(holds)) await put(`out/${name}`, text);
    expect(await withOutFolder(context, claimOf(mode), writeOne())).toBe(0);
    expect((await readdir(join(folder, "out"))).sort()).toEqual([...new Set([markName, "config.json", ...Object.keys(holds)])].sort());
  });

  test("from before the mark resumes, and has one then", async () => {
    await mkdir(join(folder, "out"));
    await writeFile(join(folder, "out", stateFileName), state("lora"));
    await put("out/adapter_config.json", "old");
    const claim = claimOf("resume", { writes: adapterRunFiles });
    expect(await withOutFolder(context, claim, writeOne("adapter_config.json"))).toBe(0);
    expect(JSON.parse(await readFile(join(folder, "out", markName), "utf8"))).toEqual({
      version: 1,
      command: "train",
      files: adapterRunFiles,
    });
  });
  test("from before its first checkpoint and before the mark resumes", async () => {
    await put("out/metrics.jsonl", '{"step":1,"loss":2,"learningRate":0.1,"gradNorm":1}\n');
    expect(await withOutFolder(context, claimOf("resume"), writeOne())).toBe(0);
  });

  test.each([
    ["marked", async () => writeMark(join(folder, "out"), { command: "train", files: adapterRunFiles })],
    ["with a run state from before the mark", async () => writeFile(join(folder, "out", stateFileName), state("lora"))],
  ])("%s, is replaced by --overwrite, which removes the run's files and no other", async (_, prepare) => {
    for (const name of ["adapter_config.json", "metrics.jsonl", "notes.txt", "deep/adapter_config.json"]) await put(`out/${name}`);
    await prepare();
    expect(await withOutFolder(context, claimOf("replace"), writeOne())).toBe(0);
    expect(await readdir(join(folder, "out"))).toEqual([markName, "config.json", "deep", "notes.txt"]);
    expect(await readdir(join(folder, "out", "deep"))).toEqual(["adapter_config.json"]);
    expect(JSON.parse(await readFile(join(folder, "out", markName), "utf8"))).toMatchObject({ files: fullRunFiles });
  });
  test("keeps its run until the command begins", async () => {
    await put(`out/${markName}`, mark("train"));
    await put("out/metrics.jsonl");
    const before = await snapshot(folder);
    await expect(withOutFolder(context, claimOf("replace"), () => Promise.reject(new Error("no data")))).rejects.toThrow("no data");
    expect(await snapshot(folder)).toEqual(before);
  });

  test("has run folders that are its own", async () => {
    await put("out/lora/adapter_config.json");
    await put(`out/${markName}`, mark("compare"));
    const enter = (name: string): Promise<number> =>
      withOutFolder(context, claimOf("own"), async ({ beginRun }) => {
        expect(await beginRun(name, adapterRunFiles)).toBe(join(folder, "out", name));
        return 0;
      });
    await expect(enter("lora")).rejects.toThrow(/lora holds adapter_config\.json, which lowrank compare did not make/);
    expect(await enter("dora")).toBe(0);
    expect(await enter("dora")).toBe(0);
    expect(JSON.parse(await readFile(join(folder, "out", "dora", markName), "utf8"))).toMatchObject({ command: "compare" });
    await mkdir(join(folder, "out", "old"));
    await writeFile(join(folder, "out", "old", stateFileName), state("lora"));
    expect(await enter("old")).toBe(0);
    await put(`base/${markName}`, mark("compare"));
    await symlink(join(folder, "base"), join(folder, "out", "full"));
    const inputs = [{ name: "--model", path: join(folder, "base") }];
    const throughLink = withOutFolder(context, claimOf("own", { inputs }), async ({ beginRun }) => Number(await beginRun("full", [])));
    await expect(throughLink).rejects.toThrow(/full, which is read as well \(--model\)/);
    await writeMark(join(folder, "base"), { command: "train", files: [] });
    await expect(enter("full")).rejects.toThrow(/full holds what lowrank train made/);
  });
});

describe("inputs", () => {
  test("in the folder are refused where the command writes", async () => {
    const data = await put("out/metrics.jsonl");
    const input = { name: "--data", path: data };
    await put(`out/${markName}`, mark("train"));
    await expect(withOutFolder(context, claimOf("resume", { inputs: [input] }), async () => 0)).rejects.toThrow(
      /--data is .*metrics\.jsonl, and .*metrics\.jsonl may be written over/,
    );
    await link(data, join(folder, "hard.jsonl"));
    const hard = { name: "--data", path: join(folder, "hard.jsonl") };
    await expect(withOutFolder(context, claimOf("resume", { inputs: [hard] }), async () => 0)).rejects.toThrow(/may be written over/);
    const beside = { name: "--data", path: await put("out/rows.jsonl") };
    expect(await withOutFolder(context, claimOf("resume", { inputs: [beside] }), async () => 0)).toBe(0);
    await rm(join(folder, "out", markName));
    await put(`out/${markName}`, mark("compare"));
    await expect(withOutFolder(context, claimOf("own", { inputs: [beside] }), async () => 0)).rejects.toThrow(/may be written over/);
  });
  test("that a link in the folder leads to are refused", async () => {
    const model = dirname(await put("model/config.json"));
    await put(`out/${markName}`, mark("train"));
    await symlink(model, join(folder, "out", "config.json"));
    const inputs = [{ name: "--model", path: model }];
    await expect(withOutFolder(context, claimOf("resume", { inputs }), async () => 0)).rejects.toThrow(/may be written over/);
  });
  test.each([
    ["link", symlink],
    ["hard link", link],
  ])("of which a file is a %s to a file of the run are refused", async (_, make) => {
    const weights = await put("out/model.safetensors");
    await put(`out/${markName}`, mark("train", fullRunFiles));
    await put("out/notes.txt");
    await mkdir(join(folder, "model"));
    await make(weights, join(folder, "model", "model.safetensors"));
    await make(join(folder, "out", "notes.txt"), join(folder, "model", "notes.txt"));
    const inputs = [{ name: "--model", path: join(folder, "model") }];
    await expect(withOutFolder(context, claimOf("replace", { inputs }), async () => 0)).rejects.toThrow(
      /--model is .*model, whose model\.safetensors leads to .*out, and .*model\.safetensors may be written over/,
    );
    await rm(join(folder, "model", "model.safetensors"));
    expect(await withOutFolder(context, claimOf("replace", { inputs }), async () => 0)).toBe(0);
  });
  test.each([
    ["its mark", async () => put(`out/${markName}`, mark("train", fullRunFiles))],
    ["the state of a run from before the mark", async () => writeFile(join(folder, "out", stateFileName), state("full"))],
  ])("of which a file is removed with the old run are refused, though nothing is written there, by %s", async (_, prepare) => {
    const weights = await put("out/model.safetensors");
    await prepare();
    await mkdir(join(folder, "model"));
    await symlink(weights, join(folder, "model", "model.safetensors"));
    const before = await snapshot(folder);
    const claim = claimOf("replace", { writes: adapterRunFiles, inputs: [{ name: "--model", path: join(folder, "model") }] });
    await expect(withOutFolder(context, claim, writeOne("metrics.jsonl"))).rejects.toThrow(
      /--model is .*model, whose model\.safetensors leads to .*out, and .*model\.safetensors may be written over/,
    );
    expect(await snapshot(folder)).toEqual(before);
  });
  test("around the folder are no matter", async () => {
    const model = dirname(await put("model/config.json"));
    const claim = claimOf("start", { path: join(model, "run"), inputs: [{ name: "--model", path: model }] });
    expect(await withOutFolder(context, claim, writeOne())).toBe(0);
  });
});

describe("--profile", () => {
  const profile = (path: string, isOurs = false): OutClaim =>
    claimOf("start", {
      files: [{ name: "--profile", path, isOurs: async () => isOurs }],
      inputs: [{ name: "--data", path: join(folder, "data") }],
    });
  const rows: readonly (readonly [name: string, path: string, says: RegExp])[] = [
    ["is not the data", "data", /--profile is .*data, which is read as well \(--data\)/],
    ["is not the data by another name", "same", /which is read as well \(--data\)/],
    ["is no other file", "other.json", /not a file that --profile wrote/],
    ["is no folder", "deep", /not a file that --profile wrote/],
    ["is not a file of the run", "out/config.json", /which the run itself writes/],
    ["is not below a file", "data/x", /ENOTDIR/],
    ["is not empty", "", /--profile is empty/],
  ];
  test.each(rows)("%s", async (_, path, says) => {
    const data = await put("data");
    await link(data, join(folder, "same"));
    await put("other.json");
    await mkdir(join(folder, "deep"));
    const before = await snapshot(folder);
    await expect(withOutFolder(context, profile(path && join(folder, path)), async () => 0)).rejects.toThrow(says);
    expect(await snapshot(folder)).toEqual(before);
  });
  test("may be a new file, whose folder goes again when nothing comes of it, and one of ours", async () => {
    await put("data");
    expect(await withOutFolder(context, profile(join(folder, "a", "b", "trace.json")), async () => 1)).toBe(1);
    expect(await readdir(folder)).toEqual(["data"]);
    for (const name of ["trace.json", ".trace.json.4194999-0123456789ab.tmp", ".other.json.4194999-0123456789ab.tmp"]) await put(name);
    expect(await withOutFolder(context, profile(join(folder, "trace.json"), true), async () => 0)).toBe(0);
    expect((await readdir(folder)).sort()).toEqual([".other.json.4194999-0123456789ab.tmp", "data", "trace.json"]);
  });
});

describe("what stays", () => {
  test("after a failed merge is nothing", async () => {
    const failing = async ({ files, path }: OutFolder): Promise<number> => {
      await files.write(join(path, "config.json"), new Uint8Array(1));
      throw new Error("full");
    };
    await expect(withOutFolder(context, claimOf("new", { path: join(folder, "a", "b") }), failing)).rejects.toThrow("full");
    expect(await readdir(folder)).toEqual([]);
  });
  test("of a killed process is removed by the next, and what a living one writes is not", async () => {
    const dead = [".config.json.4194999-0123456789ab.tmp", ".config.json.0123456789ab.tmp", `.base.json.${process.pid}-0123456789ab.tmp`];
    const alive = ".config.json.1-0123456789ab.tmp";
    for (const name of [...dead, alive, ".mine.tmp"]) {
      await put(`out/${name}`);
      await put(`out/lora/${name}`);
    }
    await put(`out/${lockName}`, "");
    await put(`out/${markName}`, mark("compare"));
    expect(await withOutFolder({ ...context, lock: { staleMs: 30 } }, claimOf("own"), async () => 0)).toBe(0);
    expect((await readdir(join(folder, "out"))).sort()).toEqual([alive, markName, ".mine.tmp", "lora"].sort());
    expect((await readdir(join(folder, "out", "lora"))).sort()).toEqual([alive, ".mine.tmp"].sort());
  });
  test("when the process ends in between is no lock and no folder", async () => {
    const before = new Set(process.listeners("exit"));
    await withOutFolder(context, claimOf("start"), async () => {
      expect(await readdir(join(folder, "out"))).toEqual([lockName]);
      const added = process.listeners("exit").filter((listener) => !before.has(listener));
      for (const listener of added) listener.call(process, 0);
      expect(await readdir(folder)).toEqual([]);
      return 0;
    });
  });
});

test("a process whose folder another has taken over writes nothing more, and says so", async () => {
  const { path } = claimOf("start");
  const working = withOutFolder({ ...context, lock: { staleMs: 50 } }, claimOf("start"), async ({ signal, files, begin }) => {
    await begin();
    await put("new", "{}");
    await rm(join(path, lockName));
    await link(join(folder, "new"), join(path, lockName));
    await vi.waitFor(() => expect(signal.aborted).toBe(true), 60_000);
    await expect(files.write(join(path, "config.json"), new Uint8Array(1))).rejects.toThrow(/is not this process's any more/);
    return 0;
  });
  await expect(working).rejects.toThrow(/is not this process's any more.*Nothing more was written there/);
  expect((await readdir(path)).sort()).toEqual([markName, lockName].sort());
});

test("a run whose folder is removed says that, and not which of its files it missed first", async () => {
  const working = withOutFolder(context, claimOf("start"), async ({ path, begin }) => {
    await begin();
    await rm(path, { recursive: true });
    await readFile(join(path, "metrics.jsonl"));
    return 0;
  });
  await expect(working).rejects.toThrow(/is not this process's any more: it was removed, or/);
  expect(await readdir(folder)).toEqual([]);
});

test("a folder that nothing can be written in is refused before the command does anything", async ({ skip }) => {
  if (process.platform !== "linux") return skip();
  const use = vi.fn(async () => 0);
  await expect(withOutFolder(context, claimOf("start", { path: "/proc/lowrank/run" }), use)).rejects.toThrow(
    /^\/proc\/lowrank\/run: the folder cannot be made \(ENOENT\)\. The file system takes no folder there/,
  );
  await expect(withOutFolder(context, claimOf("start", { path: "" }), use)).rejects.toThrow("--out is empty");
  expect(use).not.toHaveBeenCalled();
});
