import { sizeOf } from "../../tensor/shape.js";
import type { CompositeKernel, PlanSlot, StridedView } from "../kernel.js";
import { ProgramFunctions } from "./functions.js";
import { literal } from "./literals.js";
import { ProgramMemory } from "./memory.js";
import { assemble, foldWorkgroups, type Target, type WgslProgram } from "./program.js";

/** The name of the composite. */
export const cachedAttentionName = "cachedAttention";

/** Invocations that share a query, and keys of a step: one number, so that a query's bits depend on its position alone. */
const threads = 64;
/** More queries are a matter of matrix products, */
const fewQueries = 8;
/** unless their scores would take more than so many bytes. */
const maxScoreBytes = 256 * 2 ** 20;
/** Widest values: each invocation keeps some of them in registers. */
const maxValueDim = 16 * threads;

/** True where the program serves the shapes better than the products that the composite is made of. It has no place for bodies. */
export function supportsCachedAttention(kernel: CompositeKernel, target: Target): boolean {
  if (kernel.name !== cachedAttentionName || kernel.hasBodies || kernel.inputShapes.some((shape) => sizeOf(shape) === 0)) return false;
  const [[batch = 0, heads = 0, queryCount = 0, dim = 0] = [], [, , keyCount = 0] = [], [, , , valueDim = 0] = []] = kernel.inputShapes;
  const isWorthIt = queryCount <= fewQueries || batch * heads * queryCount * keyCount * 4 > maxScoreBytes;
  return isWorthIt && valueDim <= maxValueDim && (dim + 2 * threads) * 4 <= target.maxWorkgroupBytes && threads <= target.maxInvocations;
}

/** An operand [batch, heads, rows, width] of a kernel. */
interface Operand {
  readonly slot: number;
  readonly view: StridedView;
}

/**
 * A workgroup for each query: its invocations score a key each, share the weights, and sum up a few columns of the values each. Keys are
 * taken in steps that begin at multiples of `threads`, with the softmax as it runs (Milakov & Gimelshein 2018), up to the query's own. Long: one
 * program, from top to bottom.
 */
