import type { Tensor } from "../graph/tensor.js";
import { refuseToWrite } from "./finite.js";
import { type MadeTensor, type WriteOptions, writeSafetensors } from "./safetensors.js";
import { digestOf } from "./scan.js";

/** One digest of many, by name; their order does not matter. */
export function combinedDigest(digests: ReadonlyMap<string, string>): string {
  return digestOf(
    [...digests]
      .map(([name, digest]) => JSON.stringify([name, digest]))
      .sort()
      .join("\n"),
  );
}

/** The name of the tensor in which a sealed file holds the digest of its others. */
export const sealName = "lowrank.seal";

/** The digest that a sealed file holds: of its tensors' digests, by name, and of its metadata. */
export function sealOf(digests: ReadonlyMap<string, string>, metadata: Readonly<Record<string, string>>): string {
  const texts = Object.entries(metadata).map(([name, text]) => [`metadata ${name}`, digestOf(text)] as const);
  return combinedDigest(new Map([...digests, ...texts]));
}

/**
 * `writeSafetensors` for what is to be computed with: throws NotFiniteError where an element is infinite or NaN, before that tensor is
 * written, so that a file system that writes whole files keeps what was there. `path` is for errors. A sealed file holds `sealOf` of itself
 * as its last tensor.
 */
export function writeWeights(
  path: string,
  tensors: ReadonlyMap<string, Tensor | MadeTensor>,
  {
    metadata = {},
    dtypes,
    isSealed = false,
  }: Pick<WriteOptions, "dtypes"> & { readonly metadata?: Readonly<Record<string, string>>; readonly isSealed?: boolean } = {},
): AsyncGenerator<Uint8Array> {
  const digests = new Map<string, string>();
  return writeSafetensors(tensors, metadata, {
    ...(dtypes && { dtypes }),
    onTensor: (name, dtype, shape, bytes) => void digests.set(name, refuseToWrite(path, name, dtype, shape, bytes)),
    ...(isSealed && {
      seal: { name: sealName, byteCount: 32, bytes: () => new TextEncoder().encode(sealOf(digests, metadata)) },
    }),
  });
}
