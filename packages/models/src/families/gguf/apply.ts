import { concat, type GgufType, type Tensor, tensor } from "@lowrank/tensor";
import { type GgufChange, type GgufLink, unitsOf } from "./change.js";

/** Units that are moved one by one; where there are more, numbers are moved by an expression. */
const mostUnits = 1 << 24;

/** Whether changes do nothing but move and cut whole blocks of a type. */
export function movesWholeBlocks({ changes }: Pick<GgufLink, "changes">, { blockSize }: Pick<GgufType, "blockSize">): boolean {
  return changes.every((change) => {
    if (change.kind === "rows") return change.width % blockSize === 0;
    if (change.kind !== "axes" && change.kind !== "units") return false;
    const { width, count } = widthOf(change);
    const from = change.kind === "axes" ? (change.from ?? 0) : 0;
    return width % blockSize === 0 && from % blockSize === 0 && count <= mostUnits;
  });
}

/**
 * The bytes of a link's parameters, one after another, of those of its tensors, all of one type, where the changes move whole blocks. The tensors'
 * bytes, one after another as well, are the function's: it moves them where they are.
 */
export function linkBytes({ changes }: Pick<GgufLink, "changes">, tensors: Uint8Array, type: GgufType): Uint8Array {
  const bytesOf = (numbers: number): number => (numbers / type.blockSize) * type.blockBytes;
  let bytes = tensors;
  for (const change of changes) {
    if (change.kind === "rows") {
      const made = new Uint8Array(bytesOf(change.width) * change.model);
      made.set(bytes.subarray(0, made.length));
      bytes = made;
    } else if (change.kind === "axes" || change.kind === "units") {
      const from = change.kind === "axes" ? (change.from ?? 0) : 0;
      moveBytes(bytes, unitsOf(change).order, bytesOf(widthOf(change).width), bytesOf(from));
    } else throw new TypeError(`A change of the kind "${change.kind}" moves no blocks.`);
  }
  return bytes;
}

/** How long units are, and how many, before their order is made. */
function widthOf(change: Extract<GgufChange, { readonly kind: "axes" | "units" }>): { readonly width: number; readonly count: number } {
  if (change.kind === "units") return { width: change.width, count: change.order.length };
  const { view, axes } = change;
  const moving = axes.findLastIndex((from, to) => from !== to) + 1;
  const size = (sizes: readonly number[]): number => sizes.reduce((product, length) => product * length, 1);
  return { width: size(view.slice(moving)), count: size(view.slice(0, moving)) };
}

/** Puts unit `order[i]` where unit i is, `unit` bytes each from byte `start` on, one cycle of the permutation after another. */
function moveBytes(bytes: Uint8Array, order: Int32Array, unit: number, start: number): void {
  const isDone = new Uint8Array(order.length);
  const held = new Uint8Array(unit);
  const place = (index: number): number => start + index * unit;
  for (let first = 0; first < order.length; first++) {
    if (isDone[first] || order[first] === first) continue;
    held.set(bytes.subarray(place(first), place(first + 1)));
    for (let to = first; !isDone[to]; ) {
      const from = order[to] ?? first;
      isDone[to] = 1;
      if (from === first) bytes.set(held, place(to));
      else bytes.copyWithin(place(to), place(from), place(from + 1));
      to = from;
    }
  }
}

/** The numbers of a link's parameters, one after another as a flat f32 tensor, of those of its tensors: an expression over them. */
export function linkValues({ changes }: Pick<GgufLink, "changes">, tensors: readonly Tensor[]): Tensor {
  const flat = tensors.map((values) => values.cast("f32").reshape([values.size]));
  return changes.reduce(changed, flat.length === 1 ? (flat[0] as Tensor) : concat(flat, 0));
}

function changed(values: Tensor, change: GgufChange): Tensor {
  switch (change.kind) {
    case "axes":
      return within(change, values, (part) => part.reshape(change.view).permute(change.axes).reshape([part.size]));
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

/** The numbers with a part of them changed, where the change is of one. */
function within({ from, view }: Extract<GgufChange, { readonly kind: "axes" }>, values: Tensor, made: (part: Tensor) => Tensor): Tensor {
  if (from === undefined) return made(values);
  const end = from + view.reduce((product, length) => product * length, 1);
  const parts = [values.narrow(0, 0, from), made(values.narrow(0, from, end - from)), values.narrow(0, end, values.size - end)];
  return concat(
    parts.filter(({ size }) => size > 0),
    0,
  );
}
