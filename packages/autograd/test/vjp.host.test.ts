import { grad, valueAndGrad } from "@lowrank/autograd";
import { attention, type Device, device, full, maximum, minimum, pow, ShapeError, type Tensor, tensor, where } from "@lowrank/tensor";
import fc from "fast-check";
import { beforeAll, describe, expect, test } from "vitest";
import { agreesWithDifferences, slope } from "./differences.js";
import { expressions, inputsOn, intsOn, values, weighted } from "./expressions.js";

let reference: Device;

beforeAll(async () => {
  reference = await device("reference");
});

test("a constant has its gradient, broadcast or not, alone and in a function of attention's scores", async () => {
  const x = tensor(values([1, 2, 3, 3], 1), { shape: [1, 2, 3, 3], device: reference });
  const q = tensor(values([1, 2, 3, 4], 2), { shape: [1, 2, 3, 4], device: reference });
  const uses: Record<string, (w: Tensor) => Tensor> = {
    alone: (w) => x.mul(w).sum(),
    "in scores": (w) =>
      attention(q, q, q, { scores: (s) => s.mul(w) })
        .square()
        .sum(),
  };
  for (const [name, use] of Object.entries(uses)) {
    const gradientBy = async (w: Tensor): Promise<number[]> => Array.from((await grad(use(w), [w])[0]?.data()) ?? []);
    const known = await gradientBy(tensor([[[[1]], [[1]]]], { device: reference }));
    expect(
      known.some((value) => Math.abs(value) > 1e-3),
      name,
    ).toBe(true);
    expect(await gradientBy(full([1, 2, 1, 1], 1, { device: reference })), name).toEqual(known);
  }
});

describe.each(Object.entries(expressions))("%s", (_name, expression) => {
  const loss = (inputs: readonly Tensor[]): Tensor => weighted(expression.build(inputs, intsOn(reference)));

  test("has the gradient that central differences have", async () => {
    await agreesWithDifferences(loss, inputsOn(reference, expression));
  });

  test("has the second derivative that central differences of the first have", async () => {
    await agreesWithDifferences((inputs) => slope(loss(inputs), inputs), inputsOn(reference, expression), 1e-5);
  });
});

const sizes = fc.array(fc.integer({ min: 1, max: 3 }), { maxLength: 3 });
/** A shape and one that broadcasts with it: some sizes 1, leading axes dropped. */
const broadcasting = sizes.chain((shape) =>
  fc.tuple(
    fc.constant(shape),
    fc
      .tuple(fc.nat(shape.length), fc.array(fc.boolean(), { minLength: shape.length, maxLength: shape.length }))
      .map(([dropped, ones]) => shape.map((size, axis) => (ones[axis] ? 1 : size)).slice(dropped)),
  ),
);
const smooth = (make: (a: Tensor, b: Tensor) => Tensor) => make;
const binaries = {
  add: smooth((a, b) => a.add(b)),
  sub: smooth((a, b) => a.sub(b)),
  mul: smooth((a, b) => a.mul(b)),
  div: smooth((a, b) => a.div(b)),
  pow: smooth((a, b) => pow(a, b)),
  maximum: smooth((a, b) => maximum(a, b)),
  minimum: smooth((a, b) => minimum(a, b)),
  where: smooth((a, b) => where(b.less(a), a, b.mul(a))),
};

test.each(Object.entries(binaries))("%s has the right gradient for all broadcasting shapes", async (_name, f) => {
  await fc.assert(
    fc.asyncProperty(broadcasting, fc.boolean(), async ([shape, other], isSwapped) => {
      const shapes = isSwapped ? [other, shape] : [shape, other];
      const inputs = inputsOn(reference, { shapes, isPositive: true });
      await agreesWithDifferences(([a, b]) => weighted(f(a as Tensor, b as Tensor).square()), inputs);
    }),
    { numRuns: 15, seed: 1 },
  );
});

const tensors3 = fc.tuple(fc.integer({ min: 1, max: 4 }), fc.integer({ min: 1, max: 4 }), fc.integer({ min: 1, max: 3 }));

test("reductions have the right gradient over any axes", async () => {
  await fc.assert(
    fc.asyncProperty(
      tensors3,
      fc.subarray([0, 1, 2]),
      fc.boolean(),
      fc.constantFrom("sum", "max", "min", "mean"),
      async (shape, axes, keepDims, kind) => {
        await agreesWithDifferences(
          ([x]) => weighted((x as Tensor)[kind](axes, { keepDims }).square()),
          inputsOn(reference, { shapes: [shape] }),
        );
      },
    ),
    { numRuns: 30, seed: 2 },
  );
});

