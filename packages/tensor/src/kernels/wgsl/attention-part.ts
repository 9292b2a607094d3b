import type { PlanSlot } from "../kernel.js";
import {
  type AttentionEngine,
  type AttentionVariant,
  type ScoreProduct,
  subgroupEngine,
  type WeightedSum,
  workgroupEngine,
} from "./attention-engine.js";
import { type AttentionOperands, baseOf, type HeadMatrices } from "./attention-operands.js";
import { ProgramFunctions } from "./functions.js";
import { literal } from "./literals.js";
import { ProgramMemory } from "./memory.js";
import { vectorAlong } from "./operands.js";
import { assemble, foldWorkgroups, type Target, type WgslProgram } from "./program.js";

/** What a program of attention computes: the output, the gradient of queries, or those of keys and values. */
export type AttentionPart = "out" | "dQueries" | "dKeys";

/** A result, with what the rows are weighed by: attention's weights, or the slopes of the scores. */
interface Sum extends WeightedSum {
  readonly weights: "weight" | "slope";
}

/** Below every score: what a query's maximum starts from, and what hides a key. */
const lowest = "vec4f(-3.4e38f)";

const indices = (count: number): number[] => Array.from({ length: count }, (_, i) => i);

/** The products and sums of a part; the columns of all are queries, or keys in the last case. */
function contentsOf(
  part: AttentionPart,
  { queries, keys, values, out, gradients }: AttentionOperands,
): { products: ScoreProduct[]; sums: Sum[] } {
  if (part === "out" || !gradients) {
    return { products: [{ rows: keys, columns: queries }], sums: [{ rows: values, out, weights: "weight" }] };
  }
  const { dOut, dQueries, dKeys, dValues } = gradients;
  if (part === "dQueries") {
    const products = [
      { rows: keys, columns: queries },
      { rows: values, columns: dOut },
    ];
    return { products, sums: [{ rows: keys, out: dQueries, weights: "slope" }] };
  }
  const products = [
    { rows: queries, columns: keys },
    { rows: dOut, columns: values },
  ];
  const sums: Sum[] = [
    { rows: dOut, out: dValues, weights: "weight" },
    { rows: queries, out: dKeys, weights: "slope" },
  ];
  return { products, sums };
}

