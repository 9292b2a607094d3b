import type { Device } from "../graph/device.js";
import type { Tensor } from "../graph/tensor.js";
import { ShapeError, showShape } from "../tensor/errors.js";
import { type Shape, sizeOf } from "../tensor/shape.js";
import { lookUp, planes } from "./bits.js";
import { blockTensor } from "./block-tensor.js";
import { type BlockType, blockType } from "./block-type.js";
import { mxfp4 } from "./tables.js";

/** As MXFP4 of GGUF, but the two codes of a byte are neighbours, the first in the low half. */
const neighbours: BlockType = blockType(
  "MXFP4",
  [mxfp4.blockSize, mxfp4.blockBytes],
  { e: { at: 0, bytes: 1, as: "e8m0" }, qs: { at: 1, bytes: 16, as: "u8" } },
  ({ e, qs, t }) => lookUp(t, planes(qs, 1, 4)).mul(e),
  { t: mxfp4.tables["t"] ?? [] },
);

/**
 * A weight of [..., columns] whose codes and scales are two tensors, as transformers and gpt-oss store it: `blocks` u8 [..., columns / 32, 16], `scales` u8
 * [..., columns / 32], 2^(s − 127). transformers gives its values with the last two axes exchanged. Throws ShapeError where the bytes do not fit.
 */
export function mxfp4Tensor(blocks: Uint8Array, scales: Uint8Array, shape: Shape, device: Device): Tensor {
  const count = sizeOf(shape) / neighbours.blockSize;
  if (scales.byteLength !== count || blocks.byteLength !== count * 16)
    throw new ShapeError(
      `mxfp4Tensor: ${blocks.byteLength} bytes of codes and ${scales.byteLength} scales are not ${showShape(shape)} (16 and 1 for each 32 of a row).`,
      [shape],
    );
  const packed = new Uint8Array(count * neighbours.blockBytes);
  for (let block = 0; block < count; block++) {
    packed[block * neighbours.blockBytes] = scales[block] ?? 0;
    packed.set(blocks.subarray(block * 16, block * 16 + 16), block * neighbours.blockBytes + 1);
  }
  return blockTensor(neighbours, packed, shape, device);
}
