import { spawn } from "node:child_process";
import { existsSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { afterAll, describe, expect, test, vi } from "vitest";
import { Interruption } from "../src/interruption.js";
import { runCli } from "../src/run.js";
import { type Outcome, scratchFolder, tinyProject } from "./cli.js";

const program = fileURLToPath(new URL("../bin/lowrank.js", import.meta.url));
const folder = scratchFolder();
const { model, train, test: heldOut } = await tinyProject(folder);
const flags = ["train", "--model", model, "--data", train, "--rank", "4", "--device", "cpu", "--batch-size", "4"];

afterAll(() => rmSync(folder, { recursive: true, force: true }));

interface Signalled extends Outcome {
  /** From the last signal to the end. */
  readonly ms: number;
}

/** Runs a command and sends it signals once its output holds a text, one text after the other. `closes` lets go of its output at the first line. */
function signalled(
  args: readonly string[],
  sent: readonly (readonly [at: string, signals: readonly NodeJS.Signals[]])[],
  { closes = false, launcher = [] as readonly string[] } = {},
): Promise<Signalled> {
  return new Promise((resolve) => {
    const [file = "", ...rest] = [...launcher, process.execPath, program, ...args];
    // A group of its own, which the signals go to, as from a terminal.
    const child = spawn(file, rest, { env: { ...process.env, LOWRANK_DEBUG: undefined }, detached: true });
    let [stdout, stderr, last] = ["", "", performance.now()];
    const waiting = [...sent];
    const look = (): void => {
      if (closes) for (const stream of [child.stdout, child.stderr]) stream.destroy();
      const [next] = waiting;
      if (!next || !`${stdout}${stderr}`.includes(next[0])) return;
      waiting.shift();
      last = performance.now();
      for (const signal of next[1]) process.kill(-(child.pid as number), signal); // it runs, so it has a number
    };
    child.stdout.on("data", (chunk: Buffer) => {
      stdout += chunk;
      look();
    });
    child.stderr.on("data", (chunk: Buffer) => {
      stderr += chunk;
      look();
    });
    child.on("close", (code) => resolve({ code, stdout, stderr, ms: performance.now() - last }));
  });
}

const state = "training-state.safetensors";
const outOf = (name: string): string => join(folder, name);
const long = (name: string): string[] => [...flags, "--steps", "100000", "--save-every", "0", "--out", outOf(name)];

describe("a run that is told to stop", () => {
  const told = [
    ["SIGTERM finishes the step, saves and exits with 143", ["SIGTERM"], 143],
    ["SIGHUP finishes the step, saves and exits with 129", ["SIGHUP"], 129],
    ["two SIGINT at once, as npm hands them on, are one: 130", ["SIGINT", "SIGINT"], 130],
  ] as const;
  test.concurrent.each(told)("%s", async (name, signals, exitCode) => {
    const out = name.slice(0, 7);
    const { code, stderr } = await signalled(long(out), [["loss", signals]]);
    expect(code, stderr).toBe(exitCode);
    expect(stderr).toContain("--resume");
    expect(readdirSync(outOf(out)).sort()).toEqual([
      ".lowrank.json",
      "adapter_config.json",
      "adapter_model.safetensors",
      "metrics.jsonl",
      state,
    ]);
  });

  // A shell that ignores the signal is what can be seen of nohup where no terminal is involved, and bash names nohup itself in `_`.
  const ignoring = [
    ["a shell that ignores SIGHUP", ["sh", "-c", 'trap "" HUP; "$@"; exit $?', "sh"]],
    ["nohup", ["env", "_=/usr/bin/nohup"]],
  ] as const;
  test.concurrent.each(ignoring)("under %s SIGHUP changes nothing", async (name, launcher) => {
    const args = [...flags, "--steps", "60", "--out", outOf(name)];
    const { code, stderr } = await signalled(args, [["loss", ["SIGHUP"]]], { launcher });
    expect(code, stderr).toBe(0);
    expect(existsSync(join(outOf(name), "adapter_model.safetensors"))).toBe(true);
  });

  test("a second signal after the acknowledgement ends it at once, with the last checkpoint as it was", async () => {
    // A step that takes minutes, which begins with the evaluation's line.
    const out = outOf("second");
    const args = [...flags, "--steps", "10", "--accumulate", "50000", "--eval-data", heldOut, "--out", out];
    // Stopped when all is read and nothing is trained.
    const stop = new AbortController();
    const said = vi.spyOn(process.stdout, "write").mockImplementation((text) => {
      if (String(text).includes("10 steps of")) stop.abort(new Interruption("SIGTERM"));
      return true;
    });
    const stopped = await runCli(args, { signal: stop.signal });
    said.mockRestore();
    expect(stopped).toBe(143);
    const before = readFileSync(join(out, state));
    const { code, stderr, ms } = await signalled(
      [...args, "--resume"],
      [
        ["before training", ["SIGINT"]],
        ["Stopping after the step in progress, if any; Ctrl-C again ends at once.", ["SIGINT"]],
      ],
    );
    expect(code, stderr).toBe(130);
    // A second where the machine is idle.
    expect(ms).toBeLessThan(5000);
    expect(stderr).not.toContain("Stopped at step");
    expect(readFileSync(join(out, state)).equals(before)).toBe(true);
    expect(readdirSync(out).filter((name) => /\.(tmp|lock)$/.test(name))).toEqual([]);
  });
});

test("compare that measures stops there and says how to go on", async () => {
  const many = join(folder, "prompts.jsonl");
  writeFileSync(many, readFileSync(train, "utf8").repeat(40));
  const args = ["compare", "--model", model, "--data", train, "--eval-data", many, "--eval-rows", "3000", "--methods", "lora"];
  const { code, stderr } = await signalled([...args, "--device", "cpu", "--out", outOf("compare")], [["general text:", ["SIGTERM"]]]);
  expect(code, stderr).toBe(143);
  expect(stderr).toContain("Stopped after 0 of 1 methods");
  expect(existsSync(join(outOf("compare"), "base.json"))).toBe(false);
});

test("eval that answers thousands of prompts ends at once", async () => {
  const many = join(folder, "many.jsonl");
  writeFileSync(many, readFileSync(train, "utf8").repeat(40));
  const args = ["eval", "--model", model, "--data", many, "--generate", "--max-new-tokens", "40", "--device", "cpu"];
  const { code, stdout, stderr, ms } = await signalled(args, [["perplexity", ["SIGINT"]]]);
  expect(code, stderr).toBe(130);
  expect(stderr).toContain("Interrupted.");
  expect(stdout).not.toContain("exact match");
  // A second where the machine is idle.
  expect(ms).toBeLessThan(5000);
});

describe("output that nobody reads", () => {
  test("train goes on to its end when stdout and stderr are closed", async () => {
    const out = outOf("unread");
    const { code } = await signalled([...flags, "--steps", "40", "--out", out], [], { closes: true });
    expect(code).toBe(0);
    expect(readFileSync(join(out, "metrics.jsonl"), "utf8").trim().split("\n")).toHaveLength(40);
    expect(existsSync(join(out, "adapter_model.safetensors"))).toBe(true);
  });

  test("generate ends silently with 0", async () => {
    const { code } = await signalled(["generate", "--model", model, "--prompt", "red", "--device", "cpu"], [], { closes: true });
    expect(code).toBe(0);
  });
});
