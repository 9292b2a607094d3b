import { type Device, type DType, fromStorage, type Shape, Storage, scaledDType, sizeOf, tensorDType } from "@lowrank/tensor";
import { entryOf, type LoadedPieces, type Place, type StoredWeight } from "./stored.js";

/** A weight of a safetensors file whose numbers stand alone. */
export class DenseWeight implements StoredWeight {
  readonly layout = null;

  constructor(protected readonly place: Place) {}

  get file(): string {
    return this.place.file.name;
  }

  get name(): string {
    return this.place.name;
  }

  get shape(): Shape {
    return entryOf(this.place).shape;
  }

  get dtype(): DType {
    // What is none is told as a problem.
    return this.problem === null ? tensorDType(entryOf(this.place), this.file) : "f32";
  }

  get problem(): string | null {
    const { dtype } = entryOf(this.place);
    if (dtype.startsWith("F8_")) return float8Problem(this.name, dtype);
    return /^B?F(16|32|64)$/.test(dtype) ? null : `"${this.name}" is ${dtype}, not a floating-point tensor`;
  }

  async load(
    pieces: readonly DenseWeight[],
    shape: Shape,
    { device, dtype }: { readonly device: Device; readonly dtype: DType },
  ): Promise<LoadedPieces> {
    const storage = new Storage(device, dtype, sizeOf(shape));
    const digests: string[] = [];
    let at = 0;
    try {
      for (const piece of pieces) {
        digests.push(await piece.readInto(storage, at));
        at += sizeOf(piece.shape);
      }
    } catch (error) {
      storage.dispose();
      throw error;
    }
    return { tensor: fromStorage(storage, shape), digests };
  }

  /** Reads the numbers into part of a storage, and gives their digest. */
  protected readInto(storage: Storage, at: number): Promise<string> {
    return this.place.file.weightInto(this.name, storage, at);
  }

  numbers(take: (values: Float32Array) => void): Promise<string> {
    return this.place.file.weightNumbers(this.name, take);
  }

  digest(): Promise<string> {
    return this.place.file.digest(this.name);
  }
}

/** What the scales of a weight in 8 bits are called. */
export const scaleSuffix = "_scale_inv";

/** Why a tensor in 8 bits is no weight. */
export function float8Problem(name: string, dtype: string): string {
  const lacks = dtype === scaledDType ? ` without "${name}${scaleSuffix}"` : "";
  return `"${name}" is ${dtype}${lacks}; of 8-bit floats only ${scaledDType} with its scales (…${scaleSuffix}, one or one a block) is read`;
}
