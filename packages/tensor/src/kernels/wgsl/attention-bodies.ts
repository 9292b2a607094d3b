import { scoreAxes, withinAxis } from "../bodies.js";
import { type Expr, ExprMakers } from "../expr.js";
import type { AttentionOperands } from "./attention-operands.js";
import { ExprFacts, ExprPrinter, newScope } from "./expression.js";
import type { ProgramFunctions } from "./functions.js";
import type { ProgramMemory } from "./memory.js";

/** Bodies of scores as a WGSL function. */
export interface ScoreFunction {
  /** The function, a declaration at the top of a program. */
  readonly declaration: string;
  /** Calls it for the scores of one row, whose position this is, with the invocation's columns; `batch` counts heads through the batch. */
  call(row: string, scores: string): string;
  /** The members of what it returns: the score that comes of it and, where there is a second body, its slope. */
  readonly value: "value";
  readonly slope: "slope" | null;
}

/** Prints the bodies for columns that are queries, or keys. */
export function scoreFunction(
  bodies: readonly Expr[],
  { visibility: { queryCount, keyCount }, batch: [, keyHeads, group] }: AttentionOperands,
  isByKeys: boolean,
  memory: ProgramMemory,
  functions: ProgramFunctions,
): ScoreFunction {
  const columns = isByKeys ? keyCount : queryCount;
  const rows = isByKeys ? queryCount : keyCount;
  const columnAxis = isByKeys ? scoreAxes.key : scoreAxes.query;
  const within = withinAxis(bodies, new ExprMakers(), columnAxis, columns, 4);
  const scope = newScope();
  const noAxis = -1;
  const printer = new ExprPrinter(new ExprFacts(columnAxis), memory, functions, ["batch", "head", "query", "key"], noAxis, scope);
  printer.accumulators = [{ code: "score", isVector: true }];
  const results = within.map((body) => printer.splat(printer.value(body), "f32"));
  const names = ["value", "slope"].slice(0, results.length);
  const heads = `${keyHeads * group}u`;
  // Blocks reach beyond the columns; what is loaded for those is not used.
  const column = columns % 4 === 0 ? `min(column, ${columns - 4})` : "column";
  return {
    declaration: [
      `struct ScoreBodies { ${names.map((name) => `${name}: vec4f,`).join(" ")} }`,
      "fn scoreBodies(batch: i32, head: i32, query: i32, key: i32, score: vec4f) -> ScoreBodies {",
      ...scope.lines,
      `return ScoreBodies(${results.join(", ")});`,
      "}",
    ].join("\n"),
    call(row, scores) {
      const at = `min(${row}, ${rows - 1})`;
      const [query, key] = isByKeys ? [at, column] : [column, at];
      return `scoreBodies(i32(batch / ${heads}), i32(batch % ${heads}), ${query}, ${key}, ${scores})`;
    },
    value: "value",
    slope: results.length > 1 ? "slope" : null,
  };
}
