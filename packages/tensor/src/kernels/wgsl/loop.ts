import { sizeOf } from "../../tensor/shape.js";
import { type Expr, expressionsBelow } from "../expr.js";
import { type LoopKernel, type PlanSlot, type Reduction, rootsOf, type Store } from "../kernel.js";
import { combineCode, identityCode } from "./elementwise.js";
import { ExprFacts, ExprPrinter, newScope, type Value } from "./expression.js";
import { ProgramFunctions } from "./functions.js";
import { valueType } from "./literals.js";
import { ProgramMemory } from "./memory.js";
import { assemble, foldWorkgroups, type Target, type WgslProgram } from "./program.js";

/** How the rows and the inner loop of a LoopKernel are spread over invocations. */
export interface LoopVariant {
  /** The variable whose steps are taken four at a time, or -1. */
  readonly vectorAxis: number;
  /** Rows (or vectors of four rows) side by side in a workgroup. */
  readonly rowThreads: number;
  /** Invocations that share one row's inner loop; they meet in a tree in workgroup memory. A power of two. */
  readonly innerThreads: number;
}

/** An elementwise kernel has no loop: its inner variable becomes one more outer one. */
function flatten(kernel: LoopKernel): LoopKernel {
  const isElementwise = kernel.reductions.length === 0 && kernel.stores.every((store) => store.scope === "element");
  if (!isElementwise) return kernel;
  return {
    ...kernel,
    outer: [...kernel.outer, kernel.inner],
    inner: 1,
    stores: kernel.stores.map((store) => ({ ...store, scope: "row" })),
  };
}

/** The distinct loads below some expressions. */
export function loadsOf(roots: readonly Expr[]): (Expr & { op: "load" })[] {
  return [...expressionsBelow(roots)].filter((expr) => expr.op === "load");
}

/** How good four steps of an axis at a time would be: loads and stores that become one access count for it, scattered ones against. */
function vectorGain(kernel: LoopKernel, axis: number): number {
  const facts = new ExprFacts(axis);
  const roots = rootsOf(kernel);
  let gain = 0;
  for (const index of [...loadsOf(roots).map((load) => load.index), ...kernel.stores.map((store) => store.index)]) {
    if (!facts.dependsOn(index, axis)) continue;
    const stride = facts.laneStride(index);
    gain += stride === 1 && facts.isAligned(index) ? 3 : stride === 0 ? 1 : -0.1;
  }
  return gain;
}

/** True when the last vector of a lone axis may run past its end: what it stores there is the padding that each buffer has. */
function mayOvershoot(kernel: LoopKernel, axis: number, size: number, slots: readonly PlanSlot[]): boolean {
  return kernel.stores.every(
    ({ index, slot }) => index.op === "variable" && index.axis === axis && (slots[slot]?.elementCount ?? 0) <= size,
  );
}

/** A variant that suits the kernel and the adapter. */
export function chooseLoopVariant(original: LoopKernel, slots: readonly PlanSlot[], target: Target): LoopVariant {
  const kernel = flatten(original);
  const innerAxis = kernel.outer.length;
  const isLoop = kernel.reductions.length > 0 || kernel.stores.some((store) => store.scope === "element");
  let vectorAxis = -1;
  let best = 0;
  const moreThanOne = kernel.outer.filter((size) => size > 1).length;
  for (let axis = isLoop ? innerAxis : innerAxis - 1; axis >= 0; axis--) {
    const size = axis === innerAxis ? kernel.inner : (kernel.outer[axis] ?? 1);
    if (size < 2 || (size % 4 !== 0 && (isLoop || moreThanOne > 1 || !mayOvershoot(kernel, axis, size, slots)))) continue;
    const gain = vectorGain(kernel, axis);
    if (gain > best) [vectorAxis, best] = [axis, gain];
  }
  if (!isLoop) return { vectorAxis, rowThreads: 64, innerThreads: 1 };

  const rows = sizeOf(kernel.outer) / (vectorAxis >= 0 && vectorAxis < innerAxis ? 4 : 1);
  const steps = kernel.inner / (vectorAxis === innerAxis ? 4 : 1);
  const wanted = target.isSoftware ? 64 : 16384;
  let innerThreads = 1;
  // Share a row only while there are too few rows to fill the machine and each invocation keeps a few steps.
  while (rows * innerThreads < wanted && innerThreads < 256 && steps / innerThreads >= 4) innerThreads *= 2;
  if (innerThreads < 4) innerThreads = 1;
  const rowThreads = innerThreads === 1 ? (target.isSoftware ? 16 : 64) : Math.max(1, Math.min(32, Math.floor(256 / innerThreads), rows));
  return { vectorAxis, rowThreads: Math.max(1, innerThreads > 1 && vectorAxis === innerAxis ? 1 : rowThreads), innerThreads };
}

