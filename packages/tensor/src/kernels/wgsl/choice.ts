import type { CompositeKernel, MatmulKernel } from "../kernel.js";
import { type AttentionVariant, chooseAttentionVariant } from "./attention.js";
import { chooseMatmulVariant, type MatmulVariant } from "./matmul.js";
import type { Target } from "./program.js";

/** Says which variant of a template a kernel is printed in. */
export interface VariantChoice {
  matmul(kernel: MatmulKernel, target: Target): MatmulVariant;
  /** Null where the composite is better left to the kernels that it is made of. */
  attention(kernel: CompositeKernel, target: Target): AttentionVariant | null;
}

/** By the shape and what is known of the adapter. */
export const modelledChoice: VariantChoice = { matmul: chooseMatmulVariant, attention: chooseAttentionVariant };