/** Prints one part: a workgroup has a block of columns and walks through the rows that they see, or that see them. */
export function printAttentionPart(
  part: AttentionPart,
  operands: AttentionOperands,
  slots: readonly PlanSlot[],
  name: string,
  target: Target,
  variant: AttentionVariant,
): WgslProgram {
  const { batch, queryCount, keyCount, logsumexp, starts, gradients } = operands;
  const [batchCount, keyHeads, group] = batch;
  const isByKeys = part === "dKeys";
  const memory = new ProgramMemory(slots, target);
  const functions = new ProgramFunctions();
  const { products, sums } = contentsOf(part, operands);
  const engine =
    variant.rows === "workgroup" ? workgroupEngine(memory, variant, target.isSoftware) : subgroupEngine(memory, variant, products, sums);
  const scale = literal("f32", operands.scale);
  const columnCount = isByKeys ? keyCount : queryCount;
  const [blockColumns, blockRows] = [variant.threadColumns * 4, variant.threadRows * variant.tileRows];
  const blocks = Math.ceil(columnCount / blockColumns);
  const count = blocks * batchCount * keyHeads * (isByKeys ? 1 : group);
  const workgroups = foldWorkgroups(count, target);
  const isSharing = variant.rows === "subgroup";
  const bases = (matrices: readonly HeadMatrices[]): string[] =>
    [...new Map(matrices.map((operand) => [operand.name, operand])).values()].map((operand) => baseOf(operand, operands));
  const rowOperands = [...products, ...sums].map(({ rows }) => rows);
  const statistics = gradients ? [logsumexp, gradients.delta] : [];

  const rows = indices(variant.tileRows);
  const perQuery = new Map(
    isByKeys ? [...statistics, ...(starts ? [starts] : [])].map((operand) => [operand, engine.scalars(operand)]) : [],
  );
  /** The number that belongs to the queries at row i and all columns. */
  const statistic = (operand: HeadMatrices, i: number, type = "vec4f"): string =>
    isByKeys ? `${type}(${perQuery.get(operand)?.value(i)})` : `statistic${operand.name}`;
  const { isMasked, visible } = visibility(operands, isByKeys, engine, blockRows, (i) => (starts ? statistic(starts, i, "vec4i") : ""));
  const firstStart = (query: string): string =>
    starts ? memory.load(starts.view.slot, `base${starts.name} + ${query} * ${starts.view.rowStride}`) : "0";
  const step = [
    ...(starts && !isByKeys ? engine.agree("earliest", firstStart(`block * ${blockColumns}`)) : []),
    `for (var row = ${firstRow(operands, isByKeys, blockColumns, blockRows)}; row < ${endRow(operands, isByKeys, blockColumns)}; row += ${blockRows}) {`,
    // Starts never fall: what is too late for the first query of a step is so for all that follow.
    ...(starts && isByKeys
      ? [...engine.agree("earliest", firstStart("row")), `if (earliest >= (block + 1) * ${blockColumns}) { break; }`]
      : []),
    ...engine.begin,
    ...[...perQuery.values()].flatMap(({ lines }) => lines),
    ...products.flatMap((product, i) => engine.score(product, i === 0 ? "score" : "rise")),
    ...(isMasked ? rows.map((i) => `let visible${i} = ${visible(i)};`) : []),
    ...(part === "out" ? onlineSoftmax() : gradientWeights()),
    ...sums.flatMap((sum) => engine.accumulate(sum, sum.weights)),
    "}",
  ];

  const lines: string[] = [];
  if (workgroups.x * workgroups.y > count) lines.push(`if (group >= ${count}) { return; }`);
  lines.push(`let block = i32(u32(group) % ${blocks}u);`, `let head = u32(group) / ${blocks}u;`);
  lines.push(`let column = block * ${blockColumns} + ${isSharing ? "lane" : "i32(local.x)"} * 4;`);
  lines.push("let columns = vec4i(column) + vec4i(0, 1, 2, 3);");
  lines.push(`let batch = head${isByKeys && group > 1 ? ` * ${group}u` : ""};`);
  lines.push(...bases([...products.map(({ columns }) => columns), ...sums.map(({ out }) => out), ...(isByKeys ? [] : rowOperands)]));
  if (!isByKeys) lines.push(...bases([...statistics, ...(starts ? [starts] : [])]));
  lines.push(...engine.setup);
  for (const sum of sums) for (const j of indices(engine.widthCount(sum))) lines.push(`var sum${sum.out.name}_${j} = vec4f(0.0);`);
  if (part === "out") {
    lines.push(...bases([logsumexp]), `var largest = ${lowest};`, "var total = vec4f(0.0);");
  }
  if (!isByKeys) {
    lines.push(...statistics.map((operand) => `let statistic${operand.name} = ${ofColumns(operand, "vec4f")};`));
    if (starts) lines.push(`let statistic${starts.name} = ${ofColumns(starts, "vec4i")};`);
  }
  if (isByKeys) {
    const shared = group > 1 ? [`for (var member = 0u; member < ${group}u; member++) {`, `let batch = head * ${group}u + member;`] : ["{"];
    lines.push(...shared, ...bases([...rowOperands, ...perQuery.keys()]), ...step, "}");
  } else lines.push(...step);
  if (part === "out") lines.push(...finish());
  for (const sum of sums) lines.push(...store(sum));
  return assemble({
    name,
    memory,
    functions,
    workgroupSize: [variant.threadColumns, variant.threadRows],
    workgroups,
    globals: engine.globals,
    usesSubgroups: isSharing,
    // How far a loop runs is read from `starts`, alike in all lanes, which compilers cannot know.
    ...(isSharing && starts ? { directives: ["diagnostic(off, subgroup_uniformity);"] } : {}),
    body: lines,
  });

  /** Weights of a step relative to the largest score so far; what was summed before follows a new largest one. */
  function onlineSoftmax(): string[] {
    const hidden = (i: number): string => (isMasked ? `select(${lowest}, score${i} * ${scale}, visible${i})` : `score${i} * ${scale}`);
    return [
      ...rows.map((i) => `let scaled${i} = ${hidden(i)};`),
      `var top = ${rows.reduce((code, i) => (code === "" ? `scaled${i}` : `max(${code}, scaled${i})`), "")};`,
      ...engine.join("top", (a, b) => `max(${a}, ${b})`),
      "let next = max(largest, top);",
      "let shrink = exp(largest - next);",
      "largest = next;",
      ...weigh((i) => `exp(scaled${i} - next)`),
      `total = fma(total, shrink, ${rows.map((i) => `weight${i}`).join(" + ")});`,
      ...sums.flatMap((sum) => indices(engine.widthCount(sum)).map((j) => `sum${sum.out.name}_${j} *= shrink;`)),
    ];
  }

  function gradientWeights(): string[] {
    const delta = gradients?.delta ?? logsumexp;
    return [
      ...weigh((i) => `exp(fma(score${i}, vec4f(${scale}), -${statistic(logsumexp, i)}))`),
      ...rows.map((i) => `let slope${i} = weight${i} * (rise${i} - ${statistic(delta, i)}) * ${scale};`),
    ];
  }

  function weigh(value: (i: number) => string): string[] {
    return rows.map((i) => `let weight${i} = ${isMasked ? `select(vec4f(0.0), ${value(i)}, visible${i})` : value(i)};`);
  }

  /** Divides by the sum of weights, and stores the logsumexp. */
  function finish(): string[] {
    const start = `baseL + column * ${logsumexp.view.rowStride}`;
    const stores = indices(4).map(
      (r) =>
        `if (column + ${r} < ${columnCount}) { ${memory.store(logsumexp.view.slot, `${start} + ${r * logsumexp.view.rowStride}`, `logsumexp[${r}]`)} }`,
    );
    return [
      ...engine.join("total", (a, b) => `${a} + ${b}`),
      `let logsumexp = largest + ${functions.use("logarithm", true)}(total);`,
      ...(variant.threadRows > 1 ? ["if (local.y == 0u) {", ...stores, "}"] : stores),
      "let share = 1.0 / total;",
      ...sums.flatMap((sum) => indices(engine.widthCount(sum)).map((j) => `sum${sum.out.name}_${j} *= share;`)),
    ];
  }

  function ofColumns({ name: own, view }: HeadMatrices, type: string): string {
    const at = (r: number): string => `base${own} + min(column + ${r}, ${columnCount - 1}) * ${view.rowStride}`;
    return `${type}(${indices(4)
      .map((r) => memory.load(view.slot, at(r)))
      .join(", ")})`;
  }

  function store(sum: Sum): string[] {
    const { name: own, view, positions, width } = sum.out;
    const widthCount = engine.widthCount(sum);
    const isWhole = widthCount * variant.threadRows === width;
    const isVector = vectorAlong(view, positions, width, "row") === "column";
    const guarded = (condition: string, isSure: boolean, statements: readonly string[]): string[] =>
      isSure ? [...statements] : [`if (${condition}) {`, ...statements, "}"];
    return indices(4).flatMap((r) => {
      const stores = indices(Math.ceil(widthCount / 4)).flatMap((quad) => {
        const at = engine.widthAt(quad * 4);
        const start = `base${own} + (column + ${r}) * ${view.rowStride} + ${at}`;
        const places = indices(Math.min(4, widthCount - quad * 4));
        const value = (j: number): string => `sum${own}_${quad * 4 + j}[${r}]`;
        if (isVector)
          return guarded(`${at} < ${width}`, isWhole, [memory.storeVector(view.slot, start, `vec4f(${places.map(value).join(", ")})`)]);
        return places.flatMap((j) => guarded(`${at} + ${j} < ${width}`, isWhole, [memory.store(view.slot, `${start} + ${j}`, value(j))]));
      });
      return guarded(`column + ${r} < ${columnCount}`, columnCount % blockColumns === 0, stores);
    });
  }
}

