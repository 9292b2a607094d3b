import { type BottleneckOptions, type BottleneckPlace, bottleneckMethod } from "./bottleneck.js";
import type { Method } from "./method.js";

/**
 * He et al. 2022 (section 3.3, table 1): one adapter a block, beside the MLP, from the residual stream: h + f + scaling · U s(D h).
 * AdapterHub's ParBn.
 */
export const parallel: Method<BottleneckOptions, BottleneckPlace> = bottleneckMethod("parallel", {
  attention: false,
  mlp: true,
  reductionFactor: 2,
  activation: "relu",
  scaling: 4,
  input: "residual",
});
