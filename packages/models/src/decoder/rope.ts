import { concat, type Device, rope as rotateHalves, type Tensor, tensor } from "@lowrank/tensor";
import type { Pass } from "./pass.js";

/** How the frequencies θ^(−2i/d) of a head's pairs are stretched for longer texts: transformers' ROPE_INIT_FUNCTIONS. */
export type RopeScaling =
  | { readonly kind: "default" }
  /** All divided by the factor: position interpolation (Chen et al. 2023). */
  | { readonly kind: "linear"; readonly factor: number }
  /** θ grows with the length of a text beyond `length` (NTK-aware scaling). */
  | { readonly kind: "dynamic"; readonly factor: number; readonly length: number }
  /** Long waves are stretched, short ones kept, with a ramp between (Peng et al. 2023, YaRN). */
  | {
      readonly kind: "yarn";
      readonly factor: number;
      readonly length: number;
      readonly betaFast: number;
      readonly betaSlow: number;
      /** Whether the ramp's ends are whole pairs. */
      readonly truncate: boolean;
    }
  /** A factor of its own for each pair, others for texts longer than `length` (Ding et al. 2024). */
  | { readonly kind: "longrope"; readonly short: readonly number[]; readonly long: readonly number[]; readonly length: number }
  /** As yarn with a ramp over wavelengths (Llama 3.1). */
  | {
      readonly kind: "llama3";
      readonly factor: number;
      readonly lowFactor: number;
      readonly highFactor: number;
      readonly length: number;
    }
  /** Only the first pairs turn, with the frequencies of a whole head of `headDim` (Gemma 4). */
  | { readonly kind: "proportional"; readonly factor: number; readonly pairs: number };

/** Rotary positions (Su et al. 2021): pairs of a head's numbers turn by position · frequency. */
export interface RopeOptions {
  readonly theta: number;
  /** How many of a head's numbers turn, the first ones; even. */
  readonly dims: number;
  readonly scaling: RopeScaling;
  /** Which two are a pair: i and i + dims / 2, or 2 i and 2 i + 1. "halves" when absent. */
  readonly pairing?: "halves" | "adjacent";
  /** Turn the other way round. */
  readonly isReversed?: boolean;
  /** What cosines and sines are multiplied by; 1 when absent. */
  readonly attentionFactor?: number;
}

/** Cosines and sines, [seq, dims / 2], or [batch, 1, seq, dims / 2] behind a cache and of packed rows. */
export interface Waves {
  readonly cos: Tensor;
  readonly sin: Tensor;
}

/** Angular frequencies of the dims / 2 pairs in a text of `length` positions, in float64. */
export function ropeFrequencies({ theta, dims, scaling }: RopeOptions, length: number): number[] {
  const powers = (base: number): number[] => Array.from({ length: dims / 2 }, (_, i) => base ** ((-2 * i) / dims));
  const plain = powers(theta);
  switch (scaling.kind) {
    case "default":
      return plain;
    case "linear":
      return plain.map((frequency) => frequency / scaling.factor);
    case "dynamic":
      return powers(theta * growth(scaling, Math.max(length, scaling.length)) ** (dims / (dims - 2)));
    case "yarn": {
      const pairAt = (turns: number): number => (dims * Math.log(scaling.length / (turns * 2 * Math.PI))) / (2 * Math.log(theta));
      const [from, to] = [pairAt(scaling.betaFast), pairAt(scaling.betaSlow)];
      const low = Math.max(scaling.truncate ? Math.floor(from) : from, 0);
      const high = Math.min(scaling.truncate ? Math.ceil(to) : to, dims - 1);
      return plain.map((frequency, i) => {
        const ramp = Math.min(Math.max((i - low) / (low === high ? 0.001 : high - low), 0), 1);
        return (frequency / scaling.factor) * ramp + frequency * (1 - ramp);
      });
    }
    case "longrope": {
      const factors = length > scaling.length ? scaling.long : scaling.short;
      return plain.map((frequency, i) => frequency / (factors[i] ?? 1));
    }
    case "llama3":
      return plain.map((frequency) => {
        const wavelength = (2 * Math.PI) / frequency;
        if (wavelength < scaling.length / scaling.highFactor) return frequency;
        if (wavelength > scaling.length / scaling.lowFactor) return frequency / scaling.factor;
        const smooth = (scaling.length / wavelength - scaling.lowFactor) / (scaling.highFactor - scaling.lowFactor);
        return ((1 - smooth) * frequency) / scaling.factor + smooth * frequency;
      });
    case "proportional":
      return plain.map((frequency, i) => (i < scaling.pairs ? frequency / scaling.factor : 0));
  }
}

function growth({ factor, length: known }: { readonly factor: number; readonly length: number }, length: number): number {
  return (factor * length) / known - (factor - 1);
}

/** True where frequencies depend on how long a text is. */
export function dependsOnLength({ scaling: { kind } }: RopeOptions): boolean {
  return kind === "dynamic" || kind === "longrope";
}

/** The rotary embedding of some layers. Tables are computed in float64 and kept for as many positions as were ever asked for. */
export class Rotary {
  readonly #tables: Map<string, Waves> = new Map();

