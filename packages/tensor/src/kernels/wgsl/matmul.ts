import { sizeOf } from "../../tensor/shape.js";
import type { MatmulKernel, MatrixView, PlanSlot } from "../kernel.js";
import { isComputed } from "../products.js";
import { computedLeft, computedRight, transposed } from "./computed-operands.js";
import { ProgramFunctions } from "./functions.js";
import { ProgramMemory } from "./memory.js";
import { ownLeft, ownRight, subgroupLeft, type TileLoader } from "./operands.js";
import { assemble, foldWorkgroups, type Target, type WgslProgram } from "./program.js";

/** A matmul template's parameters. */
export interface MatmulVariant {
  /** Rows and columns that one invocation keeps in registers; columns in whole vec4s. */
  readonly tileRows: number;
  readonly tileColumns: number;
  /** Invocations of a workgroup along rows and columns. */
  readonly threadRows: number;
  readonly threadColumns: number;
  /** Each invocation loads its rows, or the lanes of a subgroup share them; then the workgroup is one subgroup, side by side. */
  readonly left: "own" | "subgroup";
  /** Computes outᵀ = bᵀ aᵀ, for results that are taller than wide. */
  readonly isTransposed: boolean;
}

/** The variants that an adapter can be given. */
export function matmulVariants(target: Target): MatmulVariant[] {
  const { isSoftware, subgroupSize } = target;
  if (isSoftware && subgroupSize > 0) {
    const tile = { tileColumns: 4, threadRows: 1, threadColumns: subgroupSize, left: "subgroup" } as const;
    return [false, true].flatMap((isTransposed) => [1, 2, 4, 8, 16, 32].map((tileRows) => ({ ...tile, tileRows, isTransposed })));
  }
  const own = { left: "own", isTransposed: false } as const;
  if (isSoftware) {
    return [1, 2, 4].flatMap((tileRows) =>
      [4, 8].map((tileColumns) => ({ ...own, tileRows, tileColumns, threadRows: 1, threadColumns: 8 })),
    );
  }
  const workgroups = [
    { threadRows: 1, threadColumns: 32 },
    { threadRows: 2, threadColumns: 32 },
    { threadRows: 8, threadColumns: 8 },
  ];
  const tiles = [1, 2, 4, 8].flatMap((tileRows) => [4, 8].map((tileColumns) => ({ tileRows, tileColumns })));
  return tiles.flatMap((tile) => workgroups.map((workgroup) => ({ ...own, ...tile, ...workgroup })));
}

/** A row of a tile makes the program longer: what that takes to compile on llvmpipe, spread over the runs that a program may expect. */
const compileNanoseconds = 23e6;
const expectedRuns = 1000;

/**
 * What a product costs on a software adapter whose lanes share, in nanoseconds of one core as fitted on llvmpipe. There an access to memory
 * runs lane by lane, and costs the same for one element a lane as for four; an arithmetic instruction serves all lanes.
 */
function sharingCost(kernel: MatmulKernel, { tileRows, threadColumns: lanes, isTransposed }: MatmulVariant): number {
  const [m, n] = isTransposed ? [kernel.n, kernel.m] : [kernel.m, kernel.n];
  const tiles = Math.ceil(m / tileRows) * Math.ceil(n / (lanes * 4));
  const accesses = Math.ceil(tileRows / lanes) + 4;
  const stores = isTransposed && tileRows % 4 !== 0 ? tileRows * 4 : tileRows;
  const running = tiles * (Math.ceil(kernel.k / 4) * (accesses * 25 + tileRows * 8) + stores * 30 + 500);
  return running + (tileRows * compileNanoseconds) / expectedRuns;
}

/** The variant that suits the shape. */
export function chooseMatmulVariant(kernel: MatmulKernel, target: Target): MatmulVariant {
  const { m, n } = kernel;
  const { isSoftware } = target;
  const variants = matmulVariants(target);
  if (variants.some(({ left }) => left === "subgroup")) {
    const costs = variants.map((variant) => sharingCost(kernel, variant));
    return variants[costs.indexOf(Math.min(...costs))] as MatmulVariant;
  }
  const tileColumns = n >= 8 && isSoftware ? 8 : 4;
  const tileRows = m >= 4 ? 4 : m >= 2 ? 2 : 1;
  const threadRows = isSoftware ? 1 : m >= 32 ? 8 : m >= 8 ? 2 : 1;
  return variants.find(
    (variant) => variant.tileRows === tileRows && variant.tileColumns === tileColumns && variant.threadRows === threadRows,
  ) as MatmulVariant;
}

