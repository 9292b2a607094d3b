import { sizeOf } from "../../tensor/shape.js";
import type { CompositeKernel, MatmulKernel, MatrixOperand, MatrixView, PlanSlot, Slot } from "../kernel.js";
import { isComputed } from "../products.js";
import { type AttentionVariant, attentionNames, chooseAttentionVariant } from "./attention.js";
import { cachedAttentionName, supportsCachedAttention } from "./cached-attention.js";
import { chooseMatmulVariant, type MatmulVariant } from "./matmul.js";
import type { Target } from "./program.js";

/** Says which variant of a template a kernel is printed in. */
export interface VariantChoice {
  matmul(kernel: MatmulKernel, target: Target, slots: readonly PlanSlot[]): MatmulVariant;
  /** Null where the composite is better left to the kernels that it is made of. */
  attention(kernel: CompositeKernel, target: Target): AttentionVariant | null;
}

/** Composites that have programs. */
export const programNames: ReadonlySet<string> = new Set([...attentionNames, cachedAttentionName]);

/** True where a composite runs as a program of its own. */
export function hasProgram(kernel: CompositeKernel, target: Target, choice: VariantChoice): boolean {
  if (kernel.name === cachedAttentionName) return supportsCachedAttention(kernel, target);
  return attentionNames.has(kernel.name) && choice.attention(kernel, target) !== null;
}

/** By the shape and what is known of the adapter. */
export const modelledChoice: VariantChoice = { matmul: chooseMatmulVariant, attention: chooseAttentionVariant };

/** By what was measured for the class of the shape, where something was. */
export function tunedChoice(measured: ReadonlyMap<string, MatmulVariant>): VariantChoice {
  return {
    ...modelledChoice,
    matmul: (kernel, target, slots) => measured.get(matmulClass(kernel, slots)) ?? modelledChoice.matmul(kernel, target, slots),
  };
}

/**
 * Products that are timed as one, for instance "8 x 1024x128 f32 · 128x~512 bf16 by columns": sizes up to the next power of two, "~" where
 * four do not divide them, how operands are stored and which way they are contiguous.
 */
export function matmulClass(kernel: MatmulKernel, slots: readonly PlanSlot[]): string {
  const { batch, m, n, k, a, b } = kernel;
  const typeOf = (slot: Slot): string => slots[slot]?.dtype ?? "f32";
  const storage = (view: MatrixOperand): string =>
    isComputed(view) ? `computed of ${view.slots.map(typeOf).join(" and ")}` : `${typeOf(view.slot)}${orderOf(view)}`;
  const operand = (rows: number, columns: number, view: MatrixOperand): string =>
    `${sizeClass(rows)}x${sizeClass(columns)} ${storage(view)}`;
  const count = sizeOf(batch);
  return `${count === 1 ? "" : `${sizeClass(count)} x `}${operand(m, k, a)} · ${operand(k, n, b)}`;
}

function sizeClass(size: number): string {
  return `${size % 4 === 0 ? "" : "~"}${size <= 0 ? 0 : 2 ** Math.ceil(Math.log2(size))}`;
}

function orderOf({ rowStride, columnStride }: MatrixView): string {
  return columnStride === 1 ? "" : rowStride === 1 ? " by columns" : " strided";
}
