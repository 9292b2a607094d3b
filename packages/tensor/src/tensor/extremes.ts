/** The largest of any number of values, `least` where there is none. `Math.max(...values)` overflows the stack from some 100,000 on. */
export function largest(values: Iterable<number>, least: number = Number.NEGATIVE_INFINITY): number {
  let most = least;
  for (const value of values) most = Math.max(most, value);
  return most;
}

/** The smallest of any number of values, `most` where there is none. */
export function smallest(values: Iterable<number>, most: number = Number.POSITIVE_INFINITY): number {
  let least = most;
  for (const value of values) least = Math.min(least, value);
  return least;
}
