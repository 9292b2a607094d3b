import { type Examples, lineAt, longestLength, tokenCountAt } from "./examples.js";

/** Mulberry32: seeded numbers in [0, 1). */
function randomNumbers(seed: number): () => number {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let t = Math.imul(state ^ (state >>> 15), state | 1);
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32;
  };
}

/** 0 … count-1 in the order of one epoch (Fisher–Yates); a function of seed and epoch alone. */
export function shuffledOrder(count: number, seed: number, epoch: number): Uint32Array {
  const random = randomNumbers(Math.imul(seed, 0x9e3779b1) ^ Math.imul(epoch + 1, 0x85ebca6b));
  const order = new Uint32Array(count);
  for (let i = 0; i < count; i++) order[i] = i;
  for (let i = count - 1; i > 0; i--) {
    const j = Math.floor(random() * (i + 1));
    const moved = order[i] as number; // i < count
    order[i] = order[j] as number; // j ≤ i
    order[j] = moved;
  }
  return order;
}

/** 0 … count-1 by the examples' lengths, the shortest first; those of one length by their lines. */
export function lengthOrder(examples: Examples): Uint32Array {
  const count = examples.length;
  // Counted into place, because comparing millions takes many seconds.
  const places = new Uint32Array(longestLength(examples) + 2);
  for (let i = 0; i < count; i++) (places[tokenCountAt(examples, i) + 1] as number)++;
  for (let length = 1; length < places.length; length++) (places[length] as number) += places[length - 1] as number;
  const sorted = new Uint32Array(count);
  for (const index of lineOrder(examples)) sorted[(places[tokenCountAt(examples, index)] as number)++] = index;
  return sorted;
}

/** 0 … count-1 by the examples' lines; mostly they are in order. */
function lineOrder(examples: Examples): Uint32Array {
  const order = new Uint32Array(examples.length);
  let isAscending = true;
  for (let i = 0; i < order.length; i++) {
    order[i] = i;
    if (i > 0 && lineAt(examples, i) < lineAt(examples, i - 1)) isAscending = false;
  }
  return isAscending ? order : order.sort((a, b) => lineAt(examples, a) - lineAt(examples, b));
}
