import { device } from "@lowrank/tensor";
import { describe, expect, it } from "vitest";
import { type Bar, isWithin, verdict } from "../src/bars/bar.js";
import { bars } from "../src/bars/index.js";
import { families } from "../src/families/index.js";
import type { CaseResult } from "../src/families/measure.js";
import { inputValues, samplePositions } from "../src/formula.js";
import { changeLines, changes } from "../src/report/compare.js";
import type { Report } from "../src/report/json.js";
import { page } from "../src/report/page.js";
import { scaleSheet } from "../src/report/scale-plot.js";
import { barDetail, barLine, caseLine, familyHead, required, wrapped } from "../src/report/terminal.js";
import { arithmeticModule, triadModule } from "../src/roofline/module.js";
import { shapes, stepFlops } from "../src/shapes.js";
import type { ScaleRow } from "../src/steps/scale.js";
import { alternate, quantile, speedup, summary } from "../src/timing.js";

const width = (line: string): number => [...line].length;

function result(name: string, samples: readonly number[], size = 1): CaseResult {
  const timing = summary("lowrank", samples, 1);
  return {
    family: "matmul",
    name,
    curve: "square",
    size,
    timing,
    gflops: 1 / timing.median,
    gbps: 2 / timing.median,
    share: 0.5,
    error: 1e-7,
    peers: { pytorch: { timing: summary("pytorch", [2], 1), ratio: 2 / timing.median }, "tfjs-wasm": { skipped: "absent" } },
  };
}

function report(cases: readonly CaseResult[]): Report {
  const machine = {
    date: "2026-01-01T00:00:00Z",
    node: "v20",
    platform: "linux",
    processor: "p<1>",
    threads: 2,
    memoryBytes: 1,
    device: "cpu",
  };
  const bar = { name: "a bar", required: "≥ 1", verdict: "ok" as const, outcome: { values: [2], detail: "behind it" } };
  return { machine, method: "m", roofline: null, cases, bars: [bar], peers: {} };
}

describe("times", () => {
  it("quantiles lie between neighbours", () => {
    expect([quantile([4, 1, 3, 2], 0.5), quantile([1, 2, 3], 0.25), quantile([7], 0.9)]).toEqual([2.5, 1.5, 7]);
  });
  it("sides take turns, after three runs that are not counted", async () => {
    const calls: string[] = [];
    const side = (name: string, seconds: number) => ({
      name,
      run: async (count: number) => {
        calls.push(name);
        return count * seconds;
      },
    });
    const [fast, slow] = await alternate([side("a", 0.01), side("b", 0.02)], { rounds: 2, seconds: 0.04 });
    expect(calls.join("")).toBe("aaabbbabab");
    expect(fast?.count).toBe(4);
    expect(slow?.count).toBe(2);
    expect(fast && slow && speedup(fast, slow)).toBeCloseTo(2, 12);
  });
});

describe("inputs", () => {
  it("follow the formula that other languages have too", () => {
    const values = inputValues(2000, 3, 5, 2);
    for (const i of [0, 1, 1008, 1009, 1999]) {
      expect(values[i]).toBe(Math.fround((((i * 7919 + 3 * 104729 + 5 * 31) % 1009) / 1009 - 0.5) * 2));
    }
    expect(samplePositions(10).slice(0, 3)).toEqual([0, 9, 8]);
  });
});

describe("the roofline's programs", () => {
  it.each([6, 8, 10, 12])("%i chains of arithmetic are a module, fused or not, and come to 1", async (chains) => {
    // Opening the device is what lets Node 20 compile the fused one.
    (await device("cpu", { threads: 1 })).dispose();
    for (const isFused of [false, true]) {
      const module = new WebAssembly.Module(arithmeticModule(chains, isFused));
      const { run } = new WebAssembly.Instance(module).exports as { run: (turns: number) => number };
      expect(run(1000)).toBeCloseTo(chains, 5);
    }
  });
  it("the triad is a module and adds", () => {
    const memory = new WebAssembly.Memory({ initial: 1, maximum: 65536, shared: true });
    const values = new Float32Array(memory.buffer);
    values.fill(2, 1024, 2048).fill(5, 2048, 3072);
    const { run } = new WebAssembly.Instance(new WebAssembly.Module(triadModule()), { env: { memory } }).exports as {
      run: (a: number, b: number, c: number, turns: number) => void;
    };
    run(0, 4096, 8192, 2);
    expect([...values.subarray(0, 33)]).toEqual([...Array.from({ length: 32 }, () => 17), 0]);
  });
});

describe("shapes", () => {
  it("have the FLOP that the bars are said to have, to 8 %", () => {
    expect(Math.abs(stepFlops(shapes.tiny, "lora") / 4.1e9 - 1)).toBeLessThan(0.08);
    expect(Math.abs(stepFlops(shapes.small, "lora") / 63e9 - 1)).toBeLessThan(0.08);
  });
});

