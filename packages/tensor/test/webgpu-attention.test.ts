// Slow: every variant of the kernel is compiled for every row.
import { type Device as AnyDevice, device, planStatistics } from "@lowrank/tensor";
import { inTurn, testBackend } from "test-support";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import type { WebgpuBackend } from "../src/backends/webgpu/index.js";
import { Device } from "../src/graph/device.js";
import { type AttentionVariant, attentionVariants } from "../src/kernels/wgsl/attention.js";
import { planExecutor } from "../src/schedule/plan-executor.js";
import { planningDevice } from "../src/schedule/planning.js";
import { bodyRows, compare, packedRows, type Row, rows, run, visibilityRows } from "./attention-cases.js";
import { hasWebgpu, openWebgpu } from "./webgpu-device.js";

describe.skipIf(!hasWebgpu())("each WGSL attention variant against float64", () => {
  let backend: WebgpuBackend;
  let reference: AnyDevice;
  let which = 0;
  const used = new Set<AttentionVariant["rows"]>();
  beforeAll(async () => {
    // Each kernel is forced into the variant of the turn, among those that its heads are narrow enough for.
    backend = await openWebgpu({
      choice: {
        attention(kernel, target) {
          const variants = attentionVariants(kernel, target);
          const variant = variants[which % variants.length] as AttentionVariant;
          used.add(variant.rows);
          return variant;
        },
      },
    });
    reference = await device("reference");
  });
  afterAll(() => backend?.dispose());

  async function check(row: Row, isCausal: boolean, isStrided: boolean, variant: number): Promise<void> {
    which = variant;
    const want = await run(reference, row, isCausal, isStrided);
    const got = await run(new Device("webgpu", backend, planExecutor()), row, isCausal, isStrided);
    try {
      compare(got, want, row);
    } catch (error) {
      throw new Error(`variant ${variant}${isCausal ? ", causal" : ""}${isStrided ? ", strided" : ""}: ${error}`);
    }
  }

  // A software adapter compiles an attention program in seconds, so each shape meets one variant, in turn;
  // lavapipe takes a minute where heads are wide, which SwiftShader alone does.
  const widthOf = ({ dim, valueDim = 0 }: Row): number => Math.max(dim, valueDim);
  // The rules and bodies that say the most; of these again the first of each on lavapipe.
  const rules = ["windows in texts behind a prefix", "a window behind a prefix", "a window over a cache"];
  const bodies = ["a factor for each query and key", "a soft cap in texts", "a table by distance and head"];
  const count = testBackend() === "lavapipe" ? 1 : 3;
  const chosen = [...rules.slice(0, count), ...bodies.slice(0, count)];
  const further = Object.entries({ ...visibilityRows, ...bodyRows }).filter(([name]) => chosen.includes(name));
  const named = Object.entries({ ...rows, ...packedRows });
  const wide = named.filter(([, row]) => widthOf(row) > 32);
  const narrow = named.filter(([, row]) => widthOf(row) <= 32);
  const own = [...inTurn(narrow, ([name]) => name), ...(testBackend() === "lavapipe" ? [] : wide), ...further];
  for (const [j, [name, row]] of own.entries()) it(name, () => check(row, name in rows ? j % 3 !== 0 : true, j % 2 === 0, j));

  it("all ways in which rows reach an invocation were taken", () => {
    expect([...used].sort()).toEqual(["subgroup", "workgroup"]);
  });
});

describe.skipIf(!hasWebgpu())("WebGPU attention's memory", () => {
  const arenaBytes = async (backend: WebgpuBackend, length: number): Promise<number> => {
    const { device: dev, plans } = planningDevice(new Device("webgpu", backend, planExecutor()));
    await run(dev, { batch: 1, heads: 8, queries: length, dim: 8 }, true, true);
    return Math.max(...plans.map((plan) => planStatistics(plan).arenaBytes));
  };

  it("grows linearly with the sequence once it is long, whatever the adapter", async () => {
    const backend = await openWebgpu();
    const [one, two, four] = [await arenaBytes(backend, 4096), await arenaBytes(backend, 8192), await arenaBytes(backend, 16_384)];
    backend.dispose();
    expect((four - two) / (two - one)).toBeLessThan(2.1);
    // Scores alone would take 8 heads · 16,384² · 4 bytes = 8 GiB.
    expect(four).toBeLessThan(64 * 2 ** 20);
  });
});