/** Prints out = a · b with a register tile in each invocation and no workgroup memory. Long: one program, from top to bottom. */
export function printMatmul(
  kernel: MatmulKernel,
  slots: readonly PlanSlot[],
  name: string,
  target: Target,
  variant: MatmulVariant,
): WgslProgram {
  const { tileRows, tileColumns, threadRows, threadColumns, isTransposed } = variant;
  const { k } = kernel;
  const [m, n] = isTransposed ? [kernel.n, kernel.m] : [kernel.m, kernel.n];
  const { batch } = kernel;
  const rank = batch.length;
  const [a, b] = isTransposed ? [transposed(kernel.b, rank), transposed(kernel.a, rank)] : [kernel.a, kernel.b];
  const isSharing = variant.left === "subgroup";
  const memory = new ProgramMemory(slots, target);
  const functions = new ProgramFunctions();
  const rowGroups = Math.ceil(m / (tileRows * threadRows));
  const columnGroups = Math.ceil(n / (tileColumns * threadColumns));
  const count = rowGroups * columnGroups * sizeOf(kernel.batch);
  const workgroups = foldWorkgroups(count, target);
  const lines: string[] = [];

  if (workgroups.x * workgroups.y > count) lines.push(`if (group >= ${count}) { return; }`);
  lines.push(`let columnGroup = i32(u32(group) % ${columnGroups}u);`, `let above = u32(group) / ${columnGroups}u;`);
  lines.push(`let rowGroup = i32(above % ${rowGroups}u);`, `let batch = above / ${rowGroups}u;`);
  lines.push(`let row = (rowGroup * ${threadRows}${isSharing ? "" : " + i32(local.y)"}) * ${tileRows};`);
  lines.push(`let column = (columnGroup * ${threadColumns} + ${isSharing ? "lane" : "i32(local.x)"}) * ${tileColumns};`);
  for (const [name, operand] of [["A", a] as const, ["B", b] as const])
    if (!isComputed(operand)) lines.push(`let base${name} = ${batchOffset(operand, batch)};`);
  // Lanes that share must all stay; what they compute past the end is not stored.
  const isWhole = m % (tileRows * threadRows) === 0 && n % (tileColumns * threadColumns) === 0;
  if (!isSharing && !isWhole) lines.push(`if (row >= ${m} || column >= ${n}) { return; }`);
  const left = leftLoader();
  const right = rightLoader();
  lines.push(...left.setup, ...right.setup);
  const vectors = Array.from({ length: tileColumns / 4 }, (_, v) => v);
  const rows = Array.from({ length: tileRows }, (_, r) => r);
  for (const r of rows) for (const v of vectors) lines.push(`var sum${r}_${v} = vec4f(0.0);`);

  // All loads first, then row by row: a row's sums stay in registers over the steps, even where the whole tile's do not.
  const body = (at: string, steps: number): string[] => {
    const [x, y] = [left.load(at, steps), right.load(at, steps)];
    const text = [...x.lines, ...y.lines];
    for (const r of rows) {
      for (let depth = 0; depth < steps; depth++) text.push(`let x${r}_${depth} = vec4f(${x.value(r, depth)});`);
      for (const v of vectors) {
        let sum = `sum${r}_${v}`;
        for (let depth = 0; depth < steps; depth++) sum = `fma(x${r}_${depth}, ${y.value(v, depth)}, ${sum})`;
        text.push(`sum${r}_${v} = ${sum};`);
      }
    }
    return text;
  };
  const whole = Math.floor(k / 4) * 4;
  if (whole > 0) lines.push(`for (var at = 0; at < ${whole}; at += 4) {`, ...body("at", 4), "}");
  if (whole < k) lines.push("{", ...body(String(whole), k - whole), "}");

  lines.push(`let baseOut = i32(batch) * ${m * n};`, ...(isTransposed ? storeColumns() : storeRows()));
  return assemble({
    name,
    memory,
    functions,
    workgroupSize: [threadColumns, threadRows],
    workgroups,
    usesSubgroups: isSharing,
    globals: [left, right].flatMap(({ functions: printed = [] }) => printed),
    body: lines,
  });

  function leftLoader(): TileLoader {
    if (isComputed(a))
      return computedLeft(
        { name: "A", memory, functions, operand: a, batch, rows: m, columns: k },
        tileRows,
        isSharing ? threadColumns : null,
      );
    const tile = { name: "A", memory, view: a, m, k, tileRows };
    return isSharing ? subgroupLeft(tile, threadColumns) : ownLeft(tile);
  }

  function rightLoader(): TileLoader {
    if (isComputed(b)) return computedRight({ name: "B", memory, functions, operand: b, batch, rows: k, columns: n }, tileColumns);
    return ownRight({ name: "B", memory, view: b, n, k, tileColumns });
  }

  function when(condition: string, isSure: boolean, statements: readonly string[]): string[] {
    return isSure ? [...statements] : [`if (${condition}) {`, ...statements, "}"];
  }

  function storeRows(): string[] {
    return rows.flatMap((r) => {
      const stores = vectors.flatMap((v) => {
        const start = `baseOut + (row + ${r}) * ${n} + column + ${v * 4}`;
        if (n % 4 === 0) {
          const isSure = n % (tileColumns * threadColumns) === 0;
          return when(`column + ${v * 4} < ${n}`, isSure, [memory.storeVector(kernel.out, start, `sum${r}_${v}`)]);
        }
        return [0, 1, 2, 3].flatMap((c) =>
          when(`column + ${v * 4 + c} < ${n}`, false, [memory.store(kernel.out, `${start} + ${c}`, `sum${r}_${v}[${c}]`)]),
        );
      });
      return when(`row + ${r} < ${m}`, m % (tileRows * threadRows) === 0, stores);
    });
  }

  /** The transposed tile: its columns are the result's rows, which are m long. */
  function storeColumns(): string[] {
    const isVector = m % 4 === 0 && tileRows % 4 === 0;
    return Array.from({ length: tileColumns }, (_, c) => c).flatMap((c) => {
      const lane = (r: number): string => `sum${r}_${Math.floor(c / 4)}[${c % 4}]`;
      const start = (r: number): string => `baseOut + (column + ${c}) * ${m} + row + ${r}`;
      const stores = rows.flatMap((r) => {
        if (!isVector) return when(`row + ${r} < ${m}`, m % (tileRows * threadRows) === 0, [memory.store(kernel.out, start(r), lane(r))]);
        if (r % 4 !== 0) return [];
        const four = `vec4f(${[0, 1, 2, 3].map((more) => lane(r + more)).join(", ")})`;
        return when(`row + ${r} < ${m}`, m % (tileRows * threadRows) === 0, [memory.storeVector(kernel.out, start(r), four)]);
      });
      return when(`column + ${c} < ${n}`, n % (tileColumns * threadColumns) === 0, stores);
    });
  }
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
