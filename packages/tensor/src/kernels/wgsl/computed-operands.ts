import { type Expr, ExprMakers, expressionsBelow, isInvariant } from "../expr.js";
import type { LoadOperand, MatrixOperand } from "../kernel.js";
import { isComputed } from "../products.js";
import { substitute } from "../substitute.js";
import { ExprFacts, ExprPrinter, newScope } from "./expression.js";
import type { ProgramFunctions } from "./functions.js";
import type { ProgramMemory } from "./memory.js";
import type { TileLoader } from "./operands.js";

/** The operand with rows for columns. */
export function transposed(operand: MatrixOperand, rank: number): MatrixOperand {
  if (!isComputed(operand)) return { ...operand, rowStride: operand.columnStride, columnStride: operand.rowStride };
  const make = new ExprMakers();
  const exchanged = (axis: number): number => (axis === rank ? rank + 1 : axis === rank + 1 ? rank : axis);
  return { value: substitute(operand.value, make, (axis, size) => make.variable(exchanged(axis), size)), slots: operand.slots };
}

/** Which way four neighbours of a computed operand are made at once. */
type Along = "row" | "column";

/** Accesses to memory that four neighbours along an axis take: loads of four cost one, of one element for all none, others one a lane. */
function accessesOf(value: Expr, axis: number): number {
  const facts = new ExprFacts(axis);
  let count = 0;
  for (const expr of expressionsBelow([value])) {
    if (expr.op !== "load") continue;
    const stride = facts.laneStride(expr.index);
    count += stride === 0 || (stride === 1 && facts.isAligned(expr.index)) ? 1 : 4;
  }
  return count;
}

/** What the loaders of a program share. */
export interface ComputedTile {
  readonly name: string;
  readonly memory: ProgramMemory;
  readonly functions: ProgramFunctions;
  readonly operand: LoadOperand;
  readonly batch: readonly number[];
  readonly rows: number;
  readonly columns: number;
}

/** The WGSL functions `one<name>` and `four<name>` (an element, and four along an axis) of a batch's number, a row and a column. */
class ElementFunctions {
  readonly texts: string[] = [];
  readonly #printed = new Set<string>();

  constructor(readonly tile: ComputedTile) {}

  one(row: string, column: string): string {
    return `${this.#use("one", null)}(batch, ${row}, ${column})`;
  }

  four(along: Along, row: string, column: string): string {
    return `${this.#use("four", along)}(batch, ${row}, ${column})`;
  }

  #use(kind: "one" | "four", along: Along | null): string {
    const { name, batch, operand, memory, functions } = this.tile;
    const called = `${kind}${name}`;
    if (this.#printed.has(called)) return called;
    this.#printed.add(called);
    const rank = batch.length;
    const facts = new ExprFacts(along === "row" ? rank : along === "column" ? rank + 1 : noAxis);
    const scope = newScope();
    const variables = [...batch.map((_, axis) => `v${axis}`), "row", "column"];
    let below = 1;
    for (let axis = rank - 1; axis >= 0; axis--) {
      const size = batch[axis] ?? 1;
      if (!isInvariant(operand.value, axis)) scope.lines.push(`let v${axis} = i32(batch / ${below}u % ${size}u);`);
      below *= size;
    }
    const printer = new ExprPrinter(facts, memory, functions, variables, noAxis, scope);
    const value = printer.value(operand.value);
    const result = along ? printer.splat(value, "f32") : value.code;
    this.texts.push(
      `fn ${called}(batch: u32, row: i32, column: i32) -> ${along ? "vec4f" : "f32"} {\n${scope.lines.join("\n")}\nreturn ${result};\n}`,
    );
    return called;
  }
}

/** The number of an axis that no kernel has. */
const noAxis = 30;

const plus = (at: string, more: number): string => (more === 0 ? at : `(${at} + ${more})`);

/** Rows of a computed left operand, four steps of the sum at once: by each invocation for itself or, with `lanes`, by a subgroup together. */
export function computedLeft(tile: ComputedTile, tileRows: number, lanes: number | null): TileLoader {
  const { name, rows: m } = tile;
  const elements = new ElementFunctions(tile);
  const count = lanes === null ? tileRows : Math.ceil(tileRows / lanes);
  const groups = Array.from({ length: count }, (_, g) => g);
  const rowOf = (g: number): string => (lanes === null ? plus("row", g) : `row + ${plus("lane", g * lanes)}`);
  const own = (r: number, value: (g: number) => string): string =>
    lanes === null ? value(r) : `subgroupBroadcast(${value(Math.floor(r / lanes))}, ${r % lanes}u)`;
  return {
    functions: elements.texts,
    setup: groups.map((g) => `let row${name}_${g} = min(${rowOf(g)}, ${m - 1});`),
    load(at, steps) {
      if (steps === 4) {
        return {
          lines: groups.map((g) => `let values${name}_${at}_${g} = ${elements.four("column", `row${name}_${g}`, at)};`),
          value: (r, depth) => own(r, (g) => `values${name}_${at}_${g}[${depth}]`),
        };
      }
      const deep = Array.from({ length: steps }, (_, depth) => depth);
      return {
        lines: groups.flatMap((g) =>
          deep.map((depth) => `let values${name}_${at}_${g}_${depth} = ${elements.one(`row${name}_${g}`, plus(at, depth))};`),
        ),
        value: (r, depth) => own(r, (g) => `values${name}_${at}_${g}_${depth}`),
      };
    },
  };
}

/** Columns of a computed right operand, as vectors of four: four columns at once, or four steps of the sum where that takes fewer accesses. */
export function computedRight(tile: ComputedTile, tileColumns: number): TileLoader {
  const { name, columns: n, operand, batch } = tile;
  const elements = new ElementFunctions(tile);
  const rank = batch.length;
  const isAcross = n % 4 === 0 && accessesOf(operand.value, rank + 1) <= accessesOf(operand.value, rank);
  const vectors = Array.from({ length: tileColumns / 4 }, (_, v) => v);
  const columns = Array.from({ length: tileColumns }, (_, c) => c).filter((c) => !isAcross || c % 4 === 0);
  const last = isAcross ? n - 4 : n - 1;
  return {
    functions: elements.texts,
    setup: columns.map((c) => `let column${name}_${c} = min(${plus("column", c)}, ${last});`),
    load(at, steps) {
      const isAlongSum = !isAcross && steps === 4;
      const lines = isAlongSum
        ? columns.map((c) => `let values${name}_${at}_${c} = ${elements.four("row", at, `column${name}_${c}`)};`)
        : [];
      for (let depth = 0; depth < steps; depth++) {
        for (const v of vectors) {
          const four = [0, 1, 2, 3].map((lane) => v * 4 + lane);
          const value = isAcross
            ? elements.four("column", plus(at, depth), `column${name}_${v * 4}`)
            : `vec4f(${four.map((c) => (isAlongSum ? `values${name}_${at}_${c}[${depth}]` : elements.one(plus(at, depth), `column${name}_${c}`))).join(", ")})`;
          lines.push(`let four${name}_${at}_${v}_${depth} = ${value};`);
        }
      }
      return { lines, value: (v, depth) => `four${name}_${at}_${v}_${depth}` };
    },
  };
}
