import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { ContentScan, digestOf, stagingBytes } from "../../src/io/scan.js";
import { encode } from "../../src/tensor/dtype.js";

function scanned(bytes: Uint8Array, dtype = "U8", isPlain = false): { digest: string; firstNonFinite: number | null } {
  const scan = new ContentScan(dtype, isPlain).takeAll(bytes);
  const { digest, firstNonFinite } = scan;
  scan.close();
  return { digest, firstNonFinite };
}

const bytes = (minLength: number, maxLength = 400): fc.Arbitrary<Uint8Array> => fc.uint8Array({ minLength, maxLength });

describe("the digest", () => {
  test("is the same with and without WebAssembly, and as it always was", () => {
    fc.assert(
      fc.property(bytes(0), (content) => {
        expect(scanned(content, "F32", true)).toEqual(scanned(content, "F32"));
      }),
    );
    // Digests lie in run states: another one would make every run of before look changed.
    expect(digestOf("")).toBe("632ea21a1e0249041e2b8507dd74196e");
    expect(digestOf("lowrank")).toBe("7f73c94218dedc90f4616dda46aa20ab");
  });

  test("differs after any one bit is flipped", () => {
    fc.assert(
      fc.property(bytes(1), fc.nat(), (content, at) => {
        const changed = content.slice();
        const bit = at % (8 * content.length);
        changed[bit >> 3] = (changed[bit >> 3] ?? 0) ^ (1 << (bit & 7));
        expect(digestOf(changed)).not.toBe(digestOf(content));
      }),
    );
  });

  test("differs after two parts change places, zeros are added, and signs are flipped in pairs", () => {
    const content = Uint8Array.from({ length: 4096 }, (_, i) => (i * i + (i >> 3)) & 255);
    const seen = new Set([digestOf(content)]);
    for (let i = 0; i < 1024; i++) {
      const swapped = new Uint32Array(content.slice().buffer);
      const [a, b] = [swapped[i] ?? 0, swapped[(i + 16) % 1024] ?? 0];
      swapped[i] = b;
      swapped[(i + 16) % 1024] = a;
      if (a !== b) seen.add(digestOf(new Uint8Array(swapped.buffer)));
      const negated = new Uint32Array(content.slice().buffer);
      for (const at of [i, (i + 16) % 1024]) negated[at] = (negated[at] ?? 0) ^ 0x80000000;
      seen.add(digestOf(new Uint8Array(negated.buffer)));
      seen.add(digestOf(new Uint8Array(i)));
    }
    const words = new Uint32Array(content.buffer);
    const swaps = words.filter((word, i) => word !== words[(i + 16) % 1024]).length;
    expect(seen.size).toBe(1 + swaps + 1024 + 1024);
  });

  test("does not depend on where the parts were cut", () => {
    const content = Uint8Array.from({ length: 3 * 1024 + 5 }, (_, i) => i * 7);
    const scan = new ContentScan("U8");
    for (const [from, to] of [
      [0, 64],
      [64, 2048],
      [2048, content.length],
    ])
      scan.take(content.subarray(from, to));
    expect(scan.digest).toBe(digestOf(content));
    scan.close();
  });
});

const dtypes = [
  ["F32", "f32"],
  ["F16", "f16"],
  ["BF16", "bf16"],
] as const;

describe("elements that are not finite", () => {
  test.each(dtypes)("of %s are found, whatever lies beside them", (name, dtype) => {
    const largest = dtype === "f16" ? 65504 : dtype === "bf16" ? 3.3895313892515355e38 : 3.4028234663852886e38;
    const finite = fc.oneof(fc.constantFrom(largest, -largest, 0, -0, 2 ** -24), fc.float({ min: -60000, max: 60000, noNaN: true }));
    const bad = fc.constantFrom(Number.NaN, Number.POSITIVE_INFINITY, Number.NEGATIVE_INFINITY);
    fc.assert(
      fc.property(fc.array(finite, { maxLength: 90 }), fc.array(fc.oneof(finite, bad), { maxLength: 20 }), (before, after) => {
        const first = after.findIndex((value) => !Number.isFinite(value));
        expect(scanned(encode([...before, ...after], dtype), name).firstNonFinite).toBe(first < 0 ? null : before.length + first);
      }),
    );
  });

  test("of integers there are none", () => {
    expect(scanned(new Uint8Array(64).fill(255), "I32").firstNonFinite).toBeNull();
  });

  test("are found behind the first part", () => {
    const content = new Uint8Array(stagingBytes + 256);
    new DataView(content.buffer).setUint16(stagingBytes + 130, 0x7f80, true);
    expect(scanned(content, "BF16").firstNonFinite).toBe((stagingBytes + 130) / 2);
  });
});
