import { grad } from "@lowrank/autograd";
import { type Device, type Tensor, tensor } from "@lowrank/tensor";
import { testBackend, testDevice } from "test-support";
import { describe, expect, test } from "vitest";
import { dispatch, fromBlocks, groupedProduct, toBlocks } from "../../src/decoder/grouped-product.js";
import { type RoutingOptions, route, topPositions } from "../../src/decoder/routing.js";
import { numbers } from "./recurrence-reference.js";

const dev: Device = await testDevice();
const f32 = (values: Float64Array | readonly number[], shape: number[]): Tensor =>
  tensor(Float32Array.from(values), { shape, device: dev });
const i32 = (values: number[], shape: number[]): Tensor => tensor(values, { dtype: "i32", device: dev }).reshape(shape);

function expectNear(got: ArrayLike<number>, want: ArrayLike<number>, tolerance: number): void {
  expect(got.length).toBe(want.length);
  for (let i = 0; i < want.length; i++) expect(Math.abs((got[i] ?? Number.NaN) - (want[i] ?? 0)), `element ${i}`).toBeLessThan(tolerance);
}

describe("the grouped product of experts", () => {
  const [width, out] = [5, 4];
  const cases = [
    { name: "one token", tokens: 1, choices: 2, experts: 6 },
    { name: "more experts than choices made", tokens: 3, choices: 2, experts: 50 },
    { name: "many tokens per expert", tokens: 150, choices: 2, experts: 3 },
    { name: "all tokens to one expert of many", tokens: 140, choices: 1, experts: 7, all: 4 },
    { name: "blocks of several sizes", tokens: 77, choices: 3, experts: 8 },
  ];
  // A software adapter compiles the shaders of one case for half a minute.
  test.each(testBackend() === "cpu" ? cases : cases.slice(-1))(
    "$name: values and gradients are those of a loop over tokens",
    async ({ tokens, choices, experts, all }) => {
      const x = numbers(tokens * width, 1);
      const w = numbers(experts * out * width, 2);
      const weights = numbers(tokens * choices, 3);
      const slope = numbers(tokens * out, 4);
      const random = numbers(tokens * choices, 5);
      const chosen = Array.from(random, (r, i) => all ?? (Math.floor(((r + 1) / 2) * experts) + (i % choices)) % experts);
      const inputs = [f32(x, [tokens, width]), f32(w, [experts, out, width]), f32(weights, [tokens, choices])] as const;
      const plan = dispatch(i32(chosen, [tokens, choices]), experts);
      const y = fromBlocks(groupedProduct(toBlocks(inputs[0], plan), inputs[1].t(), plan), inputs[2], plan);
      const gradients = grad(y.mul(f32(slope, [tokens, out])).sum(), inputs);

      const want = new Float64Array(tokens * out);
      const [dx, dw, dweights] = [new Float64Array(x.length), new Float64Array(w.length), new Float64Array(weights.length)];
      for (const [at, expert] of chosen.entries()) {
        const token = Math.floor(at / choices);
        for (let o = 0; o < out; o++) {
          const [weight, dy] = [weights[at] ?? 0, slope[token * out + o] ?? 0];
          let product = 0;
          for (let i = 0; i < width; i++) {
            const [xi, wi] = [x[token * width + i] ?? 0, w[(expert * out + o) * width + i] ?? 0];
            product += xi * wi;
            dx[token * width + i] = (dx[token * width + i] ?? 0) + dy * weight * wi;
            dw[(expert * out + o) * width + i] = (dw[(expert * out + o) * width + i] ?? 0) + dy * weight * xi;
          }
          want[token * out + o] = (want[token * out + o] ?? 0) + weight * product;
          dweights[at] = (dweights[at] ?? 0) + dy * product;
        }
      }
      expectNear(await y.data(), want, 1e-5);
      for (const [i, wanted] of [dx, dw, dweights].entries()) expectNear(await (gradients[i] as Tensor).data(), wanted, 1e-4);
    },
  );

  test("no more rows than the choices and a block less a row for each busy expert", () => {
    for (const [tokens, choices, experts] of [
      [1, 8, 128],
      [2048, 8, 128],
      [2048, 2, 8],
      [7, 3, 64],
    ] as const) {
      const { blocks, rows } = dispatch(i32(new Array(tokens * choices).fill(0), [tokens, choices]), experts);
      const count = tokens * choices;
      expect(blocks * rows).toBeGreaterThanOrEqual(count);
      expect(blocks * rows).toBeLessThanOrEqual(count + Math.min(experts, count) * (rows - 1));
      expect(blocks * rows).toBeLessThanOrEqual(2 * count);
    }
  });
});

