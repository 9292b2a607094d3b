import { cpSync, readFileSync, rmSync } from "node:fs";
import { join } from "node:path";
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
