import { binaryOf } from "../elementwise/binary.js";
import { reduceKinds } from "../elementwise/reduce.js";
import { unaryOf, wrapped } from "../elementwise/unary.js";
import { computeDType, type DType, fromBf16Bits, fromF16Bits, toBf16Bits, toF16Bits } from "../tensor/dtype.js";
import { type Shape, sizeOf, stridesOf } from "../tensor/shape.js";
import type { Node } from "./node.js";
import { philox } from "./philox.js";
import type { Storage } from "./storage.js";

/** Values of one node: f32 as float64 without rounding, integers exactly, bool as 0 and 1. */
export type Values = Float64Array;

/** Where a definition finds the values of its inputs and of storages. */
export interface Given {
  readonly get: (node: Node) => Values;
  readonly read: (storage: Storage) => ArrayLike<number>;
}

type NodeOf<Op extends Node["op"]> = Node & { readonly op: Op };
type Primitive = Exclude<Node["op"], "composite" | "output">;

/** What each primitive is, in float64. One that is left out does not compile. */
const definitions: { readonly [Op in Primitive]: (node: NodeOf<Op>, given: Given) => Values } = {
  const: (node) => new Float64Array(sizeOf(node.shape)).fill(wrapped(node.value, computeDType(node.dtype))),
  argument() {
    throw new Error("interpret: an argument has no value outside its composite.");
  },
  iota: (node) => fill(node.shape, (at) => at[node.axis] ?? 0),
  buffer: (node, { read }) => Float64Array.from(read(node.storage)),
  random(node, { get }) {
    const [k0 = 0, k1 = 0] = get(node.key);
    const [stream = 0] = get(node.stream);
    return fill(node.shape, (_, i) => philox([i >>> 2, 0, stream, 0], [k0, k1])[i & 3] ?? 0);
  },
  unary(node, { get }) {
    const dtype = computeDType(node.dtype);
    return get(node.x).map((x) => unaryOf(node.kind, x, dtype));
  },
  binary(node, { get }) {
    const [b, dtype] = [get(node.b), computeDType(node.a.dtype)];
    return get(node.a).map((a, i) => binaryOf(node.kind, a, b[i] ?? 0, dtype));
  },
  select(node, { get }) {
    const [a, b] = [get(node.a), get(node.b)];
    return get(node.condition).map((condition, i) => (condition ? a[i] : b[i]) ?? 0);
  },
  cast: (node, { get }) => get(node.x).map((x) => convert(x, node.x.dtype, node.dtype)),
  detach: (node, { get }) => get(node.x),
  reshape: (node, { get }) => get(node.x),
  reduce,
  permute(node, { get }) {
    const [x, from] = [get(node.x), stridesOf(node.x.shape)];
    return fill(node.shape, (at) => x[at.reduce((sum, position, axis) => sum + position * (from[node.order[axis] ?? 0] ?? 0), 0)] ?? 0);
  },
  expand: (node, { get }) => moved(node, get(node.x), (position, axis) => (node.x.shape[axis] === 1 ? 0 : position)),
  slice: (node, { get }) => moved(node, get(node.x), (position, axis) => (node.starts[axis] ?? 0) + position * (node.steps[axis] ?? 1)),
  pad(node, { get }) {
    const x = get(node.x);
    const value = wrapped(node.value, computeDType(node.dtype));
    return fill(node.shape, (at) => {
      const inside = at.map((position, axis) => position - (node.before[axis] ?? 0));
      const isInside = inside.every((position, axis) => position >= 0 && position < (node.x.shape[axis] ?? 0));
      return isInside ? (x[linearOf(inside, node.x.shape)] ?? 0) : value;
    });
  },
  gather(node, { get }) {
    const [x, indices] = [get(node.x), get(node.indices)];
    const rank = node.indices.shape.length;
    const size = node.x.shape[node.axis] ?? 1;
    return fill(node.shape, (at) => {
      const index = indices[linearOf(at.slice(node.axis, node.axis + rank), node.indices.shape)] ?? 0;
      const clamped = Math.min(Math.max(index, 0), size - 1);
      return x[linearOf([...at.slice(0, node.axis), clamped, ...at.slice(node.axis + rank)], node.x.shape)] ?? 0;
    });
  },
  dynamicSlice(node, { get }) {
    const [x, starts] = [get(node.x), get(node.starts)];
    return fill(node.shape, (at) => x[linearOf(fromStarts(node, node.shape, starts, at), node.x.shape)] ?? 0);
  },
  dynamicUpdateSlice(node, { get }) {
    const [update, starts] = [get(node.update), get(node.starts)];
    const result = Float64Array.from(get(node.x));
    const { shape } = node.update;
    const partStrides = stridesOf(shape);
    for (const [linear, value] of update.entries()) {
      const at = shape.map((size, axis) => Math.floor(linear / (partStrides[axis] ?? 1)) % size);
      result[linearOf(fromStarts(node, shape, starts, at), node.shape)] = value;
    }
    return result;
  },
  scatterAdd(node, { get }) {
    const [indices, updates] = [get(node.indices), get(node.updates)];
    const [rows = 0, width = 0] = node.shape;
    const result = new Float64Array(rows * width);
    for (const [n, index] of indices.entries()) {
      if (index < 0 || index >= rows) continue;
      for (let i = 0; i < width; i++) result[index * width + i] = (result[index * width + i] ?? 0) + (updates[n * width + i] ?? 0);
    }
    return result;
  },
  matmul(node, { get }) {
    const [a, b] = [get(node.a), get(node.b)];
    const [m = 1, k = 1] = node.a.shape.slice(-2);
    const n = node.b.shape[node.b.shape.length - 1] ?? 1;
    return fill(node.shape, (_, linear) => {
      const batch = Math.floor(linear / (m * n));
      const row = Math.floor(linear / n) % m;
      let sum = 0;
      for (let i = 0; i < k; i++) sum += (a[(batch * m + row) * k + i] ?? 0) * (b[(batch * k + i) * n + (linear % n)] ?? 0);
      return sum;
    });
  },
};

