import { type Shape, ShapeError, showShape, sizeOf } from "@lowrank/tensor";
import type { StoredPiece } from "../../parameters.js";

/**
 * What lies between the numbers of a GGUF file and a model's, one after another, read from the file to the model. Each can be undone.
 * - `axes`: the numbers as `view`, its axes in this order: `torch.permute(view, axes)`. With `from`, those behind so many alone.
 * - `units`: runs of `width` numbers; the model's i-th is the file's `order[i]`-th. A permutation.
 * - `rows`: the file has other rows at the end than the model: cut off, or zeros in their place.
 * - `add`: plus `value`.
 * - `scale`: the file's numbers are the model's times `by`, of which each counts for as many numbers as `runs` says.
 * - `logOfNegative`: log(−x), as Mamba's A is exp(A_log), negative in the file.
 */
export type GgufChange =
  | { readonly kind: "axes"; readonly view: Shape; readonly axes: readonly number[]; readonly from?: number }
  | { readonly kind: "units"; readonly width: number; readonly order: Int32Array }
  | { readonly kind: "rows"; readonly width: number; readonly file: number; readonly model: number }
  | { readonly kind: "add"; readonly value: number }
  | { readonly kind: "scale"; readonly by: readonly number[]; readonly runs: readonly number[] }
  | { readonly kind: "logOfNegative" };

/** Parameters of a model, and the tensors of a GGUF file that hold the same numbers: both one after another. */
export interface GgufLink {
  readonly parameters: readonly StoredPiece[];
  readonly tensors: readonly StoredPiece[];
  /** From the file to the model, the first first. None for most. */
  readonly changes: readonly GgufChange[];
}

/** The model's numbers of a file's, those of all tensors of a link one after another. */
export function toModel({ changes }: Pick<GgufLink, "changes">, values: Float32Array): Float32Array {
  return changes.reduce(intoModel, values);
}

function intoModel(numbers: Float32Array, change: GgufChange): Float32Array {
  switch (change.kind) {
    case "axes":
    case "units":
      return within(change, numbers, (part) => moved(unitsOf(change), part));
    case "rows":
      return resized(numbers, change.model * change.width);
    case "add":
      return numbers.map((value) => value + change.value);
    case "scale":
      return scaled(change, numbers, (value, by) => value / by);
    case "logOfNegative":
      return numbers.map((value) => Math.log(-value));
  }
}

/** The file's numbers of a model's, those of all parameters of a link one after another. */
export function toFile({ changes }: Pick<GgufLink, "changes">, values: Float32Array): Float32Array {
  return changes.reduceRight(intoFile, values);
}

function intoFile(numbers: Float32Array, change: GgufChange): Float32Array {
  switch (change.kind) {
    case "axes":
    case "units":
      return within(change, numbers, (part) => moved(inverse(unitsOf(change)), part));
    case "rows":
      return resized(numbers, change.file * change.width);
    case "add":
      return numbers.map((value) => value - change.value);
    case "scale":
      return scaled(change, numbers, (value, by) => value * by);
    case "logOfNegative":
      return numbers.map((value) => -Math.exp(value));
  }
}

/** Runs of `width` numbers that keep together; the i-th comes from place `order[i]`. */
export interface Units {
  readonly width: number;
  readonly order: Int32Array;
}

/** A change that only moves numbers, as units: bytes of blocks can be moved so where a unit is whole blocks. */
export function unitsOf(change: Extract<GgufChange, { readonly kind: "axes" | "units" }>): Units {
  if (change.kind === "units") return change;
  const { view, axes } = change;
  let moving = axes.length;
  while (moving > 0 && axes[moving - 1] === moving - 1) moving--;
  return { width: sizeOf(view.slice(moving)), order: permuted(view.slice(0, moving), axes.slice(0, moving)) };
}

/** What moves units back. */
export function inverse({ width, order }: Units): Units {
  const back = new Int32Array(order.length);
  order.forEach((from, to) => {
    back[from] = to;
  });
  return { width, order: back };
}

/** Places of the elements of `view` in the order of its axes. */
function permuted(view: Shape, axes: readonly number[]): Int32Array {
  const strides = view.map((_, axis) => sizeOf(view.slice(axis + 1)));
  const [sizes, steps] = [axes.map((axis) => view[axis] ?? 1), axes.map((axis) => strides[axis] ?? 1)];
  const order = new Int32Array(sizeOf(view));
  const index = sizes.map(() => 0);
  for (let i = 0, at = 0; i < order.length; i++) {
    order[i] = at;
    for (let axis = sizes.length - 1; axis >= 0; axis--) {
      const [size = 1, step = 1, now = 0] = [sizes[axis], steps[axis], index[axis]];
      at += step;
      if (now + 1 < size) {
        index[axis] = now + 1;
        break;
      }
      at -= size * step;
      index[axis] = 0;
    }
  }
  return order;
}

/** A change of a part of the numbers, where it is of one. */
function within(change: GgufChange, numbers: Float32Array, made: (part: Float32Array) => Float32Array): Float32Array {
  if (change.kind !== "axes" || change.from === undefined) return made(numbers);
  const whole = numbers.slice();
  const end = change.from + sizeOf(change.view);
  whole.set(made(numbers.subarray(change.from, end)), change.from);
  return whole;
}

function moved({ width, order }: Units, values: Float32Array): Float32Array {
  if (width * order.length !== values.length)
    throw new ShapeError(`A change of ${width * order.length} numbers does not fit ${values.length}.`, [[values.length]]);
  const made = new Float32Array(values.length);
  order.forEach((from, to) => {
    made.set(values.subarray(from * width, (from + 1) * width), to * width);
  });
  return made;
}

/** Cut at the end, or with zeros there. */
function resized(values: Float32Array, length: number): Float32Array {
  const made = new Float32Array(length);
  made.set(values.subarray(0, length));
  return made;
}

function scaled(
  { by, runs }: Extract<GgufChange, { readonly kind: "scale" }>,
  values: Float32Array,
  made: (value: number, by: number) => number,
): Float32Array {
  const changed = new Float32Array(values.length);
  let at = 0;
  runs.forEach((run, i) => {
    for (const end = at + run; at < end; at++) changed[at] = made(values[at] ?? 0, by[i] ?? 1);
  });
  return changed;
}

/** Throws ShapeError unless both sides of a link have as many numbers, but for rows that are cut or added. */
export function checkLink({ parameters, tensors, changes }: GgufLink): void {
  const count = (pieces: readonly StoredPiece[]): number => pieces.reduce((sum, { shape }) => sum + sizeOf(shape), 0);
  const rows = changes.find((change) => change.kind === "rows");
  const difference = rows?.kind === "rows" ? (rows.file - rows.model) * rows.width : 0;
  if (count(tensors) - count(parameters) === difference) return;
  const shown = (pieces: readonly StoredPiece[]): string => pieces.map(({ name, shape }) => `${name} ${showShape(shape)}`).join(", ");
  throw new ShapeError(
    `The tensors ${shown(tensors)} do not have as many numbers as ${shown(parameters)}.`,
    [...tensors, ...parameters].map(({ shape }) => shape),
  );
}
