import type { Device } from "./device.js";
import type { Node } from "./node.js";
import type { Storage } from "./storage.js";

/** Computes `value` into `storage`, replacing what it held. */
export interface Target {
  readonly storage: Storage;
  readonly value: Node;
}

/** Graph work done once, runnable many times; the storages of `inputs` and of the targets may be exchanged for others of the same type. */
export interface Program {
  /** The storages that the graph reads, in binding order. */
  readonly inputs: readonly Storage[];
  /** Runs with the given storages in place of `inputs` and the targets' own. All reads see the values from before the run. */
  run(inputs: readonly Storage[], targets: readonly Storage[]): void;
  /** Keeps what was made ready until `dispose`, however long it is not used. */
  hold(): void;
  dispose(): void;
}

/** How a device turns graphs into work. */
export interface Executor {
  prepare(device: Device, targets: readonly Target[]): Program;
}
