import type { Device } from "../backends/device.js";
import type { Node } from "../graph/node.js";
import { noteAssignment, readTensor, realize } from "../graph/realize.js";
import * as activation from "../ops/activation.js";
import type { TensorLike } from "../ops/elementwise.js";
import * as elementwise from "../ops/elementwise.js";
import { gather } from "../ops/gather.js";
import { matmul } from "../ops/matmul.js";
import type { SliceRange } from "../ops/movement.js";
import * as movement from "../ops/movement.js";
import type { ReduceOptions } from "../ops/reduce.js";
import * as reductions from "../ops/reduce.js";
import type { DataOf, DType } from "./dtype.js";
import { DeviceError, ShapeError, showShape, showValue } from "./errors.js";
import { forgetIntegers } from "./host-integers.js";
import { normalizeAxis, type Shape, sameShape, sizeOf } from "./shape.js";
import type { Storage } from "./storage.js";

/**
 * A lazy handle on an expression: shape and dtype are known at once, values are computed when somebody reads them (`data`, `item`)
 * or `realize`s. Operators are methods with numpy's broadcasting; each has the free function of the same name behind it.
 */
export class Tensor {
  #node: Node;
  /** The storage that `assign` writes to: of tensors made from data, and of those that were assigned to before. */
  #home: Storage | null;

  constructor(
    node: Node,
    readonly device: Device,
  ) {
    this.#node = node;
    this.#home = node.op === "buffer" ? node.storage : null;
  }

  /** The graph node behind the handle; it changes when the tensor is realized or assigned. */
  get node(): Node {
    return this.#node;
  }

  get shape(): Shape {
    return this.#node.shape;
  }

  get dtype(): DType {
    return this.#node.dtype;
  }

  get rank(): number {
    return this.#node.shape.length;
  }

