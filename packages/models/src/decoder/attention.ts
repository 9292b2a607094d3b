import { nn } from "@lowrank/autograd";
import type { Tensor } from "@lowrank/tensor";
import { attend } from "../attend.js";
import { joinHeads, type Kept, splitHeads } from "../causal-lm.js";
import { normal, type ParameterInit, type Weights } from "../parameters.js";
import type { Mixer, Part, Place } from "./mixer.js";
import { HeadNorms, Norm, type NormOptions } from "./norm.js";
import type { Pass } from "./pass.js";
import type { RopeOptions, Rotary } from "./rope.js";

/** What the projections are called below the attention's own name: one each, or one for queries, keys and values. */
export type ProjectionNames =
  | { readonly q: string; readonly k: string; readonly v: string; readonly out: string }
  | {
      readonly qkv: string;
      readonly out: string;
      /**
       * How the outputs of the fused one lie: all queries, all keys, all values ("parts"); those of one key head beside each other, its
       * queries, its key, its value ("heads").
       */
      readonly order: "parts" | "heads";
    };

/** Norms of queries and keys. */
export interface QueryKeyNorm {
  readonly q: string;
  readonly k: string;
  readonly norm: NormOptions;
  /**
   * Of each head's numbers, or of all heads' together; with a weight for each head, in one tensor [heads, headDim] or in one a head,
   * `norms.0` and so on.
   */
  readonly over: "head" | "projection" | "each head" | "each head apart";
  /** After the rotation instead of before it. */
  readonly isAfterRope?: boolean;
}

/** Causal self-attention of one layer. */
export interface AttentionOptions {
  readonly heads: number;
  /** Heads of keys and values, of which `heads` is a multiple (Ainslie et al. 2023). */
  readonly kvHeads: number;
  /** Of queries, keys and values; free of the model's width. */
  readonly headDim: number;
  readonly names: ProjectionNames;
  readonly bias?: { readonly q?: boolean; readonly k?: boolean; readonly v?: boolean; readonly out?: boolean };
  /** Weights are [in, out]. */
  readonly isTransposed?: boolean;
  readonly outInit?: ParameterInit;
  /** Multiplies the scores; 1/√headDim when absent. */
  readonly scale?: number;
  /** Queries at position p are multiplied by 1 + beta · ln(1 + ⌊p / length⌋). */
  readonly queryScaling?: { readonly beta: number; readonly length: number } | null;
  /** Null for a layer without positions. */
  readonly rope: RopeOptions | null;
  readonly queryKeyNorm?: QueryKeyNorm | null;
  /** How many keys each query sees, its own included; null for all. */
  readonly window?: number | null;
  /** Scores s become cap · tanh(s / cap) (Bello et al. 2017). */
  readonly cap?: number | null;
  /** The queries' projection gives each head as many numbers g again, and its result is multiplied by sigmoid(g) (Qwen3-Next). */
  readonly isGated?: boolean;
  /** Values are normed too, each head's. */
  readonly valueNorm?: { readonly name: string; readonly norm: NormOptions } | null;
  /** Values are what the keys' projection gives; there is none of their own. */
  readonly areKeysValues?: boolean;
  /** Keys and values are those of an earlier layer, which has as many heads of the same size; only queries are projected (Gemma 3n). */
  readonly sharesWith?: number | null;
  /** The name of a learned logit a head, [heads], that takes part in the softmax and has no value (Xiao et al. 2024, as gpt-oss). */
  readonly sinks?: string | null;
}

/** softmax(q kᵀ · scale) v of each head, causal, projected back: out(concat(heads)). */
export class Attention extends nn.Module implements Mixer {
  readonly keeps: Kept;
  readonly takesPacked: boolean = true;
  readonly #options: AttentionOptions;
  readonly #layer: number;
  readonly #project: (x: Tensor) => Projected;
  readonly #out: nn.Linear;
  readonly #queryNorm: Norm | HeadNorms | null;
  readonly #keyNorm: Norm | HeadNorms | null;
  readonly #valueNorm: Norm | null;
  readonly #rotary: Rotary | null;
  readonly #sinks: string | null;

