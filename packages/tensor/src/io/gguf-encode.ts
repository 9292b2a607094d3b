import { quantizeBlocks } from "../blocks/quantize/table.js";
import { blockTypes } from "../blocks/table.js";
import { encode } from "../tensor/dtype.js";
import { CheckpointError } from "../tensor/errors.js";
import type { Shape } from "../tensor/shape.js";
import { refuseToWrite } from "./finite.js";

/** Types whose numbers stand alone, and what they are here. */
const plain = { F32: "f32", F16: "f16", BF16: "bf16" } as const;

/** What numbers belong to, for errors. */
export interface NumbersToWrite {
  /** The file's path. */
  readonly path: string;
  /** The tensor's name. */
  readonly name: string;
  readonly shape: Shape;
}

/**
 * Numbers as the bytes that a GGUF file holds of them in a type: F32, F16, BF16, and those that `quantizeBlocks` writes, whole rows of blocks. Throws
 * NotFiniteError where one is infinite or NaN, in the type too; CheckpointError for a type that is not written.
 */
export function ggufEncode(type: string, values: Float32Array, { path, name, shape }: NumbersToWrite): Uint8Array {
  if (Object.hasOwn(plain, type)) {
    const bytes = encode(values, plain[type as keyof typeof plain]);
    refuseToWrite(path, name, type, shape, bytes);
    return bytes;
  }
  const blocks = blockTypes.get(type);
  if (!blocks)
    throw new CheckpointError(`${path}: tensor "${name}" is to be ${type}, which is not written. Choose F32, F16, BF16 or Q8_0.`, path);
  return quantizeBlocks(blocks, values, name);
}
