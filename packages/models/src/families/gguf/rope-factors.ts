import { largest } from "@lowrank/tensor";
import type { RopeScaling } from "../../decoder/rope.js";
import type { GgufReader } from "./facts.js";

type Json = Readonly<Record<string, unknown>>;
type Llama3 = Extract<RopeScaling, { readonly kind: "llama3" }>;

/** What Llama 3's scaling divides the frequencies of the dims / 2 pairs by, in f32 as the converter computes it. */
export function llama3Factors(theta: number, dims: number, { factor, lowFactor, highFactor, length }: Llama3): Float32Array {
  const f = Math.fround;
  return Float32Array.from({ length: dims / 2 }, (_, i) => {
    const frequency = f(1 / f(theta ** f((2 * i) / dims)));
    const wavelength = f((2 * Math.PI) / frequency);
    if (wavelength < length / highFactor) return 1;
    if (wavelength > length / lowFactor) return factor;
    const smooth = f(f(f(length / wavelength) - lowFactor) / (highFactor - lowFactor));
    return 1 / f(f(f(1 - smooth) / factor) + smooth);
  });
}

/**
 * The parameters whose scaling these factors are. They are the same for all multiples of the two frequency factors with the context's length, so
 * the first is 1; where the factors are no Llama 3's, they stand for themselves, as factors of any length.
 */
export function llama3Of(factors: Float32Array, theta: number, file: GgufReader): Json {
  const dims = 2 * factors.length;
  const wavelengths = Array.from(factors, (_, i) => 2 * Math.PI * theta ** ((2 * i) / dims));
  const factor = largest(factors);
  const own = {
    rope_type: "longrope",
    long_factor: [...factors],
    short_factor: [...factors],
    original_max_position_embeddings: file.count("context_length"),
    attention_factor: 1,
  };
  if (!(factor > 1)) return factors.every((value) => value === 1) ? { rope_type: "default" } : own;
  for (const found of candidates(factors, wavelengths, factor)) {
    const made = llama3Factors(theta, dims, { kind: "llama3", factor, ...found });
    if (!made.every((value, i) => Math.abs(value - (factors[i] ?? 0)) <= 1e-5 * value)) continue;
    return {
      rope_type: "llama3",
      factor,
      low_freq_factor: found.lowFactor,
      high_freq_factor: found.highFactor,
      original_max_position_embeddings: found.length,
    };
  }
  return own;
}

/** Lengths and frequency factors that the pairs between the two bands speak for. */
function candidates(factors: Float32Array, wavelengths: readonly number[], factor: number): Omit<Llama3, "kind" | "factor">[] {
  // Between the bands 1 / f = (1 − s) / factor + s, with s = (length / wavelength − low) / (high − low): a line over 1 / wavelength.
  const points = [...factors].flatMap((value, i) =>
    value > 1.0001 && value < factor * 0.9999 ? [{ x: 1 / (wavelengths[i] ?? 1), s: (1 / value - 1 / factor) / (1 - 1 / factor) }] : [],
  );
  const [first, last] = [points[0], points.at(-1)];
  const found: Omit<Llama3, "kind" | "factor">[] = [];
  const usual = { lowFactor: 1, highFactor: 4 };
  if (first) found.push({ ...usual, length: Math.round((3 * first.s + 1) / first.x) });
  if (first && last && first !== last) {
    const slope = (first.s - last.s) / (first.x - last.x);
    const highFactor = 1 - 1 / (first.s - slope * first.x);
    found.push({ lowFactor: 1, highFactor, length: Math.round(slope * (highFactor - 1)) });
    found.push({ lowFactor: 1, highFactor: Math.round(highFactor * 1000) / 1000, length: Math.round(slope * (highFactor - 1)) });
  }
  // No pair between: any length serves whose bands part them alike.
  const edge = [...factors].findIndex((value) => value !== 1);
  if (!first && edge >= 0)
    found.push({ ...usual, length: Math.round(Math.sqrt((wavelengths[edge - 1] ?? 1) * 4 * (wavelengths[edge] ?? 1))) });
  return found;
}
