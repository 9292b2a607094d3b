import { dynamicSlice as dynamicSliceOp, full, type Shape, dynamicUpdateSlice as updateOp } from "@lowrank/tensor";
import { handle, type NodeOf, type Rule } from "./rule.js";

/** Sizes of a part as `dynamicSlice` takes them: without the batch axis where each row has its own start. */
function sizesOf(part: Shape, { starts }: Pick<NodeOf<"dynamicSlice">, "starts">): Shape {
  return starts.shape.length === 2 ? part.slice(1) : part;
}

/** Zeros with dy where the part was taken. */
export const dynamicSlice: Rule<"dynamicSlice"> = (node, dy, flow) => {
  flow.into(node.x, () => updateOp(full(node.x.shape, 0, { device: flow.device }), dy, handle(node.starts, flow)));
};

/** x gets dy without the part that was replaced; the update gets that part. */
export const dynamicUpdateSlice: Rule<"dynamicUpdateSlice"> = (node, dy, flow) => {
  const starts = handle(node.starts, flow);
  flow.into(node.x, () => updateOp(dy, full(node.update.shape, 0, { device: flow.device }), starts));
  flow.into(node.update, () => dynamicSliceOp(dy, starts, sizesOf(node.update.shape, node)));
};
