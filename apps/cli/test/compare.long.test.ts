// Slow: comparisons of whole runs, which time decoding.
import { existsSync, readFileSync, rmSync } from "node:fs";
import { join } from "node:path";
import { afterAll, describe, expect, test } from "vitest";
import { lowrank, scratchFolder, tinyProject } from "./cli.js";

const folder = scratchFolder();
const { model, train, test: heldOut } = await tinyProject(folder);
const common = ["--model", model, "--data", train, "--eval-data", heldOut, "--batch-size", "4", "--device", "cpu"];
afterAll(() => rmSync(folder, { recursive: true, force: true }));

interface Row {
  readonly method: string;
  readonly parameters: { readonly trainable: number; readonly frozen: number };
  readonly evalLoss: number;
  readonly peakBytes: number;
  readonly stepMs: number;
  readonly decoding: { readonly ratio: number; readonly mergedRatio: number | null };
}
const rowsOf = (stdout: string): Row[] => (JSON.parse(stdout) as { methods: Row[] }).methods;

describe("compare", () => {
  const flags = [
    "--methods",
    "lora,dora,full",
    "--rank",
    "4",
    "--targets",
    "q_proj,v_proj",
    "--lr",
    "lora=1e-2",
    "--lr",
    "dora=1e-2",
    "--lr",
    "full=1e-3",
  ];
  const args = (out: string): string[] => [
    "compare",
    ...common,
    ...flags,
    "--steps",
    "24",
    "--save-every",
    "5",
    "--latency-seconds",
    "2",
    "--out",
    out,
    "--json",
  ];
  const whole = join(folder, "whole");

  test("measures each method and writes a page of its own", async () => {
    const { code, stdout, stderr } = await lowrank(args(whole));
    expect(code, stderr).toBe(0);
    const rows = rowsOf(stdout);
    expect(rows.map(({ method }) => method)).toEqual(["lora", "dora", "full"]);
    const [lora, dora, full] = rows as [Row, Row, Row];
    expect(lora.parameters.trainable).toBe(2 * 2 * 4 * (32 + 32));
    expect(dora.parameters.trainable).toBe(lora.parameters.trainable + 2 * 2 * 32);
    expect(full.parameters.frozen).toBe(0);
    expect(lora.peakBytes).toBeLessThan(full.peakBytes);
    const { base } = JSON.parse(stdout) as { base: { evalLoss: number } };
    for (const { evalLoss, stepMs } of rows) {
      expect(evalLoss).toBeLessThan(base.evalLoss);
      expect(stepMs).toBeGreaterThan(0);
    }
    // What they are is the machine's to say: a model this small takes so little a token that another process changes it by half.
    for (const ratio of [lora.decoding.mergedRatio ?? 0, lora.decoding.ratio]) expect(Math.abs(Math.log(ratio))).toBeLessThan(Math.log(5));
    const html = readFileSync(join(whole, "compare.html"), "utf8");
    for (const name of ["base", "lora", "dora", "full"]) expect(html).toContain(`<th scope="row">${name}</th>`);
    expect(html).toContain("<svg");
    expect(html).not.toMatch(/https?:\/\/|\bsrc=|\bhref=/);
  });

  test("killed and started again, it ends with the same losses", async () => {
    const broken = join(folder, "broken");
    let killed = 0;
    for (let i = 0; killed < 4 && i < 12; i++) {
      const { code } = await lowrank(args(broken), { killAfterMs: 900 + 500 * i });
      if (code === null) killed++;
      else break;
    }
    expect(killed).toBeGreaterThan(0);
    const { code, stdout, stderr } = await lowrank(args(broken));
    expect(code, stderr).toBe(0);
    expect(rowsOf(stdout).map(({ evalLoss }) => evalLoss)).toHaveLength(3);
    for (const { method, evalLoss } of rowsOf(stdout))
      expect(evalLoss, method).toBe((JSON.parse(readFileSync(join(whole, `${method}.json`), "utf8")) as Row).evalLoss);
    for (const name of ["lora", "dora", "full"]) expect(existsSync(join(broken, name, "training-state.safetensors"))).toBe(false);
  });

  test("BitFit on a model without biases is trained in a variant, and the output says so", async () => {
    const out = join(folder, "bitfit");
    const few = ["--methods", "bitfit", "--lr", "bitfit=1e-2", "--steps", "8", "--latency-seconds", "1"];
    const { code, stdout, stderr } = await lowrank(["compare", ...common, ...few, "--out", out, "--json"]);
    expect(code, stderr).toBe(0);
    const result = JSON.parse(stdout) as { methods: Row[]; variants: object; leftOut: object; base: { evalLoss: number } };
    expect(result.variants).toEqual({ bitfit: expect.stringContaining("addMissing") });
    expect(result.leftOut).toEqual({});
    const [bitfit] = result.methods as [Row];
    // Four projections, three layers of the MLP, and the output layer.
    expect(bitfit.parameters.trainable).toBe(2 * (4 * 32 + 2 * 64 + 32) + 257);
    expect(bitfit.evalLoss).toBeLessThan(result.base.evalLoss);
    expect(bitfit.decoding.mergedRatio).toBeNull();
    expect(readFileSync(join(out, "compare.html"), "utf8")).toContain("bitfit: a variant");
    const asked = [...common, ...few, "--set", "bitfit.addMissing=false", "--out", join(folder, "asked")];
    const refused = await lowrank(["compare", ...asked]);
    expect(refused.code).toBe(2);
    expect(refused.stderr).toContain("no biases");
  });

  test("Ctrl-C says how to go on", async () => {
    const out = join(folder, "interrupted");
    const long = args(out).map((arg) => (arg === "24" ? "3000" : arg));
    const { code, stderr } = await lowrank(long, { interruptAt: "step" });
    expect(code, stderr).toBe(130);
    expect(stderr).toMatch(/lowrank(\.js)? compare --model /); // npx lowrank under npm
  });

  test.each([
    [["--methods", "lora,magic"], "no magic"],
    [["--methods", "lora,lora"], "twice"],
    [["--methods", "lora", "--virtual-tokens", "4"], "--virtual-tokens means nothing"],
    [["--methods", "lora", "--set", "dora.rank=4"], "no method of that name"],
    [["--methods", "lora", "--lr", "dora=1"], "not compared"],
    [["--methods", "lora", "--lr", "lora=fast"], "a number above 0"],
  ])("refuses %j", async (given, said) => {
    const { code, stderr } = await lowrank(["compare", ...common, ...given, "--steps", "2", "--out", join(folder, "refused")]);
    expect(code).toBe(2);
    expect(stderr).toContain(said);
  });

  test("refuses a folder of other settings", async () => {
    const { code, stderr } = await lowrank(args(whole).map((arg) => (arg === "24" ? "25" : arg)));
    expect(code).toBe(2);
    expect(stderr).toContain("--steps was 24 and is 25");
  });
});

