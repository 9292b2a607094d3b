import type { Device } from "../backends/device.js";
import { computeDType, type DType, fromBf16Bits, fromF16Bits, toBf16Bits, toF16Bits } from "../tensor/dtype.js";
import { sizeOf, stridesOf } from "../tensor/shape.js";
import type { Storage } from "../tensor/storage.js";
import { Tensor } from "../tensor/tensor.js";
import { compositeDefinition } from "./composites.js";
import type { BinaryKind, Node, UnaryKind } from "./node.js";
import { topological } from "./node.js";
import { philox } from "./philox.js";

/** Values of one node: f32 as float64 without rounding, integers exactly, bool as 0 and 1. */
type Values = Float64Array;

/**
 * Evaluates graphs node by node in float64, straight from each primitive's definition: no fusion, no views, no reuse of memory.
 * What every backend and every scheduling decision is tested against.
 */
export function interpret(roots: readonly Node[], device: Device, read: (storage: Storage) => ArrayLike<number>): Values[] {
  const values = new Map<Node, Values>();
  const outputs = new Map<Node, readonly Values[]>();
  const get = (node: Node): Values => {
    const found = values.get(node);
    if (!found) throw new Error(`interpret: ${node.op} was not evaluated.`);
    return found;
  };
  for (const node of topological(roots)) {
    if (node.op === "composite") {
      const storages = new Map<Node, Values>();
      const inputs = node.inputs.map((input) => {
        const stand: Node = { op: "const", value: 0, shape: input.shape, dtype: input.dtype };
        storages.set(stand, get(input));
        return stand;
      });
      const results = compositeDefinition(node.name).decompose(
        inputs.map((input) => new Tensor(input, device)),
        node.attributes,
      );
      outputs.set(
        node,
        evaluateAll(
          results.map((result) => result.node),
          storages,
          device,
          read,
        ),
      );
      values.set(node, outputs.get(node)?.[0] ?? new Float64Array());
    } else if (node.op === "output") {
      values.set(node, outputs.get(node.of)?.[node.index] ?? new Float64Array());
    } else values.set(node, evaluate(node, get, read));
  }
  return roots.map(get);
}

function evaluateAll(
  roots: readonly Node[],
  given: ReadonlyMap<Node, Values>,
  device: Device,
  read: (storage: Storage) => ArrayLike<number>,
): Values[] {
  const values = new Map<Node, Values>(given);
  const get = (node: Node): Values => {
    const found = values.get(node);
    if (!found) throw new Error(`interpret: ${node.op} was not evaluated.`);
    return found;
  };
  for (const node of topological(roots)) {
    if (values.has(node)) continue;
    if (node.op === "composite" || node.op === "output") throw new Error("interpret: a composite decomposes into primitives only.");
    values.set(node, evaluate(node, get, read));
  }
  void device;
  return roots.map(get);
}

