// What every side of a comparison knows without being sent it. No engine is imported here: peers run in processes of their own.

/**
 * Element i of input number j with seed s is ((7919 i + 104729 j + 31 s) mod 1009) / 1009 − 1/2, in f32: all sides of a comparison make
 * their inputs by this formula, so that none has to be sent.
 */
export function inputValues(count: number, input: number, seed = 0, scale = 1): Float32Array<ArrayBuffer> {
  const values = new Float32Array(count);
  let word = (input * 104729 + seed * 31) % 1009;
  for (let i = 0; i < count; i++) {
    values[i] = Math.fround((word / 1009 - 0.5) * scale);
    word = (word + 7919) % 1009;
  }
  return values;
}

/** Token ids, row numbers and labels: id i is (7919 i) mod `limit`. */
export function inputIds(count: number, limit: number): Int32Array<ArrayBuffer> {
  return Int32Array.from({ length: count }, (_, i) => (i * 7919) % limit);
}

/** Where results are looked at: `count` positions spread over them. Sides of other languages send theirs from the same 16. */
export function samplePositions(size: number, count = 16): number[] {
  return Array.from({ length: count }, (_, i) => (i * 7919) % size);
}

/** The entries of a result that are compared. */
export function sampleOf(values: ArrayLike<number>): number[] {
  return samplePositions(values.length).map((at) => values[at] ?? Number.NaN);
}
