import * as api from "@lowrank/tensor";
import { device, ShapeError, type Tensor, tensor } from "@lowrank/tensor";
import { describe, expect, test } from "vitest";

const dev = await device("reference");
const other = await device("reference");
const x = tensor(
  Array.from({ length: 12 }, (_, i) => i),
  { device: dev, shape: [3, 4] },
);
const indices = tensor([0, 1, 2], { device: dev, dtype: "i32" });
const given = { device: dev };
/** What JavaScript may pass though TypeScript forbids it. */
const wrong = <T>(value: unknown): T => value as T;

const rows: readonly (readonly [call: () => unknown, error: new (...args: never[]) => Error, message: RegExp])[] = [
  [() => x.matmul(x), ShapeError, /inner sizes differ: \[3, 4\] x \[3, 4\] \(4 vs 3\)\. Transpose/],
  [() => x.add(tensor([1, 2], given)), ShapeError, /do not broadcast: \[3, 4\] and \[2\] \(4 vs 2 at axis -1\)\. Reshape/],
  [() => x.reshape([5, -1]), ShapeError, /\[3, 4\] has 12 elements.*Choose sizes/],
  [() => x.reshape([Number.NaN]), ShapeError, /12 elements, \[NaN\] does not/],
  [() => x.reshape([1, 12]).expand([2.5, 12]), ShapeError, /expand: \[2\.5, 12\] is not a shape/],
  [() => x.sum(2), ShapeError, /axis 2 is out of range for a tensor of rank 2\. Use -2 to 1/],
  [() => x.transpose(Number.NaN, 1), ShapeError, /axis NaN is out of range/],
  [() => x.slice([0.5, 2]), ShapeError, /slice: 0\.5 to 2 at axis 0 are not integers/],
  [() => x.slice(null, [Number.NaN]), ShapeError, /slice: NaN to 4 at axis 1 are not integers/],
  [() => x.slice(wrong([[0, 2]])), ShapeError, /slice: 0,2 to 3 at axis 0 are not integers\. Give \[start, stop\]/],
  [() => x.slice([0, 2, 0]), ShapeError, /step 0 at axis 0 is not a positive integer/],
  [() => x.slice(null, null, null), ShapeError, /3 ranges for a tensor of shape \[3, 4\]/],
  [() => api.narrow(x, 0, 2, 2), ShapeError, /elements 2 to 4 are outside axis 0 of \[3, 4\]/],
  [() => api.narrow(x, 0, Number.NaN, 1), ShapeError, /not integers/],
  [
    () =>
      api.pad(x, [
        [Number.NaN, 0],
        [0, 0],
      ]),
    ShapeError,
    /integers of at least 0, for each of the 2 axes/,
  ],
  [
    () =>
      api.pad(x, [
        [0, 0.5],
        [0, 0],
      ]),
    ShapeError,
    /integers of at least 0/,
  ],
  [() => api.pad(x, [[1, 1]]), ShapeError, /each of the 2 axes of \[3, 4\]/],
  [() => api.split(x, 1.5, 0), ShapeError, /does not divide into 1\.5 equal parts\. Use narrow/],
  [() => api.split(x, -1, 0), ShapeError, /does not divide into -1 equal parts/],
  [() => api.split(x, 2, 0), ShapeError, /does not divide into 2 equal parts/],
  [() => api.concat([]), ShapeError, /no tensors given/],
  [() => api.scatterAdd(indices, x, Number.NaN), ShapeError, /scatterAdd: \[NaN, 4\] is not a shape/],
  [() => api.scatterAdd(indices, x, 2.5), ShapeError, /scatterAdd: \[2\.5, 4\] is not a shape/],
  [() => api.oneHot(indices, -1), ShapeError, /oneHot: \[3, -1\] is not a shape/],
  [() => api.eye(1.5, given), ShapeError, /eye: \[1\.5, 1\.5\] is not a shape/],
  [() => api.arange(Number.POSITIVE_INFINITY, given), ShapeError, /arange: \[Infinity\] is not a shape/],
  [() => new api.Generator(dev, 1).uniform([Number.NaN]), ShapeError, /\[NaN\] is not a shape/],
  [() => tensor([[1], [2, 3]], given), ShapeError, /ragged values at depth 0/],
  [() => tensor([1, 2], { ...given, shape: [3] }), ShapeError, /2 values do not fill the shape \[3\]/],
  [() => tensor(wrong("abc"), given), TypeError, /tensor: "abc" is no number/],
  [() => tensor(wrong([1, "b"]), given), TypeError, /tensor: "b" is no number/],
  [() => tensor([1], { ...given, dtype: wrong("f99") }), TypeError, /there is no dtype "f99"\. Choose among f32, f16/],
  [() => x.cast(wrong("toString")), TypeError, /cast: there is no dtype "toString"/],
  [() => x.add(wrong(null)), TypeError, /add: null is no tensor\. Make one with tensor/],
  [() => x.mul(wrong([1, 2])), TypeError, /mul: an Array is no tensor/],
  [() => x.mul(wrong(dev)), TypeError, /mul: a Device is no tensor/],
  [() => x.mul(wrong(3n)), TypeError, /mul: 3 is no tensor/],
  [() => x.mul(wrong("a".repeat(1e6))), TypeError, /^mul: "a{40}…" is no tensor.{1,60}$/],
  [() => x.matmul(wrong<Tensor>(3)), TypeError, /matmul: 3 is no tensor/],
  [() => x.add(tensor([1], { device: other })), api.DeviceError, /tensors of different devices/],
];

describe("what an operation cannot take", () => {
  test.each(rows)("is refused when it is built: %s", (call, error, message) => {
    expect(call).toThrow(error);
    expect(call).toThrow(message);
  });

  test("does not include ranges that end beyond a tensor, or at infinity", () => {
    expect(x.slice([1, Number.POSITIVE_INFINITY]).shape).toEqual([2, 4]);
    expect(x.slice([1e9]).shape).toEqual([0, 4]);
    expect(x.slice([-2]).shape).toEqual([2, 4]);
  });
});
