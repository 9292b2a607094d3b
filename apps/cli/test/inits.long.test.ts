// Slow: a run, an interrupted one and its end for each way to begin.
// First values out of weights and data, and LoRA's own ways to train, from the command line.
import { readFileSync, rmSync } from "node:fs";
import { join } from "node:path";
import { afterAll, describe, expect, test } from "vitest";
import { lowrank, scratchFolder, tinyProject } from "./cli.js";

const folder = scratchFolder();
const { model, train, test: heldOut } = await tinyProject(folder);
afterAll(() => rmSync(folder, { recursive: true, force: true }));

const data = ["--model", model, "--data", train, "--device", "cpu", "--seed", "3"];
const sizes = ["--rank", "4", "--targets", "q_proj,v_proj,down_proj", "--batch-size", "4", "--dropout", "0.1"];
const bytesOf = (place: string): string[] =>
  ["adapter_model.safetensors", "adapter_config.json"].map((name) => readFileSync(join(place, name)).toString("base64"));
const configOf = (place: string): Record<string, unknown> => JSON.parse(readFileSync(join(place, "adapter_config.json"), "utf8"));

/** The base's held-out loss. */
async function baseLoss(): Promise<number> {
  const { stdout, stderr, code } = await lowrank(["eval", "--model", model, "--data", heldOut, "--device", "cpu", "--json"]);
  expect(code, stderr).toBe(0);
  return (JSON.parse(stdout) as { loss: number }).loss;
}

describe.each([
  ["init=pissa", { init_lora_weights: "pissa", r: 4 }],
  ["init=olora", { init_lora_weights: "olora", r: 4 }],
  ["init=eva", { init_lora_weights: "eva", r: 4 }],
  ["init=pissa_niter_4", { init_lora_weights: true, r: 8 }],
  ["init=orthogonal", { init_lora_weights: "orthogonal" }],
  ["loraPlusRatio=4", { init_lora_weights: true }],
  ["freezeA=true", { init_lora_weights: true }],
] as const)("--set %s", (setting, fields) => {
  const args = ["train", ...data, ...sizes, "--set", setting, "--steps", "60", "--save-every", "5", "--lr", "1e-3"];
  const name = setting.replace("=", "-");
  const whole = join(folder, name);

  test("starts at the base and lowers the loss", async () => {
    const { code, stdout, stderr } = await lowrank([...args, "--eval-data", heldOut, "--out", whole, "--json"]);
    expect(code, stderr).toBe(0);
    const { evalLossBefore, evalLossAfter } = JSON.parse(stdout) as { evalLossBefore: number; evalLossAfter: number };
    expect(Math.abs(evalLossBefore - (await baseLoss()))).toBeLessThan(1e-4);
    expect(evalLossAfter).toBeLessThan(evalLossBefore);
    expect(configOf(whole)).toMatchObject(fields);
    const again = await lowrank(["eval", "--model", model, "--adapter", whole, "--data", heldOut, "--device", "cpu", "--json"]);
    expect(again.code, again.stderr).toBe(0);
    expect((JSON.parse(again.stdout) as { loss: number }).loss).toBeCloseTo(evalLossAfter, 4);
  });

  test("interrupted and resumed, it ends with the bytes of an undisturbed run", async () => {
    const broken = join(folder, `${name}-broken`);
    // On a busy machine a signal may come too late.
    let stopped = await lowrank([...args, "--out", broken], { interruptAt: "60 steps of" });
    for (let i = 0; stopped.code === 0 && i < 5; i++)
      stopped = await lowrank([...args, "--out", broken, "--overwrite"], { interruptAt: "60 steps of" });
    expect(stopped.code, stopped.stderr).toBe(130);
    const { code, stderr } = await lowrank([...args, "--out", broken, "--resume"]);
    expect(code, stderr).toBe(0);
    expect(bytesOf(broken)).toEqual(bytesOf(whole));
  });
});

test("--as-plain-lora writes the same adapter as LoRA of twice the rank, of a finished run too", async () => {
  const out = join(folder, "plain");
  const args = ["train", ...data, ...sizes, "--init", "pissa", "--steps", "8", "--out", out];
  expect((await lowrank(args)).code).toBe(0);
  const loss = async (): Promise<number> => {
    const { stdout } = await lowrank(["eval", "--model", model, "--adapter", out, "--data", heldOut, "--device", "cpu", "--json"]);
    return (JSON.parse(stdout) as { loss: number }).loss;
  };
  const before = await loss();
  expect(configOf(out)).toMatchObject({ init_lora_weights: "pissa", r: 4 });
  const combined = await lowrank(["resize", out, "--rank", "2", "--out", join(folder, "smaller")]);
  expect(combined.stderr).toContain("--as-plain-lora");
  const { code, stderr } = await lowrank([...args, "--resume", "--as-plain-lora"]);
  expect(code, stderr).toBe(0);
  expect(configOf(out)).toMatchObject({ init_lora_weights: true, r: 8 });
  expect(await loss()).toBeCloseTo(before, 5);
  expect((await lowrank(["resize", out, "--rank", "2", "--out", join(folder, "smaller")])).code).toBe(0);
  const refused = await lowrank(["train", ...data, "--method", "ia3", "--as-plain-lora", "--steps", "2", "--out", join(folder, "ia3")]);
  expect(refused.code).toBe(2);
  expect(refused.stderr).toContain("ia3 has none");
});

test("compare initializes as train does", async () => {
  const out = join(folder, "compared");
  const flags = ["--methods", "lora,dora", "--init", "eva", "--rank", "2", "--set", "lora.loraPlusRatio=4", "--steps", "8"];
  const measured = ["--eval-data", heldOut, "--batch-size", "4", "--latency-seconds", "1", "--json"];
  const { code, stdout, stderr } = await lowrank(["compare", ...data, ...flags, ...measured, "--out", out]);
  expect(code, stderr).toBe(0);
  expect((JSON.parse(stdout) as { methods: { method: string }[] }).methods.map(({ method }) => method)).toEqual(["lora", "dora"]);
  expect(configOf(join(out, "dora"))).toMatchObject({ init_lora_weights: "eva", use_dora: true });
});
