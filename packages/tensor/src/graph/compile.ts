import { DeviceError } from "../tensor/errors.js";
import { fromStorage } from "./create.js";
import type { Device } from "./device.js";
import type { Program, Target } from "./executor.js";
import { Overwriting } from "./overwriting.js";
import { flushAssignments, realizeNow, runInto } from "./realize.js";
import { Storage } from "./storage.js";
import { surroundings } from "./surroundings.js";
import { checkSameDevice, Tensor } from "./tensor.js";
import { currentTrace, Trace, withTrace } from "./trace.js";

/** Tensors in any nesting of arrays, maps and plain objects; everything else is a constant of the recording. */
type Tree = unknown;

interface Recording {
  readonly device: Device;
  readonly program: Program;
  /** For each input of the program: the argument it comes from, or null for a captured storage. */
  readonly argumentOf: readonly (number | null)[];
  /** Targets in order: first the assigned storages, then the results. */
  readonly assigned: readonly Storage[];
  /** Stand-ins for the results, which do not keep the recorded graph, and the output with them in place of these. */
  readonly results: readonly Tensor[];
  readonly output: Tree;
  /** How many handles there were when it was last looked whether one depends on what is assigned. */
  handleCount: number;
}

/** Recordings that a compiled function keeps for each device; the one used longest ago goes first. */
const maxRecordings = 64;

/**
 * Records `fn` once for each device and combination of argument shapes, dtypes and constants and replays the recording as one plan
 * afterwards: no graph work in JavaScript. Arguments and results may nest tensors in arrays and plain objects. Tensors that `fn` captures
 * are read afresh at each call; tensors that it `assign`s are updated in place, after what was written over their old values and not read
 * yet is computed. The values of non-tensor arguments are part of the recording, as are the wrappers on modules and whether they train
 * (`surroundings`), and packed tensors. The 64 recordings used last are kept: numbers that change from call to call, such as a learning rate, are tensors.
 * Reading a tensor inside `fn` throws DeviceError, as do tensors of several devices. jax.jit, torch.compile.
 */
export function compile<A extends readonly unknown[], R>(fn: (...args: A) => R): ((...args: A) => R) & { dispose(): void } {
  const recordingsOf = new Map<Device | undefined, Map<string, Recording>>();
  const call = (...args: A): R => {
    // Inside another recording there is nothing to replay: the function becomes part of it.
    if (currentTrace()) return fn(...args);
    const tensors: Tensor[] = [];
    const key = `${surroundings()} ${describe(args, tensors)}`;
    checkSameDevice("compile", ...tensors);
    realizeNow(tensors);
    flushAssignments();
    const device = tensors[0]?.device;
    let recordings = recordingsOf.get(device);
    if (!recordings) recordingsOf.set(device, (recordings = new Map()));
    let recording = recordings.get(key);
    if (!recording) recording = record(fn as (...args: readonly unknown[]) => unknown, args, tensors);
    // Most recently used last.
    recordings.delete(key);
    recordings.set(key, recording);
    if (recordings.size > maxRecordings) forgetOldest(recordings);
    return replay(recording, tensors) as R;
  };
  const dispose = (): void => {
    for (const recordings of recordingsOf.values()) for (const { program } of recordings.values()) program.dispose();
    recordingsOf.clear();
  };
  return Object.assign(call, { dispose });
}

function forgetOldest(recordings: Map<string, Recording>): void {
  for (const [key, { program }] of recordings) {
    program.dispose();
    recordings.delete(key);
    return;
  }
}

function describe(value: Tree, tensors: Tensor[]): string {
  if (value instanceof Tensor) {
    // Its blocks are constants of the recording: there is no whole value to pass.
    if (value.packing) return `P${Object.values(value.packing.parts).map(({ storage }) => storage?.id)}`;
    tensors.push(value);
    return `T${value.dtype}[${value.shape.join()}]`;
  }
  if (Array.isArray(value)) return `[${value.map((item) => describe(item, tensors)).join()}]`;
  if (value && typeof value === "object" && Object.getPrototypeOf(value) === Object.prototype) {
    return `{${Object.entries(value)
      .map(([name, item]) => `${JSON.stringify(name)}:${describe(item, tensors)}`)
      .join()}}`;
  }
  if (value === null || ["string", "number", "boolean", "undefined", "bigint"].includes(typeof value))
    return `${typeof value}:${String(value)}`;
  throw new TypeError("compile: arguments are tensors, numbers, strings, booleans, or arrays and plain objects of them.");
}

