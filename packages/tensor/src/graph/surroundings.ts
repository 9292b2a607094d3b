/** Large enough to tell states apart, small enough that sums of two stay exact. */
const modulus = 2 ** 52;

let state = 0;

/** A number for whatever, outside of its arguments, decides which graph a compiled function records. Part of a recording's key. */
export function surroundings(): number {
  return state;
}

/**
 * Replaces one contribution to `surroundings`, for instance a module's: its wrappers, whether it trains. A recording made in the same
 * surroundings is found again when they come back. Contributions are `mixed` numbers, or 0 for the plain state.
 */
export function changeSurroundings(before: number, after: number): void {
  const change = (after - before + modulus) % modulus;
  state = (state + change) % modulus;
}

/** Integers scattered over [0, 2^52), the same for the same sequence. */
export function mixed(...parts: readonly number[]): number {
  let [high, low] = [0x9e3779b9, 0x85ebca6b];
  for (const part of parts) {
    high = Math.imul(high ^ part, 0x27d4eb2f);
    high ^= high >>> 15;
    low = Math.imul(low + part, 0x165667b1) ^ high;
    low ^= low >>> 13;
  }
  return (high >>> 12) * 2 ** 32 + (low >>> 0);
}