describe("rank-study", () => {
  const args = (out: string): string[] => [
    ...["rank-study", ...common, "--ranks", "1,2,8", "--targets-sets", "q,v;all-linear"],
    ...["--steps", "8", "--lr", "1e-2", "--out", out, "--json"],
  ];
  test("goes on after being killed, compares ranks, seeds and targets, and recommends", async () => {
    const out = join(folder, "study");
    const first = await lowrank(args(out), { killAfterMs: 2500 });
    expect([null, 0]).toContain(first.code);
    const { code, stdout, stderr } = await lowrank(args(out));
    expect(code, stderr).toBe(0);
    const result = JSON.parse(stdout) as {
      runs: { set: string; rank: number; seed: number; evalLoss: number }[];
      subspaces: Record<"betweenRanks" | "betweenSeeds", { heading: string; values: number[][] }[]>;
      spectra: { layers: string; values: number[] }[];
      amplification: { factor: number }[];
      sentence: string;
    };
    expect(result.runs.map(({ set, rank, seed }) => `${set} ${rank} ${seed}`)).toEqual([
      ...["q,v 1 0", "q,v 2 0", "q,v 8 0", "all-linear 1 0", "all-linear 2 0", "all-linear 8 0", "q,v 8 1"],
    ]);
    expect(result.sentence).toMatch(/^(Take rank \d+ on|No rank)/);
    expect(result.spectra.map(({ layers }) => layers)).toEqual(["q_proj", "v_proj"]);
    for (const { values } of result.spectra) expect(values).toEqual([...values].sort((a, b) => b - a));
    for (const { values } of [...result.subspaces.betweenRanks, ...result.subspaces.betweenSeeds])
      for (const value of values.flat()) expect(Math.abs(value - 0.5)).toBeLessThanOrEqual(0.5 + 1e-6);
    for (const { factor } of result.amplification) expect(factor).toBeGreaterThan(0);
    const html = readFileSync(join(out, "rank-study.html"), "utf8");
    expect(html).toContain('<th scope="row">q,v</th>');
    expect(html).toContain('class="cell"');
    expect(html).not.toMatch(/https?:\/\/|\bsrc=|\bhref=/);
  });
  test("refuses a target that no layer has, and says which there are", async () => {
    const { code, stderr } = await lowrank(["rank-study", ...common, "--targets-sets", "q,w", "--out", join(folder, "none")]);
    expect(code).toBe(2);
    expect(stderr).toContain("q_proj");
  });
});
