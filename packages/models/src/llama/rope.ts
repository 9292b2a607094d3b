import { type Device, type Tensor, tensor } from "@lowrank/tensor";
import * as z from "zod/mini";
import { checked, positive, rule, shown } from "../schema.js";

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

const kinds = ["default", "linear", "llama3"] as const;

/** Fields of each kind of scaling, in either place of a config.json. */
const schemas = {
  default: z.object({ rope_theta: positive(10000) }),
  linear: z.object({ rope_theta: positive(10000), factor: positive() }),
  llama3: z.object({
    rope_theta: positive(10000),
    factor: positive(),
    low_freq_factor: positive(),
    high_freq_factor: positive(),
    original_max_position_embeddings: positive(),
  }),
};

/** What every kind has. */
const common = z
  .object({ partial_rotary_factor: z.unknown() })
  .check(
    rule(({ partial_rotary_factor: share }) =>
      (share ?? 1) === 1 ? null : `"partial_rotary_factor" is ${shown(share)}, only 1 is supported`,
    ),
  );

/** Reads the rotary parameters. Throws CheckpointError for kinds that are not known, and for numbers that are missing or wrong. */
export function readRope(json: Readonly<Record<string, unknown>>, path: string): RopeScaling {
  const place = json["rope_parameters"] == null ? "rope_scaling" : "rope_parameters";
  const raw = json[place] ?? {};
  const scaling = (typeof raw === "object" ? raw : {}) as Readonly<Record<string, unknown>>;
  const type = scaling["rope_type"] ?? scaling["type"] ?? "default";
  checked(common, { partial_rotary_factor: scaling["partial_rotary_factor"] ?? json["partial_rotary_factor"] }, path);
  const kind = checked(kindSchema(place), type, path);
  const fields = {
    ...scaling,
    rope_theta: scaling["rope_theta"] ?? json["rope_theta"],
    original_max_position_embeddings: scaling["original_max_position_embeddings"] ?? json["original_max_position_embeddings"],
  };
  switch (kind) {
    case "default":
      return { kind, theta: checked(schemas.default, fields, path, place).rope_theta };
    case "linear": {
      const { rope_theta: theta, factor } = checked(schemas.linear, fields, path, place);
      return { kind, theta, factor };
    }
    case "llama3": {
      const { rope_theta: theta, factor, ...rest } = checked(schemas.llama3, fields, path, place);
      const { low_freq_factor: lowFactor, high_freq_factor: highFactor, original_max_position_embeddings: originalLength } = rest;
      return { kind, theta, factor, lowFactor, highFactor, originalLength };
    }
  }
}

/** The kind of scaling of a place. */
function kindSchema(place: string): z.ZodMiniType<(typeof kinds)[number], unknown> {
  return z.custom<(typeof kinds)[number], unknown>((value) => kinds.includes(value as (typeof kinds)[number]), {
    error: ({ input }) => `"${place}" has the type ${shown(input)}, supported are default, linear and llama3`,
  });
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
