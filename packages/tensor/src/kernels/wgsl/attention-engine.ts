import type { HeadMatrices } from "./attention-operands.js";
import type { ProgramMemory } from "./memory.js";
import { ownRight, subgroupLeft, type TileLoader } from "./operands.js";

/** An attention program's parameters. An invocation has four positions of one side, its columns, whose results it keeps in registers. */
export interface AttentionVariant {
  /** Invocations of a workgroup along columns. */
  readonly threadColumns: number;
  /** Invocations along the rows of the other side and along the results' width; more than one only through workgroup memory. */
  readonly threadRows: number;
  /** Rows that an invocation takes in one step. */
  readonly tileRows: number;
  /** Who loads rows together: the lanes of a subgroup, which is the workgroup and hands values round, or a workgroup in its memory. */
  readonly rows: "subgroup" | "workgroup";
}

/** Scores of a step: rows · columnsᵀ. */
export interface ScoreProduct {
  readonly rows: HeadMatrices;
  readonly columns: HeadMatrices;
}

/** A result: Σ over rows of weight · row. */
export interface WeightedSum {
  readonly rows: HeadMatrices;
  readonly out: HeadMatrices;
}

/** How products reach registers. Statements see `row`, the step's first row, and `column`, the invocation's first column. */
export interface AttentionEngine {
  readonly globals: readonly string[];
  /** Runs once, before all steps. */
  readonly setup: readonly string[];
  /** Runs at the start of each step. */
  readonly begin: readonly string[];
  /** The step's row that is the invocation's i-th. */
  rowAt(i: number): string;
  /** Declares `<name><i>`, a vector over the columns for each row. */
  score(product: ScoreProduct, name: string): string[];
  /** Adds to `sum<out>_<j>`, a vector over the columns for each of the invocation's places in the width. */
  accumulate(sum: WeightedSum, weights: string): string[];
  /** Places in the width that an invocation sums, a multiple of 4 but in the end, and where four of them start. */
  widthCount(sum: WeightedSum): number;
  widthAt(first: number): string;
  /** Combines a vector over the columns with those of all invocations that have the same columns. */
  join(value: string, combine: (a: string, b: string) => string): string[];
  /** Declares a number that is the same for the whole workgroup, so that all invocations may act upon it together. */
  agree(name: string, value: string): string[];
  /** One number for each of the invocation's rows. */
  scalars(operand: HeadMatrices): { readonly lines: readonly string[]; value(i: number): string };
}

const indices = (count: number): number[] => Array.from({ length: count }, (_, i) => i);

/** Steps of four along a width, the last one shorter where four do not divide it. */
function fours(width: number): { at: number; count: number }[] {
  return indices(Math.ceil(width / 4)).map((i) => ({ at: i * 4, count: Math.min(4, width - i * 4) }));
}

