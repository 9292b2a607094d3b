import { cpSync, readFileSync, rmSync } from "node:fs";
import { join } from "node:path";
import { loadModel, saveModel } from "@lowrank/models";
import { device } from "@lowrank/tensor";
import { sharedDir } from "test-support";
import { afterAll, expect, test } from "vitest";
import { lowrankHere, scratchFolder, tinyProject } from "./cli.js";

const folder = scratchFolder();
const { model, train } = await tinyProject(folder, { layers: 1 });
afterAll(() => rmSync(folder, { recursive: true, force: true }));

const common = ["--model", model, "--batch-size", "4", "--device", "cpu"];
const out = (name: string): string => join(folder, name);
const args = (name: string, ...extra: readonly string[]): string[] => ["train", ...common, "--data", train, "--out", out(name), ...extra];
const firstLoss = (name: string): number =>
  (JSON.parse(readFileSync(join(out(name), "metrics.jsonl"), "utf8").split("\n")[0] ?? "") as { loss: number }).loss;

test("the loss that adalora reports is the data's, without its penalty", async () => {
  for (const method of ["lora", "adalora"]) {
    const { code, stdout, stderr } = await lowrankHere(args(method, "--method", method, "--steps", "2"));
    expect(code, stderr).toBe(0);
    expect(stdout).toContain(`loss ${firstLoss(method).toFixed(4)}`);
  }
  // Both begin as the base does.
  expect(firstLoss("adalora")).toBeCloseTo(firstLoss("lora"), 5);
});

test("a last update of the whole model that overflows keeps the checkpoint before", async () => {
  const full = ["--method", "full", "--lr", "1e-3"];
  expect((await lowrankHere(args("full", ...full, "--steps", "2"), { stopAt: "step 1/" })).code).toBe(130);
  const before = readFileSync(join(out("full"), "model.safetensors"));
  const changed = ["--resume", "--allow-changed", "--lr", "3e38", "--weight-decay", "10"];
  const { code, stderr } = await lowrankHere(["train", "--out", out("full"), ...changed]);
  expect(code, stderr).toBe(2);
  expect(stderr).toMatch(/Step 2: its update left \S+ without a finite value/);
  expect(readFileSync(join(out("full"), "model.safetensors")).equals(before)).toBe(true);
  expect((await lowrankHere(["train", "--resume", "--out", out("full")])).code).toBe(0);
});

test("the whole model, trained from bf16, is stored in bf16 unless asked otherwise, and resumes from its masters in f32", async () => {
  const half = out("half");
  await saveModel((await loadModel(model, { device: await device("cpu") })).model, half, { dtype: "bf16" });
  const full = ["train", "--data", train, "--batch-size", "4", "--device", "cpu", "--method", "full", "--lr", "1e-3"];
  const weights = (name: string): Buffer => readFileSync(join(out(name), "model.safetensors"));
  const run = async (name: string, ...extra: readonly string[]): Promise<void> => {
    const { code, stderr } = await lowrankHere([...full, "--model", half, "--steps", "3", "--out", out(name), ...extra]);
    expect(code, stderr).toBe(0);
  };
  await run("as-stored");
  expect(weights("as-stored").byteLength).toBe(readFileSync(join(half, "model.safetensors")).byteLength);
  expect(weights("as-stored").equals(readFileSync(join(half, "model.safetensors")))).toBe(false);
  const stopped = await lowrankHere([...full, "--model", half, "--steps", "3", "--out", out("stopped")], { stopAt: "step 1/" });
  expect(stopped.code, stopped.stderr).toBe(130);
  const resumed = await lowrankHere(["train", "--resume", "--out", out("stopped")]);
  expect(resumed.code, resumed.stderr).toBe(0);
  expect(weights("stopped").equals(weights("as-stored"))).toBe(true);
  await run("single", "--dtype", "f32");
  expect(weights("single").byteLength).toBeGreaterThan(1.9 * weights("as-stored").byteLength);
  const refused = await lowrankHere([...args("refused", "--dtype", "f32", "--steps", "1")]);
  expect(refused.code).toBe(2);
  expect(refused.stderr).toMatch(/--dtype says how --method full stores the model's weights, and lora leaves them alone/);
});

const cases = sharedDir("cases", "resume-with-other-data");
test.skipIf(cases === null)("other rows under the name of those that a run began with are refused", async () => {
  const data = join(folder, "data.jsonl");
  const run = ["train", ...common, "--data", data, "--max-length", "32", "--steps", "2", "--out", out("case")];
  cpSync(join(cases ?? "", "first.jsonl"), data);
  expect((await lowrankHere(run, { stopAt: "step 1/" })).code).toBe(130);
  cpSync(join(cases ?? "", "second.jsonl"), data);
  const { code, stderr } = await lowrankHere([...run, "--resume"]);
  expect(code, stderr).toBe(2);
  expect(stderr).toContain("the rows of --data changed");
});
