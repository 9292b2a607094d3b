import type { Agreement } from "@lowrank/models";
import { grouped, tableLines } from "../terminal/format.js";
import type { MergeType } from "./quantized.js";

/** The mean KL of nats a token up to which two models count as the same: docs/lora.md says what usual changes cost. */
export const defaultTolerance = 0.01;

/**
 * The same where weights are put into 4 or 8 bits: some twice what each type cost SmolLM2-135M, a small model, which loses more than large ones, on the prose that ships
 * with lowrank (docs/quantisation.md has the numbers), and no less than without blocks.
 */
const quantizedTolerances: Readonly<Record<MergeType, number>> = {
  nf4: 0.8,
  fp4: 1.3,
  int8: defaultTolerance,
  q8_0: defaultTolerance,
  q4_0: 0.9,
  q4_k_m: 0.2,
};

/** The tolerance where none is given. */
export const toleranceOf = (type: MergeType | undefined): number => (type === undefined ? defaultTolerance : quantizedTolerances[type]);

/** What was measured, with what it was measured on. */
export interface Check extends Agreement {
  readonly source: string;
}

/** How two models agree, as rows of a table: what is measured, of the one, of the other, and how they differ. */
function rowsOf(check: Check, [one, other]: readonly [string, string]): string[][] {
  const { lossBefore, lossAfter, meanKl, largestLogitDifference, equalTokens, greedyTokens } = check;
  const rise = lossAfter - lossBefore;
  return [
    ["", one, other, "difference"],
    ["loss", lossBefore.toFixed(4), lossAfter.toFixed(4), `${rise < 0 ? "−" : "+"}${Math.abs(rise).toFixed(4)}`],
    ["mean KL, nats a token", "", "", small(meanKl)],
    ["largest difference of a logit", "", "", small(largestLogitDifference)],
    ["equal greedy tokens", "", "", `${grouped(equalTokens)} of ${grouped(greedyTokens)}`],
  ];
}

function small(value: number): string {
  return value === 0 ? "0" : value < 1e-3 ? value.toExponential(1) : value.toPrecision(3);
}

function sourceLine({ source, tokenCount, positionCount }: Check): string {
  return `on ${source}: ${grouped(tokenCount)} loss tokens, logits of ${grouped(positionCount)} of them`;
}

/** How two models agree, for a terminal. */
export function checkLines(check: Check, names: readonly [string, string], columns: number): string[] {
  return [`compared ${sourceLine(check)}`, "", ...tableLines(rowsOf(check, names), { areNumbers: true, width: columns })];
}

/** How two models agree, in Markdown. */
export function checkMarkdown(check: Check, names: readonly [string, string]): string {
  const [head = [], ...body] = rowsOf(check, names);
  const line = (cells: readonly string[]): string => `| ${cells.join(" | ")} |`;
  return [`Measured ${sourceLine(check)}.`, "", line(head), line(["---", "--:", "--:", "--:"]), ...body.map(line)].join("\n");
}