/** Rows that the lanes of a subgroup hand round; an invocation has the whole width of its results in registers. */
export function subgroupEngine(
  memory: ProgramMemory,
  { tileRows, threadColumns }: AttentionVariant,
  products: readonly ScoreProduct[],
  sums: readonly WeightedSum[],
): AttentionEngine {
  const rowLoader = ({ name, view, positions, width }: HeadMatrices): TileLoader =>
    subgroupLeft({ name, memory, view, m: positions, k: width, tileRows }, threadColumns);
  const columnLoader = ({ name, view, positions, width }: HeadMatrices): TileLoader => {
    const flipped = { ...view, rowStride: view.columnStride, columnStride: view.rowStride };
    return ownRight({ name, memory, view: flipped, n: positions, k: width, tileColumns: 4 });
  };
  const rows = new Map([...products, ...sums].map((use) => [use.rows, rowLoader(use.rows)]));
  const columns = new Map(products.map((product) => [product.columns, columnLoader(product.columns)]));
  const loaderIn = (table: typeof rows, operand: HeadMatrices): TileLoader => table.get(operand) as TileLoader;
  const setupOf = (table: typeof rows): string[] => [...table.values()].flatMap(({ setup }) => setup);
  return {
    globals: [],
    setup: setupOf(columns),
    begin: setupOf(rows),
    rowAt: (i) => (i === 0 ? "row" : `row + ${i}`),
    score(product, name) {
      const body = (at: string, count: number): string[] => {
        const [x, y] = [loaderIn(columns, product.columns).load(at, count), loaderIn(rows, product.rows).load(at, count)];
        const sum = (i: number): string =>
          indices(count).reduce((code, deep) => `fma(vec4f(${y.value(i, deep)}), ${x.value(0, deep)}, ${code})`, `${name}${i}`);
        return [...x.lines, ...y.lines, ...indices(tileRows).map((i) => `${name}${i} = ${sum(i)};`)];
      };
      const { width } = product.rows;
      const whole = width - (width % 4);
      return [
        ...indices(tileRows).map((i) => `var ${name}${i} = vec4f(0.0);`),
        ...(whole > 0 ? [`for (var at = 0; at < ${whole}; at += 4) {`, ...body("at", 4), "}"] : []),
        ...(whole < width ? ["{", ...body(String(whole), width - whole), "}"] : []),
      ];
    },
    accumulate: ({ rows: operand, out }, weights) =>
      fours(out.width).flatMap(({ at, count }) => {
        const { lines, value } = loaderIn(rows, operand).load(String(at), count);
        const added = (deep: number): string => {
          const sum = `sum${out.name}_${at + deep}`;
          return `${sum} = ${indices(tileRows).reduce((code, i) => `fma(vec4f(${value(i, deep)}), ${weights}${i}, ${code})`, sum)};`;
        };
        return ["{", ...lines, ...indices(count).map(added), "}"];
      }),
    widthCount: ({ out }) => out.width,
    widthAt: (first) => String(first),
    join: () => [],
    agree: (name, value) => [`let ${name} = ${value};`],
    scalars(operand) {
      const loader = rowLoader(operand);
      const { lines, value } = loader.load("0", 1);
      return { lines: [...loader.setup, ...lines], value: (i) => value(i, 0) };
    },
  };
}

/** Places in the width whose products are summed between two barriers. */
const depth = 32;

/** Bytes of workgroup memory that a variant takes. */
export function workgroupBytes({ rows, threadColumns, threadRows }: AttentionVariant): number {
  if (rows !== "workgroup") return 0;
  return 16 + 16 * (depth * threadColumns + Math.max(depth, 4 * threadRows) * threadRows + 5 * threadRows * threadColumns);
}

/**
 * Tiles of both sides in workgroup memory; an invocation has four rows, and of the results' width four places in each `4 · threadRows`. Long: the
 * parts of one program, which share its names.
 */