  constructor(weights: Weights, { layer, width, rotary }: Place, options: AttentionOptions) {
    super();
    const {
      heads,
      kvHeads,
      headDim,
      names,
      bias = {},
      isTransposed = false,
      outInit = normal,
      queryKeyNorm,
      rope,
      sinks = null,
      window = null,
      valueNorm = null,
      sharesWith = null,
    } = options;
    this.keeps = sharesWith === null ? { keysValues: { kvHeads, keyDim: headDim, valueDim: headDim, window } } : {};
    this.#options = options;
    this.#layer = layer;
    this.#project = "qkv" in names ? fused(weights, width, names, options) : separate(weights, width, names, options);
    this.#queryNorm = queryKeyNorm ? weights.module(queryKeyNorm.q, (at) => headNorm(at, heads, headDim, queryKeyNorm)) : null;
    this.#keyNorm =
      queryKeyNorm && sharesWith === null ? weights.module(queryKeyNorm.k, (at) => headNorm(at, kvHeads, headDim, queryKeyNorm)) : null;
    this.#valueNorm =
      valueNorm && sharesWith === null ? weights.module(valueNorm.name, (at) => new Norm(at, headDim, valueNorm.norm)) : null;
    this.#out = weights.dense(names.out, heads * headDim, width, { bias: bias.out ?? false, isTransposed, init: outInit });
    this.#rotary = rope && rotary(rope);
    this.#sinks = sinks;
    if (sinks !== null) Reflect.set(this, sinks, weights.tensor(sinks, [heads]));
  }

  get usualTargets(): readonly string[] {
    const { names, sharesWith = null, areKeysValues = false } = this.#options;
    if ("qkv" in names) return [names.qkv];
    return sharesWith === null ? [names.q, areKeysValues ? names.k : names.v] : [names.q];
  }

  /** [batch, seq, width] → the same shape. */
  forward(x: Tensor, pass: Pass): Tensor {
    return this.through(x, (input) => {
      const { heads, kvHeads, headDim, scale = 1 / Math.sqrt(headDim), window = null, cap = null } = this.#options;
      const { q: projected, kv } = this.#project(input);
      const [q, gate] = this.#options.isGated ? gated(projected, heads) : [projected, null];
      const queries = this.#scaled(this.#placed(q, heads, this.#queryNorm, pass), pass);
      const own = kv && { keys: this.#placed(kv.k, kvHeads, this.#keyNorm, pass), values: this.#valued(splitHeads(kv.v, kvHeads)) };
      if (own) pass.keysValues.set(this.#layer, own);
      const layer = this.#options.sharesWith ?? this.#layer;
      const seen = own ?? pass.keysValues.get(layer);
      if (!seen) throw new Error(`Attention: layer ${this.#layer} shares keys with layer ${layer}, which is not before it.`);
      const sinks = this.#sinks === null ? null : (Reflect.get(this, this.#sinks) as Tensor);
      const out = attend(queries, seen.keys, seen.values, { layer, isShared: !own, scale, window, cap, sinks }, pass);
      const joined = joinHeads(out);
      return this.#out.forward(gate ? joined.mul(gate.sigmoid()) : joined);
    });
  }

  /** Queries or keys [batch, seq, heads · dim] → [batch, heads, seq, dim], normed and turned in the order of the options. */
  #placed(x: Tensor, heads: number, norm: Norm | HeadNorms | null, pass: Pass): Tensor {
    const { queryKeyNorm } = this.#options;
    const rotary = this.#rotary;
    const turned = (t: Tensor): Tensor => (rotary ? rotary.turn(t, pass.waves(rotary)) : t);
    if (!norm) return turned(splitHeads(x, heads));
    if (queryKeyNorm?.over === "projection") return turned(splitHeads(norm.forward(x), heads));
    const split = splitHeads(x, heads);
    return queryKeyNorm?.isAfterRope ? norm.forward(turned(split)) : turned(norm.forward(split));
  }

  #valued(values: Tensor): Tensor {
    return this.#valueNorm?.forward(values) ?? values;
  }

