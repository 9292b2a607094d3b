import { DeviceError, DeviceLostError } from "../../tensor/errors.js";

/**
 * What went wrong on a device. WebGPU reports errors after the fact, so they are kept here and thrown by the next call that can throw.
 */
export class DeviceFaults {
  #first: DeviceError | null = null;
  #lost: DeviceError | null = null;
  #isDisposed = false;

  constructor(device: GPUDevice) {
    device.addEventListener("uncapturederror", (event) => {
      this.#first ??= describe((event as GPUUncapturedErrorEvent).error);
    });
    void device.lost.then((info) => {
      if (this.#isDisposed) return;
      this.#lost = new DeviceLostError(
        `The WebGPU device was lost: ${info.message || info.reason}.`,
        "Tensors on it are gone: open the device again and load from the last checkpoint; a smaller batch helps if memory ran out.",
        "webgpu",
      );
    });
  }

  get isLost(): boolean {
    return this.#lost !== null || this.#isDisposed;
  }

  dispose(): void {
    this.#isDisposed = true;
  }

  /** Throws what has happened since the last check. A lost or disposed device throws for ever. */
  check(): void {
    if (this.#isDisposed) throw new DeviceError("This WebGPU device was disposed. Open another with device().", "webgpu");
    if (this.#lost) throw this.#lost;
    const first = this.#first;
    this.#first = null;
    if (first) throw first;
  }
}

/** Validation messages carry the label of what they concern, and labels are kernel names. */
function describe(error: GPUError): DeviceError {
  const kind = error.constructor.name;
  const remedy = kind.includes("OutOfMemory")
    ? "Use a smaller batch or sequence, or close other programs that use the GPU."
    : "This is a fault of Lowrank or of the driver: please report it with LOWRANK_DEBUG=3's output.";
  return new DeviceError(`WebGPU: ${error.message.trim()}\n${remedy}`, "webgpu");
}
