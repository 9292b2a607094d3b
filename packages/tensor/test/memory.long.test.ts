// README's promise at full size: no manual memory. memory.test.ts holds the same on each backend in small.
import { type Tensor, tensor } from "@lowrank/tensor";
import { newDevice, skipReason, type TestBackend } from "test-support";
import { afterEach, describe, expect, it, vi } from "vitest";
import { findVulkan } from "../../../scripts/vulkan.mjs";

afterEach(() => {
  vi.unstubAllEnvs();
});

interface Loop {
  readonly backend: TestBackend;
  readonly count: number;
  /** Each element of row i of a result is its column + i + 0.5. */
  readonly shape: readonly [rows: number, columns: number];
  readonly budgetBytes?: number;
}

const loops: readonly (readonly [name: string, loop: Loop])[] = [
  ["10,000 results of 1 MB under 64 MB on cpu", { backend: "cpu", count: 10_000, shape: [256, 1024], budgetBytes: 64e6 }],
  // A read takes some ten milliseconds here, whatever its size.
  ["1,000 results of 1 MB under 64 MB on webgpu", { backend: "swiftshader", count: 1000, shape: [256, 1024], budgetBytes: 64e6 }],
  ["300 logits of 256 rows and 50,257 columns on cpu", { backend: "cpu", count: 300, shape: [256, 50_257] }],
];

/** Why a backend cannot be tried here; null where it can. */
function absence(backend: TestBackend): string | null {
  const found = backend === "swiftshader" ? findVulkan(backend) : null;
  return typeof found === "string" ? found : null;
}

describe("a loop that reads results and drops them never runs out of memory", () => {
  for (const [name, { backend, count, shape, budgetBytes }] of loops) {
    const reason = absence(backend);
    if (reason !== null) skipReason(`${name}: ${reason}`);
    it.skipIf(reason !== null)(name, { timeout: 600_000 }, async () => {
      vi.stubEnv("LOWRANK_TEST_BACKEND", backend);
      const dev = await newDevice(budgetBytes === undefined ? {} : { budgetBytes });
      const [rows, columns] = shape;
      const row = tensor(
        Float32Array.from({ length: columns }, (_, i) => i),
        { device: dev },
      );
      const result = (i: number): Tensor =>
        row
          .add(tensor([i], { device: dev }))
          .expand([rows, columns])
          .add(0.5);
      for (let i = 0; i < count; i++) {
        const values = await result(i).data();
        const ends = [values.length, values[0], values.at(-1)];
        // One assertion where it fails: ten thousand take longer than the loop.
        if (ends[0] !== rows * columns || ends[1] !== i + 0.5 || ends[2] !== columns + i - 0.5) expect.fail(`result ${i}: ${ends.join()}`);
      }
      expect(dev.counters.peakBytes).toBeLessThanOrEqual(dev.limits.budgetBytes);
      dev.dispose();
    });
  }
});
