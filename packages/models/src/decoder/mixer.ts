import type { nn } from "@lowrank/autograd";
import type { Tensor } from "@lowrank/tensor";
import type { Kept } from "../causal-lm.js";
import type { Weights } from "../parameters.js";
import type { Pass } from "./pass.js";
import type { RopeOptions, Rotary } from "./rope.js";

/**
 * What mixes the tokens of a text in one layer: attention, a short convolution, a gated delta rule. Behind a cache a pass brings tokens that
 * do not count, at the end of its rows: `cache.counts`, i32 [batch], says how many do. Keys and values of the others are overwritten later;
 * a state must be left by them as it was. A mixer with `takesPacked` lets no token see what lies before `pass.packed.starts`.
 */
export interface Mixer extends nn.Module {
  readonly keeps: Kept;
  /** False where rows must not be packed one behind the other; batches are padded then. */
  readonly takesPacked: boolean;
  /** Dense layers, by their names below the mixer, that adapters go on where nobody says which: queries and values, or the fused one. */
  readonly usualTargets: readonly string[];
  /** [batch, seq, width] → the same shape. */
  forward(x: Tensor, pass: Pass): Tensor;
}

/** What a part may need to know of where it stands. */
export interface Place {
  /** The layer's number, from 0: its place in a cache. */
  readonly layer: number;
  /** The model's width. */
  readonly width: number;
  /** The rotary embedding of these options, shared by the layers that have it. */
  readonly rotary: (options: RopeOptions) => Rotary;
}

/** A part of a layer before it has weights: `attention({ … })` is one. */
export type Part<M> = (weights: Weights, place: Place) => M;
