import { type BottleneckOptions, type BottleneckPlace, bottleneckMethod } from "./bottleneck.js";
import type { Method } from "./method.js";

/** Houlsby et al. 2019 (section 2.1): two adapters a block, h + f + U s(D f) after attention and after the MLP. AdapterHub's DoubleSeqBn. */
export const houlsby: Method<BottleneckOptions, BottleneckPlace> = bottleneckMethod("houlsby", {
  attention: true,
  mlp: true,
  reductionFactor: 16,
  activation: "swish",
  scaling: 1,
  input: "sublayer",
});
