import type { Tensor } from "@lowrank/tensor";
import { AdapterError } from "../errors.js";
import { rowNorms } from "./embedding.js";
import { initializeEva } from "./eva.js";
import { attachPairs, inLayout, type LoraOptions, type LoraPlace, loraOptions, loraPlaces, needsPlain } from "./lora.js";
import { defineMethod, type Method } from "./method.js";
import { asPlain, lowRankPair } from "./pair.js";
import { loraFromPeft, loraToPeft } from "./peft-lora.js";
import { loraTraining } from "./training.js";

/**
 * DoRA (Liu et al. 2024, eq. 5): h = m · (W0 + s B A) x / ‖W0 + s B A‖, the norm of each output row and a constant to the gradient
 * (section 4.3), m trained and at first ‖W0‖. With dropout, as in PEFT, also the base's part of the correction sees the dropped input.
 */
export const dora: Method<LoraOptions, LoraPlace> = defineMethod("dora", {
  options: (given) => {
    const options = loraOptions(given);
    if (options.loraBias || options.targetParameters.length > 0)
      throw new AdapterError("DoRA goes with neither loraBias nor targetParameters, as in PEFT. Use method lora for them.", ["loraBias"]);
    if (options.freezeA)
      throw new AdapterError('freezeA (LoRA-FA) projects the gradient of a plain pair and does not go with DoRA. Use method "lora".', [
        "freezeA",
      ]);
    return options;
  },
  places: loraPlaces,
  riders: ["bias", "modulesToSave", "trainableTokens", "ensureWeightTying"],
  attach: attachPairs((layer, options, context) => {
    const pair = lowRankPair(layer, options, context);
    const weight = (): Tensor => inLayout(layer, layer.weight).cast("f32");
    const norms = (): Tensor => rowNorms(weight().add(pair.delta())).detach();
    // A pair that waits for its first values will start as what it takes out of the base, or at 0.
    const magnitude = pair.values.isReady ? norms() : rowNorms(weight());
    return pair.attachment({
      more: { lora_magnitude_vector: magnitude },
      enable: pair.around(layer, (x, next) => {
        const factor = magnitude.div(norms());
        const result = next(x);
        const input = pair.input(x);
        const base = input !== x ? input.matmul(pair.values.frozen(weight()).t()) : layer.bias ? result.sub(layer.bias) : result;
        return result.add(factor.sub(1).mul(base)).add(factor.mul(pair.bypass(input)));
      }),
      merge: () => {
        const factor = magnitude.div(norms()).unsqueeze(1);
        return [
          {
            weight: layer.weight,
            value: inLayout(layer, weight().add(pair.delta()).mul(factor)),
            kept: [factor],
            restore: (merged) => inLayout(layer, inLayout(layer, merged).div(factor).sub(pair.delta())),
          },
        ];
      },
    });
  }, true),
  initialize: initializeEva,
  training: loraTraining,
  asPlain,
  needsPlain,
  toPeft: (options, places) => loraToPeft(options, places, { use_dora: true }),
  fromPeft: (fields) => loraFromPeft(fields, { use_dora: true }),
});
