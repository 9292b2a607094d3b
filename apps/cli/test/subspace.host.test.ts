import { describe, expect, it } from "vitest";
import { recommended } from "../src/study/recommend.js";
import { dimensions, effectiveRank, learnedChange, rightDirections, subspaceSimilarity } from "../src/study/subspace.js";

/** Rows of the unit matrix, scaled: its right singular vectors are the axes, in the order of the scales. */
function axes(columns: readonly (readonly [axis: number, scale: number])[], size: number): Float32Array {
  const a = new Float32Array(columns.length * size);
  for (const [row, [axis, scale]] of columns.entries()) a[row * size + axis] = scale;
  return a;
}

describe("subspaceSimilarity", () => {
  const of = (...columns: [number, number][]) => rightDirections(axes(columns, 6), columns.length, 6);
  it.each([
    ["a subspace and itself", of([0, 3], [1, 2]), of([0, 3], [1, 2]), 2, 2, 1],
    ["itself in another order", of([0, 3], [1, 2]), of([1, 3], [0, 2]), 2, 2, 1],
    ["the first directions of another order", of([0, 3], [1, 2]), of([1, 3], [0, 2]), 1, 1, 0],
    ["one inside the other", of([0, 3]), of([0, 3], [1, 2], [2, 1]), 1, 3, 1],
    ["orthogonal ones", of([0, 3], [1, 2]), of([2, 3], [3, 2]), 2, 2, 0],
    ["half of them shared", of([0, 3], [1, 2]), of([0, 3], [3, 2]), 2, 2, 0.5],
  ])("%s", (_, first, second, i, j, wanted) => {
    expect(subspaceSimilarity(first, second, [i], [j])[0]?.[0]).toBeCloseTo(wanted, 6);
  });
  it("is cos² between two lines", () => {
    const line = (angle: number) => rightDirections(Float32Array.of(Math.cos(angle), Math.sin(angle)), 1, 2);
    expect(subspaceSimilarity(line(0.2), line(0.9), [1], [1])[0]?.[0]).toBeCloseTo(Math.cos(0.7) ** 2, 6);
  });
});

describe("learnedChange", () => {
  it("has the singular values of scaling B A, and the amplification along them", () => {
    // ΔW = 2 · (3 e0 e1ᵀ + 1 e2 e0ᵀ) in a layer of 3 to 2 whose W is 0.5 at [0, 1] and 4 elsewhere.
    const a = Float32Array.of(0, 1, 1, 0); // [2, in 2]
    const b = Float32Array.of(3, 0, 0, 0, 0, 1); // [out 3, 2]
    const weight = Float32Array.of(4, 0.5, 4, 4, 4, 4); // [out 3, in 2]
    const { singularValues, norm, amplification } = learnedChange({
      name: "x",
      rank: 2,
      inFeatures: 2,
      outFeatures: 3,
      a,
      b,
      weight,
      scaling: 2,
    });
    expect(singularValues[0]).toBeCloseTo(6, 5);
    expect(singularValues[1]).toBeCloseTo(2, 5);
    expect(norm).toBeCloseTo(Math.sqrt(40), 5);
    // U = (e0, e2), V = (e1, e0): UᵀWV = [[0.5, 4], [4, 4]].
    expect(amplification).toBeCloseTo(Math.sqrt(40) / Math.sqrt(0.25 + 16 + 16 + 16), 5);
  });
  it("leaves out directions in which nothing was learned", () => {
    const pair = { name: "x", inFeatures: 2, outFeatures: 2, weight: Float32Array.of(1, 2, 3, 4), scaling: 1 };
    const one = learnedChange({ ...pair, rank: 1, a: Float32Array.of(1, 0), b: Float32Array.of(1, 0) });
    const two = learnedChange({ ...pair, rank: 2, a: Float32Array.of(1, 0, 0, 1), b: Float32Array.of(1, 0, 0, 0) });
    expect(two.amplification).toBeCloseTo(one.amplification, 5);
    expect(one.amplification).toBeCloseTo(1, 5);
  });
});

describe("what is said of a study", () => {
  it.each([
    [[3, 0, 0], 1],
    [[1, 1, 1, 1], 4],
    [[10, 1, 1], 1],
    [[2, 2, 0.1], 2],
  ])("effective rank of %j", (values, wanted) => {
    expect(effectiveRank(values)).toBe(wanted);
  });
  it("shows every dimension up to 8, fewer above, and always the last", () => {
    expect(dimensions(3)).toEqual([1, 2, 3]);
    expect(dimensions(11)).toEqual([1, 2, 3, 4, 5, 6, 7, 8, 10, 11]);
  });
  const run = (rank: number, evalLoss: number) => ({ set: "q,v", rank, evalLoss, trainable: 100 * rank, effectiveRank: 2 });
  it("recommends the cheapest run that is nearly as good as the best", () => {
    const got = recommended([run(1, 2), run(4, 1.01), run(16, 1)], 3);
    expect(got).toMatchObject({ rank: 4, set: "q,v" });
    expect(got?.sentence).toMatch(/^Take rank 4 on q,v: it reaches 100 % of the gain.*2\.0 directions/);
  });
  it("recommends nothing when nothing was gained", () => {
    expect(recommended([run(1, 3.2)], 3)?.sentence).toMatch(/^No rank can be recommended/);
  });
});
