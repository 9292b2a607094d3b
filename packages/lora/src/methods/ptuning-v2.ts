import type { Method } from "./method.js";
import { type PrefixOptions, prefixMethod, prefixOptions } from "./prefix.js";
import type { VirtualTokenPlace } from "./virtual-tokens.js";

/**
 * P-tuning v2 (Liu et al. 2022, section 3.2): deep prompts, that is learned keys and values in front of every layer's own, trained as they
 * are. It is prefix tuning without the projection and its files are the same, so that `loadAdapter` reads them as `prefix`.
 */
export const ptuningV2: Method<PrefixOptions, VirtualTokenPlace> = prefixMethod(
  "ptuning-v2",
  (given, model) => prefixOptions({ ...given, projection: false }, model),
  () => null,
);
