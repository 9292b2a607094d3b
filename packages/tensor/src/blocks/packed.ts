import { fromStorage } from "../graph/create.js";
import type { Node } from "../graph/node.js";
import { notePacking } from "../graph/packing.js";
import { realize, realizeNow } from "../graph/realize.js";
import type { Storage } from "../graph/storage.js";
import { checkSameDevice, Tensor } from "../graph/tensor.js";
import { untracked } from "../graph/unread.js";
import type { DType } from "../tensor/dtype.js";
import { ShapeError, showShape } from "../tensor/errors.js";

/**
 * A tensor, f32, whose numbers stay an expression over the tensors that hold its blocks: `values(parts)`, which fuses into what reads it. It is
 * used as any other. What it holds is never kept whole: `realize` has nothing to do for it, `data` computes it anew each time, some rows at a
 * time, and a compiled function reads its parts. `dispose` gives the parts back. Gradients end at it. `type` names the blocks, for people.
 * Throws ShapeError where `values` gives other than f32, DeviceError for parts of several devices and inside a compiled function.
 */
export function packedTensor<Part extends string>(
  type: string,
  parts: Readonly<Record<Part, Tensor>>,
  values: (parts: Readonly<Record<Part, Tensor>>) => Tensor,
): Tensor {
  const held = Object.values<Tensor>(parts);
  checkSameDevice("packedTensor", ...held);
  realizeNow(held);
  return untracked(() => {
    const { node: x, shape, dtype, device } = values(parts);
    if (dtype !== "f32")
      throw new ShapeError(`packedTensor: the values of ${type} are ${dtype} ${showShape(shape)}, not f32. Cast them.`, [shape]);
    // Gradients go into no block, and so nobody has to look behind it for them.
    const node: Node = { op: "detach", x, shape, dtype };
    const bytes = [...new Set(held)].reduce((sum, { storage }) => sum + (storage?.bytes ?? 0), 0);
    notePacking(node, { type, parts, bytes });
    return new Tensor(node, device);
  });
}

/**
 * The numbers of a packed tensor in a tensor that holds them, in bf16 (rounded to nearest) or another dtype; nothing of it is whole in f32 on the way
 * unless that is asked for. The packed one stays as it is. Rejects with OutOfMemoryError where there is no room.
 */
export async function unpacked(packed: Tensor, dtype: DType = "bf16"): Promise<Tensor> {
  const { node: x, shape, device } = packed;
  const dense = untracked(() => new Tensor({ op: "detach", x, shape, dtype: packed.dtype }, device).cast(dtype));
  await realize(dense);
  // A handle of its own, to which values may be assigned.
  return fromStorage(dense.storage as Storage, shape); // it was realized
}
