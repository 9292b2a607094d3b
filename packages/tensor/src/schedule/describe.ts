import type { Expr } from "../kernels/expr.js";
import { operandsOf } from "../kernels/expr.js";
import type { Kernel, Plan } from "../kernels/kernel.js";
import { sizeOf } from "../tensor/shape.js";

/** A short name for a kernel, by kind and sizes: `matmul_128x64x512`, `sum_exp_div_32x128`. */
export function nameOf(kernel: Kernel): string {
  switch (kernel.kind) {
    case "loop": {
      const words = new Set<string>();
      const seen = new Set<Expr>();
      const visit = (expr: Expr): void => {
        if (seen.has(expr) || (expr.dtype === "i32" && expr.op === "binary")) return;
        seen.add(expr);
        if (expr.op === "load") return;
        for (const operand of operandsOf(expr)) visit(operand);
        if (expr.op === "unary" || expr.op === "binary") words.add(expr.kind);
        else if (expr.op === "select" || expr.op === "random" || expr.op === "cast") words.add(expr.op);
      };
      for (const { combine, value } of kernel.reductions) {
        visit(value);
        words.add(combine === "sum" ? "Σ" : "max");
      }
      for (const { value } of kernel.stores) visit(value);
      const sizes = [sizeOf(kernel.outer), kernel.inner].join("x");
      return `${[...words].slice(0, 6).join("_") || "copy"}_${sizes}`;
    }
    case "matmul":
      return `matmul_${[...kernel.batch, `${kernel.m}x${kernel.k}x${kernel.n}`].join("_")}`;
    case "scatterAdd":
      return `scatterAdd_${kernel.count}x${kernel.width}_into_${kernel.rows}`;
    case "copy":
      return `copy_${kernel.bytes}B`;
    case "composite":
      return `${kernel.name}_${(kernel.inputShapes[0] ?? []).join("x")}`;
    case "group": {
      const names = new Set(kernel.members.map(nameOf));
      return `${kernel.members.length}(${[...names].slice(0, 3).join(" ")}${names.size > 3 ? " …" : ""})`;
    }
  }
}

/** The schedule as text, a kernel a line, for `LOWRANK_DEBUG=2`. */
export function describePlan(plan: Plan): string {
  const lines = plan.kernels.map((kernel, i) => `  ${String(i).padStart(4)} ${kernel.kind.padEnd(10)} ${plan.names[i] ?? ""}`);
  return [`plan: ${plan.kernels.length} kernels, ${plan.bindingCount} bound buffers, arena ${plan.arenaBytes} bytes`, ...lines].join("\n");
}
