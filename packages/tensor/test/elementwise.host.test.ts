import { readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { expect, test } from "vitest";
import type { binaryKinds } from "../src/elementwise/binary.js";
import type { reduceKinds } from "../src/elementwise/reduce.js";
import type { unaryKinds } from "../src/elementwise/unary.js";
import type { binaryCode, unaryCode } from "../src/kernels/wgsl/elementwise.js";

/** `typecheck` is the test: a table that leaves a kind out is an error, which these lines expect. */
export const incomplete = {
  // @ts-expect-error neg is missing.
  unary: ({ neg: _, ...rest }: typeof unaryKinds): typeof unaryKinds => rest,
  // @ts-expect-error add is missing.
  binary: ({ add: _, ...rest }: typeof binaryKinds): typeof binaryKinds => rest,
  // @ts-expect-error min is missing.
  reduce: ({ min: _, ...rest }: typeof reduceKinds): typeof reduceKinds => rest,
  // @ts-expect-error neg is missing.
  unaryWgsl: ({ neg: _, ...rest }: typeof unaryCode): typeof unaryCode => rest,
  // @ts-expect-error add is missing.
  binaryWgsl: ({ add: _, ...rest }: typeof binaryCode): typeof binaryCode => rest,
};

/** What else decides by kind does so in switches whose functions return nothing, an error, where a case is missing. */
test.each(["src/kernels/wasm/arithmetic.ts", "src/elementwise/unary.ts", "src/elementwise/binary.ts", "src/graph/definitions.ts"])(
  "%s leaves no kind to a default",
  (path) => {
    const source = readFileSync(fileURLToPath(new URL(`../${path}`, import.meta.url)), "utf8");
    expect(source).not.toMatch(/\bdefault:|Partial<Record</);
  },
);
