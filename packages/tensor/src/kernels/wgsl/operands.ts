import type { MatrixView } from "../kernel.js";
import type { ProgramMemory } from "./memory.js";

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

/** The values of an operand's tile in some steps of the sum: the statements that load them, and what each is called. */
export interface Loaded {
  readonly lines: readonly string[];
  /** `index` is the tile's row on the left and its vector of four columns on the right; `depth` counts steps of the sum. */
  value(index: number, depth: number): string;
}

/** How one operand's tile reaches an invocation. */
export interface TileLoader {
  /** Addresses that stay the same in the loop over the sum. */
  readonly setup: readonly string[];
  /** Functions that it calls, once all is loaded. */
  readonly functions?: readonly string[];
  load(at: string, count: number): Loaded;
}

/** A tile's loader sees `base<name>`, where the operand's matrix starts, and `row` or `column`, where the tile does. */
interface LeftTile {
  readonly name: string;
  readonly memory: ProgramMemory;
  readonly view: MatrixView;
  readonly m: number;
  readonly k: number;
  readonly tileRows: number;
}

interface RightTile {
  readonly name: string;
  readonly memory: ProgramMemory;
  readonly view: MatrixView;
  readonly n: number;
  readonly k: number;
  readonly tileColumns: number;
}

const plus = (at: string, more: number): string => (more === 0 ? at : `(${at} + ${more})`);

/** Rows that an invocation loads for itself. Rows past the end repeat the last one. */
export function ownLeft({ name, memory, view, m, k, tileRows }: LeftTile): TileLoader {
  const along = vectorAlong(view, m, k, "column");
  const rows = Array.from({ length: tileRows }, (_, r) => r);
  const isRowVector = along === "row" && tileRows % 4 === 0;
  const clamped = (r: number, last: number): string => (r === 0 ? "row" : `min(row + ${r}, ${last})`);
  const setup = isRowVector
    ? rows.filter((r) => r % 4 === 0).map((r) => `let row${name}_${r} = base${name} + ${clamped(r, m - 4)};`)
    : rows.map((r) => `let row${name}_${r} = base${name} + ${clamped(r, m - 1)} * ${view.rowStride};`);
  return {
    setup,
    load(at, count) {
      const deep = Array.from({ length: count }, (_, depth) => depth);
      if (isRowVector) {
        return {
          lines: deep.flatMap((depth) =>
            rows
              .filter((r) => r % 4 === 0)
              .map(
                (r) =>
                  `let values${name}_${at}_${r}_${depth} = ${memory.loadVector(view.slot, `row${name}_${r} + ${plus(at, depth)} * ${view.columnStride}`)};`,
              ),
          ),
          value: (r, depth) => `values${name}_${at}_${r - (r % 4)}_${depth}[${r % 4}]`,
        };
      }
      if (along === "column" && count === 4) {
        return {
          lines: rows.map((r) => `let values${name}_${at}_${r} = ${memory.loadVector(view.slot, `row${name}_${r} + ${at}`)};`),
          value: (r, depth) => `values${name}_${at}_${r}[${depth}]`,
        };
      }
      return {
        lines: rows.flatMap((r) =>
          deep.map(
            (depth) =>
              `let values${name}_${at}_${r}_${depth} = ${memory.load(view.slot, `row${name}_${r} + ${plus(at, depth)} * ${view.columnStride}`)};`,
          ),
        ),
        value: (r, depth) => `values${name}_${at}_${r}_${depth}`,
      };
    },
  };
}

/**
 * Rows that the lanes of a subgroup load together, each another vector of four, and hand round. A tile of `tileRows` rows and four steps
 * is `tileRows` vectors: along the sum where memory allows, along the rows where those lie side by side, else gathered.
 */
