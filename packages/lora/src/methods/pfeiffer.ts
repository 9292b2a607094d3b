import { type BottleneckOptions, type BottleneckPlace, bottleneckMethod } from "./bottleneck.js";
import type { Method } from "./method.js";

/** Pfeiffer et al. 2021 (section 3.1): one adapter a block, after the MLP, that reads the sum: h + f + U s(D (h + f)). AdapterHub's SeqBn. */
export const pfeiffer: Method<BottleneckOptions, BottleneckPlace> = bottleneckMethod("pfeiffer", {
  attention: false,
  mlp: true,
  reductionFactor: 16,
  activation: "relu",
  scaling: 1,
  input: "sum",
});
