import { describe, expect, it } from "vitest";
import { failedLines } from "../src/eval/answers.js";
import type { Output } from "../src/output.js";
import { Progress } from "../src/progress.js";
import { StreamedTexts } from "../src/streamed-texts.js";
import { bytes, duration, grouped, oneLine, reportLines, tableLines } from "../src/terminal/format.js";
import { plotLines } from "../src/terminal/plot.js";
import { shellWord } from "../src/terminal/shell-word.js";
import { wrapped } from "../src/terminal/wrap.js";

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
  return {
    lines,
    output: {
      isJson: false,
      isTerminal,
      columns: 80,
      tableColumns: 80,
      part: push,
      styled: push,
      say: push,
      note: push,
      whole: push,
      draw: push,
      result: () => {},
    },
  };
}

describe("texts while they are generated", () => {
  const started = () => {
    let written = "";
    const write =
      (end: string) =>
      (text = "") => {
        written += text + end;
      };
    const texts = new StreamedTexts(["A:", "B:"], { say: write("\n"), whole: write("\n"), part: write("") });
    return { texts, written: () => written };
  };
  it("come part by part, the second after the first is whole", () => {
    const { texts, written } = started();
    expect(written()).toBe("A:");
    texts.push("a", 0);
    texts.push("b", 1);
    expect(written()).toBe("A:a");
    texts.push("a", 0);
    texts.finish();
    expect(written()).toBe("A:aa\n\nB:b\n");
  });
});

describe("tables", () => {
  const rows = [
    ["method", "trained", "share", "peak"],
    ["a-method-with-a-long-name", "1,000", "1 %", "2.0 MB"],
    ["b", "2,000", "2 %", "3.0 MB"],
  ];
  it("are one where there is room", () => {
    expect(tableLines(rows, { areNumbers: true, width: 80 })).toEqual(tableLines(rows, { areNumbers: true }));
  });
  it.each([30, 40])("are several below one another at %i columns, each with the first column", (width) => {
    const lines = tableLines(rows, { areNumbers: true, width });
    for (const line of lines) expect(line.length).toBeLessThanOrEqual(width);
    const blocks = lines.join("\n").split("\n\n");
    expect(blocks.length).toBeGreaterThan(1);
    for (const block of blocks) expect(block).toMatch(/^method .*\n─+\na-.*…?.*name .*\nb /);
    for (const cell of rows
      .flat()
      .slice(1)
      .filter((cell) => !cell.startsWith("a-")))
      expect(lines.join("\n")).toContain(cell);
  });
});

describe("tables of tensors", () => {
  const cells = (prefix: string, suffix: string): string[][] => [
    ["parameter", "", "shape", "dtype", "parameters"],
    ...["self_attn.q_proj", "self_attn.v_proj", "mlp.gate_proj", "mlp.up_proj", "mlp.down_proj"].map((layer) => [
      ...[`${prefix}layers.*.${layer}${suffix}`, "30 x", "[1536, 576]", "BF16", "26,542,080"],
    ]),
  ];
  it.each([
    ["a model's", 40, cells("model.", ".weight"), "…attn.q_proj.weight"],
    ["an adapter's", 40, cells("base_model.model.model.", ".lora_A.weight"), "…q_proj.lora_A.weight"],
    ["a model's", 60, cells("model.", ".weight"), "…s.*.self_attn.q_proj.weight"],
  ])("%s show the ends of names at %i columns, and no two names the same", (_, width, rows, end) => {
    const lines = tableLines(rows, { arePaths: true, width });
    for (const line of lines) expect(line.length).toBeLessThanOrEqual(width);
    const names = lines.flatMap((line) => (line.includes("weight") ? [line.split(" ")[0]] : []));
    expect(names.some((name) => name?.endsWith(end.slice(1)))).toBe(true);
    expect(new Set(names).size).toBe(rows.length - 1);
  });
});

describe("lines on a terminal", () => {
  it.each([
    ["are cut between words", "one two three four", 9, "one two\nthree\nfour"],
    ["stay where they fit", "one two", 7, "one two"],
    ["keep words that are too long", "a /a/long/path b", 6, "a\n/a/long/path\nb"],
    [
      "keep commands, which are indented, in one piece",
      "Resume with:\n  lowrank train --out a",
      12,
      "Resume with:\n  lowrank train --out a",
    ],
  ])("%s", (_, text, width, shown) => {
    expect(wrapped(text, width)).toBe(shown);
  });
  it("reports what is trained at 40 columns, in two tables", () => {
    const report = {
      trainable: 1e6,
      frozen: 1e9,
      trainablePercent: 0.1,
      weightBytes: { trainable: 4e6, frozen: 2e9 },
      gradientBytes: 4e6,
      optimizerBytes: 8e6,
    };
    for (const line of reportLines(report, 40)) expect(line.length).toBeLessThanOrEqual(40);
    expect(
      reportLines(report, 40)
        .join("\n")
        .match(/trained/g),
    ).toHaveLength(2);
    expect(
      reportLines(report, 80)
        .join("\n")
        .match(/trained/g),
    ).toHaveLength(1);
  });
});

describe("wrong answers", () => {
  const row = (line: number, answer: string) => ({ line, prompt: "p\u001b[1m", expected: `${"x".repeat(60)} Ann`, answer });
  it("are nothing where all are right", () => {
    expect(failedLines([row(1, row(1, "").expected)], 80)).toEqual([]);
  });
  it.each([40, 80])("come first, and the place where they part is in view and marked at %i columns", (columns) => {
    const right = row(1, row(1, "").expected);
    const lines = failedLines([right, right, row(3, `${"x".repeat(60)} Anna`), row(4, `${"x".repeat(60)} Bob`)], columns);
    expect(lines.filter((line) => line.startsWith("line "))).toEqual(["line 3    p\\x1b[1m", "line 4    p\\x1b[1m"]);
    for (const [i, line] of lines.entries()) {
      if (i > 0) expect(line.length).toBeLessThan(columns);
      if (!line.endsWith("^")) continue;
      const at = line.length - 1;
      expect([lines[i - 2]?.slice(at), lines[i - 1]?.slice(at)]).toEqual(i < 6 ? ["", "a"] : ["Ann", "Bob"]);
    }
  });
});

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
  it("says no time left below a second, which a step that plans outlasts, and at the end in how long it was done", () => {
    const { lines, output } = recorded(false);
    const progress = new Progress(output, 3);
    for (const [step, isWarmUp] of [true, false, true].entries())
      progress.step({ step: step + 1, loss: 2, tokensPerSecond: 80, stepMs: isWarmUp ? 5000 : 270, isWarmUp });
    const last = lines.pop();
    expect(lines).toEqual(["step 1/3  loss 2.0000  planning kernels", "step 2/3  loss 2.0000  80 tokens/s"]);
    expect(last).toMatch(/^step 3\/3 {2}loss 2\.0000 {2}80 tokens\/s {2}in \d+ s$/);
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
    progress.step({ step: 700, loss: 12.5, tokensPerSecond: 1e6, stepMs: 10, isWarmUp: false });
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
