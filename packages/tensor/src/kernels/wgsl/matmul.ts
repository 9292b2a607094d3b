import { sizeOf } from "../../tensor/shape.js";
import type { MatmulKernel, MatrixView, PlanSlot } from "../kernel.js";
import { ProgramFunctions } from "./functions.js";
import { ProgramMemory } from "./memory.js";
import { assemble, foldWorkgroups, type Target, type WgslProgram } from "./program.js";

/** A matmul template's parameters. */
export interface MatmulVariant {
  /** Rows and columns that one invocation keeps in registers; columns in whole vec4s. */
  readonly tileRows: number;
  readonly tileColumns: number;
  /** Invocations of a workgroup along rows and columns. */
  readonly threadRows: number;
  readonly threadColumns: number;
}

/** Which axis of an operand four neighbouring elements can be loaded along in one access. */
export type VectorAlong = "row" | "column" | "none";

/**
 * Decides it: the axis of stride 1, when every other stride and the offset keep addresses at multiples of 4 and, for the axis that is
 * not the summed one, its size is one too.
 */
export function vectorAlong(view: MatrixView, rows: number, columns: number, summed: "row" | "column"): VectorAlong {
  const isAligned = (other: number): boolean =>
    view.offset % 4 === 0 && other % 4 === 0 && view.batchStrides.every((stride) => stride % 4 === 0);
  if (view.columnStride === 1 && isAligned(view.rowStride) && (summed === "column" || columns % 4 === 0)) return "column";
  if (view.rowStride === 1 && isAligned(view.columnStride) && (summed === "row" || rows % 4 === 0)) return "row";
  return "none";
}

/** A variant that suits the shape. */
export function chooseMatmulVariant(kernel: MatmulKernel, target: Target): MatmulVariant {
  const { m, n } = kernel;
  const tileColumns = n >= 8 && target.isSoftware ? 8 : 4;
  const tileRows = m >= 4 ? 4 : m >= 2 ? 2 : 1;
  if (target.isSoftware) return { tileRows, tileColumns, threadRows: 1, threadColumns: 8 };
  return { tileRows, tileColumns, threadRows: m >= 32 ? 8 : m >= 8 ? 2 : 1, threadColumns: m >= 32 ? 8 : 32 };
}

