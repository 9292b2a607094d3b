import type { Grid } from "./grids.js";

/** Eight signs of seven: so that an even number of them is negative. */
export function evenSigns(bits: number): number {
  const seven = bits & 127;
  let odd = seven ^ (seven >> 4);
  odd ^= odd >> 2;
  odd ^= odd >> 1;
  return seven | ((odd & 1) << 7);
}

/** Writes a grid's point times a scale; bit i of `signs` turns the i-th number. */
export function signed({ dims, points }: Grid, index: number, signs: number, scale: number, out: Float32Array, to: number): void {
  for (let i = 0; i < dims; i++) out[to + i] = scale * (points[dims * index + i] ?? 0) * ((signs >> i) & 1 ? -1 : 1);
}
