import { compile, type Device, decode, encode, sizeOf, type Tensor, tensor } from "@lowrank/tensor";
import { samplePositions } from "../formula.js";
import { isSkipped, type PeerName, type Peers } from "../peers/peer.js";
import type { Roofline } from "../roofline/index.js";
import { alternate, type Side, speedup, type Timing } from "../timing.js";
import type { Case, Family } from "./family.js";

/** What a peer did with a case: how much faster this engine is, or why it took no part. */
export type PeerResult = { readonly timing: Timing; readonly ratio: number } | { readonly skipped: string };

/** A case's figures. */
export interface CaseResult {
  readonly family: string;
  readonly name: string;
  readonly curve: string;
  readonly size: number;
  readonly timing: Timing;
  readonly gflops: number;
  readonly gbps: number;
  /** Of what the roofline allows at this arithmetic intensity: min(peak, bandwidth · FLOP / byte). Above 1 where the data stay in caches. */
  readonly share: number;
  /** Largest error against float64 at the sampled positions. */
  readonly error: number;
  readonly peers: Readonly<Record<string, PeerResult>>;
}

/** A case made ready on a device. */
export interface ReadyCase {
  readonly side: Side;
  /** The first result at the sampled positions. */
  readonly sample: readonly number[];
  readonly expected: readonly number[];
  dispose(): void;
}

/** A result that is wrong. Nothing that is wrong gets timed. */
export class WrongResult extends Error {
  override readonly name = "WrongResult";
}

/** Builds a case, runs it once and checks it. Throws WrongResult when it is further from float64 than its tolerance. */
export async function readyCase(device: Device, item: Case, name = "lowrank"): Promise<ReadyCase> {
  const inputs = item.inputs.map(({ shape, values, dtype }) => tensor(values, { device, shape, dtype }));
  const kernel = compile((...given: readonly Tensor[]) => [...item.build(given)]);
  const results = kernel(...inputs);
  const [first] = results;
  if (!first) throw new Error(`${item.name}: the case builds no result.`);
  const values = await first.data();
  const positions = samplePositions(sizeOf(first.shape));
  const sample = positions.map((position) => Number(values[position]));
  for (const t of results) t.dispose();
  const stored = item.inputs.map(({ values: given, dtype }) =>
    dtype === "f32" || dtype === "i32" ? given : decode(encode(given, dtype), dtype),
  );
  const expected = item.reference(stored as ArrayLike<number>[], positions);
  const error = largestError(sample, expected, item.relative);
  if (!(error <= item.tolerance)) {
    throw new WrongResult(
      `${item.name}: the result is ${error.toExponential(2)} away from float64, more than ${item.tolerance.toExponential(2)}.`,
    );
  }
  return {
    sample,
    expected,
    side: {
      name,
      async run(count) {
        const start = performance.now();
        for (let i = 0; i < count; i++) for (const t of kernel(...inputs)) t.dispose();
        await device.finish();
        return (performance.now() - start) / 1000;
      },
    },
    dispose() {
      kernel.dispose();
      for (const t of inputs) t.dispose();
    },
  };
}

/** The largest absolute difference, less what is allowed as a share of the value; infinite for a value that is no number and for lists of different lengths. */
export function largestError(got: readonly number[], expected: readonly number[], relative = 0): number {
  if (got.length !== expected.length) return Number.POSITIVE_INFINITY;
  return got.reduce((most, value, i) => {
    const wanted = expected[i] ?? Number.NaN;
    const difference = Math.abs(value - wanted) - relative * Math.abs(wanted);
    return Number.isNaN(difference) ? Number.POSITIVE_INFINITY : Math.max(most, difference);
  }, 0);
}

/** Checks and times a case, in turns with those peers that have the task and get it right. */
export async function measureCase(
  device: Device,
  family: Family,
  item: Case,
  context: { readonly peers: Peers; readonly peerNames: readonly PeerName[]; readonly roofline: Roofline; readonly isQuick: boolean },
): Promise<CaseResult> {
  const ready = await readyCase(device, item);
  const skipped: Record<string, PeerResult> = {};
  const sides: Side[] = [ready.side];
  for (const name of item.task ? context.peerNames : []) {
    const prepared = await context.peers.prepare(name, item.task as NonNullable<Case["task"]>);
    if (isSkipped(prepared)) skipped[name] = prepared;
    else {
      const error = largestError(prepared.sample, ready.expected, 20 * (item.relative ?? 0));
      // Peers may fuse or reorder; an error of another order is another computation.
      if (error <= 20 * item.tolerance + 1e-4) sides.push(prepared.side);
      else skipped[name] = { skipped: `its result is ${error.toExponential(1)} away from float64` };
    }
  }
  const [timing, ...others] = await alternate(sides, context.isQuick ? { rounds: 3, seconds: 0.005 } : {});
  ready.dispose();
  if (!timing) throw new Error("No side was timed.");
  return caseResult(family.name, item, timing, others, skipped, largestError(ready.sample, ready.expected), context.roofline);
}

/** A case's figures from its times. */
export function caseResult(
  family: string,
  { name, curve, size, flops, bytes }: Pick<Case, "name" | "curve" | "size" | "flops" | "bytes">,
  timing: Timing,
  others: readonly Timing[],
  skipped: Readonly<Record<string, PeerResult>>,
  error: number,
  { peak, bandwidth }: Roofline,
): CaseResult {
  const floor = Math.max(flops / (peak.gflops * 1e9), bytes / (bandwidth.gbps * 1e9));
  return {
    family,
    name,
    curve,
    size,
    timing,
    gflops: flops / timing.median / 1e9,
    gbps: bytes / timing.median / 1e9,
    share: floor / timing.median,
    error,
    peers: { ...skipped, ...Object.fromEntries(others.map((other) => [other.name, { timing: other, ratio: speedup(timing, other) }])) },
  };
}