/** Prints out = a · b with a register tile in each invocation and no workgroup memory. */
export function printMatmul(
  kernel: MatmulKernel,
  slots: readonly PlanSlot[],
  name: string,
  target: Target,
  variant: MatmulVariant,
): WgslProgram {
  const { m, n, k, a, b } = kernel;
  const { tileRows, tileColumns, threadRows, threadColumns } = variant;
  const memory = new ProgramMemory(slots, target);
  const functions = new ProgramFunctions();
  const batchCount = sizeOf(kernel.batch);
  const rowGroups = Math.ceil(m / (tileRows * threadRows));
  const columnGroups = Math.ceil(n / (tileColumns * threadColumns));
  const workgroups = foldWorkgroups(rowGroups * columnGroups * batchCount, target);
  const lines: string[] = [];

  lines.push(`if (group >= ${rowGroups * columnGroups * batchCount}) { return; }`);
  lines.push(`let columnGroup = i32(u32(group) % ${columnGroups}u);`, `let above = u32(group) / ${columnGroups}u;`);
  lines.push(`let rowGroup = i32(above % ${rowGroups}u);`, `let batch = above / ${rowGroups}u;`);
  lines.push(`let row = (rowGroup * ${threadRows} + i32(local.y)) * ${tileRows};`);
  lines.push(`let column = (columnGroup * ${threadColumns} + i32(local.x)) * ${tileColumns};`);
  lines.push(`let baseA = ${batchOffset(a, kernel.batch)};`, `let baseB = ${batchOffset(b, kernel.batch)};`);
  lines.push(`if (row >= ${m} || column >= ${n}) { return; }`);
  // Rows and columns past the end read the last one, and are not stored.
  for (let r = 0; r < tileRows; r++)
    lines.push(`let rowA${r} = baseA + ${r === 0 ? "row" : `min(row + ${r}, ${m - 1})`} * ${a.rowStride};`);
  const alongA = vectorAlong(a, m, k, "column");
  const alongB = vectorAlong(b, k, n, "row");
  const vectors = tileColumns / 4;
  for (let c = 0; c < tileColumns; c++) {
    if (alongB === "column" && c % 4 !== 0) continue;
    const last = alongB === "column" ? n - 4 : n - 1;
    lines.push(`let columnB${c} = baseB + ${c === 0 ? "column" : `min(column + ${c}, ${last})`} * ${b.columnStride};`);
  }
  for (let r = 0; r < tileRows; r++) for (let v = 0; v < vectors; v++) lines.push(`var sum${r}_${v} = vec4f(0.0);`);

  const rowVector = alongA === "row" && tileRows % 4 === 0;
  const whole = alongA === "column" || alongB === "row" ? Math.floor(k / 4) * 4 : k;
  const step = whole === k && alongA !== "column" && alongB !== "row" ? 1 : 4;
  const body = (at: string, count: number): string[] => {
    const text: string[] = [];
    const isVectorA = alongA === "column" && count === 4;
    const isVectorB = alongB === "row" && count === 4;
    if (isVectorA) for (let r = 0; r < tileRows; r++) text.push(`let a${r} = ${memory.loadVector(a.slot, `rowA${r} + ${at}`)};`);
    if (isVectorB) for (let c = 0; c < tileColumns; c++) text.push(`let b${c} = ${memory.loadVector(b.slot, `columnB${c} + ${at}`)};`);
    for (let j = 0; j < count; j++) {
      const deep = j === 0 ? at : `(${at} + ${j})`;
      if (rowVector) {
        for (let r = 0; r < tileRows; r += 4) {
          const start = r === 0 ? "row" : `min(row + ${r}, ${m - 4})`;
          text.push(`let a${r}_${j} = ${memory.loadVector(a.slot, `baseA + ${start} + ${deep} * ${a.columnStride}`)};`);
        }
      } else if (!isVectorA) {
        for (let r = 0; r < tileRows; r++) text.push(`let a${r}_${j} = ${memory.load(a.slot, `rowA${r} + ${deep} * ${a.columnStride}`)};`);
      }
      for (let v = 0; v < vectors; v++) {
        const four = [0, 1, 2, 3].map((lane) => v * 4 + lane);
        const value =
          alongB === "column"
            ? memory.loadVector(b.slot, `columnB${v * 4} + ${deep} * ${b.rowStride}`)
            : isVectorB
              ? `vec4f(${four.map((c) => `b${c}[${j}]`).join(", ")})`
              : `vec4f(${four.map((c) => memory.load(b.slot, `columnB${c} + ${deep} * ${b.rowStride}`)).join(", ")})`;
        text.push(`let w${v}_${j} = ${value};`);
      }
      for (let r = 0; r < tileRows; r++) {
        const left = rowVector ? `a${r - (r % 4)}_${j}[${r % 4}]` : isVectorA ? `a${r}[${j}]` : `a${r}_${j}`;
        for (let v = 0; v < vectors; v++) text.push(`sum${r}_${v} = fma(vec4f(${left}), w${v}_${j}, sum${r}_${v});`);
      }
    }
    return text;
  };
  if (whole > 0) lines.push(`for (var at = 0; at < ${whole}; at += ${step}) {`, ...body("at", step), "}");
  for (let at = whole; at < k; at++) lines.push("{", ...body(String(at), 1), "}");

  lines.push(`let baseOut = i32(batch) * ${m * n};`);
  for (let r = 0; r < tileRows; r++) {
    lines.push(`if (row + ${r} < ${m}) {`, `let start = baseOut + (row + ${r}) * ${n} + column;`);
    for (let v = 0; v < vectors; v++) {
      if (n % 4 === 0)
        lines.push(`if (column + ${v * 4} < ${n}) { ${memory.storeVector(kernel.out, `start + ${v * 4}`, `sum${r}_${v}`)} }`);
      else
        for (let c = 0; c < 4; c++)
          lines.push(`if (column + ${v * 4 + c} < ${n}) { ${memory.store(kernel.out, `start + ${v * 4 + c}`, `sum${r}_${v}[${c}]`)} }`);
    }
    lines.push("}");
  }
  return assemble({ name, memory, functions, workgroupSize: [threadColumns, threadRows], workgroups, body: lines });
}

/** The element at which the batch's matrix starts. */
export function batchOffset(view: MatrixView, batch: readonly number[]): string {
  const terms = [`${view.offset}`];
  let below = 1;
  for (let axis = batch.length - 1; axis >= 0; axis--) {
    const size = batch[axis] ?? 1;
    const stride = view.batchStrides[axis] ?? 0;
    if (size > 1 && stride !== 0) terms.push(`i32(batch / ${below}u % ${size}u) * ${stride}`);
    below *= size;
  }
  return terms.join(" + ");
}
