import type { IncomingHttpHeaders } from "node:http";
import { setTimeout as sleep } from "node:timers/promises";
import { CheckpointError } from "@lowrank/tensor";
import type { Hub } from "./environment.js";

/** A failure after which the same may work: a cut, a stall, a hub that is busy. */
export class TransientError extends Error {
  override readonly name = "TransientError";
  /** What the host asks to wait. */
  readonly waitMs: number | null;
  /** Of how many attempts it counts. */
  readonly cost: number;
  /** Bytes that the attempt brought nevertheless. */
  receivedBytes = 0;

  constructor(message: string, { waitMs = null, cost = 1 }: { readonly waitMs?: number | null; readonly cost?: number } = {}) {
    super(message);
    this.waitMs = waitMs;
    this.cost = cost;
  }
}

/** Nobody answers, or in a way that no repetition changes. */
export class UnreachableError extends Error {
  override readonly name = "UnreachableError";
}

const attempts = 5;
/** Bytes that make an attempt a success; with fewer, one counts a tenth. */
const progressBytes = 65536;
/** The hub's windows of counting are five minutes long. */
const longestWaitMs = 330_000;

/**
 * Works until it succeeds, or fails in a way that no repetition mends, or has failed five times in a row with nothing to show. Waits in between as
 * the hub asks, else longer each time. `what` and `done`, what was to become of it, are for errors.
 */
export async function persistently<T>(hub: Hub, id: string, what: string, work: () => Promise<T>, done = "fetched"): Promise<T> {
  let left = attempts;
  let pauseMs = hub.retryMs;
  for (;;) {
    hub.signal?.throwIfAborted();
    try {
      return await work();
    } catch (error) {
      hub.signal?.throwIfAborted();
      if (!(error instanceof TransientError)) throw error;
      const { receivedBytes, cost } = error;
      if (receivedBytes >= progressBytes) [left, pauseMs] = [attempts, hub.retryMs];
      else left -= receivedBytes > 0 && cost <= 1 ? 0.1 : cost;
      if (left <= 0) throw new CheckpointError(`${id}: ${what} cannot be ${done}: ${error.message}. Try again later.`, id);
      if ((error.waitMs ?? 0) > longestWaitMs)
        throw new CheckpointError(
          `${id}: ${what} cannot be ${done}: ${error.message} and asks to wait ${Math.ceil((error.waitMs ?? 0) / 60_000)} minutes. Try again then; with a token (HF_TOKEN) the hub allows more.`,
          id,
        );
      if ((error.waitMs ?? 0) >= 2000)
        hub.onNote(`${error.message} and asks to wait ${Math.ceil((error.waitMs ?? 0) / 1000)} s; waiting …`);
      await pause(error.waitMs ?? (receivedBytes > 0 ? hub.retryMs : pauseMs), hub.signal);
      if (receivedBytes === 0) pauseMs *= 2;
    }
  }
}

/** Waits. Rejects with the signal's reason when it is aborted. */
export async function pause(ms: number, signal: AbortSignal | undefined): Promise<void> {
  await sleep(ms, undefined, signal ? { signal } : {}).catch(() => undefined);
  signal?.throwIfAborted();
}

/**
 * What an answer asks to wait, in milliseconds; null where it does not: Retry-After in seconds or as a date (RFC 9110 § 10.2.3), or the hub's
 * `ratelimit: "api";r=0;t=55` (draft-ietf-httpapi-ratelimit-headers), where nothing remains for t seconds.
 */
export function askedWaitMs(headers: IncomingHttpHeaders, now: number = Date.now()): number | null {
  const after = headers["retry-after"]?.trim() ?? "";
  if (/^\d+$/.test(after)) return 1000 * Number(after);
  const date = Date.parse(after);
  if (!Number.isNaN(date)) return Math.max(0, date - now);
  const [, remaining, seconds] = /;\s*r\s*=\s*(\d+)\s*;\s*t\s*=\s*(\d+)/.exec([headers["ratelimit"] ?? ""].flat().join(",")) ?? [];
  return remaining !== undefined && Number(remaining) === 0 ? 1000 * (Number(seconds) + 1) : null;
}
