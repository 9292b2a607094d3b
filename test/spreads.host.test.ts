import { readdirSync, readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { largest, smallest } from "@lowrank/tensor";
import { expect, it } from "vitest";

const root = fileURLToPath(new URL("..", import.meta.url));

/** Calls whose arguments are spread from an array: they lie on the stack, which some 100,000 of them overflow. */
const spread =
  /(?:\bMath\.(?:max|min)|\.(?:push|unshift|splice)|\bString\.from(?:CharCode|CodePoint))\((?:[^(){}[\]]|\([^()]*\))*?\.\.\.|\.apply\(/;

/** Where as many arguments as there are data never meet such a call, and what bounds them there. */
const bounded: readonly (readonly [path: string, bound: string])[] = [
  ["packages/tensor/src/kernels/", "the lines and operands of one kernel"],
  ["packages/tensor/src/schedule/lower.ts", "the operands of one node"],
  ["packages/models/src/train/step.ts", "the tensors of one batch"],
  ["packages/tensor/src/io/window.ts", "24 bytes"],
  ["packages/models/src/tokenizer/template/", "the arguments of one call, and the statements of one"],
  ["packages/tensor/src/backends/cpu/panel-layout.ts", "the operands of one kernel"],
  ["apps/bench/src/bars/generation.ts", "the two of a pair"],
  ["apps/bench/src/main.ts", "the lines of a table"],
];

const sources = ["packages", "apps"].flatMap((kind) =>
  readdirSync(`${root}${kind}`).flatMap((name) =>
    readdirSync(`${root}${kind}/${name}/src`, { recursive: true, encoding: "utf8" })
      .filter((file) => file.endsWith(".ts"))
      .map((file) => `${kind}/${name}/src/${file.replaceAll("\\", "/")}`),
  ),
);

const places = sources.flatMap((path) =>
  readFileSync(`${root}${path}`, "utf8")
    .split("\n")
    .flatMap((line, i) =>
      spread.test(line) && !/^\s*(\*|\/\/|\/\*\*)/.test(line) ? [{ path, place: `${path}:${i + 1}: ${line.trim()}` }] : [],
    ),
);

it("no array that grows with the data is spread over a call's arguments: use largest, smallest or a loop", () => {
  expect(places.filter(({ path }) => !bounded.some(([allowed]) => path.startsWith(allowed))).map(({ place }) => place)).toEqual([]);
});

it("every place that may spread does", () => {
  expect(bounded.filter(([allowed]) => !places.some(({ path }) => path.startsWith(allowed)))).toEqual([]);
});

it("largest and smallest take a million values, and what there is for none", () => {
  const values = Float64Array.from({ length: 1e6 }, (_, i) => Math.abs(i - 400_000));
  expect([largest(values), smallest(values)]).toEqual([599_999, 0]);
  expect([largest([]), largest([], 3), smallest([]), smallest([5], 3)]).toEqual([Number.NEGATIVE_INFINITY, 3, Number.POSITIVE_INFINITY, 3]);
});
