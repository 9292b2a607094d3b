import { nn } from "@lowrank/autograd";
import { concat, type Tensor, zeros } from "@lowrank/tensor";
import * as z from "zod/mini";
import { AdapterError } from "../errors.js";
import { layerFields, namesOrNull, takeTargets, targetModules } from "../peft/targets.js";
import { matchLayers, type TargetOptions } from "../targeting/match.js";
import type { DenseLayer } from "../targeting/model.js";
import { inLayout } from "./lora.js";
import { defineMethod, type Method, onEach, wrapping } from "./method.js";
import { checkChoice, checkSizes } from "./sizes.js";

/** How MiSS is set up. Names in parentheses are PEFT's. */
export interface MissOptions extends TargetOptions {
  /** Rows of the trained matrix (`r`): inputs that are so far apart share one. At most a layer's inputs. Default 64. */
  readonly rank: number;
  /** Columns of the trained matrix with init "mini" (`mini_r`), which must divide a layer's outputs. Default 1. */
  readonly miniRank: number;
  /** Share of the inputs that is left out while training (`miss_dropout`), in [0, 1). Default 0. */
  readonly dropout: number;
  /** First values (`init_weights`): "balance" is 0; "mini" too, with `miniRank` columns that repeat; "random" is Kaiming's. */
  readonly init: "balance" | "mini" | "random";
}

/** Defaults and checks. Throws AdapterError. */
function missOptions(given: Partial<MissOptions>): MissOptions {
  const { rank = 64, miniRank = 1, dropout = 0, init = "balance", ...targets } = given;
  checkSizes({ rank, dropout, rankPattern: { miniRank } });
  checkChoice("init", init, ["balance", "mini", "random"]);
  return { ...targets, rank, miniRank, dropout, init };
}

/** x [..., in] → [..., rank]: the sum of its stretches of `rank` numbers, the last one filled up with 0. */
function folded(x: Tensor, rank: number): Tensor {
  const width = x.sizeAt(-1);
  const count = Math.ceil(width / rank);
  const whole = count * rank === width ? x : x.pad([...x.shape.slice(1).map(() => [0, 0] as const), [0, count * rank - width]]);
  return whole.reshape([...x.shape.slice(0, -1), count, rank]).sum(-2);
}

/**
 * MiSS (Kang & Yin 2024, "Matrix Shard Sharing"): y = W0 x + b + Dᵀ Σ x[i r … (i + 1) r], with D [r, out] trained and at first 0. Merged:
 * Dᵀ is added to every stretch of r columns of W0. On GPT-2's transposed layers PEFT cannot load it, and of its variants "bat" is refused.
 * peft.MissConfig.
 */
export const miss: Method<MissOptions, DenseLayer> = defineMethod("miss", {
  options: missOptions,
  places: matchLayers,
  riders: ["bias", "modulesToSave"],
  peftBias: "MiSS",
  attach: onEach((layer, { rank, miniRank, dropout, init }, { name, generator, dropoutGenerator }) => {
    const { inFeatures, outFeatures } = layer;
    if (rank > inFeatures)
      throw new AdapterError(`${name} has ${inFeatures} inputs, fewer than rank ${rank}. Choose a rank of at most ${inFeatures}.`, [
        "rank",
      ]);
    const columns = init === "mini" ? miniRank : outFeatures;
    if (outFeatures % columns !== 0)
      throw new AdapterError(`${name} has ${outFeatures} outputs, which miniRank ${miniRank} does not divide. Choose a divisor.`, [
        "miniRank",
      ]);
    const block =
      init === "random" ? nn.kaimingUniform([rank, columns], { generator }) : zeros([rank, columns], { device: generator.device });
    const kept = (x: Tensor): Tensor => (layer.isTraining ? nn.dropout(x, dropout, dropoutGenerator) : x);
    /** [rank, out] */
    const shared = (): Tensor =>
      columns === outFeatures
        ? block
        : block
            .reshape([rank, 1, columns])
            .expand([rank, outFeatures / columns, columns])
            .reshape([rank, outFeatures]);
    /** [out, in] */
    const delta = (): Tensor => {
      const stretch = shared().t();
      const rest = inFeatures % rank;
      const stretches = new Array<Tensor>(Math.floor(inFeatures / rank)).fill(stretch);
      return concat(rest === 0 ? stretches : [...stretches, stretch.narrow(1, 0, rest)], 1);
    };
    return {
      parameters: { miss_block: block },
      enable: wrapping(layer, (x, next) => next(x).add(folded(kept(x), rank).matmul(shared()))),
      merge: () => {
        const { weight } = layer;
        const change = (): Tensor => inLayout(layer, delta());
        return [{ weight, value: weight.add(change()), restore: (merged) => merged.sub(change()) }];
      },
    };
  }),
  toPeft: (options, places) => ({
    peft_type: "MISS",
    bias: "none",
    exclude_modules: namesOrNull(options.exclude),
    init_weights: options.init === "mini" ? "mini" : options.init === "balance",
    mini_r: options.miniRank,
    miss_dropout: options.dropout,
    modules_to_save: null,
    r: options.rank,
    target_modules: targetModules(options.targets, places),
    ...layerFields(options),
  }),
  fromPeft: (fields) => {
    if (fields.peek("peft_type") !== "MISS") return null;
    fields.pass("peft_type");
    if (fields.peek("bias") === "none") fields.pass("bias");
    const init = fields.take("init_weights", z.union([z.boolean(), z.literal("mini")]), 'true, false or "mini"', true);
    return {
      rank: fields.takeNumber("r", 64),
      miniRank: fields.takeNumber("mini_r", 1),
      dropout: fields.takeNumber("miss_dropout", 0),
      init: init === "mini" ? init : init ? "balance" : "random",
      ...takeTargets(fields),
    };
  },
});