export function workgroupEngine(
  memory: ProgramMemory,
  { threadColumns, threadRows }: AttentionVariant,
  isSoftware: boolean,
): AttentionEngine {
  const [rowCount, threads] = [threadRows * 4, threadColumns * threadRows];
  const barrier = "workgroupBarrier();";
  // Mesa unrolls loops whose ends it knows, and takes minutes for as many reads of workgroup memory on llvmpipe: so it is told later.
  const zero = isSoftware ? "i32(workgroup.z)" : "0";
  /** Elements at … at + 3 of a row, zeros past the width. */
  const four = ({ name, view, positions, width }: HeadMatrices, row: string, at: string): string => {
    const start = `base${name} + min(${row}, ${positions - 1}) * ${view.rowStride}`;
    const isAligned = [view.offset, view.rowStride, width, ...view.batchStrides].every((step) => step % 4 === 0);
    if (isAligned) return `select(vec4f(0.0), ${memory.loadVector(view.slot, `${start} + min(${at}, ${width - 4})`)}, ${at} < ${width})`;
    const one = (i: number): string => {
      const place = i === 0 ? at : `${at} + ${i}`;
      return `select(0.0, ${memory.load(view.slot, `${start} + min(${place}, ${width - 1})`)}, ${place} < ${width})`;
    };
    return `vec4f(${[0, 1, 2, 3].map(one).join(", ")})`;
  };
  /** Lines for each of `count` items, shared out among the invocations. */
  const each = (count: number, lines: readonly string[]): string[] =>
    count === threads
      ? ["{", "let item = thread;", ...lines, "}"]
      : [`for (var item = thread; item < ${count}; item += ${threads}) {`, ...lines, "}"];
  /** Positions × width of an operand, as vectors over four positions: [width, positions / 4]. */
  const loadFlipped = (operand: HeadMatrices, tile: string, first: string, quads: number): string[] =>
    each((quads * depth) / 4, [
      `let quad = item / ${depth / 4};`,
      `let deep = item % ${depth / 4} * 4;`,
      ...[0, 1, 2, 3].map((i) => `let four${i} = ${four(operand, `${first} + quad * 4 + ${i}`, "at + deep")};`),
      ...[0, 1, 2, 3].map((i) => `${tile}[(deep + ${i}) * ${quads} + quad] = vec4f(four0[${i}], four1[${i}], four2[${i}], four3[${i}]);`),
    ]);
  return {
    globals: [
      `var<workgroup> columnTile: array<vec4f, ${depth * threadColumns}>;`,
      `var<workgroup> rowTile: array<vec4f, ${Math.max(depth, rowCount) * threadRows}>;`,
      `var<workgroup> weightTile: array<vec4f, ${rowCount * threadColumns}>;`,
      `var<workgroup> joinTile: array<vec4f, ${threadRows * threadColumns}>;`,
      "var<workgroup> agreed: i32;",
    ],
    setup: [`let thread = i32(local.y) * ${threadColumns} + i32(local.x);`, "let tx = i32(local.x);", "let ty = i32(local.y);"],
    begin: [],
    rowAt: (i) => `row + ty * 4 + ${i}`,
    score: ({ rows, columns }, name) => [
      ...indices(4).map((i) => `var ${name}${i} = vec4f(0.0);`),
      `for (var at = 0; at < ${rows.width}; at += ${depth}) {`,
      barrier,
      ...loadFlipped(columns, "columnTile", "(column - tx * 4)", threadColumns),
      ...loadFlipped(rows, "rowTile", "row", threadRows),
      barrier,
      `for (var d = ${zero}; d < ${Math.min(depth, rows.width)}; d++) {`,
      `let x = columnTile[d * ${threadColumns} + tx];`,
      `let y = rowTile[d * ${threadRows} + ty];`,
      ...indices(4).map((i) => `${name}${i} = fma(vec4f(y[${i}]), x, ${name}${i});`),
      "}",
      "}",
    ],
    accumulate: ({ rows, out }, weights) => {
      const chunks = Math.ceil(out.width / rowCount);
      const lines = [barrier, ...indices(4).map((i) => `weightTile[(ty * 4 + ${i}) * ${threadColumns} + tx] = ${weights}${i};`)];
      for (const chunk of indices(chunks)) {
        const at = `${chunk * rowCount} + item % ${threadRows} * 4`;
        lines.push(
          ...(chunk > 0 ? [barrier] : []),
          ...each(rowCount * threadRows, [`rowTile[item] = ${four(rows, `row + item / ${threadRows}`, `(${at})`)};`]),
          barrier,
          `for (var i = ${zero}; i < ${rowCount}; i++) {`,
          `let weight = weightTile[i * ${threadColumns} + tx];`,
          `let value = rowTile[i * ${threadRows} + ty];`,
          ...indices(4).map((i) => {
            const sum = `sum${out.name}_${chunk * 4 + i}`;
            return `${sum} = fma(vec4f(value[${i}]), weight, ${sum});`;
          }),
          "}",
        );
      }
      return lines;
    },
    widthCount: ({ out }) => Math.ceil(out.width / rowCount) * 4,
    widthAt: (first) => `${(first / 4) * rowCount} + ty * 4`,
    join: (value, combine) => [
      barrier,
      `joinTile[ty * ${threadColumns} + tx] = ${value};`,
      barrier,
      `${value} = joinTile[tx];`,
      `for (var i = ${zero} + 1; i < ${threadRows}; i++) { ${value} = ${combine(value, `joinTile[i * ${threadColumns} + tx]`)}; }`,
    ],
    agree: (name, value) => [`if (thread == 0) { agreed = ${value}; }`, `let ${name} = workgroupUniformLoad(&agreed);`],
    scalars({ name, view, positions }) {
      const lines = indices(4).map(
        (i) =>
          `let scalar${name}_${i} = ${memory.load(view.slot, `base${name} + min(row + ty * 4 + ${i}, ${positions - 1}) * ${view.rowStride}`)};`,
      );
      return { lines, value: (i) => `scalar${name}_${i}` };
    },
  };
}
