import type { CopyKernel, PlanSlot, ScatterAddKernel } from "../kernel.js";
import { ProgramFunctions } from "./functions.js";
import { ProgramMemory } from "./memory.js";
import { assemble, foldWorkgroups, type Target, type WgslProgram } from "./program.js";

const threads = 64;

/** Columns of one invocation. */
const chunk = 4;

/** out = 0, four elements an invocation. */
export function printFill(slot: number, elementCount: number, slots: readonly PlanSlot[], name: string, target: Target): WgslProgram {
  const memory = new ProgramMemory(slots, target);
  const count = Math.ceil(elementCount / 4);
  const workgroups = foldWorkgroups(Math.ceil(count / threads), target);
  const body = [
    `let i = group * ${threads} + i32(local.x);`,
    `if (i >= ${count}) { return; }`,
    memory.storeVector(slot, "i * 4", zeroVector(slots, slot)),
  ];
  return assemble({ name, memory, functions: new ProgramFunctions(), workgroupSize: [threads, 1], workgroups, body });
}

function zeroVector(slots: readonly PlanSlot[], slot: number): string {
  const dtype = slots[slot]?.dtype;
  return dtype === "i32"
    ? "vec4i(0)"
    : dtype === "u32" || dtype === "u8"
      ? "vec4u(0u)"
      : dtype === "bool"
        ? "vec4<bool>(false)"
        : "vec4f(0.0)";
}

/**
 * scatterAdd without atomics, so that sums have one order: the first update of each row adds all later ones to it in turn. The other
 * updates of that row see an earlier one and leave. Rows without an update were zeroed by `printFill` before.
 */
export function printScatterAdd(kernel: ScatterAddKernel, slots: readonly PlanSlot[], name: string, target: Target): WgslProgram {
  const { rows, width, count } = kernel;
  const memory = new ProgramMemory(slots, target);
  const columns = target.isSoftware ? Math.max(width, 1) : chunk;
  const chunks = Math.ceil(width / columns);
  const workgroups = foldWorkgroups(Math.ceil((count * chunks) / threads), target);
  const body = [
    `let place = group * ${threads} + i32(local.x);`,
    `if (place >= ${count * chunks}) { return; }`,
    `let first = i32(u32(place) / ${chunks}u);`,
    `let start = i32(u32(place) % ${chunks}u) * ${columns};`,
    `let end = min(start + ${columns}, ${width});`,
    `let target_row = i32(${memory.load(kernel.indices, "first")});`,
    `if (target_row < 0 || target_row >= ${rows}) { return; }`,
    `for (var i = 0; i < first; i++) { if (i32(${memory.load(kernel.indices, "i")}) == target_row) { return; } }`,
    `let out = target_row * ${width};`,
    `for (var c = start; c < end; c++) { ${memory.store(kernel.out, "out + c", memory.load(kernel.updates, `first * ${width} + c`))} }`,
    `for (var i = first + 1; i < ${count}; i++) {`,
    `if (i32(${memory.load(kernel.indices, "i")}) != target_row) { continue; }`,
    `for (var c = start; c < end; c++) { ${memory.store(kernel.out, "out + c", `${memory.load(kernel.out, "out + c")} + ${memory.load(kernel.updates, `i * ${width} + c`)}`)} }`,
    "}",
  ];
  return assemble({ name, memory, functions: new ProgramFunctions(), workgroupSize: [threads, 1], workgroups, body });
}

/** Copies a slot as words, whatever its type. */
export function printCopy(kernel: CopyKernel, slots: readonly PlanSlot[], name: string, target: Target): WgslProgram {
  const asWords = slots.map((slot): PlanSlot => ({ ...slot, dtype: "u32", elementCount: Math.ceil(slot.bytes / 4) }));
  const memory = new ProgramMemory(asWords, target);
  const count = Math.ceil(kernel.bytes / 16);
  const workgroups = foldWorkgroups(Math.ceil(count / threads), target);
  const body = [
    `let i = group * ${threads} + i32(local.x);`,
    `if (i >= ${count}) { return; }`,
    memory.storeVector(kernel.to, "i * 4", memory.loadVector(kernel.from, "i * 4")),
  ];
  return assemble({ name, memory, functions: new ProgramFunctions(), workgroupSize: [threads, 1], workgroups, body });
}
