import { describe, expect, it } from "vitest";
import type { Output } from "../src/output.js";
import { bytes, duration, grouped, oneLine, shellWord, tableLines } from "../src/terminal/format.js";
import { plotLines } from "../src/terminal/plot.js";
import { Progress } from "../src/terminal/progress.js";

describe("plotLines", () => {
  it("fits 80 columns and falls with the loss", () => {
    const lines = plotLines(
      Array.from({ length: 300 }, (_, i) => ({ x: i + 1, y: 2 + 3 * Math.exp(-i / 50) })),
      { columns: 80 },
    );
    expect(lines.length).toBe(10);
    for (const line of lines) expect(line.length).toBeLessThanOrEqual(80);
    expect(lines[0]).toMatch(/4\.\d+ │█/);
    expect(lines[0]?.trimEnd().length).toBeLessThan(20);
    expect(lines.at(-1)).toMatch(/loss, step 1 .*300$/);
  });
  it("joins few points by lines and draws nothing for one", () => {
    expect(plotLines([{ x: 1, y: 1 }])).toEqual([]);
    const [top = "", ...rest] = plotLines([
      { x: 1, y: 2 },
      { x: 10, y: 1 },
    ]);
    expect(top).toContain("█");
    expect(rest[6]).toMatch(/█{30}/);
  });
  it("takes a constant loss", () => {
    expect(
      plotLines([
        { x: 1, y: 2 },
        { x: 2, y: 2 },
      ]).join(""),
    ).not.toContain("NaN");
  });
});

function recorded(isTerminal: boolean): { lines: string[]; output: Output } {
  const lines: string[] = [];
  const push = (line = ""): void => void lines.push(line);
  return { lines, output: { isJson: false, isTerminal, columns: 80, say: push, note: push, whole: push, draw: push, result: () => {} } };
}

describe("Progress", () => {
  it("prints about twenty plain lines where nobody watches", () => {
    const { lines, output } = recorded(false);
    const progress = new Progress(output, 300);
    for (let step = 1; step <= 300; step++) progress.step({ step, loss: 2, tokensPerSecond: 12345, stepMs: 1, isWarmUp: false });
    expect(lines.length).toBeGreaterThan(15);
    expect(lines.length).toBeLessThan(25);
    expect(lines[0]).toMatch(/^step {3}1\/300 {2}loss 2\.0000 {2}12,345 tokens\/s/);
  });
  it("takes the time left from steady steps, not from those that planned", () => {
    const { lines, output } = recorded(false);
    const progress = new Progress(output, 20, 10);
    progress.step({ step: 11, loss: 2, tokensPerSecond: 15, stepMs: 30_000, isWarmUp: true });
    progress.step({ step: 12, loss: 2, tokensPerSecond: 80, stepMs: 2000, isWarmUp: false });
    progress.step({ step: 13, loss: 2, tokensPerSecond: 80, stepMs: 30_000, isWarmUp: true });
    expect(lines).toEqual([
      "step 11/20  loss 2.0000  planning kernels",
      "step 12/20  loss 2.0000  80 tokens/s  16 s left",
      "step 13/20  loss 2.0000  80 tokens/s  14 s left",
    ]);
  });
  it.each([20, 30, 40, 50, 60, 80])("stays on its line at %i columns", (columns) => {
    const { lines, output } = recorded(true);
    const progress = new Progress({ ...output, columns }, 12_000);
    progress.step({ step: 1, loss: 12.5, tokensPerSecond: 1e6, stepMs: 90_000, isWarmUp: false });
    expect(lines[0]?.length).toBeLessThan(columns);
    expect(lines[0]).toContain("1/12000");
  });
  it("draws a bar that fits on a terminal", () => {
    const { lines, output } = recorded(true);
    const progress = new Progress(output, 1000, 400);
    progress.step({ step: 700, loss: 12.5, tokensPerSecond: 1e6, stepMs: 1, isWarmUp: false });
    expect(lines[0]).toMatch(/█.*░.*left/);
    expect(lines[0]?.length).toBeLessThanOrEqual(80);
  });
});

describe("format", () => {
  it.each([
    [grouped(1234567), "1,234,567"],
    [duration(42.4), "42 s"],
    [duration(185), "3 min 05 s"],
    [duration(7620), "2 h 07 min"],
    [bytes(0), "0 B"],
    [bytes(3_200_000), "3.2 MB"],
    [oneLine("a\nb  c", 10), "a⏎b c"],
    [oneLine("abcdef", 4), "abc…"],
    [shellWord("a/b.c"), "a/b.c"],
    [shellWord("it's"), "'it'\\''s'"],
    [
      tableLines([
        ["a", "b"],
        ["long", "x"],
      ]).join("|"),
      "a     b|───────|long  x",
    ],
  ])("%s", (got, wanted) => {
    expect(got).toBe(wanted);
  });
});