describe("routers", () => {
  const [tokens, experts] = [6, 8];
  const logits = numbers(tokens * experts, 7).map((x) => x * 3);
  const correction = numbers(experts, 8);
  const rowsOf = (values: ArrayLike<number>, size: number): number[][] =>
    Array.from({ length: values.length / size }, (_, row) => Array.from({ length: size }, (_, i) => values[row * size + i] ?? 0));
  const order = (scores: number[]): number[] => scores.map((_, i) => i).sort((a, b) => (scores[b] ?? 0) - (scores[a] ?? 0));
  const softmax = (row: number[]): number[] => {
    const e = row.map(Math.exp);
    const sum = e.reduce((a, b) => a + b, 0);
    return e.map((x) => x / sum);
  };
  const cases: { name: string; options: RoutingOptions; isCorrected?: boolean }[] = [
    { name: "softmax, as they are", options: { kind: "softmax", choices: 3, isNormalized: false } },
    { name: "softmax, made to sum to 1", options: { kind: "softmax", choices: 2, isNormalized: true } },
    { name: "softmax of the chosen", options: { kind: "softmaxOfChosen", choices: 4, isNormalized: false } },
    {
      name: "sigmoid with a correction and a scale",
      options: { kind: "sigmoid", choices: 2, isNormalized: true, scale: 2.5 },
      isCorrected: true,
    },
    {
      name: "sigmoid in groups",
      options: { kind: "sigmoid", choices: 3, isNormalized: true, epsilon: 1e-20, groups: { count: 4, chosen: 2 } },
      isCorrected: true,
    },
  ];
  test.each(cases)("$name", async ({ options, isCorrected }) => {
    const { kind, choices, isNormalized, scale = 1, groups } = options;
    const routed = route(f32(logits, [tokens, experts]), options, isCorrected ? f32(correction, [experts]) : null);
    const [chosen, weights] = [rowsOf(await routed.experts.data(), choices), rowsOf(await routed.weights.data(), choices)];
    for (const [token, row] of rowsOf(logits, experts).entries()) {
      const scores = kind === "softmax" ? softmax(row) : kind === "sigmoid" ? row.map((x) => 1 / (1 + Math.exp(-x))) : row;
      let choice = scores.map((score, i) => score + (isCorrected ? (correction[i] ?? 0) : 0));
      if (groups) {
        const size = experts / groups.count;
        const best = rowsOf(choice, size).map((group) =>
          [...group]
            .sort((a, b) => b - a)
            .slice(0, 2)
            .reduce((a, b) => a + b, 0),
        );
        const kept = new Set(order(best).slice(0, groups.chosen));
        choice = choice.map((score, i) => (kept.has(Math.floor(i / size)) ? score : Number.NEGATIVE_INFINITY));
      }
      const want = order(choice).slice(0, choices);
      expect(chosen[token]).toEqual(want);
      const own = want.map((i) => scores[i] ?? 0);
      const sum = own.reduce((a, b) => a + b, 0);
      const wanted = kind === "softmaxOfChosen" ? softmax(own) : own.map((x) => (isNormalized ? x / sum : x) * scale);
      expectNear(weights[token] ?? [], wanted, 1e-6);
    }
  });

  test("of equal scores the first are chosen, each once", async () => {
    expect([...(await topPositions(f32([1, 1, 1, 0], [1, 4]), 3).data())]).toEqual([0, 1, 2]);
  });
});
