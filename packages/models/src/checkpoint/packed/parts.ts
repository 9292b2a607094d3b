import { type Shape, showShape, sizeOf } from "@lowrank/tensor";
import { entryOf, type Place } from "../stored/stored.js";
import { damaged } from "./method.js";

/** Throws CheckpointError unless a tensor is of one of these dtypes and, where a shape is given, of that. */
export function checkPart(place: Place, dtypes: readonly string[], shape?: Shape): void {
  const entry = entryOf(place);
  if (!dtypes.includes(entry.dtype)) throw damaged(place, `is ${entry.dtype}, not ${dtypes.join(" or ")}`);
  if (shape && showShape(entry.shape) !== showShape(shape))
    throw damaged(place, `has the shape ${showShape(entry.shape)}, and ${showShape(shape)} is needed`);
}

/** The dtypes of scales. */
export const floatDTypes = ["F32", "F16", "BF16"] as const;

/** Whether all numbers of a tensor are 0. */
export async function isOnlyZeros(place: Place): Promise<boolean> {
  let isZero = true;
  await place.file.stream(place.name, (bytes) => {
    // -0 is 0 too, and has but the sign.
    isZero &&= bytes.every((byte) => (byte & 0x7f) === 0);
  });
  return isZero && sizeOf(entryOf(place).shape) > 0;
}