/** The values of a primitive from those of its inputs. */
export function evaluate<Op extends Primitive>(node: NodeOf<Op>, given: Given): Values {
  // The table is keyed by the operation, which TypeScript does not follow through the union.
  return (definitions[node.op] as (node: NodeOf<Op>, given: Given) => Values)(node, given);
}

function reduce(node: NodeOf<"reduce">, { get }: Given): Values {
  const x = get(node.x);
  const dtype = computeDType(node.dtype);
  const { combine, start } = reduceKinds[node.kind];
  const result = new Float64Array(sizeOf(node.shape)).fill(start[dtype]);
  const [strides, from] = [stridesOf(node.shape), stridesOf(node.x.shape)];
  for (const [linear, value] of x.entries()) {
    let rest = linear;
    let to = 0;
    for (const [axis, stride] of from.entries()) {
      const position = Math.floor(rest / stride);
      rest -= position * stride;
      if (!node.axes.includes(axis)) to += position * (strides[axis] ?? 0);
    }
    result[to] = binaryOf(combine, result[to] ?? 0, value, dtype);
  }
  return result;
}

/** A result from a function of the coordinates. */
function fill(shape: Shape, value: (at: readonly number[], linear: number) => number): Values {
  const result = new Float64Array(sizeOf(shape));
  const at = shape.map(() => 0);
  for (let linear = 0; linear < result.length; linear++) {
    result[linear] = value(at, linear);
    for (let axis = at.length - 1; axis >= 0; axis--) {
      const next = (at[axis] ?? 0) + 1;
      at[axis] = next === shape[axis] ? 0 : next;
      if (at[axis] !== 0) break;
    }
  }
  return result;
}

/** A view whose coordinates move axis by axis. */
function moved(node: NodeOf<"expand" | "slice">, x: Values, to: (position: number, axis: number) => number): Values {
  return fill(node.shape, (at) => x[linearOf(at.map(to), node.x.shape)] ?? 0);
}

function linearOf(at: readonly number[], shape: Shape): number {
  return stridesOf(shape).reduce((sum, stride, axis) => sum + stride * (at[axis] ?? 0), 0);
}

/** Coordinates within a part → coordinates in the tensor x that it is a part of. */
function fromStarts(
  { x, starts }: { readonly x: Node; readonly starts: Node },
  part: readonly number[],
  values: Values,
  at: readonly number[],
): number[] {
  const batched = starts.shape.length - 1;
  const row = batched * (at[0] ?? 0) * (starts.shape[1] ?? 0);
  return at.map((position, axis) => {
    if (axis < batched) return position;
    const room = (x.shape[axis] ?? 0) - (part[axis] ?? 0);
    return position + Math.min(Math.max(values[row + axis - batched] ?? 0, 0), room);
  });
}

/** Rounding to narrow storage is part of the definition; f32 stays unrounded float64. */
function convert(value: number, from: DType, to: DType): number {
  switch (to) {
    case "f32":
      return value;
    case "f16":
      return fromF16Bits(toF16Bits(value));
    case "bf16":
      return fromBf16Bits(toBf16Bits(value));
    case "bool":
      return value === 0 ? 0 : 1;
    case "i32":
      return from === "u32" || from === "i32" ? value | 0 : Math.min(Math.max(Math.trunc(value) || 0, -(2 ** 31)), 2 ** 31 - 1);
    case "u32":
      return from === "i32" || from === "u32" ? value >>> 0 : Math.min(Math.max(Math.trunc(value) || 0, 0), 2 ** 32 - 1);
    case "u8":
      return (computeDType(from) === "f32" ? Math.min(Math.max(Math.trunc(value) || 0, 0), 2 ** 32 - 1) : value) & 255;
  }
}