/** Reductions in groups whose members do not read each other's results, so that a group takes one loop. */
function groupReductions(reductions: readonly Reduction[]): number[][] {
  const groups: number[][] = [];
  let current: number[] = [];
  const reads = (expr: Expr, among: readonly number[]): boolean =>
    [...expressionsBelow([expr])].some((below) => below.op === "accumulator" && among.includes(below.index));
  for (const [index, reduction] of reductions.entries()) {
    if (current.length > 0 && reads(reduction.value, current)) {
      groups.push(current);
      current = [];
    }
    current.push(index);
  }
  if (current.length > 0) groups.push(current);
  return groups;
}

/** Prints a LoopKernel as a WGSL program. Long: one program, from top to bottom. */
export function printLoop(
  original: LoopKernel,
  slots: readonly PlanSlot[],
  name: string,
  target: Target,
  variant: LoopVariant,
): WgslProgram {
  const kernel = flatten(original);
  const innerAxis = kernel.outer.length;
  const memory = new ProgramMemory(slots, target);
  const functions = new ProgramFunctions();
  const facts = new ExprFacts(variant.vectorAxis);
  const row = newScope();
  const isInnerVector = variant.vectorAxis === innerAxis;
  const { rowThreads, innerThreads } = variant;

  // Rows are numbered in order of the outer variables; four rows of the vector axis are one.
  const sizes = kernel.outer.map((size, axis) => (axis === variant.vectorAxis ? Math.ceil(size / 4) : size));
  const rowCount = sizeOf(sizes);
  const variables = [...kernel.outer.map((_, axis) => `v${axis}`), `v${innerAxis}`];
  const printer = new ExprPrinter(facts, memory, functions, variables, innerAxis, row);
  const used = rootsOf(kernel).reduce((bits, expr) => bits | expr.axes, 0);
  const workgroups = foldWorkgroups(Math.ceil(rowCount / rowThreads), target);
  const isShared = innerThreads > 1;

  row.lines.push(`let place = group * ${rowThreads} + i32(local.x);`);
  if (isShared) row.lines.push(`let isRow = place < ${rowCount};`, `let row = u32(min(place, ${rowCount - 1}));`);
  else row.lines.push(`if (place >= ${rowCount}) { return; }`, "let row = u32(place);");
  let below = 1;
  for (let axis = sizes.length - 1; axis >= 0; axis--) {
    const size = sizes[axis] ?? 1;
    if ((used & (1 << axis)) !== 0) {
      const quotient = below === 1 ? "row" : `row / ${below}u`;
      const digit = below * size === rowCount ? quotient : `(${quotient}) % ${size}u`;
      row.lines.push(`let v${axis} = i32(${digit})${axis === variant.vectorAxis ? " * 4" : ""};`);
    }
    below *= size;
  }

  const globals = new Set<string>();
  const step = isInnerVector ? 4 : 1;
  const loop = (lines: readonly string[]): string[] => [
    isShared
      ? `for (var v${innerAxis} = i32(local.y)${step === 4 ? " * 4" : ""}; v${innerAxis} < ${kernel.inner}; v${innerAxis} += ${innerThreads * step}) {`
      : `for (var v${innerAxis} = 0; v${innerAxis} < ${kernel.inner}; v${innerAxis} += ${step}) {`,
    ...lines,
    "}",
  ];

  for (const group of groupReductions(kernel.reductions)) {
    const body = printer.enter();
    const running: { index: number; name: string; isVector: boolean }[] = [];
    for (const index of group) {
      const reduction = kernel.reductions[index] as Reduction;
      const value = printer.value(reduction.value);
      const { dtype } = reduction.value;
      const isVector = value.isVector || isInnerVector;
      const sum = `sum${index}`;
      row.lines.push(`var ${sum} = ${identityCode(reduction.combine, dtype, isVector)};`);
      const four = isVector ? printer.splat(value, dtype) : value.code;
      body.push(`${sum} = ${combineCode(reduction.combine, sum, four, { dtype, isVector, functions })};`);
      running.push({ index, name: sum, isVector });
    }
    printer.leave();
    row.lines.push(...loop(body));
    for (const { index, name: sum, isVector } of running) {
      printer.accumulators[index] = finishReduction(
        kernel.reductions[index] as Reduction,
        sum,
        isVector,
        isInnerVector,
        variant,
        functions,
        row.lines,
        globals,
      );
    }
  }

  const rowStores = kernel.stores.filter((store) => store.scope === "row");
  const elementStores = kernel.stores.filter((store) => store.scope === "element");
  const late = prepareStores(rowStores, printer, facts, memory, row.lines);
  if (elementStores.length > 0) {
    const body = printer.enter();
    body.push(...prepareStores(elementStores, printer, facts, memory, body));
    printer.leave();
    const lines = loop(body);
    row.lines.push(...(isShared ? ["if (isRow) {", ...lines, "}"] : lines));
  }
  if (late.length > 0) row.lines.push(...(isShared ? ["if (isRow && local.y == 0u) {", ...late, "}"] : late));
  return assemble({
    name,
    memory,
    functions,
    workgroupSize: [rowThreads, innerThreads],
    workgroups,
    globals: [...globals],
    body: row.lines,
  });
}

