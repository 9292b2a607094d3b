import { checkDType, type DType, encode } from "../tensor/dtype.js";
import { ShapeError, showShape, showValue } from "../tensor/errors.js";
import { checkShape, type Shape, sizeOf } from "../tensor/shape.js";
import type { Device } from "./device.js";
import { rememberIntegers } from "./host-integers.js";
import { Storage } from "./storage.js";
import { Tensor } from "./tensor.js";

/** Numbers in nested arrays, outermost axis first. */
export type NestedNumbers = number | readonly NestedNumbers[] | ArrayLike<number>;

/** Where a new tensor lives and how its elements are stored. */
export interface TensorOptions {
  readonly device: Device;
  /** f32 when absent. */
  readonly dtype?: DType;
  /** Only with flat values; the values' own nesting when absent. */
  readonly shape?: Shape;
}

/** A handle on whatever a storage holds: it sees what is assigned later. */
export function fromStorage(storage: Storage, shape: Shape): Tensor {
  return new Tensor({ op: "buffer", storage, version: storage.version, shape: [...shape], dtype: storage.dtype }, storage.device, storage);
}

/**
 * A tensor with the given values: a number, nested arrays, or a typed array with `shape`.
 * Throws ShapeError when nested arrays are ragged or the count does not fit `shape`. torch.tensor.
 */
export function tensor(values: NestedNumbers | boolean, options: TensorOptions): Tensor {
  const dtype = options.dtype ?? "f32";
  checkDType(dtype, "tensor");
  const flat: number[] = [];
  const source = typeof values === "boolean" ? Number(values) : values;
  const nested = ArrayBuffer.isView(source)
    ? [source.byteLength / (source as Float32Array).BYTES_PER_ELEMENT]
    : flattenInto(flat, source, 0);
  const data: ArrayLike<number> = ArrayBuffer.isView(source) ? (source as unknown as ArrayLike<number>) : flat;
  const shape = options.shape ?? nested;
  checkShape(shape, "tensor");
  if (sizeOf(shape) !== data.length) {
    throw new ShapeError(`tensor: ${data.length} values do not fill the shape ${showShape(shape)} (${sizeOf(shape)} elements).`, [shape]);
  }
  const bytes = encode(data, dtype);
  const made = fromBytes(bytes, dtype, shape, options.device);
  if (dtype === "i32" && made.storage) rememberIntegers(made.storage, new Int32Array(bytes.buffer, bytes.byteOffset, data.length));
  return made;
}

function flattenInto(flat: number[], values: NestedNumbers, depth: number): number[] {
  if (typeof values === "number") {
    flat.push(values);
    return [];
  }
  if (!ArrayBuffer.isView(values) && !Array.isArray(values)) {
    throw new TypeError(`tensor: ${showValue(values)} is no number. Give numbers, in nested arrays or a typed array.`);
  }
  const list = ArrayBuffer.isView(values) ? Array.from(values as ArrayLike<number>) : (values as readonly NestedNumbers[]);
  let inner: number[] | null = null;
  for (const item of list) {
    const shape = flattenInto(flat, item, depth + 1);
    if (inner && (inner.length !== shape.length || inner.some((size, axis) => size !== shape[axis]))) {
      throw new ShapeError(
        `tensor: ragged values at depth ${depth}: ${showShape(inner)} beside ${showShape(shape)}. Make all rows equally long.`,
        [inner, shape],
      );
    }
    inner = shape;
  }
  return [list.length, ...(inner ?? [])];
}

/** A tensor over stored bytes in the dtype's own layout (little endian, row-major). Throws ShapeError when the length does not fit. */
export function fromBytes(bytes: Uint8Array, dtype: DType, shape: Shape, device: Device): Tensor {
  checkDType(dtype, "fromBytes");
  const storage = new Storage(device, dtype, sizeOf(shape));
  if (bytes.byteLength !== storage.bytes) {
    throw new ShapeError(`fromBytes: ${bytes.byteLength} bytes are not ${showShape(shape)} of ${dtype} (${storage.bytes} bytes).`, [shape]);
  }
  device.backend.write(storage.buffer, bytes);
  return fromStorage(storage, shape);
}

/** Every element the same value; takes no memory until it has to. torch.full. */
export function full(shape: Shape, value: number, options: TensorOptions): Tensor {
  checkShape(shape, "full");
  const dtype = options.dtype ?? "f32";
  const filled = new Tensor(
    { op: "const", value, shape: [...shape], dtype: dtype === "f16" || dtype === "bf16" ? "f32" : dtype === "u8" ? "u32" : dtype },
    options.device,
  );
  return filled.cast(dtype);
}

/** torch.zeros. */
export const zeros = (shape: Shape, options: TensorOptions): Tensor => full(shape, 0, options);
/** torch.ones. */
export const ones = (shape: Shape, options: TensorOptions): Tensor => full(shape, 1, options);

/** 0, 1, … count-1 as i32 (or the dtype asked for). torch.arange. */
export function arange(count: number, options: TensorOptions): Tensor {
  checkShape([count], "arange");
  return new Tensor({ op: "iota", axis: 0, shape: [count], dtype: "i32" }, options.device).cast(options.dtype ?? "i32");
}

/** Ones on the diagonal, [n, n]. torch.eye. */
export function eye(n: number, options: TensorOptions): Tensor {
  checkShape([n, n], "eye");
  const at = (axis: number): Tensor => new Tensor({ op: "iota", axis, shape: [n, n], dtype: "i32" }, options.device);
  return at(0)
    .equal(at(1))
    .cast(options.dtype ?? "f32");
}
