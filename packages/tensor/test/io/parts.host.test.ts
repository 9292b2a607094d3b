import { type ByteSource, CheckpointError, device, joined, readSafetensors, tensor, writeSafetensors } from "@lowrank/tensor";
import { afterAll, describe, expect, test } from "vitest";

// Three parts and a bit, of 4 MiB each.
const count = 6_500_000;
const dev = await device("cpu", { threads: 2 });
const alone = await device("cpu", { threads: 1 });
afterAll(() => {
  for (const each of [dev, alone]) each.dispose();
});
const values = Float32Array.from({ length: count }, (_, i) => (i % 251) - 125);
const made = tensor(values, { device: alone, dtype: "bf16" });
const file = await joined(writeSafetensors(new Map([["w", made]])));

/** A file whose reads take a while each, the later ones less; which of them are under way, and how many there were at most. */
function slowSource(bytes: Uint8Array, { isPlaced, failsAt = Number.POSITIVE_INFINITY }: { isPlaced: boolean; failsAt?: number }) {
  const reads = { open: 0, most: 0, placed: 0 };
  const source: ByteSource = {
    name: "slow",
    byteLength: bytes.length,
    async read(offset, length, into) {
      reads.most = Math.max(reads.most, ++reads.open);
      try {
        await new Promise((resolve) => setTimeout(resolve, 12 - Math.floor(offset / 2 ** 21)));
        if (offset + length > failsAt) throw new CheckpointError("slow: it broke off.", "slow");
        const part = bytes.subarray(offset, offset + length);
        if (!isPlaced || !into) return part.slice();
        reads.placed += 1;
        into.set(part);
        return into;
      } finally {
        reads.open -= 1;
      }
    },
  };
  return { source, reads };
}

describe("a tensor of several parts", () => {
  test.each([
    ["read into its place, several parts at a time", dev, true, 3],
    ["read into memory of the source", dev, false, 3],
    ["read for a device whose memory moves, one part at a time", alone, true, 1],
  ] as const)("%s", async (_, onto, isPlaced, most) => {
    const { source, reads } = slowSource(file, { isPlaced });
    const opened = await readSafetensors(source);
    const { tensor: weight, digest } = await opened.weight("w", { device: onto });
    expect(Buffer.compare(Buffer.from(((await weight.data()) as Float32Array).buffer), Buffer.from(values.buffer))).toBe(0);
    expect(digest).toBe(await opened.digest("w"));
    expect(reads.most).toBe(most);
    weight.dispose();
  });

  test.each([dev, alone])(
    "that breaks off, or is not finite, is given up when nothing is written into its memory any more",
    async (onto) => {
      const broken = slowSource(file, { isPlaced: true, failsAt: 9_000_000 });
      await expect((await readSafetensors(broken.source)).weight("w", { device: onto })).rejects.toThrow(/it broke off/);
      expect(broken.reads.open).toBe(0);
      const bytes = file.slice();
      bytes.fill(0xff, 2_000_000, 2_000_002);
      const odd = slowSource(bytes, { isPlaced: true });
      const before = onto.counters.bytesInUse;
      await expect((await readSafetensors(odd.source)).weight("w", { device: onto })).rejects.toThrow(/"w" is NaN at \[\d+\]/);
      expect(odd.reads.open).toBe(0);
      expect(onto.counters.bytesInUse).toBe(before);
    },
  );
});