/** Joins lanes and invocations of one reduction; returns the finished value. */
function finishReduction(
  reduction: Reduction,
  sum: string,
  isVector: boolean,
  isInnerVector: boolean,
  variant: LoopVariant,
  functions: ProgramFunctions,
  lines: string[],
  globals: Set<string>,
): Value {
  const { dtype } = reduction.value;
  const combine = (a: string, b: string, vector: boolean): string =>
    combineCode(reduction.combine, a, b, { dtype, isVector: vector, functions });
  let value: Value = { code: sum, isVector };
  if (isVector && isInnerVector) {
    const pair = (a: string, b: string): string => combine(`${sum}.${a}`, `${sum}.${b}`, false);
    lines.push(
      `let low_${sum} = ${pair("x", "y")};`,
      `let high_${sum} = ${pair("z", "w")};`,
      `let joined_${sum} = ${combine(`low_${sum}`, `high_${sum}`, false)};`,
    );
    value = { code: `joined_${sum}`, isVector: false };
  } else {
    lines.push(`let joined_${sum} = ${sum};`);
    value = { code: `joined_${sum}`, isVector };
  }
  if (variant.innerThreads === 1) return value;

  const scratch = `scratch_${dtype}${value.isVector ? "4" : ""}`;
  const { rowThreads, innerThreads } = variant;
  globals.add(`var<workgroup> ${scratch}: array<${valueType(dtype, value.isVector)}, ${rowThreads * innerThreads}>;`);
  const mine = "local.y * ROWS + local.x".replace("ROWS", `${rowThreads}u`);
  lines.push("workgroupBarrier();", `${scratch}[${mine}] = ${value.code};`, "workgroupBarrier();");
  for (let half = innerThreads / 2; half >= 1; half /= 2) {
    const other = `(local.y + ${half}u) * ${rowThreads}u + local.x`;
    const joined = combine(`${scratch}[${mine}]`, `${scratch}[${other}]`, value.isVector);
    lines.push(`if (local.y < ${half}u) { ${scratch}[${mine}] = ${joined}; }`, "workgroupBarrier();");
  }
  lines.push(`let whole_${sum} = ${scratch}[local.x];`);
  return { code: `whole_${sum}`, isVector: value.isVector };
}

/** Prints the stores' values and indices into `lines` and returns the storing statements, so that every load comes before every store. */
function prepareStores(stores: readonly Store[], printer: ExprPrinter, facts: ExprFacts, memory: ProgramMemory, lines: string[]): string[] {
  const statements: string[] = [];
  for (const store of stores) {
    const value = printer.value(store.value);
    const stride = facts.laneStride(store.index);
    const { dtype } = store.value;
    if (stride === 0) {
      statements.push(memory.store(store.slot, printer.base(store.index).code, value.code));
    } else if (stride === 1 && facts.isAligned(store.index)) {
      statements.push(memory.storeVector(store.slot, printer.base(store.index).code, printer.splat(value, dtype)));
    } else {
      const index = printer.value(store.index).code;
      const four = printer.newName();
      lines.push(`let ${four} = ${printer.splat(value, dtype)};`);
      for (const lane of ["x", "y", "z", "w"]) statements.push(memory.store(store.slot, `${index}.${lane}`, `${four}.${lane}`));
    }
  }
  return statements;
}