describe("bars", () => {
  const every = (bar: Bar, value: number) => ({ values: bar.limits.map(() => value), detail: "a detail ".repeat(20) });
  it.each(bars.map((bar) => [bar.name, bar] as const))("%s fits into 80 columns", (_, bar) => {
    expect(bar.brief.length).toBeLessThanOrEqual(34);
    for (const outcome of [every(bar, 0.123456), { skipped: "a reason ".repeat(20) }])
      for (const line of [barLine(bar, outcome), ...barDetail(bar, outcome)]) expect(width(line)).toBeLessThanOrEqual(80);
  });
  it("names are their own", () => {
    expect(new Set(bars.map(({ name }) => name)).size).toBe(bars.length);
    expect(new Set(bars.map(({ brief }) => brief)).size).toBe(bars.length);
  });
  it("limits hold at their edge, and say what they ask for", () => {
    expect([isWithin(1.8, { atLeast: 1.8 }), isWithin(1.79, { atLeast: 1.8 })]).toEqual([true, false]);
    expect([isWithin(4, { atMost: 4 }), isWithin(4.1, { atMost: 4 }), isWithin(5, { below: 5 })]).toEqual([true, false, false]);
    expect([isWithin(0.98, { near: 1, within: 0.03 }), isWithin(1.05, { near: 1, within: 0.03 })]).toEqual([true, false]);
    expect(required([{ atLeast: 1.8, unit: "x" }])).toBe("≥ 1.8x");
    expect(required([{ atMost: 0.75 }, { atMost: 0.55 }])).toBe("≤ 0.75/0.55");
    expect(required([{ atMost: 0 }, { near: 1, within: 0.03 }])).toBe("≤0 1±0.03");
  });
  it("one short value makes a bar short, and a missing one too", () => {
    const bar: Bar = {
      name: "b",
      brief: "b",
      limits: [{ atMost: 1 }, { atMost: 1 }],
      isTimed: false,
      measure: async () => ({ skipped: "" }),
    };
    expect(verdict(bar, { values: [1, 2], detail: "" })).toBe("short");
    expect(verdict(bar, { values: [1], detail: "" })).toBe("short");
    expect(verdict(bar, { values: [1, 1], detail: "" })).toBe("ok");
    expect(verdict(bar, { skipped: "why" })).toBe("skipped");
  });
});

describe("tables", () => {
  const peers = ["tfjs-wasm", "jax-wasm", "onnx-wasm", "pytorch"];
  it.each(families.map((family) => [family.name, family] as const))("%s fits into 80 columns beside all peers", (_, family) => {
    for (const line of familyHead(family.name, peers)) expect(width(line)).toBeLessThanOrEqual(80);
    for (const { name } of family.cases(false)) expect(width(caseLine(result(name, [0.123456]), peers))).toBeLessThanOrEqual(80);
  });
  it("cases of a family have names of their own", () => {
    for (const family of families) {
      const names = family.cases(false).map(({ name }) => name);
      expect(new Set(names).size).toBe(names.length);
    }
  });
  it("long text is broken between words", () => {
    expect(wrapped("word ".repeat(40), 4).every((line) => width(line) <= 80 && line.startsWith("    word"))).toBe(true);
  });
});

describe("comparisons", () => {
  const before = report([result("same", [1, 1.1, 1.2]), result("faster", [2, 2.1, 2.2]), result("gone", [1])]);
  const after = report([result("same", [1.05, 1.15, 1.25]), result("faster", [1, 1.1, 1.2]), result("new", [1])]);
  it("a change counts when the quartiles do not meet", () => {
    expect(changes(before, after).map(({ name, isBeyondNoise }) => [name, isBeyondNoise])).toEqual([
      ["same", false],
      ["faster", true],
    ]);
  });
  it("are said in lines of 80 columns", () => {
    const lines = changeLines(before, after);
    expect(lines.join("\n")).toMatch(/matmul: faster .*1\.91x faster/);
    expect(lines.at(-1)).toMatch(/1 of 2 cases/);
    expect(lines.every((line) => width(line) <= 80)).toBe(true);
  });
});

describe("the page", () => {
  const html = page(report([result("small", [1], 1), result("<large>", [2], 2)]), { matmul: "FLOP" });
  it("needs nothing from outside", () => {
    expect(html).not.toMatch(/(?:src|href)=|https?:\/\//);
  });
  it("has its figures as tables, with text escaped", () => {
    expect(html).toContain("&lt;large&gt;");
    expect(html).toContain("p&lt;1&gt;");
    expect(html).toContain('<td class="ok">ok</td>');
    expect(html).toContain("against pytorch");
  });
  it("has a plot against size", () => {
    const data = JSON.parse(/<script type="application\/json">(.*?)<\/script>/.exec(html)?.[1] ?? "{}") as {
      names: string[];
      data: number[][];
    };
    expect(data.names).toEqual(["square", "square, pytorch"]);
    expect(data.data[0]).toEqual([1, 2]);
  });
});

it("the sheet of growing sizes has a panel for each sweep, and a point for each size", () => {
  const row = (sweep: string, value: number, seconds: number): ScaleRow => ({
    sweep,
    value,
    seconds,
    peakBytes: value * 1e6,
    training: "lora",
  });
  const sheet = scaleSheet([row("rank", 1, 0.01), row("rank", 1024, 0.02), row("threads", 2, 0.5)]);
  expect(sheet.match(/<g /g)).toHaveLength(2);
  expect(sheet.match(/<circle /g)).toHaveLength(6);
  for (const text of [">rank<", ">threads<", ">1k<", ">10<", ">20<"]) expect(sheet).toContain(text);
  expect(sheet).not.toContain("NaN");
});

it("the sheet of growing sizes draws what does not grow as a level line, with one label", () => {
  const row = (value: number, peakBytes: number): ScaleRow => ({
    sweep: "threads",
    value,
    seconds: 1 / value,
    peakBytes,
    training: "lora",
  });
  const sheet = scaleSheet([row(1, 204.0e6), row(2, 204.4e6)]);
  const [first, second] = [...sheet.matchAll(/<circle [^>]*cy="([\d.]+)" [^>]*fill="#bf5f00"/g)].map(([, y]) => y);
  expect(first).toBe(second);
  expect(sheet.match(/>204</g)).toHaveLength(1);
});
