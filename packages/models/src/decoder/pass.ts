import type { Device, Tensor } from "@lowrank/tensor";
import { type AttentionContext, longestRow, positionsOf } from "../causal-lm.js";
import type { Rotary, Waves } from "./rope.js";

/** What the layers of one forward pass share; made once for each. */
export interface Pass extends AttentionContext {
  readonly batch: number;
  /** Tokens of each row of the batch, virtual ones included. */
  readonly length: number;
  /** Most positions that the model looks at. */
  readonly contextLength: number;
  /** Positions that the longest row takes: known without a cache, and null behind one. */
  readonly longest: number | null;
  /** i32 [length], the same for all rows, or [batch, length] behind a cache and of packed rows. */
  readonly positions: Tensor;
  /** Keys and values of the layers so far, for later ones that share them: [batch, kvHeads, seq, dim] each, of the pass's own tokens. */
  readonly keysValues: Map<number, { readonly keys: Tensor; readonly values: Tensor }>;
  /** What each layer is told of each token beside the hidden state, [batch, seq, layers, size]; null for models without. */
  readonly perLayer: Tensor | null;
  /** Cosines and sines of a rotary embedding at these positions, computed once for all layers that have it. */
  readonly waves: (rotary: Rotary) => Waves;
}

/** The pass over `length` tokens a row. Throws ShapeError when they are more than the model's context. */
export function passOf(
  batch: number,
  length: number,
  context: AttentionContext,
  contextLength: number,
  device: Device,
  perLayer: Tensor | null = null,
): Pass {
  const known = new Map<Rotary, Waves>();
  let positions: Tensor | null = null;
  const pass: Pass = {
    ...context,
    batch,
    length,
    contextLength,
    keysValues: new Map(),
    perLayer,
    longest: context.cache ? null : longestRow(length, context, contextLength),
    get positions() {
      positions ??= positionsOf(batch, length, context, device);
      return positions;
    },
    waves: (rotary) => {
      const waves = known.get(rotary) ?? rotary.at(pass);
      known.set(rotary, waves);
      return waves;
    },
  };
  return pass;
}
