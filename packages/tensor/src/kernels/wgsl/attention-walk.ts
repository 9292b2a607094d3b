import type { AttentionEngine } from "./attention-engine.js";
import type { AttentionOperands } from "./attention-operands.js";

/** How a workgroup with a block of columns walks through the rows that they see, or that see them (kernels/visibility.ts). */
export interface Walk {
  /** Statements in front of the loop, its head, and statements at the start of each step. */
  readonly before: readonly string[];
  readonly loop: string;
  readonly begin: readonly string[];
  /** Whether some of a step's pairs may not count, and which do: those inside the tensors whose query sees the key. */
  readonly isMasked: boolean;
  visible(i: number): string;
}

export interface WalkSizes {
  readonly engine: AttentionEngine;
  /** Columns of a workgroup, and rows of a step. */
  readonly blockColumns: number;
  readonly blockRows: number;
  /** The first key of the query with this number, where queries have starts. */
  readonly startOf: (query: string) => string;
  /** The first keys of the queries at row i and all columns, likewise. */
  readonly startsAt: (i: number) => string;
}

/** Columns are queries, rows keys. */
export function walkKeys({ visibility, starts }: AttentionOperands, sizes: WalkSizes): Walk {
  const { keyCount, lastOffset, firstOffset, prefix } = visibility;
  const { engine, blockColumns, blockRows } = sizes;
  const before = starts ? engine.agree("earliest", sizes.startOf(`block * ${blockColumns}`)) : [];
  const bounds = [...(starts ? ["earliest"] : []), ...(firstOffset === null ? [] : [`block * ${blockColumns} + ${firstOffset}`])];
  const first = bounds.reduce((code, bound) => `max(${code}, ${bound})`, "0");
  const near = bounds.length === 0 ? "0" : `${first} / ${blockRows} * ${blockRows}`;
  const last = lastOffset === null ? String(keyCount) : `min(${keyCount}, (block + 1) * ${blockColumns} + ${lastOffset})`;
  const end = prefix > 0 ? `max(${prefix}, ${last})` : last;
  const isSplit = prefix > 0 && bounds.length > 0;
  const next = `row + ${blockRows}`;
  return {
    before: [...before, ...(isSplit ? [`let near = ${near};`] : [])],
    // From the prefix on to what stands behind it.
    loop: isSplit
      ? `for (var row = 0; row < ${end}; row = select(${next}, max(${next}, near), ${next} >= ${prefix})) {`
      : `for (var row = ${near}; row < ${end}; row += ${blockRows}) {`,
    begin: [],
    ...maskOf(keyCount % blockRows === 0 ? null : keyCount, engine, visibility, (row, i) => ({
      key: `vec4i(${row})`,
      query: "columns",
      start: starts && sizes.startsAt(i),
    })),
  };
}

/** Columns are keys, rows queries. */
export function walkQueries({ visibility, starts }: AttentionOperands, sizes: WalkSizes): Walk {
  const { queryCount, lastOffset, firstOffset, prefix } = visibility;
  const { engine, blockColumns, blockRows } = sizes;
  const [firstKey, endKey] = [`block * ${blockColumns}`, `(block + 1) * ${blockColumns}`];
  const inPrefix = (yes: string, no: string): string => (prefix > 0 ? `select(${no}, ${yes}, ${firstKey} < ${prefix})` : no);
  const first = lastOffset === null ? "0" : inPrefix("0", `max(0, ${firstKey} - ${lastOffset}) / ${blockRows} * ${blockRows}`);
  const end = firstOffset === null ? String(queryCount) : inPrefix(String(queryCount), `min(${queryCount}, ${endKey} - ${firstOffset})`);
  const isOver = `earliest >= ${endKey}${prefix > 0 ? ` && ${firstKey} >= ${prefix}` : ""}`;
  return {
    before: [],
    loop: `for (var row = ${first}; row < ${end}; row += ${blockRows}) {`,
    // Starts never fall: what is too late for the first query of a step is so for all that follow.
    begin: starts ? [...engine.agree("earliest", sizes.startOf("row")), `if (${isOver}) { break; }`] : [],
    ...maskOf(queryCount % blockRows === 0 ? null : queryCount, engine, visibility, (row, i) => ({
      key: "columns",
      query: `vec4i(${row})`,
      start: starts && sizes.startsAt(i),
    })),
  };
}

/** Which pairs of a row and the columns count; `rowCount` where steps go past the rows' end. */
function maskOf(
  rowCount: number | null,
  engine: AttentionEngine,
  { lastOffset, firstOffset, prefix }: AttentionOperands["visibility"],
  pair: (row: string, i: number) => { readonly key: string; readonly query: string; readonly start: string | null },
): Pick<Walk, "isMasked" | "visible"> {
  return {
    isMasked: rowCount !== null || lastOffset !== null,
    visible(i) {
      const row = engine.rowAt(i);
      const { key, query, start } = pair(row, i);
      const own: string[] = [];
      if (lastOffset !== null) own.push(`(${key} <= ${query} + ${lastOffset})`);
      if (firstOffset !== null) own.push(`(${key} >= ${query} + ${firstOffset})`);
      if (start) own.push(`(${key} >= ${start})`);
      const seen = own.length > 0 && prefix > 0 ? [`((${own.join(" & ")}) | (${key} < vec4i(${prefix})))`] : own;
      return [...(rowCount === null ? [] : [`vec4<bool>(${row} < ${rowCount})`]), ...seen].join(" & ");
    },
  };
}
