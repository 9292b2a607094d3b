// Slow: a run is killed ten times, each in a process of its own.
import { spawnSync } from "node:child_process";
import { readFileSync, rmSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { lowrank, printed, scratchFolder, tinyProject } from "./cli.js";

const folder = scratchFolder();
const { model, train, test: heldOut } = await tinyProject(folder);
const run = join(folder, "run");
const flags = [
  "--model",
  model,
  "--data",
  train,
  "--rank",
  "4",
  "--targets",
  "all-linear",
  "--lr",
  "1e-2",
  "--device",
  "cpu",
  "--seed",
  "3",
];
const short = [...flags, "--steps", "30", "--batch-size", "4", "--dropout", "0.1", "--save-every", "5"];
const files = ["adapter_model.safetensors", "adapter_config.json"];
const bytesOf = (place: string): string[] => files.map((name) => readFileSync(join(place, name)).toString("base64"));

afterAll(() => rmSync(folder, { recursive: true, force: true }));

describe("the workflow on a tiny model", () => {
  beforeAll(async () => {
    const { code, stdout, stderr } = await lowrank(["train", ...flags, "--steps", "60", "--eval-data", heldOut, "--out", run, "--json"]);
    expect(code, stderr).toBe(0);
    const result = JSON.parse(stdout) as Record<string, number>;
    expect(Object.keys(result)).toEqual([
      "steps",
      "trainLoss",
      "evalLossBefore",
      "evalLossAfter",
      "trainable",
      "frozen",
      "tokensPerSecond",
      "peakBytes",
      "out",
    ]);
    expect(result.steps).toBe(60);
    // Behind random frozen weights LoRA learns little, but surely.
    expect(result.evalLossAfter).toBeLessThan((result.evalLossBefore ?? 0) - 0.1);
    expect(result.trainable).toBe(2 * 4 * (4 * (32 + 32) + 3 * (32 + 64)));
  });

  test("metrics.jsonl has a line a step and a line an evaluation, each with the time of day", () => {
    const text = readFileSync(join(run, "metrics.jsonl"), "utf8").trim();
    const lines = text.split("\n").map((line) => JSON.parse(line) as { step: number; loss?: number; evalLoss?: number; time: string });
    expect(lines.filter(({ loss }) => loss !== undefined).map(({ step }) => step)).toEqual(Array.from({ length: 60 }, (_, i) => i + 1));
    expect(lines.filter(({ evalLoss }) => evalLoss !== undefined).map(({ step }) => step)).toEqual([0, 60]);
    expect(lines[60]).toMatchObject({ step: 60, gradNorm: expect.any(Number), stepMs: expect.any(Number), isWarmUp: expect.any(Boolean) });
    const times = lines.map(({ time }) => Date.parse(time));
    expect(times).toEqual([...times].sort((a, b) => a - b));
  });

  test("eval prints loss, perplexity, tokens and exact match", async () => {
    const { code, stdout, stderr } = await lowrank(["eval", "--model", model, "--adapter", run, "--data", heldOut, "--generate", "--json"]);
    expect(code, stderr).toBe(0);
    const result = JSON.parse(stdout) as { loss: number; perplexity: number; tokens: number; exactMatch: number };
    expect(result.perplexity).toBeCloseTo(Math.exp(result.loss), 6);
    expect(result.tokens).toBeGreaterThan(0);
    expect(result.exactMatch).toBeGreaterThanOrEqual(0);
    // Looking for a GPU, as --device auto does, says nothing.
    expect(stderr.split("\n")[0]).toMatch(/^device: /);
  });

  test("merged and unmerged generate the same text", async () => {
    const merged = join(folder, "merged");
    const made = await lowrank(["merge", "--model", model, "--adapter", run, "--out", merged]);
    expect(made.code, made.stderr).toBe(0);
    const ask = ["--prompt", "red box:", "--max-new-tokens", "8", "--json", "--device", "cpu"];
    const unmerged = await lowrank(["generate", "--model", model, "--adapter", run, ...ask]);
    const plain = await lowrank(["generate", "--model", merged, ...ask]);
    expect(unmerged.code, unmerged.stderr).toBe(0);
    expect(printed(plain.stdout)).toEqual(printed(unmerged.stdout));
    expect(Object.keys(JSON.parse(plain.stdout))).toEqual(["text", "tokens", "ids", "logProbabilities", "end"]);
    const again = await lowrank(["merge", "--model", model, "--adapter", run, "--out", merged]);
    expect(again.code).toBe(2);
  });

  test("inspect says what LoRA would train", async () => {
    const { code, stdout } = await lowrank(["inspect", model, "--targets", "q_proj,v_proj", "--rank", "2", "--json"]);
    expect(code).toBe(0);
    const { parameters, tensors } = JSON.parse(stdout) as { parameters: number; tensors: unknown[] };
    expect(tensors).toHaveLength(2 + 2 * 9);
    expect(parameters).toBe(257 * 32 + 32 + 2 * (2 * 32 + 4 * 32 * 32 + 3 * 32 * 64));
    const told = await lowrank(["inspect", model, "--targets", "q_proj,v_proj", "--rank", "2"]);
    expect(told.stdout).toContain(`would train ${2 * 2 * 2 * (32 + 32)} parameters`);
    expect((await lowrank(["inspect", run])).code).toBe(0);
  });

  test("doctor finds the cpu", async () => {
    const { code, stdout } = await lowrank(["doctor", "--json"]);
    expect(code).toBe(0);
    const { backends } = JSON.parse(stdout) as { backends: { backend: string; isAvailable: boolean; gflops: number | null }[] };
    const cpu = backends.find(({ backend }) => backend === "cpu");
    expect(cpu?.isAvailable).toBe(true);
    expect(cpu?.gflops).toBeGreaterThan(0);
  });

  test("full fine-tuning leaves a checkpoint that generates", async () => {
    const out = join(folder, "full");
    const args = ["--model", model, "--data", train, "--method", "full", "--steps", "5", "--lr", "1e-3", "--device", "cpu"];
    const trained = await lowrank(["train", ...args, "--out", out]);
    expect(trained.code, trained.stderr).toBe(0);
    const generated = await lowrank(["generate", "--model", out, "--prompt", "red box:", "--max-new-tokens", "3", "--json"]);
    expect(generated.code, generated.stderr).toBe(0);
  });
});

describe("interrupted runs", () => {
  test("killed ten times at random moments and resumed, a run ends with the bytes of an undisturbed one", async () => {
    const whole = join(folder, "whole");
    const start = performance.now();
    expect((await lowrank(["train", ...short, "--out", whole])).code).toBe(0);
    const wholeMs = performance.now() - start;
    const broken = join(folder, "broken");
    let killed = 0;
    for (let i = 0; killed < 10 && i < 40; i++) {
      // Early enough to leave work, spread over start, steps and saving.
      const killAfterMs = wholeMs * (0.15 + 0.55 * Math.random());
      const { code } = await lowrank(["train", ...short, "--out", broken, "--resume"], { killAfterMs });
      if (code === null) killed++;
      else rmSync(broken, { recursive: true, force: true });
    }
    expect(killed).toBe(10);
    const last = await lowrank(["train", ...short, "--out", broken, "--resume"]);
    expect(last.code, last.stderr).toBe(0);
    expect(bytesOf(broken)).toEqual(bytesOf(whole));
  }, 300_000);

  test("Ctrl-C finishes the step, saves, and says how to go on", async () => {
    const out = join(folder, "interrupted");
    const args = [...flags, "--steps", "2000", "--out", out];
    const { code, stderr } = await lowrank(["train", ...args], { interruptAt: "step" });
    expect(code).toBe(130);
    expect(stderr).toContain("--resume");
    expect(readFileSync(join(out, "adapter_model.safetensors")).length).toBeGreaterThan(0);
  });
});

test("a reader that has had enough ends the command quietly", () => {
  const program = fileURLToPath(new URL("../bin/lowrank.js", import.meta.url));
  const shown = spawnSync("bash", ["-c", `set -o pipefail; "${process.execPath}" "${program}" inspect "${model}" --json | head -c 1`], {
    encoding: "utf8",
  });
  expect(shown.status, shown.stderr).toBe(0);
  expect(shown.stdout).toBe("{");
  expect(shown.stderr).not.toMatch(/EPIPE|^ {4}at /m);
});
