import { describe, expect, it } from "vitest";
import { medianError } from "../src/compare/latency.js";
import { percent, signed } from "../src/compare/rows.js";
import { median, medianStepMs } from "../src/compare/training.js";
import { commonLength, parted, partingLines } from "../src/parting.js";
import { axisNumber, logTicks, ticks } from "../src/report/axis.js";
import { curves, smoothed, thinned } from "../src/report/curves.js";
import { prose } from "../src/report/html.js";
import { page } from "../src/report/page.js";
import { shownPath } from "../src/report/path.js";
import { barChart, heatMap, lineChart } from "../src/report/svg.js";
import { bestMarked, htmlTable } from "../src/report/table.js";
import { tableLines } from "../src/terminal/format.js";

describe("tables", () => {
  it("end numbers in line", () => {
    expect(
      tableLines(
        [
          ["a", "n"],
          ["x", "10"],
          ["long", "5"],
        ],
        { areNumbers: true },
      ),
    ).toEqual(["a      n", "────────", "x     10", "long   5"]);
  });
  it("escape what they show", () => {
    expect(htmlTable("t", ["a"], [["<b>&"]])).toContain("&lt;b&gt;&amp;");
  });
  it("mark the best of a column, and nothing where there is one row", () => {
    expect(bestMarked(["3", "1", "–"], [3, 1, null])).toEqual(["3", { text: "1", tone: "best" }, "–"]);
    expect(bestMarked(["3", "1"], [3, 1], true)[0]).toEqual({ text: "3", tone: "best" });
    expect(bestMarked(["3"], [3])).toEqual(["3"]);
    expect(bestMarked(["0", "0"], [0, 0])).toEqual(["0", "0"]);
  });
});

describe("figures", () => {
  it.each([
    [ticks(0, 1).join(), "0,0.2,0.4,0.6,0.8,1"],
    [ticks(2, 2).join(), "2"],
    [logTicks(1, 1000).join(), "1,10,100,1000"],
    [logTicks(1, 10).join(), "1,2,5,10"],
    [axisNumber(1_500_000), "1.5M"],
    [axisNumber(0.25), "0.25"],
    [percent(0.00123), "0.0012 %"],
    [percent(1.678), "1.68 %"],
    [signed(-0.5), "−0.500"],
    [String(median([3, 1, 2])), "2"],
    [String(median([4, 1, 2, 3])), "2.5"],
    [String(median([7])), "7"],
    [String(median([])), "NaN"],
  ])("%s", (got, wanted) => {
    expect(got).toBe(wanted);
  });
  it("the time of a step is that of steady steps, without planning and without the pause of an interruption", () => {
    const steps = (...times: readonly number[]) => times.map((stepMs, i) => ({ step: i + 1, loss: 1, stepMs, isWarmUp: i === 0 }));
    const tens = (count: number): number[] => Array.from({ length: count }, () => 10);
    expect(medianStepMs(steps(500, ...tens(40)))).toBeCloseTo(10, 9);
    expect(medianStepMs(steps(500, ...tens(20), 90_000, ...tens(20)))).toBeCloseTo(10, 9);
    // Losses that become known four at a time: most steps seem to take no time at all.
    expect(medianStepMs(steps(9000, 3600, 1, 3599, 0, 3600, 0, 3600, 0))).toBeCloseTo(1800, 9);
    expect(medianStepMs(steps(9000, 1800))).toBe(1800);
    expect(medianStepMs(steps(9000))).toBeNaN();
  });
  it("the error of a median falls with the number of values", () => {
    const few = [1, 1.1, 0.9, 1.05, 0.95];
    expect(medianError([...few, ...few, ...few, ...few])).toBeCloseTo(medianError(few) / 2, 9);
  });
  it("thins by means and smooths without bias at the start", () => {
    const points = Array.from({ length: 10 }, (_, i) => ({ x: i, y: 2 }));
    expect(thinned(points, 5)).toHaveLength(5);
    for (const { y } of smoothed(points)) expect(y).toBeCloseTo(2, 12);
  });
});

