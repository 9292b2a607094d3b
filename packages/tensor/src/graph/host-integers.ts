import type { Storage } from "./storage.js";
import type { Tensor } from "./tensor.js";

const known = new WeakMap<Storage, Int32Array>();

/** Keeps the values that a storage was made with. */
export function rememberIntegers(storage: Storage, values: Int32Array): void {
  known.set(storage, values);
}

/** A storage is about to hold other values. */
export function forgetIntegers(storage: Storage): void {
  known.delete(storage);
}

/**
 * The values of an i32 tensor that was made of numbers in JavaScript, so that they can be checked without waiting for a device; null for
 * what a device has computed.
 */
export function hostIntegers({ storage }: Tensor): Int32Array | null {
  return (storage && known.get(storage)) ?? null;
}
