import { attention } from "./attention.js";
import { crossEntropy } from "./cross-entropy.js";
import { dequantize } from "./dequantize.js";
import { elementwise } from "./elementwise.js";
import type { Family } from "./family.js";
import { gather } from "./gather.js";
import { matmul } from "./matmul.js";
import { norm } from "./norm.js";
import { reductions } from "./reduce.js";
import { softmax } from "./softmax.js";

/** All families, in the order in which they are run and shown. */
export const families: readonly Family[] = [matmul, elementwise, reductions, softmax, norm, attention, crossEntropy, gather, dequantize];
