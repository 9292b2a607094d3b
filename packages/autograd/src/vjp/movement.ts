import { full, permute, type Shape, sizeOf, sum, type Tensor } from "@lowrank/tensor";
import type { Rule } from "./rule.js";

export const reshape: Rule<"reshape"> = (node, dy, flow) => flow.into(node.x, () => dy.reshape(node.x.shape));

export const permuteRule: Rule<"permute"> = (node, dy, flow) => {
  flow.into(node.x, () => {
    const inverse = node.order.map((_, axis) => node.order.indexOf(axis));
    return permute(dy, inverse);
  });
};

/** A repeated element gets the sum of its copies' gradients. */
export const expand: Rule<"expand"> = (node, dy, flow) => {
  flow.into(node.x, () => {
    const repeated = node.shape.flatMap((size, axis) => (size !== node.x.shape[axis] ? [axis] : []));
    return sum(dy, repeated, { keepDims: true });
  });
};

/** dy along one axis of `size` zeros: dy[i] at start + i · step. */
function spread(dy: Tensor, axis: number, start: number, step: number, size: number): Tensor {
  const length = dy.shape[axis] ?? 0;
  const at = (shape: Shape, value: number): number[] => shape.map((old, i) => (i === axis ? value : old));
  if (length === 0) return full(at(dy.shape, size), 0, { device: dy.device });
  if (step < 0) return spread(dy.flip(axis), axis, start + (length - 1) * step, -step, size);
  let spaced = dy;
  if (step > 1 && length > 1) {
    // Zeros between the elements: [n] → [n, 1] → [n, step] → [n · step], and the last gap cut off.
    const column = dy.reshape([...dy.shape.slice(0, axis + 1), 1, ...dy.shape.slice(axis + 1)]);
    const widened = column.pad(column.shape.map((_, i) => [0, i === axis + 1 ? step - 1 : 0] as const));
    spaced = widened.reshape(at(dy.shape, length * step)).narrow(axis, 0, (length - 1) * step + 1);
  }
  const covered = spaced.shape[axis] ?? 0;
  return spaced.pad(spaced.shape.map((_, i) => (i === axis ? ([start, size - start - covered] as const) : ([0, 0] as const))));
}

export const slice: Rule<"slice"> = (node, dy, flow) => {
  flow.into(node.x, () => {
    if (sizeOf(node.shape) === 0) return full(node.x.shape, 0, { device: flow.device });
    let dx = dy;
    for (const [axis, size] of node.x.shape.entries()) {
      const [start = 0, step = 1] = [node.starts[axis], node.steps[axis]];
      if (start !== 0 || step !== 1 || node.shape[axis] !== size) dx = spread(dx, axis, start, step, size);
    }
    return dx;
  });
};

export const pad: Rule<"pad"> = (node, dy, flow) => {
  flow.into(node.x, () =>
    dy.slice(
      ...node.x.shape.map((size, axis) => {
        const before = node.before[axis] ?? 0;
        return [before, before + size] as const;
      }),
    ),
  );
};
