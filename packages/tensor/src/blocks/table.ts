import type { BlockType } from "./block-type.js";
import { q2_k, q3_k, q4_k, q5_k, q6_k } from "./k-quants.js";
import { q4_0, q4_1, q5_0, q5_1, q8_0 } from "./legacy.js";
import { iq4_nl, iq4_xs, mxfp4 } from "./tables.js";

/** Types that are kept in memory as their blocks, by name. */
export const blockTypes: ReadonlyMap<string, BlockType> = new Map(
  [q8_0, q4_0, q4_1, q5_0, q5_1, q2_k, q3_k, q4_k, q5_k, q6_k, iq4_nl, iq4_xs, mxfp4].map((type) => [type.name, type]),
);
