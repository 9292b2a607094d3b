import {
  attention,
  concat,
  crossEntropy,
  type Device,
  dynamicSlice,
  dynamicUpdateSlice,
  layerNorm,
  linearCrossEntropy,
  rmsNorm,
  rope,
  scatterAdd,
  stack,
  type Tensor,
  tensor,
} from "@lowrank/tensor";
import { expect } from "vitest";

/** Deterministic values that differ everywhere. */
function values(shape: readonly number[], seed: number): Float32Array {
  const count = shape.reduce((a, b) => a * b, 1);
  return Float32Array.from({ length: count }, (_, i) => Math.sin(i * 1.7 + seed * 3.1) * 2);
}

/** Builds an expression from f32 tensors of given shapes and i32 vectors. */
export type Build = (make: (shape: readonly number[]) => Tensor, ints: (values: readonly number[]) => Tensor) => Tensor;

/** Evaluates the same expression on two devices and compares element by element, relative to 1 + |value|. */
export async function agree(build: Build, reference: Device, tested: Device, tolerance = 1e-4): Promise<void> {
  const results: (readonly number[])[] = [];
  for (const dev of [reference, tested]) {
    let seed = 0;
    const result = build(
      (shape) => tensor(values(shape, ++seed), { shape, device: dev }),
      (list) => tensor([...list], { dtype: "i32", device: dev }),
    );
    results.push(Array.from(await result.data()));
  }
  const [want = [], got = []] = results;
  expect(got.length).toBe(want.length);
  for (const [i, value] of want.entries()) {
    if (Number.isNaN(value)) expect(got[i]).toBeNaN();
    else if (!Number.isFinite(value)) expect(got[i]).toBe(value);
    else
      expect(Math.abs((got[i] ?? Number.NaN) - value), `element ${i}: ${got[i]} instead of ${value}`).toBeLessThanOrEqual(
        tolerance * (1 + Math.abs(value)),
      );
  }
}

