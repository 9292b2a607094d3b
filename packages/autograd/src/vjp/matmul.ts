import { handle, type Rule } from "./rule.js";

/** Y = A B: dA = dY Bᵀ and dB = Aᵀ dY. */
export const matmul: Rule<"matmul"> = (node, dy, flow) => {
  flow.into(node.a, () => dy.matmul(handle(node.b, flow).t()));
  flow.into(node.b, () => handle(node.a, flow).t().matmul(dy));
};
