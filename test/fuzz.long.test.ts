import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, expect, test } from "vitest";
import { mutateJson } from "../scripts/fuzz/mutate.mjs";
import { fuzz } from "../scripts/fuzz/pool.mjs";
import { randomOf } from "../scripts/fuzz/random.mjs";
import { residentMeter } from "../scripts/fuzz/resident.mjs";

const folder = mkdtempSync(join(tmpdir(), "lowrank-pool-"));
afterAll(() => rmSync(folder, { recursive: true, force: true }));

/** What the real process does, with faults at some numbers in place of readers. */
const program = join(folder, "child.mjs");
writeFileSync(
  program,
  `import { appendFileSync } from "node:fs";
process.on("message", ({ from, to, outcomes, wrong }) => {
  for (let number = from; number < to; number++) {
    if (number === 3) for (;;) {}
    if (number === 5) process.abort();
    if (number === 7) for (const kept = []; ; ) kept.push(new Array(1e6).fill(number));
    if (number === 8) for (const kept = []; ; ) kept.push(new Uint8Array(2e7).fill(1));
    if (number === 9) appendFileSync(wrong, JSON.stringify({ number, text: "TypeError" }) + "\\n");
    appendFileSync(outcomes, number === 9 ? "w" : number % 2 === 0 ? "a" : "t");
  }
  process.send("done");
});
process.on("disconnect", () => process.exit());
process.send("ready");
`,
);

test("the fuzzer goes on after a mutant that hangs, kills the process or takes its memory, and counts each once", async () => {
  const outcomes = new Map<number, string>();
  const texts = new Map<number, string>();
  await fuzz({
    seed: 1,
    names: [],
    workers: 1,
    count: 12,
    until: Number.POSITIVE_INFINITY,
    program,
    limits: { processorSeconds: 5, seconds: 120, heapMegabytes: 64, residentBytes: 400e6 },
    onResult({ number, outcome, text }) {
      expect(outcomes.has(number)).toBe(false);
      outcomes.set(number, outcome);
      texts.set(number, text);
    },
  });
  const expected = [
    "accepted",
    "typed",
    "accepted",
    "hang",
    "accepted",
    "crash",
    "accepted",
    "memory",
    "memory",
    "wrong",
    "accepted",
    "typed",
  ];
  expect([...outcomes].sort(([a], [b]) => a - b).map(([, outcome]) => outcome)).toEqual(expected);
  expect(texts.get(9)).toBe("TypeError");
});

test.runIf(process.platform === "linux")(
  "what a mutant takes is the peak while it is read, over the process's start, given back or not",
  () => {
    const meter = residentMeter();
    meter.begin();
    let bytes: Uint8Array | null = new Uint8Array(200e6).fill(1);
    expect(bytes.length).toBe(200e6);
    bytes = null;
    const during = meter.growth() ?? 0;
    expect(during).toBeGreaterThan(190e6);
    expect(during).toBeLessThan(300e6);
  },
);

test("a mutant follows from its seed and number", () => {
  const value = { a: [1, { b: "text" }], c: { d: null, e: true } };
  const made = (seed: number, number: number): string => JSON.stringify(mutateJson(value, randomOf(seed, number)));
  const all = Array.from({ length: 200 }, (_, i) => made(7, i));
  expect(all).toEqual(Array.from({ length: 200 }, (_, i) => made(7, i)));
  expect(new Set(all).size).toBeGreaterThan(150);
  expect(all).not.toEqual(Array.from({ length: 200 }, (_, i) => made(8, i)));
  expect(value).toEqual({ a: [1, { b: "text" }], c: { d: null, e: true } });
});
