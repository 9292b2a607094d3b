import { mkdtempSync, readdirSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { device, type Tuning, tune } from "@lowrank/tensor";
import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import { fileTunings } from "../src/backends/node/file-tunings.js";
import { knownVariants } from "../src/backends/webgpu/tuner.js";
import { parseTuning } from "../src/backends/webgpu/tuning.js";
import type { MatmulKernel } from "../src/kernels/kernel.js";
import { matmulClass } from "../src/kernels/wgsl/choice.js";
import { matmulVariants } from "../src/kernels/wgsl/matmul.js";
import type { Target } from "../src/kernels/wgsl/program.js";
import type { DType } from "../src/tensor/dtype.js";
import { boundPlan } from "./cpu-plan.js";
import { view } from "./matmul-cases.js";

const gpu: Target = {
  maxBindingBytes: 2 ** 27,
  maxBindings: 8,
  maxInvocations: 256,
  maxWorkgroupBytes: 2 ** 14,
  maxWorkgroupsPerDimension: 65_535,
  isSoftware: false,
  subgroupSize: 32,
};
const variants = matmulVariants(gpu);

interface Product {
  readonly batch?: readonly number[];
  readonly m: number;
  readonly n: number;
  readonly k: number;
  readonly a?: "n" | "t" | "s";
  readonly b?: "n" | "t" | "s";
  readonly bType?: DType;
}

function classOf({ batch = [], m, n, k, a = "n", b = "n", bType = "f32" }: Product): string {
  const kernel: MatmulKernel = {
    kind: "matmul",
    batch,
    m,
    n,
    k,
    a: view(0, m, k, batch, a, [], 0).view,
    b: view(1, k, n, batch, b, [], 0).view,
    out: 2,
  };
  const slots = (["f32", bType, "f32"] as const).map((dtype) => ({ dtype, values: [0] }));
  return matmulClass(kernel, boundPlan([kernel], slots).slots);
}

describe("the class of a product", () => {
  it.each([
    ["takes sizes up to the next power of two", { m: 1000, n: 384, k: 128 }, "1024x128 f32 · 128x512 f32"],
    ["marks sizes that four do not divide", { m: 1001, n: 8, k: 3 }, "~1024x~4 f32 · ~4x8 f32"],
    ["says which operand lies by columns", { m: 8, n: 8, k: 8, a: "t", b: "s" }, "8x8 f32 by columns · 8x8 f32 strided"],
    ["says how weights are stored", { m: 1, n: 512, k: 512, b: "t", bType: "bf16" }, "~1x512 f32 · 512x512 bf16 by columns"],
    ["counts the matrices of a batch", { batch: [4, 3], m: 4, n: 4, k: 4 }, "16 x 4x4 f32 · 4x4 f32"],
  ] as const)("%s", (_, product, name) => {
    expect(classOf(product)).toBe(name);
  });
});

describe("tunings in files", () => {
  let folder: string;
  beforeEach(() => {
    folder = mkdtempSync(join(tmpdir(), "lowrank-tunings-"));
    vi.stubEnv("XDG_CACHE_HOME", folder);
  });
  afterEach(() => vi.unstubAllEnvs());
  const tuning: Tuning = { adapter: "a vendor/of chips, v1", matmul: { "4x4 f32 · 4x4 f32": variants[3] as (typeof variants)[number] } };

  it("come back for the adapter that was measured, and for no other", async () => {
    const store = fileTunings();
    expect(await store.load(tuning.adapter)).toBeNull();
    await store.save(tuning);
    const [name = ""] = readdirSync(join(folder, "lowrank", "tunings"));
    expect(await store.load(tuning.adapter)).toEqual({ value: tuning, source: join(folder, "lowrank", "tunings", name) });
    // The same letters and digits, so that only the hash tells them apart.
    expect(await store.load("a vendor of chips, v1")).toBeNull();
  });

  it("are refused by name when a file is damaged", async () => {
    const store = fileTunings();
    await store.save(tuning);
    const [name = ""] = readdirSync(join(folder, "lowrank", "tunings"));
    const path = join(folder, "lowrank", "tunings", name);
    writeFileSync(path, '{"adapter": ');
    await expect(store.load(tuning.adapter)).rejects.toThrow(`${path}: remembered kernel variants are no JSON. Delete it`);
  });

  it.each([
    [[], "not an object"],
    [{ matmul: {} }, "adapter is not a text"],
    [{ adapter: "x", matmul: [] }, "matmul is not an object"],
    [{ adapter: "x", matmul: { "4x4": 3 } }, 'the variant of "4x4" is not an object'],
  ])("that are no tuning are refused: %j", (value, reason) => {
    expect(() => parseTuning(value, "f.json")).toThrow(
      `f.json: this is no tuning of kernel variants: ${reason}. Delete it and tune again.`,
    );
  });

  it("of other versions keep the variants that there still are", () => {
    const [variant] = variants;
    const other = { ...variant, tileRows: 3 } as (typeof variants)[number];
    expect([...knownVariants({ adapter: "x", matmul: { old: other, kept: { ...variant } as typeof other } }, gpu)]).toEqual([
      ["kept", variant],
    ]);
  });
});

it("a device without variants says so", async () => {
  const dev = await device("cpu", { threads: 1 });
  await expect(tune(dev, [])).rejects.toThrow(
    'The device cpu has no kernel variants to choose among. Tune a device that was opened as "webgpu".',
  );
  dev.dispose();
});
