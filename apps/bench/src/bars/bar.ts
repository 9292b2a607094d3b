import { availableParallelism } from "node:os";
import { type Device, device } from "@lowrank/tensor";
import { type PeerName, Peers } from "../peers/peer.js";
import { useDriver } from "../repository.js";

/** What a value of a bar has to be. */
export type Limit =
  | { readonly atLeast: number; readonly unit?: string }
  | { readonly atMost: number; readonly unit?: string }
  | { readonly below: number; readonly unit?: string }
  | { readonly near: number; readonly within: number };

/** What was measured: a value for each limit, or why it was not. */
export type Outcome = { readonly values: readonly number[]; readonly detail: string } | { readonly skipped: string };

/** One line of the table of what this engine promises. */
export interface Bar {
  readonly name: string;
  /** The same in at most 34 characters, for the one line that it gets. */
  readonly brief: string;
  readonly limits: readonly Limit[];
  /** False for counts, which are the same on every machine. */
  readonly isTimed: boolean;
  measure(context: BarContext): Promise<Outcome>;
}

/** What bars share while they are measured. */
export class BarContext {
  readonly threads: number = availableParallelism();
  readonly peers: Peers;
  readonly #known = new Map<string, Promise<unknown>>();
  #driver: Promise<string | null> | undefined;

  constructor(
    readonly peerNames: readonly PeerName[],
    /** Fewer and shorter rounds, shorter runs. */
    readonly isQuick: boolean,
    /** Told what is being measured. */
    readonly say: (line: string) => void = () => {},
  ) {
    this.peers = new Peers(this.threads, new Set(peerNames));
  }

  /** Does something that several bars need once. */
  once<T>(key: string, work: () => Promise<T>): Promise<T> {
    const known = (this.#known.get(key) as Promise<T> | undefined) ?? work();
    this.#known.set(key, known);
    return known;
  }

  /** A device for one measurement, disposed afterwards. */
  async with<T>(name: "cpu" | "webgpu", work: (dev: Device) => Promise<T>): Promise<T> {
    const dev = await device(name);
    try {
      return await work(dev);
    } finally {
      dev.dispose();
    }
  }

  /** Chooses lavapipe as the WebGPU adapter; why not, where it is absent. */
  lavapipe(): Promise<string | null> {
    this.#driver ??= useDriver("lavapipe");
    return this.#driver;
  }
}

/** Whether a measured value satisfies its limit. */
export function isWithin(value: number, limit: Limit): boolean {
  if ("atLeast" in limit) return value >= limit.atLeast;
  if ("atMost" in limit) return value <= limit.atMost;
  if ("below" in limit) return value < limit.below;
  return Math.abs(value - limit.near) <= limit.within;
}

/** "ok" when all values are within their limits. */
export function verdict(bar: Bar, outcome: Outcome): "ok" | "short" | "skipped" {
  if ("skipped" in outcome) return "skipped";
  return bar.limits.every((limit, i) => isWithin(outcome.values[i] ?? Number.NaN, limit)) ? "ok" : "short";
}
