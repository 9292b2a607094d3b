import type { Node } from "@lowrank/tensor";
import { dynamicSlice, dynamicUpdateSlice } from "./dynamic-slice.js";
import { binary, cast, select, unary } from "./elementwise.js";
import { gather, scatterAdd } from "./gather.js";
import { matmul } from "./matmul.js";
import { expand, pad, permuteRule, reshape, slice } from "./movement.js";
import { reduce } from "./reduce.js";
import type { Rule } from "./rule.js";

/** No gradient: the node has no inputs, or none that it depends on smoothly, or says so (`detach`). */
const stop = (): void => {};

/** One rule an op; composites have a table of their own, in composite.ts. */
export const rules: { readonly [Op in Exclude<Node["op"], "composite">]: Rule<Op> } = {
  const: stop,
  iota: stop,
  buffer: stop,
  argument: stop,
  random: stop,
  detach: stop,
  unary,
  binary,
  select,
  cast,
  reduce,
  reshape,
  permute: permuteRule,
  expand,
  slice,
  pad,
  gather,
  scatterAdd,
  dynamicSlice,
  dynamicUpdateSlice,
  matmul,
  output: (node, dy, flow) => flow.intoResult(node.of, node.index, dy),
};