export function printCachedAttention(kernel: CompositeKernel, slots: readonly PlanSlot[], name: string, target: Target): WgslProgram {
  const [[batch = 0, heads = 0, queryCount = 0, dim = 0] = [], [, keyHeads = 1, keyCount = 0] = [], [, , , valueDim = 0] = []] =
    kernel.inputShapes;
  const memory = new ProgramMemory(slots, target);
  const functions = new ProgramFunctions();
  const operand = (which: "inputs" | "outputs", index: number): Operand => {
    const [slot, view] = [kernel[which][index], kernel.views?.[which][index]];
    if (slot === undefined || !view) throw new Error(`webgpu: ${kernel.name} lacks operand ${index} of its ${which}.`);
    return { slot, view };
  };
  const [queries, keys, values] = [operand("inputs", 0), operand("inputs", 1), operand("inputs", 2)];
  const positions = operand("inputs", 3);
  const [out, logsumexp] = [operand("outputs", 0), operand("outputs", 1)];
  const start = ({ view }: Operand, head: string): string =>
    `${view.offset} + text * ${view.strides[0] ?? 0} + ${head} * ${view.strides[1] ?? 0}`;
  const isVector = dim % 4 === 0 && isAligned(keys.view);
  const columns = Array.from({ length: Math.ceil(valueDim / threads) }, (_, i) => i);
  const count = batch * heads * queryCount;
  const workgroups = foldWorkgroups(count, target);
  const window = kernel.attributes["window"];
  const key = `keyBase + key * ${keys.view.strides[2] ?? 0}`;
  const column = (i: number): string => `thread + ${i * threads}`;
  const guarded = (i: number, statement: string): string =>
    (i + 1) * threads <= valueDim ? statement : `if (${column(i)} < ${valueDim}) { ${statement} }`;
  const body = [
    ...(workgroups.x * workgroups.y > count ? [`if (group >= ${count}) { return; }`] : []),
    "let thread = i32(local.x);",
    `let query = group % ${queryCount};`,
    `let head = group / ${queryCount} % ${heads};`,
    `let text = group / ${queryCount * heads};`,
    `let keyHead = head / ${heads / keyHeads};`,
    `let queryBase = ${start(queries, "head")} + query * ${queries.view.strides[2] ?? 0};`,
    `let keyBase = ${start(keys, "keyHead")};`,
    `let valueBase = ${start(values, "keyHead")};`,
    `let outBase = ${start(out, "head")} + query * ${out.view.strides[2] ?? 0};`,
    `for (var d = thread; d < ${dim}; d += ${threads}) { query_row[d] = ${memory.load(queries.slot, "queryBase + d")}; }`,
    `if (thread == 0) { agreed = ${memory.load(positions.slot, `${positions.view.offset} + text * ${positions.view.strides[0] ?? 0}`)} + query; }`,
    "let own = workgroupUniformLoad(&agreed);",
    `let first = ${window === undefined ? "0" : `max(own - ${Number(window) - 1}, 0)`};`,
    `let end = min(own + 1, ${keyCount});`,
    "var largest = -3.0e38;",
    "var total = 0.0;",
    ...columns.map((i) => `var sum${i} = 0.0;`),
    `for (var step = first / ${threads} * ${threads}; step < end; step += ${threads}) {`,
    "let key = step + thread;",
    "var score = -3.0e38;",
    "if (key >= first && key < end) {",
    ...(isVector
      ? [
          "var products = vec4f(0.0);",
          `for (var d = 0; d < ${dim}; d += 4) { products = fma(vec4f(query_row[d], query_row[d + 1], query_row[d + 2], query_row[d + 3]), ${memory.loadVector(keys.slot, `${key} + d`)}, products); }`,
          "score = (products.x + products.y) + (products.z + products.w);",
        ]
      : [
          "score = 0.0;",
          `for (var d = 0; d < ${dim}; d++) { score = fma(query_row[d], ${memory.load(keys.slot, `${key} + d`)}, score); }`,
        ]),
    `score *= ${literal("f32", Number(kernel.attributes["scale"]))};`,
    "}",
    "scores[thread] = score;",
    "workgroupBarrier();",
    "var next = largest;",
    `for (var i = 0; i < ${threads}; i++) { next = max(next, scores[i]); }`,
    "weights[thread] = select(0.0, exp(score - next), key >= first && key < end);",
    "let shrink = exp(largest - next);",
    "largest = next;",
    "total *= shrink;",
    ...columns.map((i) => `sum${i} *= shrink;`),
    "workgroupBarrier();",
    `let count = min(end - step, ${threads});`,
    "for (var i = max(first - step, 0); i < count; i++) {",
    "let weight = weights[i];",
    "total += weight;",
    `let at = valueBase + (step + i) * ${values.view.strides[2] ?? 0};`,
    ...columns.map((i) => guarded(i, `sum${i} = fma(weight, ${memory.load(values.slot, `at + ${column(i)}`)}, sum${i});`)),
    "}",
    "}",
    ...columns.map((i) => guarded(i, memory.store(out.slot, `outBase + ${column(i)}`, `sum${i} / total`))),
    `if (thread == 0) { ${memory.store(logsumexp.slot, `${start(logsumexp, "head")} + query * ${logsumexp.view.strides[2] ?? 0}`, "largest + log(total)")} }`,
  ];
  return assemble({
    name,
    memory,
    functions,
    workgroupSize: [threads, 1],
    workgroups,
    globals: [
      `var<workgroup> query_row: array<f32, ${dim}>;`,
      `var<workgroup> scores: array<f32, ${threads}>;`,
      `var<workgroup> weights: array<f32, ${threads}>;`,
      "var<workgroup> agreed: i32;",
    ],
    body,
  });
}

function isAligned({ offset, strides }: StridedView): boolean {
  return offset % 4 === 0 && strides.slice(0, 3).every((stride) => stride % 4 === 0);
}
