import { NotFiniteError } from "../../tensor/errors.js";

/** Throws NotFiniteError for the first number beyond ±`most`, with the name of what holds it, `type` and its place. */
export function checkFinite(values: Float32Array, name: string, type: string = "4 bits", most: number = Number.MAX_VALUE): void {
  for (let i = 0; i < values.length; i++) {
    const value = values[i] ?? 0;
    if (Math.abs(value) <= most) continue;
    const at = `[${i}]`;
    const fact = Number.isFinite(value) ? `, beyond the ±${most} of ${type}` : ", which cannot be quantized";
    throw new NotFiniteError(
      `${name}: number ${at} is ${value}${fact}. Look for what made it, or keep this tensor as it is.`,
      name,
      name,
      at,
    );
  }
}