  #scaled(queries: Tensor, { positions, length }: Pass): Tensor {
    const { queryScaling } = this.#options;
    if (!queryScaling) return queries;
    const rounds = positions.cast("f32").div(queryScaling.length).floor();
    const factors = rounds.add(1).log().mul(queryScaling.beta).add(1);
    return queries.mul(factors.reshape([positions.rank === 2 ? (positions.shape[0] ?? 1) : 1, 1, length, 1]));
  }
}

/** Each head's queries and gates, which lie beside each other: [batch, seq, heads · 2 · dim] → twice [batch, seq, heads · dim]. */
function gated(x: Tensor, heads: number): readonly [queries: Tensor, gate: Tensor] {
  const [batch = 0, length = 0, width = 0] = x.shape;
  const dim = width / heads / 2;
  const pairs = x.reshape([batch, length, heads, 2, dim]);
  const half = (index: number): Tensor => pairs.narrow(3, index, 1).reshape([batch, length, heads * dim]);
  return [half(0), half(1)];
}

/** Queries, keys and values, [batch, seq, heads · dim]; queries alone where another layer's keys and values are seen. */
interface Projected {
  readonly q: Tensor;
  readonly kv: { readonly k: Tensor; readonly v: Tensor } | null;
}

function headNorm(weights: Weights, heads: number, headDim: number, { over, norm }: QueryKeyNorm): Norm | HeadNorms {
  if (over === "each head apart") return new HeadNorms(weights, heads, headDim, norm);
  return new Norm(weights, over === "projection" ? heads * headDim : headDim, norm, over === "each head" ? heads : null);
}

type Separate = Extract<ProjectionNames, { readonly q: string }>;
type Fused = Extract<ProjectionNames, { readonly qkv: string }>;

function separate(weights: Weights, width: number, names: Separate, options: AttentionOptions): (x: Tensor) => Projected {
  const { heads, kvHeads, headDim, bias = {}, isTransposed = false, isGated = false, sharesWith = null, areKeysValues = false } = options;
  const dense = (which: "q" | "k" | "v", count: number): nn.Linear =>
    weights.dense(names[which], width, count * headDim, { bias: bias[which] ?? false, isTransposed });
  const q = dense("q", isGated ? 2 * heads : heads);
  if (sharesWith !== null) return (x) => ({ q: q.forward(x), kv: null });
  const k = dense("k", kvHeads);
  const v = areKeysValues ? null : dense("v", kvHeads);
  return (x) => {
    const keys = k.forward(x);
    return { q: q.forward(x), kv: { k: keys, v: v?.forward(x) ?? keys } };
  };
}

function fused(weights: Weights, width: number, { qkv, order }: Fused, options: AttentionOptions): (x: Tensor) => Projected {
  const { heads, kvHeads, headDim, bias = {}, isTransposed = false } = options;
  const outputs = (heads + 2 * kvHeads) * headDim;
  // What lies beside each other: the whole, or what belongs to one key head.
  const period = order === "parts" ? outputs : outputs / kvHeads;
  const own = order === "parts" ? heads * headDim : (heads / kvHeads) * headDim;
  const each = order === "parts" ? kvHeads * headDim : headDim;
  const parts = [
    { name: "q", start: 0, size: own, period },
    { name: "k", start: own, size: each, period },
    { name: "v", start: own + each, size: each, period },
  ] as const;
  const whole = weights.dense(qkv, width, outputs, { bias: bias.q ?? false, isTransposed, parts });
  return (x) => {
    const result = whole.forward(x);
    const [batch = 0, length = 0] = result.shape;
    const groups = result.reshape([batch, length, kvHeads, outputs / kvHeads]);
    const [q, k, v] = parts.map(({ start, size }) =>
      order === "parts" ? result.narrow(-1, start, size) : groups.narrow(-1, start, size).reshape([batch, length, kvHeads * size]),
    ) as [Tensor, Tensor, Tensor];
    return { q, kv: { k, v } };
  };
}

/** Attention as the mixer of a layer. */
export function attention(options: AttentionOptions): Part<Mixer> {
  return (weights, place) => new Attention(weights, place, options);
}
