import { fromF16Bits } from "../../tensor/dtype.js";

/** A type of blocks whose numbers are computed while they are loaded, because nothing keeps them in memory as blocks. */
export interface DenseType {
  /** The name that GGUF gives it: IQ2_XS, TQ1_0, … */
  readonly name: string;
  readonly blockSize: number;
  readonly blockBytes: number;
  /** Writes the numbers of a block, which begins at `at`, from `to` on. Exact in f32. */
  readonly read: (bytes: DataView, at: number, out: Float32Array, to: number) => void;
}

/** Says a type. */
export function denseType(
  name: string,
  [blockSize, blockBytes]: readonly [numbers: number, bytes: number],
  read: DenseType["read"],
): DenseType {
  return { name, blockSize, blockBytes, read };
}

/** The value of the f16 that begins at `at`. */
export function halfAt(bytes: DataView, at: number): number {
  return fromF16Bits(bytes.getUint16(at, true));
}
