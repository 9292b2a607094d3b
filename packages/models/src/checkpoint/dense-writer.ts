import { type Device, type DType, dtypeBytes, encode, fromStorage, type Shape, Storage, sizeOf, type Tensor } from "@lowrank/tensor";

/** Fills a tensor whose numbers stand alone, a part at a time. */
export class DenseWriter {
  readonly size: number;
  readonly bytes: number;
  readonly #storage: Storage;

  constructor(
    device: Device,
    readonly dtype: DType,
    readonly shape: Shape,
  ) {
    this.size = sizeOf(shape);
    this.bytes = this.size * dtypeBytes[dtype];
    this.#storage = new Storage(device, dtype, this.size);
  }

  /** Bytes as the tensor has them, from byte `at` on. */
  write(bytes: Uint8Array, at: number): void {
    const { device, buffer } = this.#storage;
    device.backend.write(buffer, bytes, at);
  }

  /** Numbers from element `at` on, rounded to the nearest. */
  numbers(values: Float32Array, at: number): void {
    this.write(encode(values, this.dtype), at * dtypeBytes[this.dtype]);
  }

  finish(): Tensor {
    return fromStorage(this.#storage, this.shape);
  }

  dispose(): void {
    this.#storage.dispose();
  }
}
