import { ShapeError } from "../../tensor/errors.js";
import type { DenseType } from "./dense-type.js";
import { iq1_m, iq1_s } from "./iq1.js";
import { iq2_s, iq2_xs, iq2_xxs } from "./iq2.js";
import { iq3_s, iq3_xxs } from "./iq3.js";
import { nvfp4 } from "./nvfp4.js";
import { tq1_0, tq2_0 } from "./ternary.js";

/** Types of GGUF files that are dequantised while they are loaded, by name. */
export const denseTypes: ReadonlyMap<string, DenseType> = new Map(
  [iq1_s, iq1_m, iq2_xxs, iq2_xs, iq2_s, iq3_xxs, iq3_s, tq1_0, tq2_0, nvfp4].map((type) => [type.name, type]),
);

/** The numbers of whole blocks, as the gguf package's `dequantize` gives them, bit for bit. Throws ShapeError for a part of a block. */
export function denseValues(type: DenseType, packed: Uint8Array): Float32Array {
  const count = packed.byteLength / type.blockBytes;
  if (!Number.isInteger(count))
    throw new ShapeError(`denseValues: ${packed.byteLength} bytes are not whole blocks of ${type.name}, ${type.blockBytes} bytes each.`);
  const bytes = new DataView(packed.buffer, packed.byteOffset, packed.byteLength);
  const out = new Float32Array(count * type.blockSize);
  for (let block = 0; block < count; block++) type.read(bytes, block * type.blockBytes, out, block * type.blockSize);
  return out;
}
