import { AdapterError } from "../errors.js";
import { type Decomposition, leadingCount } from "../linalg/svd.js";
import type { HostPair } from "./build.js";

/** How large the pairs become: one rank for all layers, or on each the smallest that keeps a share of its squared Frobenius norm. */
export type RankChoice = { readonly rank: number; readonly energy?: undefined } | { readonly energy: number; readonly rank?: undefined };

/** How much of a layer's change its new pair holds. */
export interface KeptLayer {
  readonly name: string;
  readonly rank: number;
  /** ‖B A‖² / ‖ΔW‖², from 0 to 1 (1 where nothing changed). */
  readonly kept: number;
  /** ‖ΔW‖² (Frobenius). */
  readonly energy: number;
}

/** How much of all changes is kept. */
export interface KeptReport {
  readonly layers: readonly KeptLayer[];
  /** The layers' kept energy, over the energy of all. */
  readonly kept: number;
}

/** Throws AdapterError unless there is a whole rank of at least 1, or an energy above 0 and up to 1. */
export function checkRankChoice({ rank, energy }: { readonly rank?: number | undefined; readonly energy?: number | undefined }): void {
  if ((rank === undefined) === (energy === undefined))
    throw new AdapterError("Either a rank or an energy decides how large the pairs become. Give one of the two.", ["rank", "energy"]);
  if (rank !== undefined && (!Number.isInteger(rank) || rank < 1))
    throw new AdapterError(`rank is ${rank}. It is a whole number of at least 1; 4 to 64 are usual.`, ["rank"]);
  if (energy !== undefined && !(energy > 0 && energy <= 1))
    throw new AdapterError(`energy is ${energy}. It is the share of the change to keep, above 0 and up to 1; 0.95 is usual.`, ["energy"]);
}

/** The smallest number of leading singular values that hold a share of the energy, at least 1; null where even all of these do not. */
export function rankOfEnergy(s: Float64Array, share: number, energy: number): number | null {
  return leadingCount(
    s.map((value) => value * value),
    share * energy,
  );
}

/**
 * B = U √S and A = √S Vᵀ, so that both weigh the same; B is zero, and A a new adapter's, where the rank is above the number of values. In single
 * precision, as adapters are: the pairs of all layers wait for their ranks.
 */
export function balancedPair({ u, s, v }: Decomposition, rank: number, rows: number, columns: number): HostPair {
  const a = new Float32Array(rank * columns);
  const b = new Float32Array(rows * rank);
  const used = Math.min(rank, s.length);
  for (let k = 0; k < used; k++) {
    const root = Math.sqrt(s[k] ?? 0);
    for (let column = 0; column < columns; column++) a[k * columns + column] = root * (v[column * s.length + k] ?? 0);
    for (let row = 0; row < rows; row++) b[row * rank + k] = root * (u[row * s.length + k] ?? 0);
  }
  return { a, b, rank, filled: used };
}

/** The report's line of a layer that keeps the first `rank` singular values out of `energy`. */
export function keptLayer(name: string, s: Float64Array, rank: number, energy: number): KeptLayer {
  const kept = s.subarray(0, rank).reduce((sum, value) => sum + value * value, 0);
  return { name, rank, energy, kept: energy === 0 ? 1 : Math.min(1, kept / energy) };
}

/** The layers together. */
export function keptReport(layers: readonly KeptLayer[]): KeptReport {
  const energy = layers.reduce((sum, layer) => sum + layer.energy, 0);
  const kept = layers.reduce((sum, layer) => sum + layer.energy * layer.kept, 0);
  return { layers, kept: energy === 0 ? 1 : kept / energy };
}

/** Σ values². */
export function energyOf(values: Float64Array): number {
  return values.reduce((sum, value) => sum + value * value, 0);
}
