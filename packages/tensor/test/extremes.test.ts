import { type Device, type Tensor, tensor } from "@lowrank/tensor";
import { testDevice } from "test-support";
import { beforeAll, expect, test } from "vitest";

let dev: Device;

beforeAll(async () => {
  dev = await testDevice();
});

const [inf, nan] = [Number.POSITIVE_INFINITY, Number.NaN];
const f32 = (values: readonly number[]): Tensor => tensor([...values], { device: dev });

/** What torch gives. */
const rows: Record<string, readonly [build: () => Tensor, wanted: readonly number[]]> = {
  "logsumexp of all -inf is -inf": [() => f32([-inf, -inf, -inf, 1, -inf, 1]).reshape([2, 3]).logsumexp(-1), [-inf, 1 + Math.LN2]],
  "logsumexp of an infinity is infinity": [() => f32([1, inf]).logsumexp(0).reshape([1]), [inf]],
  "logsumexp of the largest numbers is finite": [() => f32([3e38, -3e38]).logsumexp(0).reshape([1]), [3e38]],
  "logsumexp of NaN is NaN": [() => f32([1, nan]).logsumexp(0).reshape([1]), [nan]],
  "logsumexp of integers": [() => tensor([2, 2], { dtype: "i32", device: dev }).logsumexp(0).reshape([1]), [2 + Math.LN2]],
  "argmax is the first NaN": [() => f32([3, nan, 9, nan, 1, 2, 9, 9]).reshape([2, 4]).argmax(-1), [1, 2]],
  "argmin is the first NaN": [() => f32([3, 1, nan, nan, 4, 2, 9, 2]).reshape([2, 4]).argmin(-1), [2, 1]],
  "argmax of all NaN is 0": [() => f32([nan, nan]).argmax(0).reshape([1]), [0]],
  "argmax of all -inf is 0": [() => f32([-inf, -inf]).argmax(0).reshape([1]), [0]],
  "the smallest with NaN is NaN": [() => f32([3, nan, 1]).min().reshape([1]), [nan]],
  "the smallest of infinities": [() => f32([inf, inf, -inf, 2]).reshape([2, 2]).min(1), [inf, -inf]],
  "isNaN finds NaN alone": [() => f32([nan, inf, -inf, 0, 1]).isNaN().cast("f32"), [1, 0, 0, 0, 0]],
};

for (const [name, [build, wanted]] of Object.entries(rows)) {
  test(name, async () => {
    const got = Array.from(await build().data());
    expect(got.length).toBe(wanted.length);
    for (const [i, value] of wanted.entries()) {
      if (Number.isFinite(value)) expect(Math.abs((got[i] ?? nan) - value)).toBeLessThanOrEqual(1e-6 * (1 + Math.abs(value)));
      else expect(got[i]).toBe(value);
    }
  });
}

const dtypes = ["f32", "f16", "bf16", "i32", "u32", "u8", "bool"] as const;

test.each(dtypes)("a power of %s has the type of a product, whatever the exponent", (dtype) => {
  const x = tensor([1, 0], { dtype, device: dev });
  for (const exponent of [2, 3, 0, 0.5]) expect(x.pow(exponent).dtype, String(exponent)).toBe(x.mul(exponent).dtype);
});

test("an integer to a negative power is refused, as in torch", () => {
  expect(() => tensor([2], { dtype: "i32", device: dev }).pow(-1)).toThrow(/\.cast\("f32"\)/);
});
