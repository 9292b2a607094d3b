import { absentGpu, planningDevice, tensor } from "@lowrank/tensor";
import { describe, expect, it } from "vitest";
import { cardOf, leastSeconds } from "../src/plan/cards.js";
import { programOf } from "../src/program.js";
import { baseModelFolder } from "../src/quickstart-assets.js";
import { lowrankHere } from "./cli.js";

describe("a card that is not there", () => {
  it.each([
    ["4090", "NVIDIA RTX 4090"],
    ["nvidia rtx-4090", "NVIDIA RTX 4090"],
    ["M2", "Apple M2 Max"],
  ])("is found by %s", (name, found) => {
    expect(cardOf(name).name).toBe(found);
  });
  it.each(["rtx", "5090", "", "-"])("is not found by %j, and the error names all", (name) => {
    expect(() => cardOf(name)).toThrow(/NVIDIA H100.*--device-memory/);
  });
  it("is planned for with WebGPU's kernels", async () => {
    const { device: outline, plans } = planningDevice(absentGpu("card", 1e9));
    expect([outline.name, outline.limits.budgetBytes]).toEqual(["webgpu", Number.MAX_SAFE_INTEGER]);
    const x = tensor(new Float32Array(64), { device: outline, shape: [8, 8] });
    await x.matmul(x).realize();
    expect(plans).toHaveLength(1);
    expect(leastSeconds([{ operations: 82.6e12, readBytes: 0, writtenBytes: 0 }], cardOf("4090"))).toBeCloseTo(1, 9);
  });
});

/** First values that come out of weights or of data, which a plan does not read. */
describe("a step is planned", () => {
  it.each([
    ["--init", "pissa"],
    ["--init", "pissa_niter_4"],
    ["--init", "olora"],
    ["--init", "eva"],
    ["--method", "dora", "--init", "pissa"],
    ["--set", "freezeA=true"],
  ])("with %s %s %s %s", async (...flags) => {
    const given = [
      "plan",
      "--model",
      baseModelFolder(),
      "--batch",
      "1",
      "--seq",
      "8",
      "--json",
      ...flags.filter((flag) => flag !== undefined),
    ];
    const { code, stdout, stderr } = await lowrankHere(given);
    expect(code, stderr).toBe(0);
    expect((JSON.parse(stdout) as { peakBytes: number }).peakBytes).toBeGreaterThan(1e6);
  });
});

describe("hints name the command as it was typed", () => {
  const folder = "/home/ann/project";
  const env = { PATH: "/usr/bin:/usr/local/bin" };
  it.each([
    ["npx lowrank", "/home/ann/project/node_modules/.bin/lowrank", { ...env, npm_command: "exec" }],
    ["npx lowrank", "/home/ann/project/node_modules/.bin/lowrank", { ...env, npm_command: "run-script" }],
    ["lowrank", "/usr/local/bin/lowrank", env],
    ["node_modules/.bin/lowrank", "/home/ann/project/node_modules/.bin/lowrank", env],
    ["node apps/cli/bin/lowrank.js", "/home/ann/project/apps/cli/bin/lowrank.js", env],
    ["node /opt/low/bin/lowrank.js", "/opt/low/bin/lowrank.js", env],
    ["./lowrank", "/home/ann/project/lowrank", env],
    ["'my tools/lowrank'", "/home/ann/project/my tools/lowrank", env],
  ])("%s", (typed, path, given) => {
    expect(programOf({ path, folder, env: given })).toBe(typed);
  });
});