function mapTensors(value: Tree, change: (t: Tensor) => Tensor): Tree {
  if (value instanceof Tensor) return change(value);
  if (Array.isArray(value)) return value.map((item) => mapTensors(item, change));
  if (value instanceof Map) return new Map([...value].map(([name, item]) => [name, mapTensors(item, change)]));
  if (value && typeof value === "object" && Object.getPrototypeOf(value) === Object.prototype) {
    return Object.fromEntries(Object.entries(value).map(([name, item]) => [name, mapTensors(item, change)]));
  }
  return value;
}

function record(fn: (...args: readonly unknown[]) => unknown, args: readonly unknown[], tensors: readonly Tensor[]): Recording {
  const placeholders = tensors.map((t) => fromStorage(new Storage(t.device, t.dtype, t.size), t.shape));
  let next = 0;
  const traced = mapTensors(args, (t) => (t.packing ? t : (placeholders[next++] as Tensor))) as readonly unknown[];
  const trace = new Trace();
  const output = withTrace(trace, () => {
    const result = fn(...traced);
    for (const generator of trace.generators.keys())
      generator.key.assign(generator.key.add(generator.key.shape[0] === 2 ? stepOf(generator.key) : 0));
    return result;
  });

  const results: Tensor[] = [];
  const distinct = new Map<Tensor, number>();
  mapTensors(output, (t) => {
    if (!t.packing && !distinct.has(t)) {
      distinct.set(t, results.length);
      results.push(t);
    }
    return t;
  });
  checkSameDevice("compile", ...tensors, ...results);
  const device = (tensors[0] ?? results[0])?.device;
  if (!device) throw new DeviceError("compile: the function neither takes nor returns a tensor.", "none");

  const assignments = [...device.pendingAssignments];
  device.pendingAssignments = new Map();
  const standIns = results.map((t) => fromStorage(new Storage(device, t.dtype, t.size), t.shape));
  const targets: Target[] = [
    ...assignments.map(([storage, { value }]) => ({ storage, value })),
    ...results.map((t, i) => ({ storage: standIns[i]?.storage as Storage, value: t.node })), // one for each
  ];
  for (const [, { target }] of assignments) target.settle();
  const program = device.executor.prepare(device, targets);
  program.hold();
  const argumentOf = program.inputs.map((storage) => {
    const index = placeholders.findIndex((p) => p.storage === storage);
    return index < 0 ? null : index;
  });
  return {
    device,
    program,
    argumentOf,
    assigned: assignments.map(([storage]) => storage),
    results: standIns,
    output: mapTensors(output, (t) => standIns[distinct.get(t) ?? -1] ?? t),
    handleCount: -1,
  };
}

function stepOf(key: Tensor): Tensor {
  // [0, 1]: the second word counts runs.
  return new Tensor({ op: "iota", axis: 0, shape: key.shape, dtype: "i32" }, key.device).cast("u32");
}

function replay(recording: Recording, tensors: readonly Tensor[]): Tree {
  const { device, program, argumentOf, assigned, results, output } = recording;
  const inputs = program.inputs.map((storage, i) => {
    const argument = argumentOf[i];
    if (argument === null || argument === undefined) return storage;
    const given = tensors[argument]?.storage;
    if (!given) throw new Error("compile: an argument was not realized.");
    return assigned.includes(given) ? copied(given) : given;
  });
  const fresh = results.map((t) => new Storage(device, t.dtype, t.size, { isResult: true }));
  const overwriting = overwritingOf(recording);
  runInto(program, inputs, [...assigned, ...fresh], fresh);
  if (overwriting) overwriting.done();
  else for (const storage of assigned) storage.overwritten();
  const handles = results.map((t, i) => fromStorage(fresh[i] as Storage, t.shape));
  return mapTensors(output, (t) => handles[results.indexOf(t)] ?? t);
}

/** A copy of a storage: an argument that the function assigns to as well is read as it was. */
function copied(storage: Storage): Storage {
  const { device, dtype, elementCount } = storage;
  const copy = new Storage(device, dtype, elementCount);
  const program = device.executor.prepare(device, [{ storage: copy, value: fromStorage(storage, [elementCount]).node }]);
  runInto(program, program.inputs, [copy], [copy]);
  return copy;
}

/** Computes what depends on the storages that a recording assigns to and was not read yet; null where there can be nothing new of it. */
function overwritingOf(recording: Recording): Overwriting | null {
  const { device, assigned } = recording;
  if (assigned.length === 0 || recording.handleCount === device.unread.count) {
    device.memory.beforeWriting(assigned);
    return null;
  }
  const overwriting = new Overwriting(device, new Set(assigned), undefined, false);
  realizeNow(overwriting.compute);
  recording.handleCount = device.unread.count;
  return overwriting;
}
