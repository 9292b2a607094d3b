import { cpSync, existsSync, readdirSync, readFileSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { afterAll, expect, test } from "vitest";
import { lowrank, lowrankHere, scratchFolder, tinyProject } from "./cli.js";

const folder = scratchFolder();
const { model, train } = await tinyProject(folder);
const common = ["--model", model, "--data", train, "--device", "cpu", "--rank", "2", "--batch-size", "4"];
afterAll(() => rmSync(folder, { recursive: true, force: true }));

/** Every file below a folder that is nobody's result. */
const leftIn = (path: string): string[] =>
  (readdirSync(path, { recursive: true, encoding: "utf8" }) as string[]).filter((name) => /\.(tmp|lock)(-\w+)?$/.test(name));

test("of two runs that begin at once in one folder, one trains and the other is told who does", async () => {
  const out = join(folder, "both");
  const args = ["train", ...common, "--steps", "120", "--out", out];
  // Under different names of the folder, and as one who goes on with the run.
  symlinkSync(folder, join(folder, "link"));
  const outcomes = await Promise.all([
    lowrank(args),
    lowrank(["train", ...common, "--steps", "120", "--out", `${join(folder, "link", "both")}/`, "--resume"]),
  ]);
  const [won, lost] = outcomes[0].code === 0 ? outcomes : [outcomes[1], outcomes[0]];
  expect(won.code, won.stderr).toBe(0);
  expect(lost.code, lost.stderr).toBe(2);
  expect(lost.stderr).toMatch(/error: .*both\/? is in use by process \d+ on \S+ \(lowrank train\), since .* UTC\. Wait for its end/);
  expect(readFileSync(join(out, "metrics.jsonl"), "utf8").trim().split("\n")).toHaveLength(120);
  expect(leftIn(out)).toEqual([]);
});

test("a run from before there were marks resumes and may be overwritten, and what is not a run is neither", async () => {
  const out = join(folder, "earlier");
  const mark = join(out, ".lowrank.json");
  const short = ["train", ...common, "--steps", "3", "--save-every", "1"];
  const stopped = await lowrankHere([...short, "--out", out], { stopAt: "3 steps of" });
  expect(stopped.code, stopped.stderr).toBe(130);
  rmSync(mark);
  const resumed = await lowrankHere(["train", "--resume", "--out", out]);
  expect(resumed.code, resumed.stderr).toBe(0);
  expect(existsSync(mark)).toBe(true);
  rmSync(mark);
  const again = await lowrankHere([...short, "--out", out, "--overwrite"]);
  expect(again.code, again.stderr).toBe(0);
  expect(existsSync(mark)).toBe(true);

  rmSync(mark);
  rmSync(join(out, "training-state.safetensors"));
  rmSync(join(out, "metrics.jsonl"));
  const other = join(folder, "other");
  cpSync(model, other, { recursive: true });
  const link = join(folder, "to-model");
  symlinkSync(model, link);
  const full = ["train", ...common.filter((arg) => !["--rank", "2"].includes(arg)), "--method", "full", "--steps", "2"];
  const rows: readonly (readonly [args: readonly string[], says: RegExp])[] = [
    [[...full, "--out", other, "--resume"], /other holds .*model\.safetensors.*, which lowrank train did not make/],
    [[...full, "--out", other, "--overwrite"], /other holds .*model\.safetensors.*, which lowrank train did not make/],
    [[...full, "--out", link, "--overwrite"], /to-model, which is read as well \(--model\)/],
    [
      [...short, "--out", out, "--resume"],
      /earlier holds adapter_config\.json, adapter_model\.safetensors, which lowrank train did not make/,
    ],
    [[...short, "--out", out, "--overwrite"], /did not make/],
  ];
  const digest = (): string[] =>
    [model, other, out].flatMap((path) => readdirSync(path).map((name) => readFileSync(join(path, name), "latin1")));
  const before = digest();
  for (const [args, says] of rows) {
    const { code, stderr } = await lowrankHere(args);
    expect(stderr).toMatch(says);
    expect(code).toBe(2);
  }
  expect(digest()).toEqual(before);
});

test("compare that was killed leaves nothing behind its next run", async () => {
  const out = join(folder, "comparison");
  const args = [
    "compare",
    ...common,
    "--methods",
    "lora",
    "--eval-rows",
    "4",
    "--steps",
    "4",
    "--save-every",
    "1",
    "--latency-seconds",
    "0.2",
    "--out",
    out,
  ];
  const killed = await lowrank([...args, "--general-text", train], { killAt: "lora (1 of 1)" });
  expect(killed.code, killed.stderr).toBeNull();
  const { pid } = JSON.parse(readFileSync(join(out, ".lowrank.lock"), "utf8")) as { pid: number };
  // What it would leave if it was killed while it wrote.
  const torn = [".lora.json", "lora/.adapter_model.safetensors", "lora/.training-state.safetensors"];
  for (const name of torn) writeFileSync(join(out, `${name}.${pid}-0123456789ab.tmp`), "torn");
  const { code, stderr } = await lowrankHere([...args, "--general-text", train]);
  expect(code, stderr).toBe(0);
  expect(stderr).toContain(`was locked by process ${pid} on`);
  expect(leftIn(out)).toEqual([]);
});