describe("drawings", () => {
  it("hold no NaN, whatever they are given", () => {
    const one = [
      {
        name: "a<b",
        color: 0,
        points: [
          { x: 1, y: Number.NaN },
          { x: 2, y: 3 },
        ],
      },
    ];
    const bars = [
      { label: "x", value: null, text: "–", color: 1 },
      { label: "y", value: -1, text: "−1", color: 2 },
    ];
    const drawn = [
      lineChart(one, { title: "t", x: "x", y: "y" }, 300, 200),
      lineChart([], { title: "t", x: "x", y: "y" }, 300, 200),
      barChart("t", bars, 1),
      heatMap("t", [[0, 1]], { rows: [1], columns: [1, 2], x: "x", y: "y" }),
    ];
    for (const svg of drawn) expect(svg).toMatch(/^<svg(?!.*NaN).*<\/svg>$/s);
  });
  it("sentences keep a figure and its percent sign on one line", () => {
    expect(prose("7 % < 8 % of it")).toBe("7\u00a0% &lt; 8\u00a0% of it");
  });
  it.each([2, 5, 9])("labels of %i points at one place lie over no dot and over no other label", (count) => {
    const points = Array.from({ length: count }, (_, i) => ({
      name: `method-${i}`,
      color: i,
      points: [{ x: 1000 + 3 * i, y: 1 + i / 200 }],
    }));
    const away = { name: "far", color: 9, points: [{ x: 1e6, y: 9 }] };
    const svg = lineChart([...points, away], { title: "t", x: "x", y: "y", isScatter: true, isLogX: true }, 330, 300);
    const number = (text: string | undefined): number => Number(text);
    const boxes = [...svg.matchAll(/class="name( end)?" x="([\d.-]+)" y="([\d.-]+)">([^<]*)/g)].map(([, end, x, y, name = ""]) => {
      const left = number(x) - (end ? 7 * name.length : 0);
      return { left, right: left + 7 * name.length, top: number(y) - 10, bottom: number(y) };
    });
    const dots = [...svg.matchAll(/cx="([\d.]+)" cy="([\d.]+)"/g)].map(([, x, y]) => {
      const [cx, cy] = [number(x), number(y)];
      return { left: cx - 5, right: cx + 5, top: cy - 5, bottom: cy + 5 };
    });
    expect(boxes.length).toBeGreaterThan(Math.min(count, 5));
    for (const [i, box] of boxes.entries())
      for (const other of [...dots, ...boxes.slice(0, i)])
        expect(box.left >= other.right || other.left >= box.right || box.top >= other.bottom || other.top >= box.bottom).toBe(true);
  });
  it("labels of two points that touch lie at the side of their own", () => {
    const touching = [100, 103].map((x, i) => ({ name: i === 0 ? "lora" : "dora", color: i, points: [{ x, y: 1 }] }));
    const away = [1, 1e4].map((x) => ({ name: "far", color: 9, points: [{ x, y: 9 }] }));
    const svg = lineChart([...touching, ...away], { title: "t", x: "x", y: "y", isScatter: true, isLogX: true }, 330, 300);
    const [, left = ""] = /class="name end"[^>]*>([^<]*)/.exec(svg) ?? [];
    expect(left).toBe("lora");
    expect(svg).toMatch(/class="name" [^>]*>dora</);
    expect(svg).not.toContain("leader");
  });
  it("make a page that asks for nothing from elsewhere", () => {
    const body = curves(
      [
        {
          name: "</script>",
          color: 0,
          points: [
            { x: 1, y: 1 },
            { x: 2, y: 2 },
          ],
        },
      ],
      { title: "t", x: "x", y: "y" },
    );
    const html = page({ title: "t", lead: "l", facts: [["a", "b"]], sections: [{ heading: "h", body }] });
    expect(html).not.toMatch(/https?:|(?:src|href)=|@import|url\(/);
    expect(html).toContain("var uPlot=");
    expect(html.match(/<script/g)?.length).toBe(html.match(/<\/script>/g)?.length);
  });
});

describe("what a page shows of a path", () => {
  it.each([
    ["runs/data.jsonl", "runs/data.jsonl"],
    ["/home/ann/work/runs/data.jsonl", "runs/data.jsonl"],
    ["/home/ann/other/data.jsonl", "data.jsonl"],
    ["../other/data.jsonl", "data.jsonl"],
    ["organisation/model", "organisation/model"],
  ])("%s is shown as %s", (path, shown) => {
    expect(shownPath(path, path.startsWith("/") ? "/home/ann/work" : process.cwd())).toBe(shown);
  });
});

describe("where two texts part", () => {
  it.each([
    ["abc", "abd", 2],
    ["abc", "abc", 3],
    ["ab", "abc", 2],
    ["", "x", 0],
    ["👍🏽a", "👍🏽b", 2],
  ])("%j and %j: after %i characters", (a, b, length) => {
    expect(commonLength(a, b)).toBe(length);
    expect(parted(a, b).same + parted(a, b).rest).toBe(a);
  });
  it.each([
    ["short ones are whole", "one", "two", 10, { a: "one", b: "two", at: 0 }],
    ["line breaks are shown", "a\nb", "a\nc", 10, { a: "a⏎b", b: "a⏎c", at: 2 }],
    ["long ones begin shortly before", "x".repeat(40) + "yes", "x".repeat(40) + "no", 12, { a: "…xxxxxxxxyes", b: "…xxxxxxxxno", at: 9 }],
    ["and are cut at both ends", `${"x".repeat(20)}a${"y".repeat(20)}`, `${"x".repeat(20)}b`, 9, { a: "…xxayyyy…", b: "…xxb", at: 3 }],
  ])("%s", (_, a, b, width, wanted) => {
    expect(partingLines(a, b, width)).toEqual(wanted);
  });
});
