import { nn } from "@lowrank/autograd";
import { type Tensor, zeros } from "@lowrank/tensor";
import { AdapterError } from "../errors.js";
import type { PeftFields } from "../peft/fields.js";
import { byPattern, matchLayers } from "../targeting/match.js";
import type { DenseLayer } from "../targeting/model.js";
import { defineMethod, type Method, onEach, type PlaceContext } from "./method.js";
import { lycorisFromPeft, lycorisToPeft } from "./peft-lycoris.js";
import { checkChoice } from "./sizes.js";
import { type LycorisOptions, lycorisOptions, wholeDelta } from "./whole-delta.js";

/** How LoKr is set up. Names in parentheses are PEFT's. */
export interface LokrOptions extends LycorisOptions {
  /** Factors the small matrix as well, where that is smaller (`decompose_both`). Default false. */
  readonly decomposeBoth: boolean;
  /** Upper bound of the small matrix's sides, −1 for none (`decompose_factor`). Default −1. */
  readonly decomposeFactor: number;
  /** Divides the rows that rank dropout leaves by their share (`rank_dropout_scale`). Default false. */
  readonly rankDropoutScale: boolean;
  /** First values (`init_weights`): "identity" has W1 = 0, "lycoris" W2 = 0, "random" neither. */
  readonly init: "identity" | "lycoris" | "random";
}

/** Defaults and checks. Throws AdapterError. */
function lokrOptions(given: Partial<LokrOptions>): LokrOptions {
  const { decomposeBoth = false, decomposeFactor = -1, rankDropoutScale = false, init = "identity", ...rest } = given;
  checkChoice("init", init, ["identity", "lycoris", "random"]);
  if (!Number.isInteger(decomposeFactor) || decomposeFactor < -1 || decomposeFactor === 0)
    throw new AdapterError(`decomposeFactor is ${decomposeFactor}. It is a whole number of at least 1, or -1 for no bound.`, [
      "decomposeFactor",
    ]);
  return { ...lycorisOptions(rest), decomposeBoth, decomposeFactor, rankDropoutScale, init };
}

/**
 * n as a product: of `factor` and the rest where that divides it, else of its divisors with the smallest sum of which the first is at
 * most `factor`. peft.tuners.lokr.layer.factorization.
 */
export function factorization(n: number, factor: number): readonly [small: number, large: number] {
  if (factor > 0 && n % factor === 0) return [factor, n / factor];
  const bound = factor === -1 ? n : factor;
  let small = 1;
  for (let divisor = 2; divisor * divisor <= n && divisor <= bound; divisor++) if (n % divisor === 0) small = divisor;
  return [small, n / small];
}

/** One side of the product: its parameters, and the matrix that they make. */
interface Factor {
  readonly parameters: Readonly<Record<string, Tensor>>;
  readonly matrix: () => Tensor;
}

/** A matrix of the given shape, whole or as a product of two, random or 0. */
function factor(
  name: string,
  [rows, columns]: readonly [number, number],
  rank: number | null,
  isZero: boolean,
  context: PlaceContext,
): Factor {
  const { generator } = context;
  const random = (...shape: readonly [number, number]): Tensor => nn.kaimingUniform(shape, { generator });
  const zero = (...shape: readonly [number, number]): Tensor => zeros(shape, { device: generator.device });
  if (rank === null) {
    const whole = (isZero ? zero : random)(rows, columns);
    return { parameters: { [name]: whole }, matrix: () => whole };
  }
  // Of W1's pair PEFT zeroes a, of W2's pair b.
  const a = (isZero && name === "lokr_w1" ? zero : random)(rows, rank);
  const b = (isZero && name === "lokr_w2" ? zero : random)(rank, columns);
  return { parameters: { [`${name}_a`]: a, [`${name}_b`]: b }, matrix: () => a.matmul(b) };
}

/** The Kronecker product of matrices, [a, b] ⊗ [c, d] → [a c, b d]. torch.kron. */
function kron(left: Tensor, right: Tensor): Tensor {
  const [a = 0, b = 0] = left.shape;
  const [c = 0, d = 0] = right.shape;
  return left
    .reshape([a, 1, b, 1])
    .mul(right.reshape([1, c, 1, d]))
    .reshape([a * c, b * d]);
}

/**
 * LoKr (Edalati et al. 2022, KronA; Yeh et al. 2024, LyCORIS): ΔW = (alpha / r) W1 ⊗ W2, each a whole matrix or a product of rank r where
 * that is smaller. W1 is at first 0. On GPT-2's transposed layers PEFT cannot load it. peft.LoKrConfig.
 */
export const lokr: Method<LokrOptions, DenseLayer> = defineMethod("lokr", {
  options: lokrOptions,
  places: matchLayers,
  riders: ["modulesToSave"],
  attach: onEach((layer, options, context) => {
    const { decomposeBoth, decomposeFactor, init } = options;
    const rank = byPattern(options.rankPattern, context.name, options.rank);
    const scaling = byPattern(options.alphaPattern, context.name, options.alpha) / rank;
    const [inSmall, inLarge] = factorization(layer.inFeatures, decomposeFactor);
    const [outSmall, outLarge] = factorization(layer.outFeatures, decomposeFactor);
    const isSmallFactored = decomposeBoth && rank < Math.max(outSmall, inSmall) / 2;
    const isLargeFactored = rank < Math.max(outLarge, inLarge) / 2;
    const w1 = factor("lokr_w1", [outSmall, inSmall], isSmallFactored ? rank : null, init === "identity", context);
    const w2 = factor("lokr_w2", [outLarge, inLarge], isLargeFactored ? rank : null, init === "lycoris", context);
    const delta = (): Tensor => kron(w1.matrix(), w2.matrix()).mul(scaling);
    const dropout = { ...options, isRowScaleKept: options.rankDropoutScale };
    return wholeDelta(layer, { ...w1.parameters, ...w2.parameters }, delta, dropout, context);
  }),
  toPeft: (options, places) => ({
    ...lycorisToPeft(options, places),
    peft_type: "LOKR",
    decompose_both: options.decomposeBoth,
    decompose_factor: options.decomposeFactor,
    init_weights: options.init === "lycoris" ? "lycoris" : options.init === "identity",
    rank_dropout_scale: options.rankDropoutScale,
  }),
  fromPeft: lokrFromPeft,
});

function lokrFromPeft(fields: PeftFields): Partial<LokrOptions> | null {
  if (fields.peek("peft_type") !== "LOKR") return null;
  const isLycoris = fields.peek("init_weights") === "lycoris";
  if (isLycoris) fields.pass("init_weights");
  return {
    ...lycorisFromPeft(fields),
    decomposeBoth: fields.takeFlag("decompose_both"),
    decomposeFactor: fields.takeNumber("decompose_factor", -1),
    rankDropoutScale: fields.takeFlag("rank_dropout_scale"),
    init: isLycoris ? "lycoris" : fields.takeFlag("init_weights", true) ? "identity" : "random",
  };
}
