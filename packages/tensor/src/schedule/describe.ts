import type { Expr } from "../kernels/expr.js";
import { operandsOf } from "../kernels/expr.js";
import type { Plan, Reduction, SingleKernel, Store } from "../kernels/kernel.js";
import { productsOf } from "../kernels/products.js";
import type { Bound, Template } from "../kernels/template.js";
import { sizeOf } from "../tensor/shape.js";

/** The names of kernels by what equal ones have in common. */
const names = new WeakMap<Template, string>();

/** A short name for a kernel, or for a group of several, by kind and sizes: `matmul_128x64x512`, `sum_exp_div_32x128`. */
export function nameOf(members: readonly Bound[]): string {
  const [only] = members;
  if (only && members.length === 1) return nameOfTemplate(only.template);
  const distinct = new Set(members.map(({ template }) => nameOfTemplate(template)));
  return `${members.length}(${[...distinct].slice(0, 3).join(" ")}${distinct.size > 3 ? " …" : ""})`;
}

function nameOfTemplate(template: Template): string {
  let name = names.get(template);
  if (name === undefined) names.set(template, (name = made(template.kernel)));
  return name;
}

function made(kernel: SingleKernel): string {
  switch (kernel.kind) {
    case "loop": {
      const sizes = [sizeOf(kernel.outer), kernel.inner].join("x");
      return `${wordsOf(kernel.reductions, kernel.stores).join("_") || "copy"}_${sizes}`;
    }
    case "matmul":
      return [
        "matmul",
        ...kernel.batch,
        `${kernel.m}x${productsOf(kernel)
          .map(({ k }) => k)
          .join("+")}x${kernel.n}`,
        ...(kernel.epilogue ? wordsOf([], kernel.epilogue.stores) : []),
      ].join("_");
    case "scatterAdd":
      return `scatterAdd_${kernel.count}x${kernel.width}_into_${kernel.rows}`;
    case "copy":
      return `copy_${kernel.bytes}B`;
    case "composite":
      return `${kernel.name}_${(kernel.inputShapes[0] ?? []).join("x")}`;
  }
}

/** What a kernel computes with, in order; the first few. */
function wordsOf(reductions: readonly Reduction[], stores: readonly Store[]): string[] {
  const words = new Set<string>();
  const seen = new Set<Expr>();
  const visit = (expr: Expr): void => {
    if (seen.has(expr) || expr.op === "index") return;
    seen.add(expr);
    if (expr.op === "load") return;
    for (const operand of operandsOf(expr)) visit(operand);
    if (expr.op === "unary" || expr.op === "binary") words.add(expr.kind);
    else if (expr.op === "select" || expr.op === "random" || expr.op === "cast") words.add(expr.op);
  };
  for (const { combine, value } of reductions) {
    visit(value);
    words.add(combine === "sum" ? "Σ" : combine);
  }
  for (const { value } of stores) visit(value);
  return [...words].slice(0, 6);
}

/** The schedule as text, a kernel a line, for `LOWRANK_DEBUG=2`. */
export function describePlan(plan: Plan): string {
  const lines = plan.kernels.map((kernel, i) => `  ${String(i).padStart(4)} ${kernel.kind.padEnd(10)} ${plan.names[i] ?? ""}`);
  return [`plan: ${plan.kernels.length} kernels, ${plan.bindingCount} bound buffers, arena ${plan.arenaBytes} bytes`, ...lines].join("\n");
}
