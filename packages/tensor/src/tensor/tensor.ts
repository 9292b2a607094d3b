import type { Device } from "../backends/device.js";
import type { Node } from "../graph/node.js";
import { noteAssignment, readTensor, realize } from "../graph/realize.js";
import type { DataOf, DType } from "./dtype.js";
import { DeviceError, ShapeError, showShape, showValue } from "./errors.js";
import { forgetIntegers } from "./host-integers.js";
import { normalizeAxis, type Shape, sameShape, sizeOf } from "./shape.js";
import type { Storage } from "./storage.js";

/**
 * A lazy handle on an expression: shape and dtype are known at once, values are computed when somebody reads them (`data`, `item`)
 * or `realize`s. Operators are methods with numpy's broadcasting; each has the free function of the same name behind it, from which
 * `ops/methods.ts` makes it.
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
