import { ShapeError } from "../../tensor/errors.js";
import type { BlockType } from "../block-type.js";
import { blockTypes } from "../table.js";
import type { BlockQuantizer } from "./block-quantizer.js";
import { checkFinite } from "./finite.js";
import { toQ4_K, toQ5_K, toQ6_K } from "./k-quants.js";
import { toQ4_0, toQ4_1, toQ5_0, toQ5_1, toQ8_0 } from "./legacy.js";
import { toMxfp4 } from "./mxfp4.js";

/** Types that numbers can be put into, by name. */
const quantizers: ReadonlyMap<string, BlockQuantizer> = new Map(
  [toQ8_0, toQ4_0, toQ4_1, toQ5_0, toQ5_1, toQ4_K, toQ5_K, toQ6_K, toMxfp4].map((quantizer) => [quantizer.type.name, quantizer]),
);

/** The types that `quantizeBlocks` writes. */
export const writableBlockTypes: readonly BlockType[] = [...quantizers.values()].map(({ type }) => type);

/**
 * Numbers as blocks of a type, `type.blockBytes` for each `type.blockSize` of them. Of Q8_0, Q4_0, Q4_1, Q5_0, Q5_1 and MXFP4 the bytes are those of the gguf package's
 * `quantize`; of Q4_K, Q5_K and Q6_K, blocks of small squared error. Row by row and in parts of whole blocks, the bytes are the same. `name` is what holds the
 * numbers, for errors. Throws NotFiniteError for a number that is infinite, NaN or beyond what the type's scales reach, ShapeError where blocks are not whole
 * or the type is only read.
 */
export function quantizeBlocks(type: BlockType, values: Float32Array, name = "quantizeBlocks"): Uint8Array {
  const quantizer = quantizers.get(type.name);
  if (!quantizer || blockTypes.get(type.name) !== type)
    throw new ShapeError(`quantizeBlocks: ${type.name} is only read. Choose among ${[...quantizers.keys()].join(", ")}.`);
  const { blockSize, blockBytes } = type;
  if (values.length % blockSize !== 0)
    throw new ShapeError(`quantizeBlocks: ${values.length} numbers are not whole blocks of ${blockSize} of ${type.name}.`, [
      [values.length],
    ]);
  checkFinite(values, name, type.name, quantizer.mostMagnitude);
  const packed = new Uint8Array((values.length / blockSize) * blockBytes);
  for (let from = 0, to = 0; from < values.length; from += blockSize, to += blockBytes) quantizer.encode(values, from, packed, to);
  return packed;
}