  constructor(
    readonly options: RopeOptions,
    readonly device: Device,
  ) {}

  /** The waves of one pass. */
  at(pass: Pass): Waves {
    const { cache, packed, batch, length } = pass;
    if (cache && this.options.scaling.kind === "dynamic") return this.#grown(pass, this.options.scaling);
    const table = this.#tableFor(pass);
    if (!cache && !packed) {
      const from = pass.prefix?.length ?? 0;
      return { cos: table.cos.narrow(0, from, length), sin: table.sin.narrow(0, from, length) };
    }
    const shape = [batch, 1, length, this.options.dims / 2];
    const read = ({ cos, sin }: Waves): Waves => ({
      cos: cos.gather(pass.positions).reshape(shape),
      sin: sin.gather(pass.positions).reshape(shape),
    });
    const { scaling } = this.options;
    if (!cache || scaling.kind !== "longrope") return read(table);
    const isLong = cache.lengths.greater(scaling.length).reshape([batch, 1, 1, 1]);
    const [short, long] = [read(table), read(this.#upTo(Math.min(cache.capacity, pass.contextLength), Number.POSITIVE_INFINITY))];
    return { cos: isLong.where(long.cos, short.cos), sin: isLong.where(long.sin, short.sin) };
  }

  /** x [batch, heads, seq, headDim] with its first `dims` numbers turned. */
  turn(x: Tensor, waves: Waves): Tensor {
    const { dims, pairing = "halves" } = this.options;
    const width = x.shape[x.rank - 1] ?? 0;
    const turned = pairing === "halves" ? rotateHalves : rotateNeighbours;
    if (dims === width) return turned(x, waves.cos, waves.sin);
    return concat([turned(x.narrow(-1, 0, dims), waves.cos, waves.sin), x.narrow(-1, dims, width - dims)], -1);
  }

  /** Gives the tables back. */
  dispose(): void {
    for (const { cos, sin } of this.#tables.values()) for (const t of [cos, sin]) t.dispose();
    this.#tables.clear();
  }

  #tableFor({ cache, longest, contextLength }: Pass): Waves {
    if (cache) return this.#upTo(Math.min(cache.capacity, contextLength), 0);
    return this.#upTo(longest ?? 0, longest ?? 0);
  }

  /** For a power of two of at least `count` positions, with the frequencies of a text of `length` positions. */
  #upTo(count: number, length: number): Waves {
    const capacity = 2 ** Math.ceil(Math.log2(Math.max(count, 64)));
    const { isReversed = false, attentionFactor = 1 } = this.options;
    const frequencies = ropeFrequencies(this.options, length);
    const key = dependsOnLength(this.options) ? `${capacity} ${frequencies.join(" ")}` : `${capacity}`;
    const known = this.#tables.get(key);
    if (known) return known;
    const width = frequencies.length;
    const fill = (wave: (angle: number) => number): Tensor => {
      const values = Float32Array.from(
        { length: capacity * width },
        (_, i) => wave(Math.floor(i / width) * (frequencies[i % width] ?? 0)) * attentionFactor,
      );
      return tensor(values, { device: this.device, shape: [capacity, width] });
    };
    const made = { cos: fill(Math.cos), sin: fill(isReversed ? (angle) => -Math.sin(angle) : Math.sin) };
    this.#tables.set(key, made);
    return made;
  }

  /** Behind a cache only the device knows how long each text is: ln θ' = ln θ + d / (d − 2) · ln(factor · length / known − factor + 1). */
  #grown({ batch, length, cache, positions }: Pass, scaling: { readonly factor: number; readonly length: number }): Waves {
    const { theta, dims, isReversed = false, attentionFactor = 1 } = this.options;
    const lengths = (cache?.lengths ?? positions).cast("f32").maximum(scaling.length);
    const grown = lengths.mul(scaling.factor / scaling.length).sub(scaling.factor - 1);
    const logTheta = grown
      .log()
      .mul(dims / (dims - 2))
      .add(Math.log(theta));
    const exponents = tensor(
      Array.from({ length: dims / 2 }, (_, i) => (-2 * i) / dims),
      { device: this.device },
    );
    const frequencies = logTheta.reshape([batch, 1, 1, 1]).mul(exponents).exp();
    const angles = positions.cast("f32").reshape([batch, 1, length, 1]).mul(frequencies);
    return { cos: angles.cos().mul(attentionFactor), sin: angles.sin().mul(isReversed ? -attentionFactor : attentionFactor) };
  }
}

/** As `rope` of pairs that stand beside each other. */
function rotateNeighbours(x: Tensor, cos: Tensor, sin: Tensor): Tensor {
  const half = (x.shape[x.rank - 1] ?? 0) / 2;
  const pairs = x.reshape([...x.shape.slice(0, -1), half, 2]);
  const sign = tensor([-1, 1], { device: x.device });
  const spread = (t: Tensor): Tensor => t.reshape([...t.shape, 1]);
  return pairs
    .mul(spread(cos))
    .add(pairs.flip(-1).mul(sign).mul(spread(sin)))
    .reshape(x.shape);
}
