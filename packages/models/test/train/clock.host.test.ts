import { lstatSync, mkdtempSync, readFileSync, rmSync, symlinkSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, describe, expect, it } from "vitest";
import { StepClock } from "../../src/train/clock.js";
import { metricsFile } from "../../src/train/node.js";

describe("the clock of steps", () => {
  const counted = (...steps: readonly (readonly [startMs: number, endMs: number, isWarmUp?: boolean])[]) => {
    const clock = new StepClock();
    const own = steps.map(([startMs, endMs, isWarmUp = false]) => clock.add({ startMs, endMs, isWarmUp, tokenCount: 100 }));
    return { own, steadyMs: clock.steadyMs, tokensPerSecond: clock.tokensPerSecond };
  };
  it("leaves planning out of rates", () => {
    expect(counted([0, 30_000, true], [30_000, 32_000], [32_000, 34_000])).toEqual({
      own: [30_000, 2000, 2000],
      steadyMs: 2000,
      tokensPerSecond: 50,
    });
  });
  it("counts the time of steps that are under way together once", () => {
    expect(counted([0, 1000], [1, 2000], [2, 3000], [3, 4000]).own).toEqual([1000, 1000, 1000, 1000]);
    expect(counted([0, 4000], [1, 4000], [2, 4000], [3, 4000])).toMatchObject({ steadyMs: 1000, tokensPerSecond: 100 });
  });
  it("leaves pauses between steps out", () => {
    expect(counted([0, 1000], [61_000, 62_000]).steadyMs).toBe(1000);
  });
  it("says what it has where no step was steady, and nothing before the first", () => {
    expect(counted([0, 1000, true])).toMatchObject({ steadyMs: 0, tokensPerSecond: 100 });
    expect(counted()).toMatchObject({ steadyMs: 0, tokensPerSecond: 0 });
  });
});

describe("metrics.jsonl", () => {
  const folder = mkdtempSync(join(tmpdir(), "lowrank-metrics-"));
  afterAll(() => rmSync(folder, { recursive: true, force: true }));
  it("keeps evaluations and steps up to the checkpoint, and no line after it", async () => {
    const path = join(folder, "metrics.jsonl");
    const line = (step: number) =>
      ({ step, loss: 1, learningRate: 1, gradNorm: 1, stepMs: 1, isWarmUp: false, tokensPerSecond: 1, bytes: 1 }) as const;
    const first = await metricsFile(path, 0);
    for (const metrics of [{ step: 0, evalLoss: 5 }, line(1), line(2), { step: 2, evalLoss: 4 }, line(3)]) await first(metrics);
    await (await metricsFile(path, 2))(line(3));
    const lines = readFileSync(path, "utf8").trim().split("\n");
    const read = lines.map((text) => JSON.parse(text) as { step: number; evalLoss?: number; time: string });
    expect(read.map(({ step, evalLoss }) => [step, evalLoss ?? null])).toEqual([
      [0, 5],
      [1, null],
      [2, null],
      [2, 4],
      [3, null],
    ]);
    for (const { time } of read) expect(new Date(time).toISOString()).toBe(time);
  });
  it("is begun by a resumed run where there is none, and not where the one that is there cannot be read", async () => {
    const [absent, unreadable] = [join(folder, "absent.jsonl"), join(folder, "unreadable.jsonl")];
    await metricsFile(absent, 2);
    expect(readFileSync(absent, "utf8")).toBe("");
    // A link to itself, which root cannot read either.
    symlinkSync(unreadable, unreadable);
    await expect(metricsFile(unreadable, 2)).rejects.toMatchObject({ code: "ELOOP", path: unreadable });
    expect(lstatSync(unreadable).isSymbolicLink()).toBe(true);
  });
});
