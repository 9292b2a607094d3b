import { nn } from "@lowrank/autograd";
import { type Tensor, zeros } from "@lowrank/tensor";
import type { PeftFields } from "../peft/fields.js";
import { byPattern, matchLayers } from "../targeting/match.js";
import type { DenseLayer } from "../targeting/model.js";
import { defineMethod, type Method, onEach } from "./method.js";
import { lycorisFromPeft, lycorisToPeft } from "./peft-lycoris.js";
import { checkChoice } from "./sizes.js";
import { type LycorisOptions, lycorisOptions, wholeDelta } from "./whole-delta.js";

/** How LoHa is set up. */
export interface LohaOptions extends LycorisOptions {
  /** First values (`init_weights`): "identity" has one factor 0, so that ΔW is 0; "random" none. */
  readonly init: "identity" | "random";
}

/** Defaults and checks. Throws AdapterError. */
function lohaOptions({ init = "identity", ...given }: Partial<LohaOptions>): LohaOptions {
  checkChoice("init", init, ["identity", "random"]);
  return { ...lycorisOptions(given), init };
}

/**
 * LoHa (Hyeon-Woo et al. 2022, FedPara, proposition 1): ΔW = (alpha / r) (A1 B1) ⊙ (A2 B2), of rank up to r². A second pair's B is at first 0.
 * On GPT-2's transposed layers PEFT cannot load it. peft.LoHaConfig.
 */
export const loha: Method<LohaOptions, DenseLayer> = defineMethod("loha", {
  options: lohaOptions,
  places: matchLayers,
  riders: ["modulesToSave"],
  attach: onEach((layer, options, context) => {
    const { name, generator } = context;
    const rank = byPattern(options.rankPattern, name, options.rank);
    const scaling = byPattern(options.alphaPattern, name, options.alpha) / rank;
    const random = (...shape: readonly [number, number]): Tensor => nn.kaimingUniform(shape, { generator });
    const parameters = {
      hada_w1_a: random(layer.outFeatures, rank),
      hada_w1_b: random(rank, layer.inFeatures),
      hada_w2_a: random(layer.outFeatures, rank),
      hada_w2_b: options.init === "random" ? random(rank, layer.inFeatures) : zeros([rank, layer.inFeatures], { device: generator.device }),
    };
    const { hada_w1_a: a1, hada_w1_b: b1, hada_w2_a: a2, hada_w2_b: b2 } = parameters;
    const delta = (): Tensor => a1.matmul(b1).mul(a2.matmul(b2)).mul(scaling);
    return wholeDelta(layer, parameters, delta, { ...options, isRowScaleKept: true }, context);
  }),
  toPeft: (options, places) => ({ ...lycorisToPeft(options, places), peft_type: "LOHA", init_weights: options.init === "identity" }),
  fromPeft: lohaFromPeft,
});

function lohaFromPeft(fields: PeftFields): Partial<LohaOptions> | null {
  if (fields.peek("peft_type") !== "LOHA") return null;
  return { ...lycorisFromPeft(fields), init: fields.takeFlag("init_weights", true) ? "identity" : "random" };
}
