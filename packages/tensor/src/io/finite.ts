import type { DType } from "../tensor/dtype.js";
import { CheckpointError, NotFiniteError, showShape } from "../tensor/errors.js";
import { type Shape, stridesOf } from "../tensor/shape.js";
import type { SafetensorsEntry } from "./header.js";
import { ContentScan, digestOf } from "./scan.js";

/** The largest number of each floating dtype, for people. */
const largest: Readonly<Partial<Record<DType, string>>> = { f32: "3.4e38", bf16: "3.4e38", f16: "65504" };
const scanned: Readonly<Partial<Record<DType, string>>> = { f32: "F32", bf16: "BF16", f16: "F16" };

type Described = Pick<SafetensorsEntry, "name" | "shape">;

/** Where an element lies, by axes: `[3, 17]`. */
function placeOf(at: number, shape: Shape): string {
  return showShape(stridesOf(shape).map((stride, axis) => Math.floor(at / stride) % (shape[axis] ?? 1)));
}

/** Throws CheckpointError naming tensor and place when a scan of what was read has met an element that is not finite. */
export function refuseNotFinite(file: string, { name, shape }: Described, scan: ContentScan, value: () => number | undefined): void {
  if (scan.firstNonFinite === null) return;
  throw new CheckpointError(
    `${file}: tensor "${name}" is ${value()} at ${placeOf(scan.firstNonFinite, shape)}, and nothing can be computed with that. The file is damaged, or was saved after training had diverged: fetch it again, or use an earlier checkpoint.`,
    file,
  );
}

/** Throws CheckpointError when numbers of a file, from the element `at` on, are not finite once they are in a narrower dtype. */
export function refuseOverflow(
  file: string,
  { name, shape }: Described,
  at: number,
  numbers: ArrayLike<number>,
  bytes: Uint8Array,
  dtype: DType,
): void {
  const scan = new ContentScan(scanned[dtype] ?? "U8").takeAll(bytes);
  scan.close();
  if (scan.firstNonFinite === null) return;
  const value = numbers[scan.firstNonFinite];
  throw new CheckpointError(
    `${file}: tensor "${name}" is ${value} at ${placeOf(at + scan.firstNonFinite, shape)}, and ${dtype} ends at ${largest[dtype]}. Load it in its own dtype, or in f32.`,
    file,
  );
}

/** Throws NotFiniteError naming tensor and place when bytes that are about to be written hold an element that is not finite. Returns their digest. */
export function refuseToWrite(file: string, name: string, dtype: string, shape: Shape, bytes: Uint8Array): string {
  const scan = new ContentScan(dtype).takeAll(bytes);
  scan.close();
  if (scan.firstNonFinite === null) return tensorDigest({ dtype, shape }, scan);
  const remedy =
    dtype === "F16"
      ? "f16 ends at 65504: compute in bf16 or f32."
      : "Numbers became too large on the way: use smaller weights, or a lower learning rate.";
  const at = placeOf(scan.firstNonFinite, shape);
  throw new NotFiniteError(
    `${file} is not written: tensor "${name}" would not be finite at ${at}; what was there before is kept. ${remedy}`,
    file,
    name,
    at,
  );
}

/** The digest of a tensor as a file holds it: of its dtype, its shape and its bytes. */
export function tensorDigest({ dtype, shape }: Pick<SafetensorsEntry, "dtype" | "shape">, scan: ContentScan): string {
  return digestOf(`${dtype} ${showShape(shape)} ${scan.digest}`);
}
