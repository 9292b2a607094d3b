import type { Generator, Tensor } from "@lowrank/tensor";
import type { TargetOptions } from "../targeting/match.js";
import type { DenseLayer } from "../targeting/model.js";
import { inLayout } from "./lora.js";
import { type Attachment, type PlaceContext, wrapping } from "./method.js";
import { checkSizes } from "./sizes.js";

/** What methods that add a whole matrix ΔW are set up with. Names in parentheses are PEFT's. */
export interface LycorisOptions extends TargetOptions {
  /** Inner size of the factors (`r`), at least 1. Default 8. */
  readonly rank: number;
  /** Numerator of the scaling (`alpha`). Default 8. */
  readonly alpha: number;
  /** Share of ΔW's rows that is left out while training (`rank_dropout`), in [0, 1). Default 0. */
  readonly rankDropout: number;
  /** Share of the steps in which a layer runs without its adapter while training (`module_dropout`), in [0, 1). Default 0. */
  readonly moduleDropout: number;
  /** Another rank for modules whose name ends in a pattern (`rank_pattern`). */
  readonly rankPattern: Readonly<Record<string, number>>;
  /** Another alpha likewise (`alpha_pattern`). */
  readonly alphaPattern: Readonly<Record<string, number>>;
}

/** Defaults and checks of these. Throws AdapterError. */
export function lycorisOptions(given: Partial<LycorisOptions>): LycorisOptions {
  const { rank = 8, alpha = 8, rankDropout = 0, moduleDropout = 0, rankPattern = {}, alphaPattern = {}, ...targets } = given;
  checkSizes({ rank, alpha, rankDropout, moduleDropout, rankPattern, alphaPattern });
  return { ...targets, rank, alpha, rankDropout, moduleDropout, rankPattern, alphaPattern };
}

/** 1 with probability 1 − share, else 0. */
function kept(share: number, shape: readonly number[], generator: Generator): Tensor {
  return generator.uniform(shape).greater(share).cast("f32");
}

/**
 * y = W0 x + b + ΔW x, with ΔW [out, in] made from the parameters. `isRowScaleKept`: rows that rank dropout leaves are divided by their
 * share. A transposed layer (GPT-2's Conv1D) is supported, which PEFT refuses for these methods.
 */
export function wholeDelta(
  layer: DenseLayer,
  parameters: Readonly<Record<string, Tensor>>,
  delta: () => Tensor,
  { rankDropout, moduleDropout, isRowScaleKept }: { rankDropout: number; moduleDropout: number; isRowScaleKept: boolean },
  { dropoutGenerator }: PlaceContext,
): Attachment {
  const whileTraining = (): Tensor => {
    let result = delta();
    if (rankDropout > 0) {
      const rows = kept(rankDropout, [layer.outFeatures, 1], dropoutGenerator);
      result = result.mul(isRowScaleKept ? rows.div(rows.mean().maximum(1 / layer.outFeatures)) : rows);
    }
    return moduleDropout > 0 ? result.mul(kept(moduleDropout, [1, 1], dropoutGenerator)) : result;
  };
  return {
    parameters,
    enable: wrapping(layer, (x, next) => next(x).add(x.matmul((layer.isTraining ? whileTraining() : delta()).t()))),
    merge: () => {
      const { weight } = layer;
      const change = (): Tensor => inLayout(layer, delta());
      return [{ weight, value: weight.add(change()), restore: (merged) => merged.sub(change()) }];
    },
  };
}
