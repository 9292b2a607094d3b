import { combinedDigest, digestOf } from "@lowrank/tensor";
import type { Adapter } from "./adapter.js";

/** One digest of an adapter's tensors, by which merged weights say what is in them: 32 hexadecimal digits, whatever the file's layout. */
export async function adapterDigest(adapter: Adapter): Promise<string> {
  const digests = new Map<string, string>();
  for (const [name, tensor] of adapter.namedTensors()) {
    const numbers = await tensor.cast("f32").data();
    digests.set(name, digestOf(new Uint8Array(numbers.buffer, numbers.byteOffset, numbers.byteLength)));
  }
  return combinedDigest(digests);
}
