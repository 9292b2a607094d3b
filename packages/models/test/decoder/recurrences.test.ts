import { grad } from "@lowrank/autograd";
import { type Device, type Tensor, tensor } from "@lowrank/tensor";
import { testBackend, testDevice } from "test-support";
import { describe, expect, test } from "vitest";
import { causalConv, convStateAfter } from "../../src/decoder/causal-conv.js";
import { chunkedGatedDelta, inverseUnitLower, recurrentGatedDelta } from "../../src/decoder/gated-delta-rule.js";
import { chunkedStateSpace, recurrentStateSpace } from "../../src/decoder/state-space.js";
import { type Inputs, inputsOf, numbers, recur, type Sizes } from "./recurrence-reference.js";

const dev: Device = await testDevice();
const f32 = (values: Float64Array | number[], shape: number[]): Tensor => tensor(Float32Array.from(values), { shape, device: dev });
const i32 = (values: number[], shape: number[]): Tensor => tensor(values, { dtype: "i32", device: dev }).reshape(shape);

function tensorsOf({ heads, tokens, keyDim, valueDim }: Sizes, inputs: Inputs) {
  return {
    queries: f32(inputs.queries, [1, heads, tokens, keyDim]),
    keys: f32(inputs.keys, [1, heads, tokens, keyDim]),
    values: f32(inputs.values, [1, heads, tokens, valueDim]),
    decay: f32(inputs.decay, [1, heads, tokens]),
    beta: f32(inputs.beta, [1, heads, tokens]),
    state: f32(inputs.state, [1, heads, keyDim, valueDim]),
  };
}

async function expectNear(got: Tensor, want: Float64Array, tolerance: number): Promise<void> {
  const values = await got.data();
  expect(values.length).toBe(want.length);
  let largest = 0;
  for (const [i, value] of want.entries()) largest = Math.max(largest, Math.abs((values[i] ?? Number.NaN) - value) / (1 + Math.abs(value)));
  expect(largest).toBeLessThan(tolerance);
}

const kinds = [
  { kind: "gated delta rule", isDelta: true, chunked: chunkedGatedDelta, recurrent: recurrentGatedDelta },
  { kind: "state space", isDelta: false, chunked: chunkedStateSpace, recurrent: recurrentStateSpace },
] as const;
/** A software adapter compiles the shaders of one length for half a minute: there one length says that the graph is right. */
const isFast = testBackend() === "cpu";
const lengths = isFast ? [1, 3, 64, 65, 200, 450] : [65];
const small = { heads: 2, keyDim: 6, valueDim: 5 };

describe.each(kinds)("$kind", ({ isDelta, chunked, recurrent }) => {
  test.each(lengths)("%i tokens in chunks, from a state, are what token by token gives in float64", async (tokens) => {
    const sizes = { ...small, tokens };
    const inputs = inputsOf(sizes);
    const [output, last] = recur(sizes, inputs, isDelta) as [Float64Array, Float64Array];
    const { state, ...rest } = tensorsOf(sizes, inputs);
    const found = chunked(rest, state);
    await expectNear(found.output, output, 2e-5);
    await expectNear(found.state, last, 2e-5);
  });

  test.runIf(isFast)("token by token, from a state and from zeros", async () => {
    const sizes = { ...small, tokens: 3 };
    const inputs = inputsOf(sizes);
    const { state, ...rest } = tensorsOf(sizes, inputs);
    for (const given of [state, null]) {
      const [output, last] = recur(sizes, given ? inputs : { ...inputs, state: inputs.state.map(() => 0) }, isDelta);
      const found = recurrent(rest, given);
      await expectNear(found.output, output as Float64Array, 1e-5);
      await expectNear(found.state, last as Float64Array, 1e-5);
    }
  });

  test("packed rows each begin with zeros, wherever in a chunk", async () => {
    const sizes = { ...small, tokens: 210 };
    const inputs = { ...inputsOf(sizes), state: new Float64Array(2 * 6 * 5) };
    const begins = [0, 1, 20, 64, 127, 128, 200];
    const starts = Array.from({ length: 210 }, (_, token) => Math.max(...begins.filter((begin) => begin <= token)));
    const [output] = recur(sizes, inputs, isDelta, new Set(begins));
    const { state: _, ...rest } = tensorsOf(sizes, inputs);
    await expectNear(chunked(rest, null, i32(starts, [1, 210])).output, output as Float64Array, 2e-5);
  });

  test("gradients are the slopes of the float64 recurrence", async () => {
    const sizes = { ...small, tokens: isFast ? 150 : 65 };
    const inputs = inputsOf(sizes);
    const tensors = tensorsOf(sizes, inputs);
    const weights = numbers(2 * sizes.tokens * 5, 9);
    const total = (x: Inputs): number =>
      Array.from(recur(sizes, x, isDelta)[0] ?? []).reduce((sum, y, i) => sum + y * (weights[i] ?? 0), 0);
    const { state, ...rest } = tensors;
    const loss = chunked(rest, state)
      .output.mul(f32(weights, [1, 2, sizes.tokens, 5]))
      .sum();
    const names = (["queries", "keys", "values", "decay", "beta", "state"] as const).filter((name) => isDelta || name !== "beta");
    const gradients = grad(
      loss,
      names.map((name) => tensors[name]),
    );
    for (const [i, name] of names.entries()) {
      const direction = numbers(inputs[name].length, 20 + i);
      const moved = (by: number): Inputs => ({ ...inputs, [name]: inputs[name].map((x, j) => x + by * (direction[j] ?? 0)) });
      const slope = (total(moved(1e-5)) - total(moved(-1e-5))) / 2e-5;
      const values = Array.from(await (gradients[i] as Tensor).data());
      const found = values.reduce((sum, x, j) => sum + x * (direction[j] ?? 0), 0);
      expect(Math.abs(found - slope) / (1 + Math.abs(slope)), name).toBeLessThan(1e-4);
    }
  });
});