  /** Number of elements. */
  get size(): number {
    return sizeOf(this.#node.shape);
  }

  /** The storage that holds the value, or null while it is an expression. */
  get storage(): Storage | null {
    return this.#node.op === "buffer" ? this.#node.storage : null;
  }

  /** Where `assign` writes; null for tensors that never held data. */
  get home(): Storage | null {
    return this.#home ?? this.storage;
  }

  /** The handle refers to another node of the same shape and dtype. For the engine. */
  redirect(node: Node): void {
    this.#node = node;
  }

  /**
   * Gives a tensor that holds data a new value: written over the old one, in place where possible, at the next `realize` or read on
   * this device, which all see the old value. Throws ShapeError when shapes differ, and when the tensor holds no data of its own.
   */
  assign(value: Tensor): void {
    const home = this.home;
    if (!home)
      throw new ShapeError("assign: this tensor is an expression. Realize it first, or assign to the parameter itself.", [this.shape]);
    checkSameDevice("assign", this, value);
    if (!sameShape(this.shape, value.shape)) {
      throw new ShapeError(`assign: ${showShape(value.shape)} does not fit ${showShape(this.shape)}.`, [this.shape, value.shape]);
    }
    const stored = value.cast(home.dtype).node;
    forgetIntegers(home);
    home.becomeState();
    this.#home = home;
    this.#node = stored;
    this.device.pendingAssignments.set(home, { value: stored, target: this });
    noteAssignment(this.device);
  }

  /** Computes the value and keeps it. Resolves to this tensor when the work is enqueued. */
  async realize(): Promise<this> {
    await realize(this);
    return this;
  }

  /** The elements in row-major order; f16 and bf16 widened to f32. Rejects with DeviceError when the device was lost. */
  async data(): Promise<DataOf<DType> & ArrayLike<number>> {
    return readTensor(this);
  }

  /** The only element. Throws ShapeError when there are more. */
  async item(): Promise<number> {
    if (this.size !== 1) throw new ShapeError(`item: ${showShape(this.shape)} has ${this.size} elements. Use data().`, [this.shape]);
    const [value = 0] = await this.data();
    return value;
  }

  /** The elements in nested arrays. */
  async toArray(): Promise<unknown> {
    let level: unknown[] = Array.from(await this.data());
    for (const size of [...this.shape].reverse().slice(0, -1)) {
      level = Array.from({ length: size === 0 ? 0 : level.length / size }, (_, i) => level.slice(i * size, (i + 1) * size));
    }
    return this.rank === 0 ? level[0] : level;
  }

  /** Gives the memory back at once instead of at garbage collection; what was assigned and has not run yet is dropped. */
  dispose(): void {
    this.storage?.dispose();
    if (!this.#home) return;
    this.device.pendingAssignments.delete(this.#home);
    this.#home.dispose();
  }

  [Symbol.dispose](): void {
    this.dispose();
  }

  toString(): string {
    return `Tensor(${showShape(this.shape)}, ${this.dtype}, ${this.device.name})`;
  }

  /** The same value, through which `grad` does not look. torch.Tensor.detach. */
  detach(): Tensor {
    if (this.#node.op === "const") return this;
    return new Tensor({ op: "detach", x: this.#node, shape: this.shape, dtype: this.dtype }, this.device);
  }

  cast(dtype: DType): Tensor {
    return elementwise.cast(this, dtype);
  }

  add(other: TensorLike): Tensor {
    return elementwise.add(this, other);
  }
  sub(other: TensorLike): Tensor {
    return elementwise.sub(this, other);
  }
  mul(other: TensorLike): Tensor {
    return elementwise.mul(this, other);
  }
  div(other: TensorLike): Tensor {
    return elementwise.div(this, other);
  }
  intDivide(other: TensorLike): Tensor {
    return elementwise.intDivide(this, other);
  }
  mod(other: TensorLike): Tensor {
    return elementwise.mod(this, other);
  }
  pow(exponent: TensorLike): Tensor {
    return elementwise.pow(this, exponent);
  }
  maximum(other: TensorLike): Tensor {
    return elementwise.maximum(this, other);
  }
  minimum(other: TensorLike): Tensor {
    return elementwise.minimum(this, other);
  }
  less(other: TensorLike): Tensor {
    return elementwise.less(this, other);
  }
  lessEqual(other: TensorLike): Tensor {
    return elementwise.lessEqual(this, other);
  }
  greater(other: TensorLike): Tensor {
    return elementwise.greater(this, other);
  }
  greaterEqual(other: TensorLike): Tensor {
    return elementwise.greaterEqual(this, other);
  }
  equal(other: TensorLike): Tensor {
    return elementwise.equal(this, other);
  }
  notEqual(other: TensorLike): Tensor {
    return elementwise.notEqual(this, other);
  }
  and(other: TensorLike): Tensor {
    return elementwise.and(this, other);
  }
  or(other: TensorLike): Tensor {
    return elementwise.or(this, other);
  }
  xor(other: TensorLike): Tensor {
    return elementwise.xor(this, other);
  }
  shiftLeft(bits: TensorLike): Tensor {
    return elementwise.shiftLeft(this, bits);
  }
  shiftRight(bits: TensorLike): Tensor {
    return elementwise.shiftRight(this, bits);
  }
  /** `a` where this condition holds, else `b`. */
  where(a: TensorLike, b: TensorLike): Tensor {
    return elementwise.where(this, a, b);
  }

  neg(): Tensor {
    return elementwise.neg(this);
  }
  abs(): Tensor {
    return elementwise.abs(this);
  }
  not(): Tensor {
    return elementwise.logicalNot(this);
  }
  exp(): Tensor {
    return elementwise.exp(this);
  }
  log(): Tensor {
    return elementwise.log(this);
  }
  sqrt(): Tensor {
    return elementwise.sqrt(this);
  }
  rsqrt(): Tensor {
    return elementwise.rsqrt(this);
  }
  reciprocal(): Tensor {
    return elementwise.reciprocal(this);
  }
  square(): Tensor {
    return elementwise.square(this);
  }
  sin(): Tensor {
    return elementwise.sin(this);
  }
  cos(): Tensor {
    return elementwise.cos(this);
  }
  tanh(): Tensor {
    return elementwise.tanh(this);
  }
  erf(): Tensor {
    return elementwise.erf(this);
  }
  floor(): Tensor {
    return elementwise.floor(this);
  }
  ceil(): Tensor {
    return elementwise.ceil(this);
  }
  sign(): Tensor {
    return elementwise.sign(this);
  }
  isNaN(): Tensor {
    return elementwise.isNan(this);
  }
  clamp(low: number, high: number): Tensor {
    return elementwise.clamp(this, low, high);
  }
  sigmoid(): Tensor {
    return activation.sigmoid(this);
  }
  relu(): Tensor {
    return activation.relu(this);
  }
  silu(): Tensor {
    return activation.silu(this);
  }
  gelu(approximate: "none" | "tanh" = "none"): Tensor {
    return activation.gelu(this, approximate);
  }

  sum(axes?: number | readonly number[], options: ReduceOptions = {}): Tensor {
    return reductions.sum(this, axes, options);
  }
  mean(axes?: number | readonly number[], options: ReduceOptions = {}): Tensor {
    return reductions.mean(this, axes, options);
  }
  max(axes?: number | readonly number[], options: ReduceOptions = {}): Tensor {
    return reductions.max(this, axes, options);
  }
  min(axes?: number | readonly number[], options: ReduceOptions = {}): Tensor {
    return reductions.min(this, axes, options);
  }
  variance(axes?: number | readonly number[], options: ReduceOptions = {}): Tensor {
    return reductions.variance(this, axes, options);
  }
  argmax(axis = -1, options: ReduceOptions = {}): Tensor {
    return reductions.argmax(this, axis, options);
  }
  argmin(axis = -1, options: ReduceOptions = {}): Tensor {
    return reductions.argmin(this, axis, options);
  }
  softmax(axis = -1): Tensor {
    return reductions.softmax(this, axis);
  }
  logSoftmax(axis = -1): Tensor {
    return reductions.logSoftmax(this, axis);
  }
  logsumexp(axis = -1, options: ReduceOptions = {}): Tensor {
    return reductions.logsumexp(this, axis, options);
  }

  reshape(shape: Shape): Tensor {
    return movement.reshape(this, shape);
  }
  flatten(from = 0): Tensor {
    return movement.flatten(this, from);
  }
  permute(order: readonly number[]): Tensor {
    return movement.permute(this, order);
  }
  transpose(a = -2, b = -1): Tensor {
    return movement.transpose(this, a, b);
  }
  /** The last two axes exchanged. */
  t(): Tensor {
    return movement.transpose(this, -2, -1);
  }
  expand(shape: Shape): Tensor {
    return movement.expand(this, shape);
  }
  slice(...ranges: readonly SliceRange[]): Tensor {
    return movement.slice(this, ranges);
  }
  narrow(axis: number, start: number, length: number): Tensor {
    return movement.narrow(this, axis, start, length);
  }
  flip(axis: number): Tensor {
    return movement.flip(this, axis);
  }
  pad(widths: readonly (readonly [before: number, after: number])[], value = 0): Tensor {
    return movement.pad(this, widths, value);
  }
  squeeze(axis?: number): Tensor {
    return movement.squeeze(this, axis);
  }
  unsqueeze(axis: number): Tensor {
    return movement.unsqueeze(this, axis);
  }
  split(count: number, axis = 0): Tensor[] {
    return movement.split(this, count, axis);
  }
  gather(indices: Tensor, axis = 0): Tensor {
    return gather(this, indices, axis);
  }
  matmul(other: Tensor): Tensor {
    return matmul(this, other);
  }
  /** Size of one axis; negative axes count from the end. */
  sizeAt(axis: number): number {
    return this.shape[normalizeAxis(axis, this.rank, "sizeAt")] ?? 1;
  }
}

/** Throws DeviceError unless all tensors live on one device. */
export function checkSameDevice(what: string, ...tensors: readonly Tensor[]): void {
  const device = tensors[0]?.device;
  for (const t of tensors) {
    if (!(t instanceof Tensor)) throw new TypeError(`${what}: ${showValue(t)} is no tensor. Make one with tensor(values, { device }).`);
    if (t.device !== device) {
      throw new DeviceError(
        `${what}: tensors of different devices (${device?.name} and ${t.device.name}). Create them with the same device.`,
        t.device.name,
      );
    }
  }
}