function evaluate(
  node: Exclude<Node, { op: "composite" | "output" }>,
  get: (node: Node) => Values,
  read: (storage: Storage) => ArrayLike<number>,
): Values {
  const count = sizeOf(node.shape);
  const strides = stridesOf(node.shape);
  /** Fills the result from a function of the coordinates. */
  const fill = (value: (at: readonly number[], linear: number) => number): Values => {
    const result = new Float64Array(count);
    const at = node.shape.map(() => 0);
    for (let linear = 0; linear < count; linear++) {
      result[linear] = value(at, linear);
      for (let axis = at.length - 1; axis >= 0; axis--) {
        const next = (at[axis] ?? 0) + 1;
        at[axis] = next === node.shape[axis] ? 0 : next;
        if (at[axis] !== 0) break;
      }
    }
    return result;
  };
  const linearOf = (at: readonly number[], shape: readonly number[]): number =>
    stridesOf(shape).reduce((sum, stride, axis) => sum + stride * (at[axis] ?? 0), 0);

  switch (node.op) {
    case "const":
      return new Float64Array(count).fill(node.value);
    case "iota":
      return fill((at) => at[node.axis] ?? 0);
    case "buffer":
      return Float64Array.from(read(node.storage));
    case "random": {
      const [k0 = 0, k1 = 0] = get(node.key);
      return fill((_, i) => philox([i >>> 2, 0, node.stream, 0], [k0, k1])[i & 3] ?? 0);
    }
    case "unary": {
      const x = get(node.x);
      return fill((_, i) => unary(node.kind, x[i] ?? 0));
    }
    case "binary": {
      const [a, b] = [get(node.a), get(node.b)];
      return fill((_, i) => binary(node.kind, a[i] ?? 0, b[i] ?? 0, computeDType(node.a.dtype)));
    }
    case "select": {
      const [condition, a, b] = [get(node.condition), get(node.a), get(node.b)];
      return fill((_, i) => (condition[i] ? a[i] : b[i]) ?? 0);
    }
    case "cast": {
      const x = get(node.x);
      return fill((_, i) => convert(x[i] ?? 0, node.x.dtype, node.dtype));
    }
    case "detach":
    case "reshape":
      return get(node.x);
    case "reduce": {
      const x = get(node.x);
      const result = new Float64Array(count).fill(node.kind === "sum" ? 0 : Number.NEGATIVE_INFINITY);
      const from = stridesOf(node.x.shape);
      for (let linear = 0; linear < x.length; linear++) {
        let rest = linear;
        let to = 0;
        for (const [axis, stride] of from.entries()) {
          const position = Math.floor(rest / stride);
          rest -= position * stride;
          if (!node.axes.includes(axis)) to += position * (strides[axis] ?? 0);
        }
        const old = result[to] ?? 0;
        const value = x[linear] ?? 0;
        result[to] = node.kind === "sum" ? old + value : Math.max(old, value);
      }
      return result;
    }
    case "permute": {
      const x = get(node.x);
      const from = stridesOf(node.x.shape);
      return fill((at) => x[at.reduce((sum, position, axis) => sum + position * (from[node.order[axis] ?? 0] ?? 0), 0)] ?? 0);
    }
    case "expand": {
      const x = get(node.x);
      return fill(
        (at) =>
          x[
            linearOf(
              at.map((position, axis) => (node.x.shape[axis] === 1 ? 0 : position)),
              node.x.shape,
            )
          ] ?? 0,
      );
    }
    case "slice": {
      const x = get(node.x);
      return fill(
        (at) =>
          x[
            linearOf(
              at.map((position, axis) => (node.starts[axis] ?? 0) + position * (node.steps[axis] ?? 1)),
              node.x.shape,
            )
          ] ?? 0,
      );
    }
    case "pad": {
      const x = get(node.x);
      return fill((at) => {
        const inside = at.map((position, axis) => position - (node.before[axis] ?? 0));
        return inside.every((position, axis) => position >= 0 && position < (node.x.shape[axis] ?? 0))
          ? (x[linearOf(inside, node.x.shape)] ?? 0)
          : node.value;
      });
    }
    case "gather": {
      const x = get(node.x);
      const indices = get(node.indices);
      const rank = node.indices.shape.length;
      const size = node.x.shape[node.axis] ?? 1;
      return fill((at) => {
        const index = indices[linearOf(at.slice(node.axis, node.axis + rank), node.indices.shape)] ?? 0;
        const clamped = Math.min(Math.max(index, 0), size - 1);
        return x[linearOf([...at.slice(0, node.axis), clamped, ...at.slice(node.axis + rank)], node.x.shape)] ?? 0;
      });
    }
    case "dynamicSlice": {
      const x = get(node.x);
      const starts = get(node.starts);
      return fill((at) => x[linearOf(fromStarts(node, node.shape, starts, at), node.x.shape)] ?? 0);
    }
    case "dynamicUpdateSlice": {
      const [update, starts] = [get(node.update), get(node.starts)];
      const result = Float64Array.from(get(node.x));
      const { shape } = node.update;
      const partStrides = stridesOf(shape);
      for (const [linear, value] of update.entries()) {
        const at = shape.map((size, axis) => Math.floor(linear / (partStrides[axis] ?? 1)) % size);
        result[linearOf(fromStarts(node, shape, starts, at), node.shape)] = value;
      }
      return result;
    }
    case "scatterAdd": {
      const [indices, updates] = [get(node.indices), get(node.updates)];
      const [rows = 0, width = 0] = node.shape;
      const result = new Float64Array(count);
      for (const [n, index] of indices.entries()) {
        if (index < 0 || index >= rows) continue;
        for (let i = 0; i < width; i++) result[index * width + i] = (result[index * width + i] ?? 0) + (updates[n * width + i] ?? 0);
      }
      return result;
    }
    case "matmul": {
      const [a, b] = [get(node.a), get(node.b)];
      const [m = 1, k = 1] = node.a.shape.slice(-2);
      const n = node.b.shape[node.b.shape.length - 1] ?? 1;
      return fill((_, linear) => {
        const batch = Math.floor(linear / (m * n));
        const row = Math.floor(linear / n) % m;
        let sum = 0;
        for (let i = 0; i < k; i++) sum += (a[(batch * m + row) * k + i] ?? 0) * (b[(batch * k + i) * n + (linear % n)] ?? 0);
        return sum;
      });
    }
  }
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

function unary(kind: UnaryKind, x: number): number {
  switch (kind) {
    case "neg":
      return -x;
    case "not":
      return x === 0 ? 1 : 0;
    case "erf":
      return erf(x);
    default:
      return Math[kind](x);
  }
}

/** erf to double precision: Taylor series near 0, continued fraction of erfc beyond. */
function erf(x: number): number {
  const z = Math.abs(x);
  if (Number.isNaN(x)) return x;
  if (z > 6) return Math.sign(x);
  if (z < 2.5) {
    let term = z;
    let total = z;
    for (let n = 1; Math.abs(term) > 1e-17 * Math.abs(total) && n < 200; n++) {
      term *= (-z * z) / n;
      total += term / (2 * n + 1);
    }
    return Math.sign(x) * (2 / Math.sqrt(Math.PI)) * total;
  }
  let fraction = 0;
  for (let n = 100; n > 0; n--) fraction = n / 2 / (z + fraction);
  return Math.sign(x) * (1 - Math.exp(-z * z) / Math.sqrt(Math.PI) / (z + fraction));
}

function binary(kind: BinaryKind, a: number, b: number, dtype: DType): number {
  const isInteger = dtype !== "f32";
  const wrap = (value: number): number =>
    dtype === "i32" ? Number(BigInt.asIntN(32, BigInt(value))) : dtype === "u32" ? Number(BigInt.asUintN(32, BigInt(value))) : value;
  switch (kind) {
    case "add":
      return wrap(a + b);
    case "sub":
      return wrap(a - b);
    case "mul":
      return dtype === "i32" ? Math.imul(a, b) : dtype === "u32" ? Math.imul(a, b) >>> 0 : a * b;
    case "div":
      return isInteger ? (b === 0 ? 0 : wrap(Math.trunc(a / b))) : a / b;
    case "mod":
      return isInteger && b === 0 ? 0 : a % b;
    case "pow":
      return a ** b;
    case "max":
      return Math.max(a, b);
    case "min":
      return Math.min(a, b);
    case "lt":
      return a < b ? 1 : 0;
    case "le":
      return a <= b ? 1 : 0;
    case "eq":
      return a === b ? 1 : 0;
    case "and":
      return wrap(a & b);
    case "or":
      return wrap(a | b);
    case "xor":
      return wrap(a ^ b);
    case "shl":
      return wrap(a << b);
    case "shr":
      return dtype === "u32" ? (a >>> 0) >>> b : a >> b;
  }
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
