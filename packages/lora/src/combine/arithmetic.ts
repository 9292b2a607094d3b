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
  // Plain loops, here and below: a layer's weight is a million numbers.
  const sizes = new Float64Array(values.length);
  for (let i = 0; i < sizes.length; i++) sizes[i] = Math.abs(values[i] ?? 0);
  const least = ranked(sizes, values.length - count);
  let above = 0;
  for (let i = 0; i < sizes.length; i++) if ((sizes[i] ?? 0) > least) above++;
  let spare = count - above;
  for (let i = 0; i < values.length; i++) {
    const value = values[i] ?? 0;
    const size = Math.abs(value);
    if (size > least || (size === least && spare-- > 0)) result[i] = value;
  }
  return result;
}

/** The number that would stand at a position if they were sorted: by quickselect (Hoare 1961), in place, without sorting the others. */
function ranked(values: Float64Array, position: number): number {
  let [low, high] = [0, values.length - 1];
  while (low < high) {
    // The middle one of three, so that sorted numbers take no longer than others.
    const [a, b, c] = [values[low] ?? 0, values[(low + high) >>> 1] ?? 0, values[high] ?? 0];
    const pivot = Math.max(Math.min(a, b), Math.min(Math.max(a, b), c));
    let [i, j] = [low, high];
    while (i <= j) {
      while ((values[i] ?? 0) < pivot) i++;
      while ((values[j] ?? 0) > pivot) j--;
      if (i > j) break;
      const moved = values[i] ?? 0;
      values[i++] = values[j] ?? 0;
      values[j--] = moved;
    }
    if (position <= j) high = j;
    else if (position >= i) low = i;
    else break;
  }
  return values[position] ?? 0;
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
    for (let i = 0; i < values.length; i++) result[i] = (result[i] ?? 0) + weight * (values[i] ?? 0);
  }
  return result;
}

/**
 * TIES (Yadav et al. 2023) after pruning: each number has the sign of the majority, and is the mean of weight · value over those that have
 * that sign. peft calculate_majority_sign_mask and disjoint_merge.
 */
export function signedMean(tasks: readonly HostMatrix[], weights: readonly number[], majority: MajoritySign): Float64Array {
  const isTotal = majority === "total";
  const result = new Float64Array(tasks[0]?.length ?? 0);
  for (let i = 0; i < result.length; i++) {
    let balance = 0;
    for (const values of tasks) balance += isTotal ? (values[i] ?? 0) : Math.sign(values[i] ?? 0);
    const sign = balance >= 0 ? 1 : -1;
    let [sum, count] = [0, 0];
    for (let task = 0; task < tasks.length; task++) {
      const value = tasks[task]?.[i] ?? 0;
      if (Math.sign(value) !== sign) continue;
      sum += (weights[task] ?? 0) * value;
      count++;
    }
    result[i] = sum / Math.max(count, 1);
  }
  return result;
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