test("slices have the right gradient for any start, stop, step and direction", async () => {
  const range = fc.tuple(fc.nat(6), fc.nat(6), fc.integer({ min: 1, max: 4 }), fc.boolean());
  await fc.assert(
    fc.asyncProperty(
      fc.tuple(fc.integer({ min: 1, max: 6 }), fc.integer({ min: 1, max: 6 })),
      range,
      range,
      async (shape, rows, columns) => {
        await agreesWithDifferences(
          ([x]) => {
            let y = x as Tensor;
            for (const [axis, [start, stop, step, isFlipped]] of [rows, columns].entries()) {
              if (isFlipped) y = y.flip(axis);
              y = y.slice(...y.shape.map((_, i) => (i === axis ? ([start, stop, step] as const) : null)));
            }
            return weighted(y.square());
          },
          inputsOn(reference, { shapes: [shape] }),
        );
      },
    ),
    { numRuns: 40, seed: 3 },
  );
});

test("permutations, pads and reshapes have the right gradient", async () => {
  const width = fc.tuple(fc.nat(2), fc.nat(2));
  await fc.assert(
    fc.asyncProperty(
      tensors3,
      fc.shuffledSubarray([0, 1, 2], { minLength: 3 }),
      fc.tuple(width, width, width),
      async (shape, order, widths) => {
        const loss = ([x]: readonly Tensor[]): Tensor => weighted((x as Tensor).permute(order).pad(widths, 2).flatten().square());
        await agreesWithDifferences(loss, inputsOn(reference, { shapes: [shape] }));
      },
    ),
    { numRuns: 25, seed: 4 },
  );
});

test("gathers have the right gradient along any axis", async () => {
  await fc.assert(
    fc.asyncProperty(tensors3, fc.nat(2), fc.array(fc.nat(3), { minLength: 1, maxLength: 5 }), async (shape, axis, indices) => {
      const loss = ([x]: readonly Tensor[]): Tensor => weighted((x as Tensor).gather(intsOn(reference)(indices), axis).square());
      await agreesWithDifferences(loss, inputsOn(reference, { shapes: [shape] }));
    }),
    { numRuns: 25, seed: 5 },
  );
});

test("matrix products have the right gradient for any batch axes", async () => {
  const size = fc.integer({ min: 1, max: 3 });
  await fc.assert(
    fc.asyncProperty(broadcasting, fc.tuple(size, size, size), async ([left, right], [m, k, n]) => {
      const inputs = inputsOn(reference, {
        shapes: [
          [...left, m, k],
          [...right, k, n],
        ],
      });
      await agreesWithDifferences(([a, b]) => weighted((a as Tensor).matmul(b as Tensor).square()), inputs);
    }),
    { numRuns: 25, seed: 6 },
  );
});

describe("where the derivative does not exist, torch's choice:", () => {
  const gradientOf = async (f: (...x: readonly Tensor[]) => Tensor, ...inputs: readonly (readonly number[])[]): Promise<number[][]> => {
    const xs = inputs.map((input) => tensor([...input], { device: reference }));
    return Promise.all(grad(f(...xs).sum(), xs).map(async (g) => Array.from(await g.data())));
  };
  const one = (f: (x: Tensor) => Tensor) => (x?: Tensor) => f(x as Tensor);
  const two = (f: (a: Tensor, b: Tensor) => Tensor) => (a?: Tensor, b?: Tensor) => f(a as Tensor, b as Tensor);

  test.each([
    ["tied maxima share the gradient", one((x) => x.max(0)), [[3, 1, 3, 3]], [[1 / 3, 0, 1 / 3, 1 / 3]]],
    [
      "equal operands of maximum get half each",
      two((a, b) => maximum(a, b)),
      [
        [1, 2],
        [1, 3],
      ],
      [
        [0.5, 0],
        [0.5, 1],
      ],
    ], // prettier-ignore
    [
      "equal operands of minimum get half each",
      two((a, b) => minimum(a, b)),
      [
        [1, 2],
        [1, 3],
      ],
      [
        [0.5, 1],
        [0.5, 0],
      ],
    ], // prettier-ignore
    ["relu has slope 0 at 0", one((x) => x.relu()), [[-1, 0, 2]], [[0, 0, 1]]],
    ["clamp has slope 1 at its bounds", one((x) => x.clamp(-1, 2)), [[-1, 2, 3]], [[1, 1, 0]]],
    ["abs has slope 0 at 0", one((x) => x.abs()), [[-2, 0, 2]], [[-1, 0, 1]]],
    [
      "0 to a power moves with the base",
      two((a, b) => pow(a, b)),
      [
        [0, 0],
        [1, 2],
      ],
      [
        [1, 0],
        [0, 0],
      ],
    ], // prettier-ignore
    [
      "anything to the power 0 stands still",
      two((a, b) => pow(a, b)),
      [
        [0, 2],
        [0, 0],
      ],
      [
        [0, 0],
        [0, Math.log(2)],
      ],
    ], // prettier-ignore
  ] as const)("%s", async (_name, f, inputs, want) => {
    const got = await gradientOf(f as (...x: readonly Tensor[]) => Tensor, ...inputs);
    for (const [i, row] of want.entries()) for (const [j, value] of row.entries()) expect(got[i]?.[j]).toBeCloseTo(value, 6);
  });
});

