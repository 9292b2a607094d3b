import { concat, type GgufType, type Tensor, tensor } from "@lowrank/tensor";
import { type GgufChange, type GgufLink, unitsOf } from "./change.js";

/** Units that are moved one by one; where there are more, numbers are moved by an expression. */
const mostUnits = 1 << 24;

/**
 * The bytes of a link's parameters, one after another, of those of its tensors, all of one type. Null where the changes do more than move whole
 * blocks: then `linkValues` says the numbers.
 */
export function linkBytes({ changes }: Pick<GgufLink, "changes">, tensors: readonly Uint8Array[], type: GgufType): Uint8Array | null {
  const bytesOf = (numbers: number): number => (numbers / type.blockSize) * type.blockBytes;
  let bytes = tensors.length === 1 ? (tensors[0] as Uint8Array) : joined(tensors);
  for (const change of changes) {
    if (change.kind === "rows" && change.width % type.blockSize === 0) {
      const made = new Uint8Array(bytesOf(change.width) * change.model);
      made.set(bytes.subarray(0, made.length));
      bytes = made;
      continue;
    }
    if (change.kind !== "axes" && change.kind !== "units") return null;
    const { width, count } = widthOf(change);
    if (width % type.blockSize !== 0 || count > mostUnits) return null;
    bytes = movedBytes(bytes, unitsOf(change).order, bytesOf(width));
  }
  return bytes;
}

function joined(parts: readonly Uint8Array[]): Uint8Array {
  const made = new Uint8Array(parts.reduce((sum, { byteLength }) => sum + byteLength, 0));
  let at = 0;
  for (const part of parts) {
    made.set(part, at);
    at += part.byteLength;
  }
  return made;
}

/** How long units are, and how many, before their order is made. */
function widthOf(change: Extract<GgufChange, { readonly kind: "axes" | "units" }>): { readonly width: number; readonly count: number } {
  if (change.kind === "units") return { width: change.width, count: change.order.length };
  const { view, axes } = change;
  const moving = axes.findLastIndex((from, to) => from !== to) + 1;
  const size = (sizes: readonly number[]): number => sizes.reduce((product, length) => product * length, 1);
  return { width: size(view.slice(moving)), count: size(view.slice(0, moving)) };
}

function movedBytes(bytes: Uint8Array, order: Int32Array, unit: number): Uint8Array {
  const made = new Uint8Array(bytes.byteLength);
  order.forEach((from, to) => {
    made.set(bytes.subarray(from * unit, (from + 1) * unit), to * unit);
  });
  return made;
}

/** The numbers of a link's parameters, one after another as a flat f32 tensor, of those of its tensors: an expression over them. */
export function linkValues({ changes }: Pick<GgufLink, "changes">, tensors: readonly Tensor[]): Tensor {
  const flat = tensors.map((values) => values.cast("f32").reshape([values.size]));
  return changes.reduce(changed, flat.length === 1 ? (flat[0] as Tensor) : concat(flat, 0));
}

function changed(values: Tensor, change: GgufChange): Tensor {
  switch (change.kind) {
    case "axes":
      return values.reshape(change.view).permute(change.axes).reshape([values.size]);
    case "units": {
      const order = tensor(change.order, { dtype: "i32", device: values.device });
      return values.reshape([change.order.length, change.width]).gather(order).reshape([values.size]);
    }
    case "rows": {
      const kept = Math.min(change.file, change.model) * change.width;
      return values.narrow(0, 0, kept).pad([[0, change.model * change.width - kept]]);
    }
    case "add":
      return values.add(change.value);
    case "scale":
      return values.div(
        concat(
          change.runs.map((run, i) => tensor([change.by[i] ?? 1], { device: values.device }).expand([run])),
          0,
        ),
      );
    case "logOfNegative":
      return values.neg().log();
  }
}
