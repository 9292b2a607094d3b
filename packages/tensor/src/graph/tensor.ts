import type { DataOf, DType } from "../tensor/dtype.js";
import { DeviceError, ShapeError, showShape, showValue } from "../tensor/errors.js";
import { normalizeAxis, type Shape, sameShape, sizeOf } from "../tensor/shape.js";
import type { Device } from "./device.js";
import { forgetIntegers } from "./host-integers.js";
import { bufferOf, noteAssigned } from "./live.js";
import type { Node } from "./node.js";
import { type Packing, packingOf } from "./packing.js";
import { noteAssignment, readTensor, realize } from "./realize.js";
import type { Storage } from "./storage.js";
import { currentTrace } from "./trace.js";

/**
 * A lazy handle on an expression: shape and dtype are known at once, values are computed when somebody reads them (`data`, `item`)
 * or `realize`s. Operators are methods with numpy's broadcasting; each has the free function of the same name behind it, from which
 * `ops/methods.ts` makes it.
 */
export class Tensor {
  #node: Node;
  /** The storage that `assign` writes to: of tensors made from data, and of those that were assigned to before. */
  #home: Storage | null;
  #isUsed = false;

  constructor(
    node: Node,
    readonly device: Device,
    /** Where the tensor's own data lies, which `assign` replaces. */
    home: Storage | null = null,
  ) {
    this.#node = node;
    this.#home = home;
    if (node.op !== "buffer" && node.op !== "const" && node.op !== "iota" && !currentTrace()) device.unread.add(this);
  }

  /** The graph node behind the handle; it changes when the tensor is realized or assigned. */
  get node(): Node {
    this.#isUsed = true;
    return this.peek();
  }

  /** Whether anything asked for the node: as an operand, mostly. */
  get isUsed(): boolean {
    return this.#isUsed;
  }

  /** The node, for who only looks. */
  peek(): Node {
    const node = this.#node;
    // Others may have assigned to the same home.
    if (node.op === "buffer" && node.storage === this.#home && node.version !== this.#home.version) this.#node = bufferOf(this.#home, node);
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
    const { node } = this;
    return node.op === "buffer" ? node.storage.at(node.version) : null;
  }

  /** How the tensor's blocks lie on the device where it is packed (`packedTensor`); null for all others. */
  get packing(): Packing | null {
    return packingOf(this.#node);
  }

  /** Where `assign` writes; null for tensors that never held data. */
  get home(): Storage | null {
    return this.#home ?? (this.#node.op === "buffer" ? this.#node.storage : null);
  }

  /** The handle refers to another node of the same shape and dtype. For the engine. */
  redirect(node: Node): void {
    this.#node = node;
  }

  /** What was assigned lies in the tensor's home now. For the engine. */
  settle(): void {
    if (this.#home) this.#node = bufferOf(this.#home, this.#node);
  }

  /**
   * Gives a tensor that holds data a new value, at the next `realize` or read on this device. Expressions that were written before go on
   * meaning the old value: it stays as long as one of them may still be read, for one further assignment; what is read later than that
   * throws DeviceError. The new value is a leaf: gradients do not go through it. Throws ShapeError when shapes differ, and when the tensor holds no data of its own.
   */
  assign(value: Tensor): void {
    const home = this.home;
    if (this.packing)
      throw new ShapeError(
        `assign: this tensor is packed as ${this.packing.type}, and blocks take no other numbers. Put a dense tensor in its place.`,
        [this.shape],
      );
    if (!home)
      throw new ShapeError("assign: this tensor is an expression. Realize it first, or assign to the parameter itself.", [this.shape]);
    checkSameDevice("assign", this, value);
    if (!sameShape(this.shape, value.shape)) {
      throw new ShapeError(`assign: ${showShape(value.shape)} does not fit ${showShape(this.shape)}.`, [this.shape, value.shape]);
    }
    // A new value of its own, as after torch.no_grad: whether it was computed yet makes no difference to gradients.
    const stored: Node = { op: "detach", x: value.cast(home.dtype).node, shape: this.shape, dtype: home.dtype };
    noteAssigned(stored, home);
    forgetIntegers(home);
    home.becomeState();
    this.#home = home;
    this.#node = stored;
    this.device.pendingAssignments.set(home, { value: stored, target: this });
    noteAssignment(this.device);
  }

  /** Computes the value and keeps it; of packed tensors there is nothing to compute. Resolves to this tensor when the work is enqueued. */
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
    for (const part of Object.values(this.packing?.parts ?? {})) part.dispose();
    const { storage } = this;
    storage?.dispose();
    // The expression behind the value, or behind the next one, holds what it is computed from.
    const held = this.#home ?? storage;
    if (held) this.#node = bufferOf(held, this.#node);
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
    if (this.#node.op === "const" || this.packing) return this;
    return new Tensor({ op: "detach", x: this.node, shape: this.shape, dtype: this.dtype }, this.device);
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
