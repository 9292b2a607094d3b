import type { Device } from "../backends/device.js";
import type { Program, Target } from "../schedule/executor.js";
import { type DataOf, type DType, decode } from "../tensor/dtype.js";
import { DeviceError } from "../tensor/errors.js";
import { sizeOf } from "../tensor/shape.js";
import { Storage } from "../tensor/storage.js";
import type { Tensor } from "../tensor/tensor.js";
import { inputsOf, type Node, topological } from "./node.js";
import { currentTrace } from "./trace.js";

/** Nodes whose value some handle already holds, so that expressions built before reuse it. */
const realized = new WeakMap<Node, Storage>();

/** The storage that already holds a node's value, if any. */
export function realizedStorage(node: Node): Storage | null {
  const storage = realized.get(node);
  return storage && !storage.isDisposed ? storage : null;
}

/** Inputs of a node; nodes that some tensor already holds are leaves. */
export function liveInputs(node: Node): readonly Node[] {
  return realizedStorage(node) ? [] : inputsOf(node);
}

/**
 * Computes several tensors in one plan and keeps their values; pending assignments of their devices run in the same plan.
 * Resolves when the work is enqueued, after making room where the memory of a device is short; reading waits for it. Rejects with
 * OutOfMemoryError when no room can be made.
 */
export async function realize(...tensors: readonly Tensor[]): Promise<void> {
  const devices = dueDevices(tensors);
  await Promise.all(devices.map((device) => whenRoom(device, onDevice(tensors, device))));
  for (const device of devices) await device.memory.breathe();
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

/** `realize` without the promise: enqueues and returns. Throws OutOfMemoryError where only waiting would make room. */
export function realizeNow(tensors: readonly Tensor[]): void {
  for (const device of dueDevices(tensors)) realizeOn(device, valuesOf(onDevice(tensors, device)));
}

/** The devices on which something has to run before these tensors have their values. */
function dueDevices(tensors: readonly Tensor[]): readonly Device[] {
  if (currentTrace()) {
    throw new DeviceError(
      "A tensor was read inside a compiled function. Return it and read it outside.",
      tensors[0]?.device.name ?? "none",
    );
  }
  // Arguments of compiled functions mostly have nothing to compute.
  if (tensors.every((t) => t.node.op === "buffer" && t.device.pendingAssignments.size === 0)) return [];
  return [...new Set(tensors.map((t) => t.device))];
}

function onDevice(tensors: readonly Tensor[], device: Device): readonly Tensor[] {
  return tensors.filter((t) => t.device === device);
}

/** What a tensor stands for at some time; later it may be assigned another value. */
interface Value {
  readonly tensor: Tensor;
  readonly node: Node;
}

function valuesOf(tensors: readonly Tensor[]): readonly Value[] {
  return tensors.map((tensor) => ({ tensor, node: tensor.node }));
}

/** Computes the present values of tensors as soon as there is room, and hands their storages to `use` at once. */
function whenRoom(
  device: Device,
  tensors: readonly Tensor[],
  use: (storages: readonly Storage[]) => void = () => undefined,
): Promise<void> | null {
  const values = valuesOf(tensors);
  return device.memory.whenRoom({
    run: (isHurried) => use(realizeOn(device, values, !isHurried)),
    inputs() {
      const nodes = topological(
        values.map(({ node }) => node),
        liveInputs,
      );
      return nodes.flatMap((node) => (node.op === "buffer" ? node.storage : (realizedStorage(node) ?? [])));
    },
  });
}

/** Computes values, and the pending assignments in the same plan. Returns the storages of the values. */
function realizeOn(device: Device, values: readonly Value[], withAssignments = true): Storage[] {
  const assignments = withAssignments ? [...device.pendingAssignments] : [];
  const targets: Target[] = assignments.map(([storage, { value }]) => ({ storage, value }));
  const fresh = new Map<Node, Storage>();
  const storages = values.map(({ tensor, node }): Storage => {
    const assigned = (): Storage | undefined => assignments.find(([, { target, value }]) => target === tensor && value === node)?.[0];
    const known = node.op === "buffer" ? node.storage : (fresh.get(node) ?? realizedStorage(node) ?? assigned());
    if (known) return known;
    const storage = new Storage(device, node.dtype, sizeOf(node.shape), { isResult: true });
    fresh.set(node, storage);
    targets.push({ storage, value: node });
    return storage;
  });
  if (assignments.length > 0) device.memory.beforeWriting(assignments.map(([storage]) => storage));
  if (targets.length > 0) {
    const program = device.executor.prepare(device, targets);
    runInto(
      program,
      program.inputs,
      targets.map((target) => target.storage),
      [...fresh.values()],
    );
  }
  // Only now, so that a failure leaves everything as it was.
  if (withAssignments) {
    waiting.delete(device);
    device.pendingAssignments = new Map();
  }
  for (const [storage, { target, value }] of assignments) target.redirect(bufferNode(storage, value));
  for (const [node, storage] of fresh) realized.set(node, storage);
  for (const [i, { tensor, node }] of values.entries()) {
    const storage = storages[i];
    if (storage && node.op !== "buffer" && tensor.node === node) tensor.redirect(bufferNode(storage, node));
  }
  return storages;
}

/** Runs a program; memory that was taken for results goes back when it fails. */
export function runInto(program: Program, inputs: readonly Storage[], targets: readonly Storage[], fresh: readonly Storage[]): void {
  try {
    program.run(inputs, targets);
  } catch (error) {
    for (const storage of fresh) storage.dispose();
    throw error;
  }
}

function bufferNode(storage: Storage, like: Node): Node {
  return { op: "buffer", storage, shape: like.shape, dtype: like.dtype };
}

/** A tensor's stored bytes, in its own dtype. Computes it if need be. */
export async function readBytes(t: Tensor): Promise<Uint8Array> {
  const { device } = t;
  const [due] = dueDevices([t]);
  let read = due ? undefined : t.storage?.read();
  if (due) {
    const waits = whenRoom(due, [t], ([storage]) => {
      read = storage?.read();
      // Who waits for room hears of a failure a little later.
      read?.catch(() => undefined);
    });
    if (waits) await waits;
  }
  if (!read) throw new Error("readBytes: a realized tensor has a storage.");
  const bytes = await read;
  const turn = device.memory.breathe();
  if (turn) await turn;
  return bytes;
}

/** Computes a tensor if need be and reads it. */
export async function readTensor(t: Tensor): Promise<DataOf<DType> & ArrayLike<number>> {
  const { dtype } = t;
  return decode(await readBytes(t), dtype);
}