test("the inverse of I + L is exact where all keys are alike and powers of L are astronomic", async () => {
  const n = 64;
  const entries = Array.from({ length: n * n }, (_, at) => (Math.floor(at / n) > at % n ? 1 : 0));
  // (I + L)⁻¹ of all ones below the diagonal is 1 on it and −1 directly below.
  const want = Float64Array.from({ length: n * n }, (_, at) => {
    const distance = Math.floor(at / n) - (at % n);
    return distance === 0 ? 1 : distance === 1 ? -1 : 0;
  });
  await expectNear(inverseUnitLower(f32(entries, [1, n, n])), want, 1e-6);
});

describe("depthwise causal convolution", () => {
  const [tokens, channels, size] = [9, 3, 4];
  const x = numbers(tokens * channels, 1);
  const w = numbers(channels * size, 2);
  const b = numbers(channels, 3);
  const past = numbers((size - 1) * channels, 4);
  const reference = (row: Float64Array, before: Float64Array): Float64Array => {
    const all = [...before, ...row];
    return Float64Array.from(row, (_, at) => {
      const [token, c] = [Math.floor(at / channels), at % channels];
      let sum = b[c] ?? 0;
      for (let j = 0; j < size; j++) sum += (w[c * size + j] ?? 0) * (all[(token + j) * channels + c] ?? 0);
      return sum;
    });
  };
  const kernel = { weight: f32(w, [channels, 1, size]), bias: f32(b, [channels]) };
  const input = f32(x, [1, tokens, channels]);

  test("of a row, and behind what stood before it", async () => {
    await expectNear(
      causalConv(input, kernel, { before: null, positions: null }),
      reference(
        x,
        past.map(() => 0),
      ),
      1e-6,
    );
    const before = f32(past, [1, size - 1, channels]);
    await expectNear(causalConv(input, kernel, { before, positions: null }), reference(x, past), 1e-6);
  });

  test("of packed rows, none of which sees another", async () => {
    const positions = i32([0, 1, 2, 3, 4, 0, 0, 1, 2], [1, tokens]);
    const want = [
      [0, 5],
      [5, 6],
      [6, 9],
    ].flatMap(([from = 0, to = 0]) => [
      ...reference(
        x.slice(from * channels, to * channels),
        past.map(() => 0),
      ),
    ]);
    await expectNear(causalConv(input, kernel, { before: null, positions }), Float64Array.from(want), 1e-6);
  });

  test("the state behind as many tokens as count", async () => {
    const before = f32(past, [1, size - 1, channels]);
    const all = Float64Array.from([...past, ...x]);
    await expectNear(convStateAfter(input, size, before, null), all.slice(tokens * channels), 1e-9);
    await expectNear(convStateAfter(input, size, before, i32([2], [1])), all.slice(2 * channels, 5 * channels), 1e-9);
  });
});