export function subgroupLeft({ name, memory, view, m, k, tileRows }: LeftTile, lanes: number): TileLoader {
  const along = vectorAlong(view, m, k, "column");
  const isRowVector = along === "row" && tileRows % 4 === 0;
  const countOf = (vectors: number): number[] => Array.from({ length: Math.ceil(vectors / lanes) }, (_, g) => g);
  /** Vectors of four rows in one step of the sum. */
  const perStep = tileRows / 4;
  const broadcast = (value: string, lane: number): string => `subgroupBroadcast(${value}, ${lane}u)`;
  const groups = countOf(tileRows);
  const setup = groups.flatMap((g) => {
    const place = `${plus("lane", g * lanes)}`;
    const rowOf = (row: string, last: number): string => `min(row + ${row}, ${last})`;
    if (!isRowVector) return [`let row${name}_${g} = base${name} + ${rowOf(place, m - 1)} * ${view.rowStride};`];
    // Lanes past the tile's four steps load the last one again.
    return [
      `let row${name}_${g} = base${name} + ${rowOf(`${place} % ${perStep} * 4`, m - 4)} + min(${place} / ${perStep}, 3) * ${view.columnStride};`,
      `let one${name}_${g} = base${name} + ${rowOf(place, m - 1)};`,
    ];
  });
  return {
    setup,
    load(at, count) {
      if (count !== 4) {
        const start = `${isRowVector ? "one" : "row"}${name}_`;
        const deep = Array.from({ length: count }, (_, depth) => depth);
        return {
          lines: groups.flatMap((g) =>
            deep.map(
              (depth) =>
                `let values${name}_${at}_${g}_${depth} = ${memory.load(view.slot, `${start}${g} + ${plus(at, depth)} * ${view.columnStride}`)};`,
            ),
          ),
          value: (r, depth) => broadcast(`values${name}_${at}_${Math.floor(r / lanes)}_${depth}`, r % lanes),
        };
      }
      if (isRowVector) {
        return {
          lines: groups.map(
            (g) => `let values${name}_${at}_${g} = ${memory.loadVector(view.slot, `row${name}_${g} + ${at} * ${view.columnStride}`)};`,
          ),
          value: (r, depth) => {
            const vector = depth * perStep + Math.floor(r / 4);
            return broadcast(`values${name}_${at}_${Math.floor(vector / lanes)}[${r % 4}]`, vector % lanes);
          },
        };
      }
      const four = (g: number): string =>
        along === "column"
          ? memory.loadVector(view.slot, `row${name}_${g} + ${at}`)
          : `vec4f(${[0, 1, 2, 3].map((depth) => memory.load(view.slot, `row${name}_${g} + ${plus(at, depth)} * ${view.columnStride}`)).join(", ")})`;
      return {
        lines: groups.map((g) => `let values${name}_${at}_${g} = ${four(g)};`),
        value: (r, depth) => broadcast(`values${name}_${at}_${Math.floor(r / lanes)}[${depth}]`, r % lanes),
      };
    },
  };
}

/** Columns that an invocation loads for itself, as vectors of four. Columns past the end repeat the last ones. */
export function ownRight({ name, memory, view, n, k, tileColumns }: RightTile): TileLoader {
  const along = vectorAlong(view, k, n, "row");
  const columns = Array.from({ length: tileColumns }, (_, c) => c).filter((c) => along !== "column" || c % 4 === 0);
  const last = along === "column" ? n - 4 : n - 1;
  const setup = columns.map((c) => `let column${name}_${c} = base${name} + min(${plus("column", c)}, ${last}) * ${view.columnStride};`);
  return {
    setup,
    load(at, count) {
      const deep = Array.from({ length: count }, (_, depth) => depth);
      const vectors = Array.from({ length: tileColumns / 4 }, (_, v) => v);
      const isAlongSum = along === "row" && count === 4;
      const lines = isAlongSum
        ? columns.map((c) => `let values${name}_${at}_${c} = ${memory.loadVector(view.slot, `column${name}_${c} + ${at}`)};`)
        : [];
      for (const depth of deep) {
        for (const v of vectors) {
          const four = [0, 1, 2, 3].map((lane) => v * 4 + lane);
          const step = `${plus(at, depth)} * ${view.rowStride}`;
          const value =
            along === "column"
              ? memory.loadVector(view.slot, `column${name}_${v * 4} + ${step}`)
              : isAlongSum
                ? `vec4f(${four.map((c) => `values${name}_${at}_${c}[${depth}]`).join(", ")})`
                : `vec4f(${four.map((c) => memory.load(view.slot, `column${name}_${c} + ${step}`)).join(", ")})`;
          lines.push(`let four${name}_${at}_${v}_${depth} = ${value};`);
        }
      }
      return { lines, value: (v, depth) => `four${name}_${at}_${v}_${depth}` };
    },
  };
}
