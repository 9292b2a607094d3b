// Needs no device: what is printed, and how often.
import { absentGpu, layerNorm, type Plan, planningDevice, realize, type Tensor, tensor } from "@lowrank/tensor";
import { expect, test } from "vitest";
import { Programs } from "../src/backends/webgpu/programs.js";
import { modelledChoice, type VariantChoice } from "../src/kernels/wgsl/choice.js";
import { printKernel, type Target, type WgslProgram } from "../src/kernels/wgsl/print.js";

const target: Target = {
  maxBindingBytes: 2 ** 27,
  maxBindings: 8,
  maxInvocations: 256,
  maxWorkgroupBytes: 16384,
  maxWorkgroupsPerDimension: 65535,
  isSoftware: false,
  subgroupSize: 0,
};

/** The plan of some layers, each over weights of its own. */
async function planOf(layers: number, end: (x: Tensor) => Tensor = (x) => x): Promise<Plan> {
  const { device, plans } = planningDevice(absentGpu("a card", 2 ** 33));
  const of = (...shape: number[]): Tensor => tensor(new Float32Array(shape.reduce((a, b) => a * b, 1)), { shape, device });
  let x = of(32, 64);
  for (let i = 0; i < layers; i++) x = layerNorm(x, of(64), of(64)).matmul(of(64, 64)).add(of(64)).tanh().add(x);
  await realize(end(x));
  return plans.at(-1) as Plan; // just made
}

/** How often products were printed, by a choice that is asked each time. */
function counting(): { readonly choice: VariantChoice; readonly printed: () => number } {
  let count = 0;
  const matmul: VariantChoice["matmul"] = (kernel, to, slots) => {
    count++;
    return modelledChoice.matmul(kernel, to, slots);
  };
  return { choice: { ...modelledChoice, matmul }, printed: () => count };
}

function all(programs: Programs, plan: Plan, choice: VariantChoice): WgslProgram[] {
  return plan.kernels.flatMap((kernel, i) => [...programs.of(kernel, plan.slots, plan.names[i] ?? "", choice)]);
}

test("kernels that are equal but for their slots are printed once, and bind what each of them touches", async () => {
  const plan = await planOf(6);
  const { choice, printed } = counting();
  const programs = new Programs(target);
  const want = plan.kernels.flatMap((kernel, i) => printKernel(kernel, plan.slots, plan.names[i] ?? "", target, modelledChoice));
  expect(all(programs, plan, choice)).toEqual(want);
  const once = printed();
  expect(once).toBeLessThan(plan.kernels.filter(({ kind }) => kind === "matmul").length);
  expect(all(programs, await planOf(12), choice).length).toBeGreaterThan(want.length);
  expect(printed()).toBe(once);
  programs.clear();
  expect(all(programs, plan, choice)).toEqual(want);
  expect(printed()).toBe(2 * once);
});

test("where slots share a binding, each kernel is printed for the places of its own slots", async () => {
  const tight: Target = { ...target, maxBindings: 3 };
  const plan = await planOf(6);
  const programs = new Programs(tight);
  const want = plan.kernels.flatMap((kernel, i) => printKernel(kernel, plan.slots, plan.names[i] ?? "", target, modelledChoice));
  expect(want.some(({ bindings }) => bindings.length > tight.maxBindings)).toBe(true);
  const moved: Plan = {
    ...plan,
    slots: plan.slots.map((slot, i) => ({
      kind: "arena",
      dtype: slot.dtype,
      elementCount: slot.elementCount,
      bytes: slot.bytes,
      offset: i * i * 256,
    })),
  };
  for (const each of [moved, { ...moved, slots: moved.slots.map((slot, i) => ({ ...slot, offset: ((i * 7919) % 1000) * 65536 })) }]) {
    const direct = each.kernels.flatMap((kernel, i) => printKernel(kernel, each.slots, each.names[i] ?? "", tight, modelledChoice));
    expect(direct.some(({ usesPlaces }) => usesPlaces)).toBe(true);
    expect(all(programs, each, modelledChoice)).toEqual(direct);
  }
});
