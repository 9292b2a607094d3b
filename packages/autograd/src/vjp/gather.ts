import { permute, scatterAdd as scatterAddOp, sizeOf } from "@lowrank/tensor";
import { handle, type Rule } from "./rule.js";

/** Rows that were taken several times get the sum of their gradients. */
export const gather: Rule<"gather"> = (node, dy, flow) => {
  flow.into(node.x, () => {
    const { axis, x } = node;
    const rows = x.shape[axis] ?? 1;
    const indices = handle(node.indices, flow);
    const others = [...x.shape.slice(0, axis), ...x.shape.slice(axis + 1)];
    // dy [before, indices, after] → [indices, before, after] → [n, width]; the result goes the way back with one axis for the indices.
    const axes = dy.shape.map((_, i) => i);
    const taken = axes.slice(axis, axis + indices.rank);
    const front = permute(dy, [...taken, ...axes.slice(0, axis), ...axes.slice(axis + indices.rank)]);
    const updates = front.reshape([indices.size, sizeOf(others)]);
    // gather clamps its indices.
    const dx = scatterAddOp(indices.reshape([indices.size]).clamp(0, rows - 1), updates, rows).reshape([rows, ...others]);
    const back = x.shape.map((_, i) => (i === axis ? 0 : i < axis ? i + 1 : i));
    return permute(dx, back);
  });
};

/** Each update gets its row's gradient; those that were skipped get 0. */
export const scatterAdd: Rule<"scatterAdd"> = (node, dy, flow) => {
  flow.into(node.updates, () => {
    const indices = handle(node.indices, flow);
    const rows = node.shape[0] ?? 0;
    const isInside = indices.greaterEqual(0).and(indices.less(rows)).reshape([indices.size, 1]);
    return isInside.where(dy.gather(indices, 0), 0);
  });
};
