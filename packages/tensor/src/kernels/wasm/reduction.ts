import { reduceKinds } from "../../elementwise/reduce.js";
import type { Reduction } from "../kernel.js";
import { type Code, f32x4, i32x4, op } from "./assembler.js";

/** Combines neighbours pairwise until one is left. */
export function tree(parts: readonly Code[], join: (a: Code, b: Code) => Code): Code {
  if (parts.length === 1) return parts[0] ?? [];
  const half = Math.ceil(parts.length / 2);
  return join(tree(parts.slice(0, half), join), tree(parts.slice(half), join));
}

/** The vector that a reduction starts from. */
export function identity(reduction: Reduction): Code {
  const { dtype } = reduction.value;
  const value = reduceKinds[reduction.combine].start[dtype];
  return dtype === "f32" ? f32x4(value) : i32x4(value);
}

/** What joins two results, lane by lane. */
export function combine(reduction: Reduction, a: Code, b: Code): Code {
  const { dtype } = reduction.value;
  const { combine } = reduceKinds[reduction.combine];
  if (dtype === "f32") return op(`f32x4.${combine}`, a, b);
  if (combine === "add") return op("i32x4.add", a, b);
  return op(dtype === "i32" ? `i32x4.${combine}_s` : `i32x4.${combine}_u`, a, b);
}

/** What joins two results, as scalars. */
export function combineScalar(reduction: Reduction, a: Code, b: Code): Code {
  const { dtype } = reduction.value;
  const { combine } = reduceKinds[reduction.combine];
  if (dtype === "f32") return op(`f32.${combine}`, a, b);
  if (combine === "add") return op("i32.add", a, b);
  const order = combine === "max" ? "gt" : "lt";
  return [a, b, op(dtype === "i32" ? `i32.${order}_s` : `i32.${order}_u`, a, b), op("select")];
}
