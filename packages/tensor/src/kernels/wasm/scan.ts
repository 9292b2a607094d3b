import { type Code, i32, i32x4, type Local, ModuleBuilder, memory, op } from "./assembler.js";

/** Bytes that one round of `scan` takes; what is shorter is padded with zeros. */
export const scanBlockBytes = 64;
/** The state of a scan in memory: four vectors of the digest, then one in which bits stay of elements that are not finite. */
export const scanStateBytes = 80;
/** Rotation and factor of the digest's rounds. */
export const scanRotation = 13;
export const scanFactor: number = 0x9e3779b1 | 0;

/** `scan(address, bytes, state, mask, add)`: `bytes` is a multiple of `scanBlockBytes`. */
export type Scan = (address: number, bytes: number, state: number, mask: number, add: number) => void;

/**
 * A module with `scan`, which reads bytes once for two ends. The digest: with f(h, w) = rotl(h ⊕ w, 13) · 0x9e3779b1 in each of 16 lanes, the
 * four vectors become f(h₁, w₁) + h₂, f(h₂, w₂) + h₃, f(h₃, w₃), f(h₀, w₀) + h₁, which is one to one, so that no change of a single word is
 * ever lost. And (w & mask) + add, whose uppermost bit of an element is set where all bits of the exponent are: for infinity and NaN.
 */
export function printScan(): Uint8Array<ArrayBuffer> {
  const module = new ModuleBuilder({ isShared: false });
  const f = module.function(["i32", "i32", "i32", "i32", "i32"], [], "scan");
  const [address, bytes, state, mask, add] = [f.param(0), f.param(1), f.param(2), f.param(3), f.param(4)];
  const at = (index: number): Code => memory("v128.load", index * 16, state.get);
  const h = [0, 1, 2, 3].map((index) => f.let("v128", at(index)));
  const found = f.let("v128", at(4));
  const masks = f.let("v128", op("i32x4.splat", mask.get));
  const adds = f.let("v128", op("i32x4.splat", add.get));
  const factor = f.let("v128", i32x4(scanFactor));
  const end = f.let("i32", op("i32.add", address.get, bytes.get));
  f.while(address, end.get, i32(scanBlockBytes), () => {
    const mixed = h.map((lane, index) => {
      const word = f.let("v128", memory("v128.load", index * 16, address.get));
      f.emit(found.set(op("v128.or", found.get, op("i32x4.add", op("v128.and", word.get, masks.get), adds.get))));
      f.emit(word.set(op("v128.xor", lane.get, word.get)));
      const left = op("i32x4.shl", word.get, i32(scanRotation));
      const right = op("i32x4.shr_u", word.get, i32(32 - scanRotation));
      return f.let("v128", op("i32x4.mul", op("v128.or", left, right), factor.get));
    }) as [Local, Local, Local, Local];
    const [h0, h1, h2, h3] = h as [Local, Local, Local, Local];
    const [x0, x1, x2, x3] = mixed;
    f.emit(x0.set(op("i32x4.add", x0.get, h1.get)));
    f.emit(x1.set(op("i32x4.add", x1.get, h2.get)));
    f.emit(x2.set(op("i32x4.add", x2.get, h3.get)));
    f.emit([h0.set(x1.get), h1.set(x2.get), h2.set(x3.get), h3.set(x0.get)]);
  });
  for (const [index, value] of [...h, found].entries()) f.emit(memory("v128.store", index * 16, state.get, value.get));
  return module.bytes();
}
