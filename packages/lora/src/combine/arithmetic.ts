import { AdapterError } from "../errors.js";
import type { HostMatrix } from "../linalg/product.js";

/** How the sign is chosen that a number of the result has: by the sum of all values, or by how many have it. */
export type MajoritySign = "total" | "frequency";

/** Keeps the share `density` of numbers that are largest in magnitude and zeroes the rest; of equal ones the first. peft magnitude_based_pruning. */
export function magnitudePruned(values: HostMatrix, density: number): HostMatrix {
  if (density >= 1) return values;
  const count = Math.floor(density * values.length);
  const result = new Float64Array(values.length);
  if (count === 0) return result;
  const sorted = Float64Array.from(values, Math.abs).sort();
  const least = sorted[values.length - count] ?? 0;
  let above = 0;
  for (const value of values) if (Math.abs(value) > least) above++;
  let spare = count - above;
  for (const [i, value] of values.entries()) {
    const size = Math.abs(value);
    if (size > least || (size === least && spare-- > 0)) result[i] = value;
  }
  return result;
}

/**
 * Keeps each number with the probability `density`, where its uniform number in [0, 1) is below it, and divides it by that probability, so
 * that the expected value stays (DARE; Yu et al. 2023). peft random_pruning with rescale.
 */
export function randomPruned(values: HostMatrix, density: number, uniform: ArrayLike<number>): HostMatrix {
  if (density >= 1) return values;
  return Float64Array.from(values, (value, i) => ((uniform[i] ?? 0) < density ? value / density : 0));
}

/** Σ weight · values (Ilharco et al. 2022). peft task_arithmetic. */
export function weightedSum(tasks: readonly HostMatrix[], weights: readonly number[]): Float64Array {
  const result = new Float64Array(tasks[0]?.length ?? 0);
  for (const [task, values] of tasks.entries()) {
    const weight = weights[task] ?? 0;
    for (const [i, value] of values.entries()) result[i] = (result[i] ?? 0) + weight * value;
  }
  return result;
}

/**
 * TIES (Yadav et al. 2023) after pruning: each number has the sign of the majority, and is the mean of weight · value over those that have
 * that sign. peft calculate_majority_sign_mask and disjoint_merge.
 */
export function signedMean(tasks: readonly HostMatrix[], weights: readonly number[], majority: MajoritySign): Float64Array {
  return Float64Array.from({ length: tasks[0]?.length ?? 0 }, (_, i) => {
    let balance = 0;
    for (const values of tasks) balance += majority === "total" ? (values[i] ?? 0) : Math.sign(values[i] ?? 0);
    const sign = balance >= 0 ? 1 : -1;
    let [sum, count] = [0, 0];
    for (const [task, values] of tasks.entries()) {
      const value = values[i] ?? 0;
      if (Math.sign(value) !== sign) continue;
      sum += (weights[task] ?? 0) * value;
      count++;
    }
    return sum / Math.max(count, 1);
  });
}

/** Throws AdapterError for a density outside of what pruning takes, or none where the method prunes. */
export function checkedDensity(method: string, density: number | undefined): number {
  if (density === undefined || !(density > 0 && density <= 1)) {
    throw new AdapterError(
      `${method} keeps a share of the numbers, and density is ${density === undefined ? "not given" : density}. Give a density above 0, up to 1; 0.2 to 0.5 is usual.`,
      ["density"],
    );
  }
  return density;
}
