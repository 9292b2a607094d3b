import { Tensor } from "@lowrank/tensor";
import { copyOf, replacing } from "../methods/method.js";
import type { Passenger, RiderContext, RiderOptions } from "../methods/rider.js";
import { isNamed } from "./modules.js";

/**
 * Trains biases of the base, as copies in their place: all of the model's, norms included, or those of the targeted layers.
 * PEFT trains the base's own in place; here the base stays as it is.
 */
export function trainBiases({ bias = "none", modulesToSave = [] }: RiderOptions, { model, targeted }: RiderContext): Passenger[] {
  if (bias === "none") return [];
  const passengers: Passenger[] = [];
  for (const [place, module] of model.namedModules()) {
    const { bias: own } = module as { readonly bias?: unknown };
    const isTargeted = targeted.has(place);
    // A module that is trained whole has its bias trained already.
    if (!(own instanceof Tensor) || (bias === "targeted" && !isTargeted) || isNamed(place, modulesToSave)) continue;
    const copy = copyOf(own);
    const key = isTargeted ? "base_layer.bias" : "bias";
    passengers.push({
      place,
      attachment: {
        parameters: { [key]: copy },
        enable: replacing(module, { bias: copy }),
        merge: () => [{ weight: own, value: copy }],
      },
    });
  }
  return passengers;
}
