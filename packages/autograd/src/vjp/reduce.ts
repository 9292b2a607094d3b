import { type ReduceKind, sum, type Tensor } from "@lowrank/tensor";
import { handle, type NodeOf, type Rule } from "./rule.js";

type ReduceRule = (x: () => Tensor, y: () => Tensor, dy: Tensor, node: NodeOf<"reduce">) => Tensor;

/** A maximum or minimum passes dy to the elements that are it, in equal shares, as torch.amax. */
const extremum: ReduceRule = (x, y, dy, { axes }) => {
  const isExtremum = x().equal(y());
  const count = sum(isExtremum.cast("f32"), axes, { keepDims: true });
  return isExtremum.where(dy.div(count), 0);
};

const rules: Readonly<Record<ReduceKind, ReduceRule>> = {
  sum: (_x, _y, dy, node) => dy.expand(node.x.shape),
  max: extremum,
  min: extremum,
};

/** dL/dx of a reduction y, by its kind. */
export const reduce: Rule<"reduce"> = (node, dy, flow) => {
  const [x, y] = [(): Tensor => handle(node.x, flow), (): Tensor => handle(node, flow)];
  flow.into(node.x, () => rules[node.kind](x, y, dy, node));
};
