import { describe, expect, it } from "vitest";
import { medianError } from "../src/compare/latency.js";
import { percent, signed } from "../src/compare/rows.js";
import { median, medianStepMs } from "../src/compare/training.js";
import { axisNumber, logTicks, ticks } from "../src/report/axis.js";
import { curves, smoothed, thinned } from "../src/report/curves.js";
import { page } from "../src/report/page.js";
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
        true,
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
  it("the time of a step is the median, without the pause of an interruption", () => {
    const at = (count: number, start: number, first: number) =>
      Array.from({ length: count }, (_, i) => ({ step: first + i, loss: 1, atMs: start + 10 * i }));
    expect(medianStepMs(at(40, 500, 1))).toBeCloseTo(10, 9);
    expect(medianStepMs([...at(20, 90_000, 1), ...at(20, 100, 21)])).toBeCloseTo(10, 9);
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