/** Which of a step's pairs count: those inside the tensors, with `isCausal` keys up to the query's own place, and no keys before its start. */
function visibility(
  { queryCount, keyCount, offset, starts }: AttentionOperands,
  isByKeys: boolean,
  engine: AttentionEngine,
  blockRows: number,
  startsAt: (i: number) => string,
): { isMasked: boolean; visible(i: number): string } {
  const rowCount = isByKeys ? queryCount : keyCount;
  const isBounded = rowCount % blockRows !== 0;
  return {
    isMasked: isBounded || offset !== null || starts !== null,
    visible(i) {
      const row = engine.rowAt(i);
      const conditions: string[] = [];
      if (isBounded) conditions.push(`vec4<bool>(${row} < ${rowCount})`);
      if (offset !== null) conditions.push(isByKeys ? `(columns <= vec4i(${row} + ${offset}))` : `(vec4i(${row}) <= columns + ${offset})`);
      if (starts) conditions.push(`(${isByKeys ? "columns" : `vec4i(${row})`} >= ${startsAt(i)})`);
      return conditions.join(" & ");
    },
  };
}

/** The first row of which one sees, or is seen from, the block's columns; a multiple of a step's rows. */
function firstRow({ offset, starts }: AttentionOperands, isByKeys: boolean, blockColumns: number, blockRows: number): string {
  if (!isByKeys) return starts ? `earliest / ${blockRows} * ${blockRows}` : "0";
  if (offset === null) return "0";
  return `max(0, block * ${blockColumns} - ${offset}) / ${blockRows} * ${blockRows}`;
}

function endRow({ queryCount, keyCount, offset }: AttentionOperands, isByKeys: boolean, blockColumns: number): string {
  if (isByKeys) return String(queryCount);
  return offset === null ? String(keyCount) : `min(${keyCount}, (block + 1) * ${blockColumns} + ${offset})`;
}
