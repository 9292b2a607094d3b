import { existsSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { lowrank, scratchFolder, tinyProject } from "./cli.js";

interface Event {
  readonly name: string;
  readonly ph: string;
  readonly cat?: string;
  readonly ts?: number;
  readonly dur?: number;
  readonly args: Readonly<Record<string, number>>;
}

describe("lowrank train --profile", () => {
  it("writes every kernel of every step in Chrome's trace format, and trains as without it", async () => {
    const folder = scratchFolder();
    const { model, train } = await tinyProject(folder);
    const [profiled, plain, file] = [join(folder, "profiled"), join(folder, "plain"), join(folder, "trace.json")];
    const args = ["train", "--model", model, "--data", train, "--steps", "4", "--device", "cpu", "--json"];
    const { code, stderr } = await lowrank([...args, "--out", profiled, "--profile", file]);
    expect(code, stderr).toBe(0);
    expect((await lowrank([...args, "--out", plain])).code).toBe(0);
    const weights = [profiled, plain].map((out) => readFileSync(join(out, "adapter_model.safetensors")));
    expect(weights[0]?.equals(weights[1] as Buffer)).toBe(true);

    expect(existsSync(file)).toBe(true);
    const { traceEvents } = JSON.parse(readFileSync(file, "utf8")) as { traceEvents: readonly Event[] };
    const kernels = traceEvents.filter(({ ph, cat }) => ph === "X" && cat === "kernel");
    expect(traceEvents.filter(({ cat }) => cat === "step").map(({ name }) => name)).toEqual(["step 1", "step 2", "step 3", "step 4"]);
    expect(kernels.length).toBeGreaterThan(4 * 20);
    expect(kernels.some(({ name, args: work }) => name.startsWith("matmul") && (work["GFLOP/s"] ?? 0) > 0)).toBe(true);
    for (const [i, { ts = -1, dur = -1 }] of kernels.entries()) {
      const before = kernels[i - 1];
      expect(dur).toBeGreaterThanOrEqual(0);
      // One after another: a microsecond for rounding.
      expect(ts + 1).toBeGreaterThanOrEqual((before?.ts ?? 0) + (before?.dur ?? 0));
    }
  });
});
