import { blockTypes } from "../blocks/table.js";
import { scanBlockBytes } from "../kernels/wasm/scan.js";
import { CheckpointError, showShape } from "../tensor/errors.js";
import { refuseNotFinite, tensorDigest } from "./finite.js";
import type { GgufEntry } from "./gguf-header.js";
import { ContentScan, stagingBytes } from "./scan.js";

/** Looks at a tensor's bytes as they are read: for their digest, and for numbers and scales of blocks that are not finite. Give the memory back with `close`. */
export class GgufScan {
  readonly #scan: ContentScan;
  readonly #entry: GgufEntry;
  readonly #file: string;
  /** Where the scales of a block begin that are f16. */
  readonly #halves: readonly number[];
  #bytes = 0;

  constructor(entry: GgufEntry, file: string) {
    this.#scan = new ContentScan(entry.type.name);
    this.#entry = entry;
    this.#file = file;
    this.#halves = Object.values(blockTypes.get(entry.type.name)?.fields ?? {}).flatMap(({ at, as }) => (as === "f16" ? [at] : []));
  }

  /** Takes the next whole blocks; all but the last a multiple of 64 bytes. Throws CheckpointError naming tensor and place where one is not finite. */
  take(bytes: Uint8Array): void {
    const step = stagingBytes - (stagingBytes % scanBlockBytes);
    const { type, shape, name } = this.#entry;
    for (let at = 0; at < bytes.byteLength; at += step) {
      this.#scan.take(bytes.subarray(at, at + step));
      refuseNotFinite(this.#file, this.#entry, this.#scan, () =>
        this.#numberAt(bytes, (this.#scan.firstNonFinite ?? 0) - this.#bytes / type.blockBytes),
      );
    }
    for (const half of this.#halves) {
      const block = notFinite(bytes, half, type.blockBytes);
      if (block === null) continue;
      const row = Math.floor(((this.#bytes / type.blockBytes + block) * type.blockSize) / (shape.at(-1) ?? 1));
      throw new CheckpointError(
        `${this.#file}: tensor "${name}" ${showShape(shape)} has a scale of ${type.name} in row ${row} that is not finite, and nothing can be computed with that. Fetch the file again.`,
        this.#file,
      );
    }
    this.#bytes += bytes.byteLength;
  }

  #numberAt(bytes: Uint8Array, index: number): number | undefined {
    const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    if (this.#entry.type.name === "F32") return view.getFloat32(4 * index, true);
    const [bits, isHalf] = [view.getUint16(2 * index, true), this.#entry.type.name === "F16"];
    if (bits & (isHalf ? 0x3ff : 0x7f)) return Number.NaN;
    return bits & 0x8000 ? Number.NEGATIVE_INFINITY : Number.POSITIVE_INFINITY;
  }

  /** The digest of the tensor: of its type, its shape and its bytes. */
  get digest(): string {
    return tensorDigest({ dtype: this.#entry.type.name, shape: this.#entry.shape }, this.#scan);
  }

  close(): void {
    this.#scan.close();
  }
}

/** The first block whose f16 at a place is infinite or NaN; null where there is none. */
function notFinite(bytes: Uint8Array, at: number, stride: number): number | null {
  // The exponent lies in the upper byte.
  for (let i = at + 1; i < bytes.length; i += stride) if (((bytes[i] as number) & 0x7c) === 0x7c) return Math.floor(i / stride); // inside
  return null;
}
