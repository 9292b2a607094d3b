import { type DataOf, type DType, decode } from "../tensor/dtype.js";
import { DeviceError } from "../tensor/errors.js";
import { sizeOf } from "../tensor/shape.js";
import type { Device } from "./device.js";
import type { Program, Target } from "./executor.js";
import { bufferOf, liveInputs, noteRealized, realizedStorage } from "./live.js";
import { type Node, topological } from "./node.js";
import { Overwriting } from "./overwriting.js";
import { Storage } from "./storage.js";
import { Tensor } from "./tensor.js";
import { currentTrace } from "./trace.js";
import { untracked } from "./unread.js";

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
  if (tensors.every((t) => (t.node.op === "buffer" || t.packing) && t.device.pendingAssignments.size === 0)) return [];
  return [...new Set(tensors.map((t) => t.device))];
}

/** Those of a device that have a value to compute and keep: packed ones have none. */
function onDevice(tensors: readonly Tensor[], device: Device): readonly Tensor[] {
  return tensors.filter((t) => t.device === device && !t.packing);
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
      return nodes.flatMap((node) => realizedStorage(node) ?? []);
    },
  });
}

/** Computes values, and the pending assignments in the same plan. Returns the storages of the values. */
function realizeOn(device: Device, asked: readonly Value[], withAssignments = true): Storage[] {
  const assignments = withAssignments ? [...device.pendingAssignments] : [];
  const overwriting =
    assignments.length > 0
      ? new Overwriting(device, new Set(assignments.map(([storage]) => storage)), new Set(asked.map(({ tensor }) => tensor)))
      : null;
  const values = overwriting ? [...asked, ...valuesOf(overwriting.compute)] : asked;
  const targets: Target[] = assignments.map(([storage, { value }]) => ({ storage: overwriting?.targetOf(storage) ?? storage, value }));
  const fresh = new Map<Node, Storage>();
  const assigned = new Map(assignments.map(([storage, { target, value }]) => [target, { storage, value }]));
  const storages = values.map(({ tensor, node }): Storage => {
    const next = assigned.get(tensor);
    const known = fresh.get(node) ?? realizedStorage(node) ?? (next?.value === node ? next.storage : undefined);
    if (known) return known;
    const storage = new Storage(device, node.dtype, sizeOf(node.shape), { isResult: true });
    fresh.set(node, storage);
    targets.push({ storage, value: node });
    return storage;
  });
  if (targets.length > 0) {
    const program = device.executor.prepare(device, targets);
    const made = [...fresh.values(), ...(overwriting?.made ?? [])];
    runInto(
      program,
      program.inputs,
      targets.map((target) => target.storage),
      made,
    );
  }
  // Only now, so that a failure leaves everything as it was.
  if (withAssignments) {
    waiting.delete(device);
    device.pendingAssignments = new Map();
  }
  for (const [node, storage] of fresh) noteRealized(node, storage);
  overwriting?.done();
  for (const [storage, { target, value }] of assignments) {
    noteRealized(value, storage);
    target.settle();
  }
  remember(device, values, storages);
  return storages.slice(0, asked.length);
}

/** Handles that were read refer to their values, and to the expressions behind them. */
function remember(device: Device, values: readonly Value[], storages: readonly Storage[]): void {
  const read = values.flatMap(({ tensor, node }, i) => {
    const storage = storages[i];
    return storage && node.op !== "buffer" && tensor.node === node ? [{ tensor, node, storage }] : [];
  });
  if (read.length === 0) return;
  const places = device.histories.record(read.map(({ node }) => node));
  for (const [i, { tensor, node, storage }] of read.entries()) {
    const buffer = bufferOf(storage, node);
    const history = places[i];
    tensor.redirect(history ? { ...buffer, history } : buffer);
  }
  device.unread.dropRead();
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

/** Numbers of a packed tensor that are computed at a time to be read. */
const sliceNumbers = 2 ** 22;

/** The numbers of a packed tensor, of which its device never holds more than some rows. */
async function readPacked(t: Tensor): Promise<Uint8Array> {
  const { shape, dtype, device, node: x, size } = t;
  const whole = new Uint8Array(size * 4);
  const [rows = 1, ...inner] = shape;
  const rowBytes = whole.byteLength / Math.max(rows, 1);
  const step = Math.max(1, Math.floor((sliceNumbers * 4) / Math.max(rowBytes, 1)));
  for (let start = 0; start < rows && size > 0; start += step) {
    const count = Math.min(step, rows - start);
    const starts = shape.map((_, axis) => (axis === 0 ? start : 0));
    const part: Node = { op: "slice", x, starts, steps: shape.map(() => 1), shape: [count, ...inner], dtype };
    const slice = untracked(() => new Tensor(shape.length > 0 ? part : { op: "reshape", x, shape, dtype }, device));
    whole.set(await readBytes(slice), start * rowBytes);
    slice.dispose();
  }
  return whole;
}

/** A tensor's stored bytes, in its own dtype. Computes it if need be. */
export async function readBytes(t: Tensor): Promise<Uint8Array> {
  if (t.packing) return readPacked(t);
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