/** One expression a row; the name completes the sentence of the test. */
export const cases: Record<string, Build> = {
  "broadcast add": (t) =>
    t([3, 1, 4])
      .add(t([5, 1]))
      .mul(2),
  softmax: (t) => t([3, 5]).softmax(-1),
  "softmax over the first axis": (t) => t([3, 5]).softmax(0),
  "log softmax": (t) => t([2, 3, 5]).logSoftmax(-1),
  "rms norm": (t) => rmsNorm(t([4, 6]), t([6])),
  "layer norm": (t) => layerNorm(t([2, 4, 6]), t([6]), t([6])),
  "sum over a middle axis": (t) => t([3, 4, 5]).exp().sum(1),
  "sum over two axes": (t) => t([3, 4, 5]).sum([0, 2]),
  "mean of all": (t) => t([3, 4, 5]).mean(),
  "two reductions of one tensor": (t) => {
    const x = t([4, 6]);
    return x.sub(x.max(1, { keepDims: true })).div(x.sum(0, { keepDims: true }));
  },
  "reduction of a reduction": (t) => t([4, 6]).square().sum(1).sqrt().sum(),
  "transposed reshape": (t) => t([2, 3, 4]).permute([2, 0, 1]).reshape([8, 3]).add(1),
  "slices and flips": (t) =>
    t([4, 6])
      .slice([1, 4], [0, 6, 2])
      .flip(0)
      .mul(t([3])),
  pad: (t) =>
    t([2, 3])
      .pad(
        [
          [1, 2],
          [0, 1],
        ],
        7,
      )
      .sum(0),
  concat: (t) => concat([t([2, 3]), t([1, 3]).exp(), t([4, 3])], 0),
  stack: (t) => stack([t([2, 3]), t([2, 3])], 1),
  rope: (t) => rope(t([2, 3, 4]), t([3, 2]), t([3, 2])),
  gather: (t, i) =>
    t([5, 3])
      .gather(i([4, 0, 9, -2]))
      .mul(2),
  "gather at each row's largest": (t) => t([9, 1]).mul(t([2]).gather(t([9, 2]).argmax(-1).unsqueeze(1), 0)),
  "gather at each row's largest, beside what the row was": (t) => {
    const x = t([37, 3]);
    return t([3]).exp().gather(x.argmax(-1), 0).add(x.max(1));
  },
  "gather along the last axis": (t, i) => t([3, 5]).gather(i([4, 0]), 1),
  "a part whose start the device reads": (t, i) =>
    dynamicSlice(t([4, 6]).mul(2), i([1, 2]), [2, 3]).add(dynamicSlice(t([5, 3]), i([-7, 99]), [2, 3])),
  "a part of each row of a batch at a start of its own": (t, i) =>
    dynamicSlice(t([3, 5, 4]).exp(), i([0, 1, 3, 0, 9, -9]).reshape([3, 2]), [2, 3]),
  "an update of what is computed": (t, i) => dynamicUpdateSlice(t([4, 6]).exp(), t([2, 3]).mul(3), i([3, 1])).add(t([6])),
  "an update of each row of a batch, of a view and of zeros": (t, i) => {
    const starts = i([0, 4, 2]).reshape([3, 1]);
    const update = t([3, 2]).softmax(-1);
    const zero = t([3, 1]).mul(0).expand([3, 5]);
    return dynamicUpdateSlice(t([5, 3]).t(), update, starts).add(dynamicUpdateSlice(zero, update, starts));
  },
  "updates one over the other": (t, i) => {
    const first = dynamicUpdateSlice(t([9]), t([4]).tanh(), i([2]));
    const second = dynamicUpdateSlice(first, first.slice([0, 3]), i([5]));
    return concat([first, second, dynamicSlice(second, i([4]), [4])]);
  },
  "updates of storage types": (t, i) =>
    concat([
      dynamicUpdateSlice(t([9]).cast("bf16"), t([3]), i([3])).cast("f32"),
      dynamicUpdateSlice(i([1, 2, 3, 4]), i([7]), i([2])).cast("f32"),
      dynamicUpdateSlice(t([5]).greater(0), t([3]).less(0), i([1])).cast("f32"),
    ]),
  "scatter add": (t, i) => scatterAdd(i([1, 1, 7, -1, 0]), t([5, 3]).mul(2), 3),
  matmul: (t) => t([3, 4]).matmul(t([4, 5])),
  "matmul of views": (t) =>
    t([4, 3])
      .t()
      .matmul(t([2, 5, 4]).slice(null, [1, 4]).transpose(1, 2)),
  "matmul of an expression": (t) =>
    t([3, 4])
      .add(1)
      .matmul(t([5, 4]).exp().t())
      .relu(),
  "a product with bias, activation and residual": (t) => {
    const x = t([2, 13, 11]);
    return x
      .matmul(t([11, 19]))
      .add(t([19]))
      .gelu("tanh")
      .matmul(t([19, 11]))
      .add(t([11]))
      .add(x);
  },
  "a product that is needed before and after its activation": (t) => {
    const before = t([37, 5])
      .matmul(t([5, 33]))
      .add(t([33]));
    const after = before.silu().mul(t([37, 33]));
    return after.matmul(t([33, 3])).add(before.matmul(t([33, 3])));
  },
  "a few rows of a product with a residual": (t) =>
    t([3, 40])
      .matmul(t([40, 70]))
      .mul(0.5)
      .add(t([3, 70]))
      .tanh()
      .matmul(t([70, 2])),
  "products of a batch, scaled and masked": (t) => {
    const scores = t([2, 3, 9, 5])
      .matmul(t([2, 3, 5, 17]))
      .mul(0.25)
      .add(t([2, 1, 9, 17]));
    return scores
      .exp()
      .matmul(t([2, 3, 17, 4]))
      .add(t([3, 1, 4]));
  },
  "a product that columns of others are added to": (t) => {
    const parts = t([10, 6])
      .matmul(t([6, 12]))
      .split(3, -1) as [Tensor, Tensor, Tensor];
    const low = t([10, 6])
      .matmul(t([6, 2]))
      .matmul(t([2, 4]))
      .mul(2);
    const whole = concat([parts[0].add(low), parts[1], parts[2].sub(low)], -1);
    const [q, k, v] = whole.split(3, -1) as [Tensor, Tensor, Tensor];
    return q.matmul(k.t()).matmul(v);
  },
  "numbers multiplied into both sides of a product": (t) =>
    t([4, 5])
      .mul(3)
      .t()
      .matmul(t([4, 6]).reshape([6, 4]).t().mul(0.5))
      .add(1),
  "an empty product with a bias": (t) =>
    t([4, 0])
      .matmul(t([0, 6]))
      .add(t([6]))
      .matmul(t([6, 2])),
  "norms whose statistics are kept": (t) => {
    const x = t([2, 7, 30]).add(t([30]));
    const centred = x.sub(x.mean(-1, { keepDims: true }));
    const scale = centred.square().mean(-1, { keepDims: true }).add(1e-5).rsqrt();
    const y = centred.mul(scale).matmul(t([30, 9]));
    return y
      .mul(scale)
      .add(x.sum(-1, { keepDims: true }))
      .add(x.max(-1, { keepDims: true }));
  },
  "products that are added up": (t) => {
    const [x, w] = [t([2, 5, 8]), t([8, 6])];
    const low = x
      .matmul(t([8, 2]))
      .matmul(t([2, 6]))
      .mul(0.25);
    return x
      .matmul(w)
      .add(t([6]))
      .add(low)
      .add(
        t([10, 3])
          .matmul(t([3, 6]))
          .reshape([2, 5, 6]),
      )
      .tanh();
  },
  "products that are added up, each times a number": (t) =>
    t([7, 3])
      .matmul(t([3, 4]))
      .mul(2)
      .add(
        t([7, 5])
          .matmul(t([4, 5]).t())
          .mul(-0.5),
      )
      .add(t([7, 4])),
  "a product that others read as well as a sum of it": (t) => {
    const product = t([7, 3]).matmul(t([3, 4]));
    return product.add(t([7, 5]).matmul(t([5, 4]))).mul(product);
  },
  "a product over columns put side by side": (t) => {
    const beside = (before: number, after: number): Tensor =>
      t([2, 4, 3])
        .exp()
        .pad([
          [0, 0],
          [0, 0],
          [before, after],
        ]);
    return beside(0, 7)
      .add(beside(3, 4))
      .add(beside(7, 0))
      .matmul(t([5, 10]).t())
      .add(1);
  },
  "a product over columns one above the other": (t) => {
    const above = (before: number): Tensor =>
      t([4, 3]).pad([
        [0, 0],
        [before, 2 - before],
      ]);
    return above(0)
      .add(above(2))
      .matmul(t([5, 6]));
  },
  "matrix times vector": (t) => t([3, 4]).matmul(t([4])),
  "batch of products with heads split off": (t) => {
    const heads = (x: Tensor): Tensor => x.reshape([2, 3, 2, 4]).permute([0, 2, 1, 3]);
    return heads(t([2, 3, 8])).matmul(heads(t([2, 3, 8])).t());
  },
  attention: (t) => attention(t([2, 4, 3, 4]), t([2, 2, 5, 4]), t([2, 2, 5, 4]), { isCausal: true }),
  "attention of packed rows": (t, ints) =>
    attention(t([1, 4, 6, 4]), t([1, 2, 6, 4]), t([1, 2, 6, 4]), {
      isCausal: true,
      starts: ints([0, 0, 0, 3, 3, 5]).reshape([1, 6]),
    }),
  "attention output merged": (t) =>
    attention(t([2, 4, 3, 4]), t([2, 2, 3, 4]), t([2, 2, 3, 4]), { isCausal: true })
      .permute([0, 2, 1, 3])
      .reshape([6, 16])
      .matmul(t([16, 2])),
  "linear cross-entropy": (t, i) => linearCrossEntropy(t([4, 3]), t([7, 3]), i([0, 6, -100, 2])).sum(),
  "cross-entropy": (t, i) => crossEntropy(t([4, 7]), i([0, 6, -100, 2])),
  argmax: (t) => t([4, 7]).argmax(-1),
  variance: (t) => t([4, 7]).variance(0),
  "empty tensor": (t) =>
    t([0, 3])
      .sum(0)
      .add(t([3])),
  gelu: (t) => t([9]).gelu("tanh"),
  "value used by many": (t) => {
    const x = t([4, 6])
      .exp()
      .add(t([4, 6]));
    return x
      .matmul(x.t())
      .add(x.sum(1, { keepDims: true }))
      .mul(x.slice(null, [0, 4]));
  },
  "unary functions": (t) => {
    const x = t([37]);
    return concat([
      x.exp(),
      x.abs().log(),
      x.abs().sqrt(),
      x.sin(),
      x.cos(),
      x.tanh(),
      x.erf(),
      x.floor(),
      x.neg(),
      x.rsqrt(),
      x.sigmoid(),
      x.silu(),
      x.relu(),
      x.gelu(),
      x.ceil(),
      x.sign(),
    ]);
  },
  "binary functions": (t) => {
    const [x, y] = [t([37]), t([37])];
    return concat([
      x.add(y),
      x.sub(y),
      x.mul(y),
      x.div(y),
      x.maximum(y),
      x.minimum(y),
      x.abs().pow(y),
      x.mod(y),
      x.less(y).cast("f32"),
      x.lessEqual(y).cast("f32"),
      x.equal(x).cast("f32"),
    ]);
  },
  integers: (_, i) => {
    const [x, y] = [i([7, -7, 100000, 3, 0]), i([2, 2, 70000, 0, 5])];
    return concat([
      x.add(y),
      x.mul(y),
      x.intDivide(y),
      x.mod(y),
      x.and(y),
      x.or(y),
      x.xor(y),
      x.shiftLeft(3),
      x.shiftRight(1),
      x.maximum(y),
      x.neg(),
    ]).cast("f32");
  },
  "storage types": (t) => {
    const x = t([41]).mul(100);
    return concat([
      x.cast("f16").cast("f32"),
      x.cast("bf16").cast("f32"),
      x.abs().cast("u8").cast("f32"),
      x.greater(0).cast("f32"),
      x.cast("i32").cast("f32"),
    ]);
  },
  "f16 and bf16 operands of matmul": (t) =>
    t([5, 7])
      .cast("f16")
      .matmul(t([7, 9]).cast("bf16")),
  "reductions of odd sizes": (t) => concat([t([3, 131]).sum(1), t([3, 131]).max(0).slice([0, 3]), t([131, 3]).sum(0), t([1, 1]).sum(1)]),
  "smallest of odd sizes": (t) => concat([t([3, 131]).min(1), t([131, 3]).exp().min(0), t([5000]).min().reshape([1])]),
  "large reduction": (t) => t([70000]).sum(),
  "long rows": (t) => t([2, 5000]).softmax(-1),
  "NaN and infinities": (t) => {
    const x = t([9]).div(0);
    return concat([x, x.sub(x), x.exp(), x.tanh(), x.abs().sqrt().neg(), x.sub(x).maximum(1)]);
  },
  "more than 65,535 rows": (t) => t([70001, 3]).mul(2).sum(1),
};

