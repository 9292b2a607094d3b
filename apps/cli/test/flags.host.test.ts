import { describe, expect, it } from "vitest";
import { describeFailure, UsageError } from "../src/failure.js";
import { type Flags, helpLines, parseFlags } from "../src/flags.js";

const flags = {
  model: { type: "text", value: "DIR", help: "the model", required: true },
  rank: { type: "integer", min: 1, help: "the rank", default: 8 },
  lr: { type: "number", above: 0, help: "the rate" },
  "batch-size": { type: "integer", min: 1, help: "rows a batch" },
  method: { type: "choice", choices: ["lora", "full"], help: "the method", default: "lora" },
  targets: { type: "list", value: "a,b", help: "layers" },
  json: { type: "switch", help: "as JSON" },
} as const satisfies Flags;

describe("parseFlags", () => {
  it("reads values after a space or an equals sign, lists, switches, positionals and defaults", () => {
    const { values, given, positionals } = parseFlags(flags, ["--model", "m", "--lr=5e-3", "--targets", "q, v", "--json", "rest"], "train");
    expect(values).toEqual({ model: "m", rank: 8, lr: 0.005, method: "lora", targets: ["q", "v"], json: true });
    expect([...given]).toEqual(["model", "lr", "targets", "json"]);
    expect(positionals).toEqual(["rest"]);
  });

  it("collects a flag that may be repeated, and asks for one that is required", () => {
    const repeated = { prompt: { type: "texts", value: "TEXT", help: "prompts", required: true } } as const satisfies Flags;
    expect(parseFlags(repeated, ["--prompt", "a, b", "--prompt=c"], "generate").values).toEqual({ prompt: ["a, b", "c"] });
    expect(() => parseFlags(repeated, [], "generate")).toThrow(/--prompt is missing\. Add --prompt TEXT/);
  });

  it.each([
    ["an unknown flag, with the nearest", ["--model", "m", "--rnak", "4"], /no flag --rnak for lowrank train\. Did you mean --rank\?/],
    [
      "an unknown flag, as another command calls it",
      ["--model", "m", "--batch", "4"],
      /no flag --batch for lowrank train\. Did you mean --batch-size\?/,
    ],
    ["a flag with one dash", ["-rank", "4"], /no flag -rank/],
    ["a missing required flag", [], /--model is missing\. Add --model DIR/],
    ["a missing value at the end", ["--model"], /--model needs a value\. Write --model DIR/],
    ["a missing value before a flag", ["--model", "--json"], /--model needs a value/],
    ["a number that is none", ["--model", "m", "--rank", "four"], /--rank is "four"\. Give a whole number of at least 1/],
    ["a fraction for a whole number", ["--model", "m", "--rank", "1.5"], /whole number/],
    ["a number out of range", ["--model", "m", "--lr", "-1"], /--lr is "-1"\. Give a number above 0/],
    ["infinity", ["--model", "m", "--lr", "Infinity"], /--lr is "Infinity"/],
    ["a choice that is none", ["--model", "m", "--method", "qlora"], /--method is "qlora"\. Choose lora, full/],
    ["an empty list", ["--model", "m", "--targets", ","], /--targets is empty/],
    ["a value for a switch", ["--model", "m", "--json=yes"], /--json takes no value/],
  ])("refuses %s", (_, args, message) => {
    expect(() => parseFlags(flags, args, "train")).toThrow(UsageError);
    expect(() => parseFlags(flags, args, "train")).toThrow(message);
  });

  it("explains every flag in help, with its default", () => {
    const help = helpLines(flags).join("\n");
    for (const name of Object.keys(flags)) expect(help).toContain(`--${name}`);
    expect(help).toContain("(default 8)");
    expect(help).toContain("(required)");
  });

  it.each([40, 60, 80, 100])("keeps help within %i columns and breaks no word", (columns) => {
    const long = {
      type: "choice",
      choices: ["one", "two", "three", "four"].flatMap((name) => [name, `${name}-more`]),
      help: "a choice ",
    } as const;
    const all = { ...flags, long: { ...long, help: "words that go on ".repeat(12).trim() } } as const satisfies Flags;
    const lines = helpLines(all, columns);
    for (const line of lines) expect(line.length, line).toBeLessThanOrEqual(columns);
    const words = lines.join(" ").split(/\s+/);
    for (const word of ["words", "that", "go", "on", "model"]) expect(words).toContain(word);
    expect(lines.join("").replace(/\s+/g, "")).toContain(long.choices.join("|"));
  });
});

describe("describeFailure", () => {
  it("prints facts and remedy without a stack for a user's mistake, exit code 2", () => {
    expect(describeFailure(new UsageError("It is so. Do this."), false)).toEqual({ text: "error: It is so. Do this.", exitCode: 2 });
  });
  it("explains errors of the file system", () => {
    const error = Object.assign(new Error("ENOENT: no such file"), { code: "ENOENT", syscall: "open", path: "/x.jsonl" });
    expect(describeFailure(error, false)).toEqual({ text: "error: /x.jsonl: there is no such file. Check the path.", exitCode: 2 });
  });
  it("owns up to a mistake of ours, exit code 1", () => {
    const { text, exitCode } = describeFailure(new TypeError("x is undefined"), false);
    expect(exitCode).toBe(1);
    expect(text).toMatch(/TypeError: x is undefined\nThis is a mistake in Lowrank/);
  });
});
