/**
 * Throws unless two lists hold the same numbers, bit for bit but for the kinds of NaN: what `toEqual` says of them, a hundred times as fast
 * for millions of numbers.
 */
export function expectSameNumbers(got: ArrayLike<number>, wanted: ArrayLike<number>): void {
  if (got === wanted) return;
  if (got.length !== wanted.length) throw new Error(`${got.length} numbers instead of ${wanted.length}`);
  for (let i = 0; i < wanted.length; i++) {
    if (!Object.is(got[i], wanted[i])) throw new Error(`element ${i}: ${got[i]} instead of ${wanted[i]}`);
  }
}

/** The same of several lists. */
export function expectSameLists(got: readonly ArrayLike<number>[], wanted: readonly ArrayLike<number>[]): void {
  if (got.length !== wanted.length) throw new Error(`${got.length} lists instead of ${wanted.length}`);
  for (const [i, list] of wanted.entries()) expectSameNumbers(got[i] ?? [], list);
}
