import { DeviceError } from "../../tensor/errors.js";
import { epilogueLoop } from "../epilogue.js";
import { fillFrom, type Kernel, type LoopKernel, type PlanSlot, rootsOf } from "../kernel.js";
import { printAttention } from "./attention.js";
import { cachedAttentionName, printCachedAttention } from "./cached-attention.js";
import type { VariantChoice } from "./choice.js";
import { chooseLoopVariant, loadsOf, printLoop } from "./loop.js";
import { printMatmul } from "./matmul.js";
import type { Target, WgslProgram } from "./program.js";
import { printCopy, printFill, printScatterAdd } from "./scatter.js";

/** The programs that run one kernel, in order. Empty for a kernel that has nothing to do. */
export function printKernel(
  kernel: Kernel,
  slots: readonly PlanSlot[],
  name: string,
  target: Target,
  choice: VariantChoice,
): WgslProgram[] {
  switch (kernel.kind) {
    case "loop": {
      const isEmpty =
        kernel.outer.some((size) => size === 0) || (kernel.inner === 0 && kernel.stores.every((store) => store.scope === "element"));
      const copy = fillFrom(kernel, slots);
      return [
        ...(copy ? [printCopy(copy, slots, `${name}_over`, target)] : []),
        ...(isEmpty ? [] : printSplit(kernel, slots, name, target)),
      ];
    }
    case "matmul": {
      const isEmpty = kernel.m === 0 || kernel.n === 0 || kernel.batch.some((size) => size === 0);
      if (isEmpty) return [];
      const product = printMatmul(kernel, slots, name, target, choice.matmul(kernel, target, slots));
      const { epilogue } = kernel;
      return epilogue ? [product, ...printSplit(epilogueLoop(kernel, epilogue), slots, `${name}_epilogue`, target)] : [product];
    }
    case "scatterAdd": {
      if (kernel.rows * kernel.width === 0) return [];
      const fill = printFill(kernel.out, kernel.rows * kernel.width, slots, `${name}_fill`, target);
      return kernel.count === 0 ? [fill] : [fill, printScatterAdd(kernel, slots, name, target)];
    }
    case "copy":
      return kernel.bytes === 0 ? [] : [printCopy(kernel, slots, name, target)];
    case "composite": {
      if (kernel.name === cachedAttentionName) return [printCachedAttention(kernel, slots, name, target)];
      const variant = choice.attention(kernel, target);
      if (!variant) throw new Error(`WebGPU has no kernel for ${kernel.name}; the scheduler should have decomposed it.`);
      return printAttention(kernel, slots, name, target, variant);
    }
    case "group":
      return kernel.members.flatMap((member) => printKernel(member, slots, name, target, choice));
  }
}

/** A loop kernel whose bindings are too many becomes several with some of its stores each, unless it reads what it stores. */
function printSplit(kernel: LoopKernel, slots: readonly PlanSlot[], name: string, target: Target): WgslProgram[] {
  const program = printLoop(kernel, slots, name, target, chooseLoopVariant(kernel, slots, target));
  if (program.bindings.length <= target.maxBindings) return [program];
  const stored = new Set(kernel.stores.map((store) => store.slot));
  const isInPlace = loadsOf(rootsOf(kernel)).some((load) => stored.has(load.slot));
  if (kernel.stores.length < 2 || isInPlace) {
    throw new DeviceError(
      `Kernel ${name} needs ${program.bindings.length} buffers, but this adapter binds ${target.maxBindings}. Store an intermediate result, with realize(), so that the expression splits in two.`,
      "webgpu",
    );
  }
  const half = Math.ceil(kernel.stores.length / 2);
  const halves = [kernel.stores.slice(0, half), kernel.stores.slice(half)];
  const programs = halves.flatMap((stores) => printSplit({ ...kernel, stores }, slots, name, target));
  // Elsewhere in the arena the whole might have fitted.
  return programs.map((each) => ({ ...each, usesPlaces: true }));
}

export type { Target, WgslProgram } from "./program.js";
