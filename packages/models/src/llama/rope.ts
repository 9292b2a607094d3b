import { type Device, type Tensor, tensor } from "@lowrank/tensor";
import type { ConfigFields } from "../config.js";

/** How rotary frequencies are made: transformers' `rope_parameters` (or `rope_theta` and `rope_scaling` in older files). */
export type RopeScaling =
  | { readonly kind: "default"; readonly theta: number }
  | { readonly kind: "linear"; readonly theta: number; readonly factor: number }
  | {
      readonly kind: "llama3";
      readonly theta: number;
      readonly factor: number;
      readonly lowFactor: number;
      readonly highFactor: number;
      readonly originalLength: number;
    };

/** Reads the rotary parameters; notes unknown kinds and missing numbers in `fields`. */
export function readRope(json: Readonly<Record<string, unknown>>, fields: ConfigFields): RopeScaling {
  const raw = json["rope_parameters"] ?? json["rope_scaling"] ?? {};
  const scaling = (typeof raw === "object" ? raw : {}) as Readonly<Record<string, unknown>>;
  const place = json["rope_parameters"] == null ? "rope_scaling" : "rope_parameters";
  const number = (name: string, fallback?: unknown): number => {
    const value = scaling[name] ?? fallback;
    if (typeof value !== "number" || !(value > 0) || !Number.isFinite(value))
      fields.problem(`"${place}.${name}" is ${JSON.stringify(value) ?? "missing"}, not a number above 0`);
    return Number(value);
  };
  const theta = number("rope_theta", json["rope_theta"] ?? 10000);
  const kind: unknown = scaling["rope_type"] ?? scaling["type"] ?? "default";
  const partial = scaling["partial_rotary_factor"] ?? json["partial_rotary_factor"] ?? 1;
  if (partial !== 1) fields.problem(`"partial_rotary_factor" is ${JSON.stringify(partial)}, only 1 is supported`);
  switch (kind) {
    case "default":
      return { kind: "default", theta };
    case "linear":
      return { kind: "linear", theta, factor: number("factor") };
    case "llama3":
      return {
        kind: "llama3",
        theta,
        factor: number("factor"),
        lowFactor: number("low_freq_factor"),
        highFactor: number("high_freq_factor"),
        originalLength: number("original_max_position_embeddings", json["original_max_position_embeddings"]),
      };
    default:
      fields.problem(`"${place}" has the type ${JSON.stringify(kind)}, supported are default, linear and llama3`);
      return { kind: "default", theta };
  }
}

/** Angular frequencies of the pairs of one head, headDim / 2 of them, in float64. transformers' ROPE_INIT_FUNCTIONS. */
export function ropeFrequencies(rope: RopeScaling, headDim: number): number[] {
  const plain = Array.from({ length: headDim / 2 }, (_, i) => rope.theta ** ((-2 * i) / headDim));
  switch (rope.kind) {
    case "default":
      return plain;
    case "linear":
      return plain.map((frequency) => frequency / rope.factor);
    case "llama3":
      return plain.map((frequency) => {
        const wavelength = (2 * Math.PI) / frequency;
        if (wavelength < rope.originalLength / rope.highFactor) return frequency;
        if (wavelength > rope.originalLength / rope.lowFactor) return frequency / rope.factor;
        const smooth = (rope.originalLength / wavelength - rope.lowFactor) / (rope.highFactor - rope.lowFactor);
        return ((1 - smooth) * frequency) / rope.factor + smooth * frequency;
      });
  }
}

/** Cosines and sines of position · frequency, computed in float64 and kept for as many positions as were ever asked for. */
export class RotaryTable {
  readonly #frequencies: readonly number[];
  readonly #tables: Map<number, { readonly cos: Tensor; readonly sin: Tensor }> = new Map();

  constructor(
    rope: RopeScaling,
    headDim: number,
    readonly device: Device,
  ) {
    this.#frequencies = ropeFrequencies(rope, headDim);
  }

  /** cos and sin, each f32 [capacity, headDim / 2] for a power of two of at least `length` positions. */
  upTo(length: number): { readonly cos: Tensor; readonly sin: Tensor } {
    const capacity = 2 ** Math.ceil(Math.log2(Math.max(length, 64)));
    const known = this.#tables.get(capacity);
    if (known) return known;
    const width = this.#frequencies.length;
    const fill = (wave: (angle: number) => number): Tensor => {
      const values = Float32Array.from({ length: capacity * width }, (_, i) =>
        wave(Math.floor(i / width) * (this.#frequencies[i % width] ?? 0)),
      );
      return tensor(values, { device: this.device, shape: [capacity, width] });
    };
    const made = { cos: fill(Math.cos), sin: fill(Math.sin) };
    this.#tables.set(capacity, made);
    return made;
  }

  /** Gives the tables back. */
  dispose(): void {
    for (const { cos, sin } of this.#tables.values()) for (const t of [cos, sin]) t.dispose();
    this.#tables.clear();
  }
}
