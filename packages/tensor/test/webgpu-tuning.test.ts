import { planningDevice, type TunedClass, type Tuning, tensor } from "@lowrank/tensor";
import { describe, expect, it } from "vitest";
import type { WebgpuBackend } from "../src/backends/webgpu/index.js";
import type { TuningStore } from "../src/backends/webgpu/tuning.js";
import { Device } from "../src/graph/device.js";
import { type MatmulVariant, matmulVariants } from "../src/kernels/wgsl/matmul.js";
import { planExecutor } from "../src/schedule/plan-executor.js";
import { hasWebgpu, openWebgpu } from "./webgpu-device.js";

const over = (backend: WebgpuBackend): Device => new Device("webgpu", backend, planExecutor());

/** The program of (a · b) + 1, whose values are checked on the way. */
async function programOf(backend: WebgpuBackend, programs: string[]): Promise<string> {
  const dev = over(backend);
  const a = tensor(
    Float32Array.from({ length: 36 * 20 }, (_, i) => (i % 7) - 3),
    { device: dev, shape: [36, 20] },
  );
  const b = tensor(
    Float32Array.from({ length: 20 * 44 }, (_, i) => (i % 5) - 2),
    { device: dev, shape: [20, 44] },
  );
  programs.length = 0;
  const got = await a.matmul(b).add(1).data();
  for (let i = 0; i < 36; i++) {
    for (let j = 0; j < 44; j++) {
      let sum = 1;
      for (let k = 0; k < 20; k++) sum += (((i * 20 + k) % 7) - 3) * (((k * 44 + j) % 5) - 2);
      expect(got[i * 44 + j]).toBe(sum); // Small whole numbers are exact.
    }
  }
  return programs[0] ?? "";
}

/** A store that holds one tuning in memory. */
function memoryStore(): TuningStore & { saved: Tuning | null } {
  return {
    saved: null,
    async load(adapter) {
      return this.saved?.adapter === adapter ? { value: this.saved, source: "memory" } : null;
    },
    async save(tuning) {
      this.saved = JSON.parse(JSON.stringify(tuning)) as Tuning;
    },
  };
}

describe.skipIf(!hasWebgpu())("tuning", () => {
  const name = "64x32 f32 · 32x64 f32";

  it("measures each class once, remembers it, and the next device has it", async () => {
    const tunings = memoryStore();
    const first = await openWebgpu({ tunings });
    const { device: outline, plans } = planningDevice(over(first));
    const zeros = (shape: readonly number[]) => tensor(new Float32Array(shape.reduce((x, y) => x * y)), { device: outline, shape });
    await zeros([36, 20])
      .matmul(zeros([20, 44]))
      .add(1)
      .realize();
    await zeros([64, 32])
      .matmul(zeros([32, 64]))
      .realize();
    const found: TunedClass[] = [];
    const tuning = await first.tune(plans, (one) => found.push(one));
    expect(found.map((one) => [one.name, one.done, one.count])).toEqual([[name, 1, 1]]);
    const [{ modelledMs, fastestMs, variant }] = found as [TunedClass];
    expect(modelledMs).toBeGreaterThan(0);
    expect(fastestMs).toBeLessThanOrEqual(modelledMs);
    expect(matmulVariants(first.target)).toContainEqual(variant);
    expect(tuning.matmul).toEqual({ [name]: variant });
    expect(tunings.saved).toEqual(tuning);
    const before = first.counters.pipelinesCreated;
    await first.tune(plans, (one) => found.push(one));
    expect(found).toHaveLength(1);
    expect(first.counters.pipelinesCreated).toBe(before);
    expect(first.counters.bytesInUse).toBe(0);
    first.dispose();

    const second = await openWebgpu({ tunings });
    await second.tune(plans, (one) => found.push(one));
    expect(found).toHaveLength(1);
    second.dispose();

    // Who gives a tuning keeps it: what is remembered is not replaced by less.
    const third = await openWebgpu({ tunings, tuning: null });
    await third.tune([], () => {});
    expect(tunings.saved).toEqual(tuning);
    third.dispose();
  });

  it("keeps the classes that were measured before it failed", async () => {
    const tunings = memoryStore();
    const backend = await openWebgpu({ tunings });
    const { device: outline, plans } = planningDevice(over(backend));
    const ones = (rows: number) => tensor(new Float32Array(rows * 8).fill(1), { device: outline, shape: [rows, 8] });
    for (const rows of [16, 32]) await ones(rows).matmul(ones(8)).realize();
    const stop = (): never => {
      throw new Error("enough");
    };
    await expect(backend.tune(plans, stop)).rejects.toThrow("enough");
    expect(Object.keys(tunings.saved?.matmul ?? {})).toEqual(["16x8 f32 · 8x8 f32"]);
    backend.dispose();
  });

  it("decides which program a product gets, and the result stays", async () => {
    const texts = new Set<string>();
    const probe = await openWebgpu();
    const few = matmulVariants(probe.target).filter(({ tileRows }) => tileRows <= 2);
    probe.dispose();
    expect(few.length).toBeGreaterThan(1);
    for (const variant of few as MatmulVariant[]) {
      const programs: string[] = [];
      const tuning: Tuning = { adapter: "given", matmul: { [name]: variant } };
      const backend = await openWebgpu({ tuning, onProgram: ({ code }) => programs.push(code) });
      texts.add(await programOf(backend, programs));
      backend.dispose();
    }
    expect(texts.size).toBe(few.length);
  });

  it("that is damaged is refused when the device opens", async () => {
    const tunings: TuningStore = { load: async () => ({ value: { adapter: "x" }, source: "memory" }), save: async () => {} };
    await expect(openWebgpu({ tunings })).rejects.toThrow("memory: this is no tuning of kernel variants: matmul is not an object.");
  });
});
