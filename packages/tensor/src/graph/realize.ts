import type { Device } from "../backends/device.js";
import type { Target } from "../schedule/executor.js";
import { type DataOf, type DType, decode } from "../tensor/dtype.js";
import { DeviceError } from "../tensor/errors.js";
import { Storage } from "../tensor/storage.js";
import type { Tensor } from "../tensor/tensor.js";
import type { Node } from "./node.js";
import { currentTrace } from "./trace.js";

/** Nodes whose value some handle already holds, so that expressions built before reuse it. */
const realized = new WeakMap<Node, Storage>();

/** The storage that already holds a node's value, if any. */
export function realizedStorage(node: Node): Storage | null {
  const storage = realized.get(node);
  return storage && !storage.isDisposed ? storage : null;
}

/**
 * Computes several tensors in one plan and keeps their values; pending assignments of their devices run in the same plan.
 * Resolves when the work is enqueued; reading waits for it.
 */
export async function realize(...tensors: readonly Tensor[]): Promise<void> {
  realizeNow(tensors);
}

/** Devices on which something was assigned and has not run. */
const waiting = new Set<Device>();

/** Notes that a device has an assignment to run. */
export function noteAssignment(device: Device): void {
  waiting.add(device);
}

/** Runs every assignment that is still to run, on all devices. */
export function flushAssignments(): void {
  for (const device of waiting) if (!device.isDisposed) realizeOn(device, []);
  waiting.clear();
}

/** `realize` without the promise: enqueues and returns. */
export function realizeNow(tensors: readonly Tensor[]): void {
  if (currentTrace()) {
    throw new DeviceError(
      "A tensor was read inside a compiled function. Return it and read it outside.",
      tensors[0]?.device.name ?? "none",
    );
  }
  // Arguments of compiled functions mostly have nothing to compute.
  if (tensors.every((t) => t.node.op === "buffer" && t.device.pendingAssignments.size === 0)) return;
  for (const device of new Set(tensors.map((t) => t.device))) {
    realizeOn(
      device,
      tensors.filter((t) => t.device === device),
    );
  }
}

function realizeOn(device: Device, tensors: readonly Tensor[]): void {
  const assignments = [...device.pendingAssignments];
  const targets: Target[] = assignments.map(([storage, { value }]) => ({ storage, value }));
  const fresh = new Map<Node, Storage>();
  for (const t of tensors) {
    if (t.node.op === "buffer" || fresh.has(t.node) || realizedStorage(t.node)) continue;
    if (assignments.some(([, { target }]) => target === t)) continue;
    const storage = new Storage(device, t.dtype, t.size);
    fresh.set(t.node, storage);
    targets.push({ storage, value: t.node });
  }
  if (targets.length > 0) {
    const program = device.executor.prepare(device, targets);
    program.run(
      program.inputs,
      targets.map((target) => target.storage),
    );
  }
  // Only now, so that a failure leaves everything as it was.
  waiting.delete(device);
  device.pendingAssignments = new Map();
  for (const [storage, { target, value }] of assignments) target.redirect(bufferNode(storage, value));
  for (const [node, storage] of fresh) realized.set(node, storage);
  for (const t of tensors) {
    const storage = t.node.op === "buffer" ? null : realizedStorage(t.node);
    if (storage) t.redirect(bufferNode(storage, t.node));
  }
}

function bufferNode(storage: Storage, like: Node): Node {
  return { op: "buffer", storage, shape: like.shape, dtype: like.dtype };
}

/** Computes a tensor if need be and reads it. */
export async function readTensor(t: Tensor): Promise<DataOf<DType> & ArrayLike<number>> {
  realizeNow([t]);
  const { storage } = t;
  if (!storage) throw new Error("readTensor: a realized tensor has a storage.");
  return decode(await t.device.backend.read(storage.buffer, storage.bytes), t.dtype);
}