/** One step of a random expression. */
export function apply(op: number, x: Tensor, y: Tensor): Tensor {
  const broadcast = (): Tensor => {
    try {
      return x.add(y);
    } catch {
      return x.mul(0.5);
    }
  };
  switch (op) {
    case 0:
      return broadcast();
    case 1:
      return x.tanh();
    case 2:
      return x.rank > 0 ? x.sum(x.rank - 1, { keepDims: true }) : x;
    case 3:
      return x.rank > 0 ? x.softmax(-1) : x;
    case 4:
      return x.rank > 1 ? x.t() : x.neg();
    case 5:
      return x.flatten();
    case 6:
      return x.rank > 0 ? x.flip(0) : x;
    case 7:
      return x.rank > 1 ? x.tanh().matmul(x.tanh().t()) : x;
    case 8:
      return x.rank > 0 ? x.pad(x.shape.map(() => [1, 0] as const)) : x;
    case 9:
      return x.rank > 0 ? x.slice([0, Math.max(1, x.sizeAt(0) - 1)]) : x;
    case 10:
      return x.rank === 0 ? x : x.size % 2 === 0 ? x.max(0) : x.min(0);
    case 11:
      return x.rank > 0 ? concat([x, x.mul(2)], 0).slice([0, 6]) : x;
    case 12:
      return x.greater(0).where(x, x.mul(0.1));
    case 13:
      return x.rank > 0 ? x.sub(x.mean(-1, { keepDims: true })) : x;
    case 14:
      return x.rank > 1 ? x.reshape([x.sizeAt(0), -1]).sum(0) : x;
    default:
      return x.mul(x).sub(y.sum());
  }
}