describe("grad", () => {
  const vector = (...list: number[]): Tensor => tensor(list, { device: reference });

  test("is linear in the loss", async () => {
    const x = vector(0.3, -1.2, 2);
    const [a, b] = [x.sin().sum(), x.exp().mean()];
    const [both] = grad(a.mul(2).add(b.mul(-3)), [x]);
    const [of2a] = grad(a, [x]);
    const [of3b] = grad(b, [x]);
    const difference = (both as Tensor).sub((of2a as Tensor).mul(2)).add((of3b as Tensor).mul(3));
    expect(await difference.abs().max().item()).toBeLessThan(1e-7);
  });

  test("gives zeros for what the loss does not depend on", async () => {
    const [x, y] = [vector(1, 2), vector(3, 4)];
    const [dx, dy] = grad(x.detach().mul(2).add(x.mul(0.5)).sum(), [x, y]);
    expect([...((await dx?.data()) ?? [])]).toEqual([0.5, 0.5]);
    expect([...((await dy?.data()) ?? [])]).toEqual([0, 0]);
  });

  test("sees expressions as variables, and what lies behind them", async () => {
    const x = vector(1, 2);
    const hidden = x.square();
    const [dHidden, dx] = grad(hidden.mul(3).sum(), [hidden, x]);
    expect([...((await dHidden?.data()) ?? [])]).toEqual([3, 3]);
    expect([...((await dx?.data()) ?? [])]).toEqual([6, 12]);
  });

  test("knows an expression that was read after the loss was built", async () => {
    const hidden = vector(1, 2).square();
    const loss = hidden.mul(hidden).sum();
    await hidden.data();
    const [dHidden] = grad(loss, [hidden]);
    expect([...((await dHidden?.data()) ?? [])]).toEqual([2, 8]);
  });

  test("keeps shape and order, and gives f32 for f16 and bf16", async () => {
    const x = tensor([[1, 2, 3]], { device: reference, dtype: "bf16" });
    const w = tensor([[1], [2], [4]], { device: reference, dtype: "f16" });
    const [dw, dx] = grad(x.matmul(w).sum(), [w, x]);
    expect([dw?.shape, dw?.dtype, dx?.shape, dx?.dtype]).toEqual([[3, 1], "f32", [1, 3], "f32"]);
    expect([...((await dx?.data()) ?? [])]).toEqual([1, 2, 4]);
    expect([...((await dw?.data()) ?? [])]).toEqual([1, 2, 3]);
  });

  test("counts a tensor that is given twice, and used twice, once each", async () => {
    const x = vector(2);
    const gradients = grad(x.mul(x).add(x).sum(), [x, x]);
    for (const gradient of gradients) expect(await gradient.item()).toBe(5);
  });

  test("goes through the same graph for the nth derivative", async () => {
    const x = vector(0.7);
    let y = x.pow(5);
    for (let n = 0; n < 5; n++) y = grad(y.sum(), [x])[0] as Tensor;
    expect(await y.item()).toBeCloseTo(120, 5);
  });

  test("takes gradients by views on the way", async () => {
    const x = vector(1, 2);
    const [column, wide] = [x.reshape([2, 1]), x.reshape([2, 1]).expand([2, 3])];
    const [dColumn, dWide] = grad(
      column
        .reshape([1, 2, 1])
        .expand([4, 2, 3])
        .sum()
        .add(wide.expand([2, 2, 3]).sum()),
      [column, wide],
    );
    expect([...((await dColumn?.data()) ?? [])]).toEqual([12, 12]);
    expect([...((await dWide?.data()) ?? [])]).toEqual([2, 2, 2, 2, 2, 2]);
  });

  test("refuses a loss that is not one number, one that is data, and integers", async () => {
    const x = vector(1, 2);
    expect(() => grad(x, [x])).toThrow(ShapeError);
    expect(() => grad(x, [x])).toThrow("grad: the loss is f32 [2], not one float. Take its mean() or sum() first.");
    expect(() => grad(x.sum(), [x.cast("i32")])).toThrow("tensor 0 of wrt is i32");
    expect(() => grad(vector(1), [x])).toThrow("the loss is data and not an expression");
  });

  test("valueAndGrad gives both, of a tensor or of a function", async () => {
    const x = vector(1, 2);
    for (const loss of [x.square().sum(), (t: Tensor | undefined) => (t as Tensor).square().sum()]) {
      const { value, gradients } = valueAndGrad(loss, [x]);
      expect([...((await gradients[0]?.data()) ?? [])]).toEqual([2, 4]);
      expect(await value.item()).toBe(5);
    }
  });

  test("random numbers and constants are constants", async () => {
    const x = vector(1, 2, 3);
    const noise = full([3], 2, { device: reference });
    const [dx] = grad(x.mul(noise).sum(), [x]);
    expect([...((await dx?.data()) ?? [])]).toEqual([2, 2, 2]);
  });
});
