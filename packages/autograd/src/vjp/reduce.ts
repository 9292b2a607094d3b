import { sum } from "@lowrank/tensor";
import { handle, type Rule } from "./rule.js";

/** A sum passes dy to every element; a maximum to the largest ones, in equal shares, as torch.amax. */
export const reduce: Rule<"reduce"> = (node, dy, flow) => {
  flow.into(node.x, () => {
    if (node.kind === "sum") return dy.expand(node.x.shape);
    const isLargest = handle(node.x, flow).equal(handle(node, flow));
    const count = sum(isLargest.cast("f32"), node.axes, { keepDims: true });
    return isLargest.where(dy.div(count), 0);
  });
};
