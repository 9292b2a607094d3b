// Numbers that look random and follow from a seed, so that every mutant can be made again.

/** @typedef {ReturnType<typeof randomOf>} Random */

/**
 * Mulberry32 (Ettinger 2017) with a seed mixed from two numbers.
 * @param {number} seed
 * @param {number} index
 */
export function randomOf(seed, index) {
  let state = Math.imul(seed ^ 0x9e3779b9, 0x85ebca6b) ^ Math.imul(index + 1, 0xc2b2ae35);
  const next = () => {
    state = (state + 0x6d2b79f5) | 0;
    let t = Math.imul(state ^ (state >>> 15), 1 | state);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32;
  };
  return {
    next,
    /** A whole number from 0 up to, but not including, n. @param {number} n */
    below: (n) => Math.floor(next() * n),
    /** @param {number} share */
    chance: (share) => next() < share,
    /** @template T @param {readonly T[]} list @returns {T} */
    pick: (list) => /** @type {T} */ (list[Math.floor(next() * list.length)]),
  };
}
