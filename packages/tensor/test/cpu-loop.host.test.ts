// Slow: 80 random kernels, each interpreted five times.
import fc from "fast-check";
import { expectSameLists } from "test-support";
import { afterAll, describe, it } from "vitest";
import { createCpuBackend } from "../src/backends/cpu/backend.js";
import { nodeEnvironment } from "../src/backends/cpu/node.js";
import { runKernels } from "./cpu-plan.js";
import { compareLoop, randomLoop } from "./random-loop.js";

const environment = nodeEnvironment();
const backends = [1, 2, 3].map((threadCount) => createCpuBackend({ environment, threadCount, soloNanoseconds: 0 }));
afterAll(() => {
  for (const backend of backends) backend.dispose();
});

describe("printed loop kernels", () => {
  it("equal the scalar interpreter on random kernels, with the same bits for 1, 2 and 3 threads", async () => {
    await fc.assert(
      fc.asyncProperty(fc.integer({ min: 0, max: 2 ** 32 - 1 }), async (seed) => {
        const made = randomLoop(seed);
        const [actual = [], ...others] = await Promise.all(backends.map((each) => runKernels(each, [made.kernel], made.slots)));
        for (const other of others) expectSameLists(other, actual);
        compareLoop(made, actual);
      }),
      { numRuns: 80 },
    );
  });
});
