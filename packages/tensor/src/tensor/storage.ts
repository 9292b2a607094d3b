import type { BackendBuffer } from "../backends/backend.js";
import type { Device } from "../backends/device.js";
import { type DType, dtypeBytes } from "./dtype.js";
import { DeviceError } from "./errors.js";

/** A buffer that nobody refers to any more goes back to its device when the garbage collector notices. */
const abandoned = new FinalizationRegistry<{ device: Device; buffer: BackendBuffer | null }>((cell) => {
  if (cell.buffer && !cell.device.isDisposed) cell.device.backend.free(cell.buffer);
});

/**
 * Device memory of one tensor value. The identity is what graphs refer to; the contents may be replaced by `assign`.
 * Without a buffer yet it is a placeholder: an argument of a compiled function, or a result still to be computed.
 */
export class Storage {
  readonly #cell: { device: Device; buffer: BackendBuffer | null };
  #isDisposed = false;

  constructor(
    readonly device: Device,
    readonly dtype: DType,
    readonly elementCount: number,
  ) {
    this.#cell = { device, buffer: null };
    abandoned.register(this, this.#cell, this);
  }

  get bytes(): number {
    return this.elementCount * dtypeBytes[this.dtype];
  }

  get isDisposed(): boolean {
    return this.#isDisposed;
  }

  /** True when there is memory behind it. */
  get hasBuffer(): boolean {
    return this.#cell.buffer !== null;
  }

  /** The memory, allocated at first use. Throws DeviceError when it was disposed. */
  get buffer(): BackendBuffer {
    if (this.#isDisposed) {
      throw new DeviceError(
        "A tensor was used after dispose(). Dispose it after its last use, or leave it to the garbage collector.",
        this.device.name,
      );
    }
    this.#cell.buffer ??= this.device.backend.allocate(Math.max(this.bytes, 4));
    return this.#cell.buffer;
  }

  dispose(): void {
    if (this.#isDisposed) return;
    this.#isDisposed = true;
    abandoned.unregister(this);
    if (this.#cell.buffer && !this.device.isDisposed) this.device.backend.free(this.#cell.buffer);
    this.#cell.buffer = null;
  }
}
