import { existsSync } from "node:fs";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { AdapterError } from "../src/index.js";
import { beside, eachInOrder } from "../src/linalg/beside.js";
import { setNodeLinalgThreads } from "../src/linalg/node/threads.js";
import { operate } from "../src/linalg/operations.js";

/** Threads run the built package. */
const program = new URL("../dist/linalg/node/linalg-worker.js", import.meta.url);

const numbers = (count: number): Float64Array => Float64Array.from({ length: count }, (_, i) => (Math.sin(i * 12.9898) * 43758.5453) % 1);
const [rows, columns] = [300, 280];
const sizes = { rows, columns };

describe.skipIf(!existsSync(program))("decompositions on threads", () => {
  beforeAll(() => setNodeLinalgThreads(program, 3));
  afterAll(() => setNodeLinalgThreads());

  test("have the bits that they have on the calling one, several at a time", async () => {
    const matrix = numbers(rows * columns);
    const asked = [3, 5, 7, 9, 11].map((rank) => beside("svd", [matrix, rows, columns, rank], sizes));
    const energy = beside("svdOfEnergy", [matrix, rows, columns, 0.5], sizes);
    for (const [i, found] of (await Promise.all(asked)).entries())
      expect(found).toEqual(operate("svd", [matrix, rows, columns, 3 + 2 * i]));
    expect(await energy).toEqual(operate("svdOfEnergy", [matrix, rows, columns, 0.5]));
  });

  test("refuse what they refuse there, and go on", async () => {
    const matrix = numbers(rows * columns);
    const bad = matrix.slice().fill(Number.NaN, 5, 6);
    await expect(beside("svd", [bad, rows, columns, 2], sizes)).rejects.toThrow(AdapterError);
    expect((await beside("svd", [matrix, rows, columns, 2], sizes)).s).toHaveLength(2);
  });

  test.each([
    ["run beside each other, one waiting", 0, 4],
    ["run alone where memory is short", 2 ** 28, 1],
  ])("items %s; begun and taken in order", async (_name, bytes, most) => {
    const log: string[] = [];
    let running = 0;
    let peak = 0;
    await eachInOrder(
      [1, 2, 3, 4, 5, 6],
      () => bytes,
      async (item) => {
        log.push(`begin ${item}`);
        return async () => {
          peak = Math.max(peak, ++running);
          // The first take longest.
          await new Promise((resolve) => setTimeout(resolve, 30 - 5 * item));
          running--;
          return item * item;
        };
      },
      (square, item) => log.push(`${item}: ${square}`),
    );
    expect(log.filter((line) => line.startsWith("begin"))).toEqual([1, 2, 3, 4, 5, 6].map((item) => `begin ${item}`));
    expect(log.filter((line) => !line.startsWith("begin"))).toEqual([1, 2, 3, 4, 5, 6].map((item) => `${item}: ${item * item}`));
    expect(peak).toBe(most);
  });

  test("what rejects is what the whole rejects with, and nothing begins behind it", async () => {
    const begun: number[] = [];
    const work = eachInOrder(
      [0, 1, 2, 3, 4, 5, 6, 7, 8],
      () => 0,
      async (item) => {
        begun.push(item);
        return async () => {
          if (item === 1) throw new AdapterError("one");
          if (item === 2) throw new AdapterError("two");
          return item;
        };
      },
      () => undefined,
    );
    await expect(work).rejects.toThrow("one");
    expect(begun.length).toBeLessThan(9);
  });
});
