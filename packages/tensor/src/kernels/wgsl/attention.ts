import { sizeOf } from "../../tensor/shape.js";
import { type Expr, ExprMakers, type Index } from "../expr.js";
import type { CompositeKernel, LoopKernel, PlanSlot } from "../kernel.js";
import { type AttentionVariant, workgroupBytes } from "./attention-engine.js";
import { type AttentionOperands, attentionOperands, type HeadMatrices } from "./attention-operands.js";
import { printAttentionPart } from "./attention-part.js";
import { chooseLoopVariant, printLoop } from "./loop.js";
import type { Target, WgslProgram } from "./program.js";

export type { AttentionVariant } from "./attention-engine.js";

/** Composites that have programs here. */
export const attentionNames: ReadonlySet<string> = new Set(["attention", "attentionBackward"]);

/** Widest heads that invocations keep in registers: a program is as long as they are wide, and llvmpipe takes a minute for twice this. */
const maxRegisterWidth = 32;

/** The variants that a kernel can be given on an adapter. */
export function attentionVariants(kernel: CompositeKernel, { subgroupSize, maxWorkgroupBytes }: Target): AttentionVariant[] {
  const tiled = { tileRows: 4, rows: "workgroup" } as const;
  const variants: AttentionVariant[] = [
    ...(subgroupSize > 0 ? [{ threadColumns: subgroupSize, threadRows: 1, tileRows: 8, rows: "subgroup" } as const] : []),
    { ...tiled, threadColumns: 4, threadRows: 4 },
    { ...tiled, threadColumns: 8, threadRows: 8 },
    { ...tiled, threadColumns: 16, threadRows: 8 },
  ];
  const [queries, , values] = kernel.inputShapes;
  const width = Math.max(queries?.[3] ?? 0, values?.[3] ?? 0);
  return variants.filter(
    (variant) => workgroupBytes(variant) <= maxWorkgroupBytes && (variant.rows === "workgroup" || width <= maxRegisterWidth),
  );
}

/** Below this many products, decomposed attention is not slow enough for what its programs take longer to compile, on llvmpipe. */
const softwareProducts = { attention: 2 ** 23, attentionBackward: 2 ** 25 } as const;
/** Bytes of scores above which they are not kept, whatever it costs. */
const maxScoreBytes = 256 * 2 ** 20;
/** Queries that are so few that their scores take no more memory than keys, and most of a block of columns would be idle. */
const fewQueries = 8;

/** The variant that suits the shape; null where the composite's definition does. */
export function chooseAttentionVariant(kernel: CompositeKernel, target: Target): AttentionVariant | null {
  if (kernel.inputShapes.some((shape) => sizeOf(shape) === 0)) return null;
  const [[batch = 0, heads = 0, queries = 0, width = 0] = [], [, , keys = 0] = [], [, , , valueWidth = 0] = []] = kernel.inputShapes;
  if (queries <= fewQueries || tooManyCaptures(kernel, target)) return null;
  const pairs = batch * heads * queries * keys;
  const variants = attentionVariants(kernel, target);
  const [first] = variants;
  if (target.isSoftware) {
    const isBackward = kernel.name === "attentionBackward";
    const products = pairs * (isBackward ? 3 * width + 2 * valueWidth : width + valueWidth);
    const isWorthIt = first?.rows === "subgroup" && products >= softwareProducts[isBackward ? "attentionBackward" : "attention"];
    return isWorthIt || pairs * 4 > maxScoreBytes ? (first ?? null) : null;
  }
  const threadColumns = queries >= 64 ? 16 : queries >= 32 ? 8 : 4;
  const tiles = variants.filter((variant) => variant.rows === "workgroup");
  return tiles.find((variant) => variant.threadColumns === threadColumns) ?? tiles[0] ?? first ?? null;
}

/** True where what bodies captured may take more bindings than a program has. */
function tooManyCaptures({ name, inputs, outputs, attributes }: CompositeKernel, { maxBindings }: Target): boolean {
  // No program of the gradients reads `out`.
  const most = inputs.length + outputs.length - (name === "attentionBackward" ? 1 : 0);
  return Number(attributes["captures"] ?? 0) > 0 && most > maxBindings;
}

/** The programs of `attention` or `attentionBackward` as blocks of FlashAttention-2 (Dao 2023, algorithms 1 and 2): scores stay in registers. */
export function printAttention(
  kernel: CompositeKernel,
  slots: readonly PlanSlot[],
  name: string,
  target: Target,
  variant: AttentionVariant,
): WgslProgram[] {
  const operands = attentionOperands(kernel);
  if (!operands.gradients) return [printAttentionPart("out", operands, slots, name, target, variant)];
  const delta = deltaLoop(operands, operands.gradients);
  return [
    printLoop(delta, slots, `${name}_delta`, target, chooseLoopVariant(delta, slots, target)),
    printAttentionPart("dKeys", operands, slots, `${name}_keys`, target, variant),
    // Last, because it replaces delta.
    printAttentionPart("dQueries", operands, slots, `${name}_queries`, target, variant),
  ];
}

/** Σ dOut · out of each query. */
function deltaLoop(
  { batch, visibility: { queryCount }, out }: AttentionOperands,
  { dOut, delta }: NonNullable<AttentionOperands["gradients"]>,
): LoopKernel {
  const make = new ExprMakers();
  const outer = [...batch, queryCount];
  const start = ({ view }: HeadMatrices): Index =>
    [...view.batchStrides, view.rowStride].reduce<Index>(
      (index, stride, axis) => make.add(index, make.mul(make.variable(axis, outer[axis] ?? 1), make.int(stride))),
      make.int(view.offset),
    );
  const column = make.variable(outer.length, out.width);
  const element = (operand: HeadMatrices): Expr => make.load("f32", operand.view.slot, make.add(start(operand), column));
  return {
    kind: "loop",
    outer,
    inner: out.width,
    reductions: [{ combine: "sum", value: make.binary("mul", element(out), element(dOut)) }],
    stores: [{ scope: "row", slot: delta.view.slot, index: start(delta), value: make.accumulator("f32", 0) }],
  };
}
