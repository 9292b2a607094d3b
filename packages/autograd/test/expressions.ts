import { checkpoint } from "@lowrank/autograd";
import {
  attention,
  concat,
  conv2d,
  crossEntropy,
  type Device,
  dynamicSlice,
  dynamicUpdateSlice,
  layerNorm,
  linearCrossEntropy,
  maximum,
  minimum,
  mod,
  rmsNorm,
  rope,
  type Shape,
  scatterAdd,
  sizeOf,
  type Tensor,
  tensor,
  where,
} from "@lowrank/tensor";

/** Makes i32 constants for an expression. */
export type Ints = (values: readonly number[], shape?: Shape) => Tensor;

/** A differentiable expression: shapes of its inputs, and the function. */
export interface Expression {
  readonly shapes: readonly Shape[];
  /** Inputs are in ±2; positive ones in 0.3 … 2.3. */
  readonly isPositive?: boolean;
  readonly build: (inputs: readonly Tensor[], ints: Ints) => Tensor;
}

/** Deterministic values that differ everywhere and keep away from 0. */
export function values(shape: Shape, seed: number, isPositive = false): Float32Array {
  return Float32Array.from({ length: sizeOf(shape) }, (_, i) => {
    const unit = Math.abs(Math.sin(i * 12.9898 + seed * 78.233) * 43758.5453) % 1;
    const magnitude = 0.3 + 1.7 * unit;
    return isPositive || Math.sin(i * 1.7 + seed) > 0 ? magnitude : -magnitude;
  });
}

export function inputsOn(device: Device, { shapes, isPositive = false }: Pick<Expression, "shapes" | "isPositive">): Tensor[] {
  return shapes.map((shape, i) => tensor(values(shape, i + 1, isPositive), { shape, device }));
}

export function intsOn(device: Device): Ints {
  return (list, shape = [list.length]) => tensor(Int32Array.from(list), { dtype: "i32", shape, device });
}

/** Σ w · y with fixed weights w: a scalar whose dL/dy differs everywhere. */
export function weighted(y: Tensor, seed = 99): Tensor {
  return y.mul(tensor(values(y.shape, seed), { shape: y.shape, device: y.device })).sum();
}

const one = (shape: Shape, f: (x: Tensor) => Tensor): Expression => ({ shapes: [shape], build: ([x]) => f(x as Tensor) });
const positive = (shape: Shape, f: (x: Tensor) => Tensor): Expression => ({ ...one(shape, f), isPositive: true });
const two = (a: Shape, b: Shape, f: (a: Tensor, b: Tensor) => Tensor): Expression => ({
  shapes: [a, b],
  build: ([x, y]) => f(x as Tensor, y as Tensor),
});
const three = (shapes: readonly [Shape, Shape, Shape], f: (a: Tensor, b: Tensor, c: Tensor, ints: Ints) => Tensor): Expression => ({
  shapes,
  build: ([a, b, c], ints) => f(a as Tensor, b as Tensor, c as Tensor, ints),
});

/** One a row; the name is the subject of the tests' sentences. */
export const expressions: Readonly<Record<string, Expression>> = {
  neg: one([2, 3], (x) => x.neg().mul(x)),
  abs: one([2, 3], (x) => x.abs().mul(x)),
  exp: one([2, 3], (x) => x.exp()),
  log: positive([2, 3], (x) => x.log()),
  sqrt: positive([2, 3], (x) => x.sqrt()),
  rsqrt: positive([2, 3], (x) => x.rsqrt()),
  sin: one([2, 3], (x) => x.sin()),
  cos: one([2, 3], (x) => x.cos()),
  tanh: one([2, 3], (x) => x.tanh()),
  erf: one([2, 3], (x) => x.erf()),
  "floor, which stops": one([2, 3], (x) => x.floor().add(x.mul(x))),
  add: two([2, 3], [2, 3], (a, b) => a.add(b).square()),
  sub: two([2, 3], [3], (a, b) => a.sub(b).square()),
  mul: two([2, 3], [2, 1], (a, b) => a.mul(b)),
  div: two([2, 3], [1, 3], (a, b) => a.div(b)),
  "div by an own product": one([4], (x) => x.div(x.mul(x).add(1))),
  mod: two([2, 3], [2, 3], (a, b) => mod(a.mul(3.3), b).mul(a)),
  "pow of two tensors": { ...two([2, 3], [3], (a, b) => a.pow(b)), isPositive: true },
  "pow 3": one([2, 3], (x) => x.pow(3)),
  "pow 0.5": positive([2, 3], (x) => x.pow(0.5)),
  "pow 0": one([2, 3], (x) => x.pow(0).mul(x)),
  "maximum of two tensors": two([2, 3], [2, 3], (a, b) => maximum(a, b).square()),
  "minimum of two tensors": two([2, 3], [3], (a, b) => minimum(a, b).square()),
  "constant maxima": one([2, 3], (x) => maximum(0.5, x).add(maximum(x, -0.4)).add(minimum(0.7, x)).mul(x)),
  clamp: one([2, 3], (x) => x.clamp(-1, 1).mul(x)),
  where: two([2, 3], [3], (a, b) => where(a.less(b), a.mul(b), b.square())),
  cast: one([2, 3], (x) => x.cast("i32").cast("f32").mul(x)),
  detach: one([2, 3], (x) => x.mul(2).mul(x.greater(0).cast("f32").detach())),
  relu: one([2, 3], (x) => x.relu().mul(x)),
  sigmoid: one([2, 3], (x) => x.sigmoid()),
  silu: one([2, 3], (x) => x.silu()),
  softplus: one([2, 3], (x) => x.exp().add(1).log()),
  gelu: one([2, 3], (x) => x.gelu()),
  "gelu by tanh": one([2, 3], (x) => x.gelu("tanh")),
  "sum of all": one([2, 3], (x) => x.square().sum()),
  "sum over a middle axis": one([2, 3, 2], (x) => x.square().sum(1)),
  mean: one([2, 3], (x) => x.square().mean(0, { keepDims: true })),
  variance: one([2, 4], (x) => x.variance(-1)),
  max: one([3, 4], (x) => x.max(1).square()),
  "max over two axes": one([2, 3, 2], (x) => x.max([0, 2]).square()),
  min: one([3, 4], (x) => x.min(0).square()),
  logsumexp: one([3, 4], (x) => x.logsumexp(-1)),
  softmax: one([3, 4], (x) => x.softmax(0)),
  logSoftmax: one([3, 4], (x) => x.logSoftmax(-1)),
  reshape: one([2, 6], (x) => x.reshape([3, 4]).square()),
  permute: one([2, 3, 4], (x) => x.permute([2, 0, 1]).square()),
  expand: one([2, 1, 3], (x) => x.expand([2, 2, 4, 3]).square()),
  slice: one([4, 5], (x) => x.slice([1, 3], [0, 5]).square()),
  "slice with steps": one([7, 6], (x) => x.slice([1, 7, 3], [0, 6, 2]).square()),
  flip: one([3, 4], (x) => x.flip(-1).mul(x)),
  "a flipped slice with steps": one([7], (x) => x.flip(0).slice([1, 7, 2]).square()),
  "an empty slice": one([3], (x) => x.slice([2, 2]).sum().add(x.square().sum())),
  pad: one([2, 3], (x) =>
    x
      .pad(
        [
          [1, 0],
          [2, 1],
        ],
        5,
      )
      .square(),
  ),
  concat: two([2, 3], [2, 2], (a, b) => concat([a, b, a], 1).square()),
  gather: { shapes: [[4, 3]], build: ([x], ints) => (x as Tensor).gather(ints([1, 3, 1, 0])).square() },
  "gather by a matrix of indices": {
    shapes: [[4, 3]],
    build: ([x], ints) => (x as Tensor).gather(ints([1, 3, 1, 0, 2, 2], [2, 3])).square(),
  },
  "gather along a middle axis": { shapes: [[2, 4, 3]], build: ([x], ints) => (x as Tensor).gather(ints([3, 0, 3]), 1).square() },
  "gather along the last axis beyond its end": {
    shapes: [[2, 4]],
    build: ([x], ints) => (x as Tensor).gather(ints([3, 9, -2]), -1).square(),
  },
  "dynamic slice": { shapes: [[4, 5]], build: ([x], ints) => dynamicSlice(x as Tensor, ints([9, 1]), [2, 3]).square() },
  "dynamic slice of each row": {
    shapes: [[2, 5]],
    build: ([x], ints) => dynamicSlice((x as Tensor).square(), ints([1, 9], [2, 1]), [3]).square(),
  },
  "dynamic update": {
    shapes: [
      [4, 5],
      [2, 3],
    ],
    build: ([x, update], ints) => dynamicUpdateSlice((x as Tensor).square(), (update as Tensor).square(), ints([1, 7])).square(),
  },
  "dynamic update of each row": {
    shapes: [
      [2, 5, 3],
      [2, 2, 3],
    ],
    build: ([x, update], ints) => dynamicUpdateSlice(x as Tensor, (update as Tensor).square(), ints([1, 0, 2, 0], [2, 2])).square(),
  },
  scatterAdd: { shapes: [[4, 3]], build: ([x], ints) => scatterAdd(ints([2, 0, 2, 7]), x as Tensor, 3).square() },
  matmul: two([2, 3], [3, 4], (a, b) => a.matmul(b)),
  "matmul with a shared right side": two([2, 2, 3], [3, 2], (a, b) => a.matmul(b)),
  "batched matmul": two([2, 2, 3], [2, 3, 2], (a, b) => a.matmul(b)),
  "broadcast matmul": two([2, 1, 2, 3], [2, 3, 2], (a, b) => a.matmul(b)),
  "matmul of a tensor with itself": one([3, 3], (x) => x.matmul(x.t())),
  "matmul of vectors": two([3], [3], (a, b) => a.matmul(b)),
  rmsNorm: two([3, 4], [4], (x, w) => rmsNorm(x, w)),
  layerNorm: three([[3, 4], [4], [4]], (x, w, b) => layerNorm(x, w, b)),
  rope: three(
    [
      [2, 3, 4],
      [3, 2],
      [3, 2],
    ],
    (x, c, s) => rope(x, c.cos(), s.sin()),
  ),
  attention: three(
    [
      [1, 2, 3, 4],
      [1, 2, 5, 4],
      [1, 2, 5, 4],
    ],
    (q, k, v) => attention(q, k, v),
  ),
  "attention with sinks": {
    shapes: [[1, 2, 3, 4], [1, 1, 3, 4], [1, 1, 3, 4], [2]],
    build: ([q, k, v, sinks]) => attention(q as Tensor, k as Tensor, v as Tensor, { isCausal: true, window: 2, sinks: sinks as Tensor }),
  },
  "causal attention with grouped heads": three(
    [
      [2, 4, 3, 2],
      [2, 2, 3, 2],
      [2, 2, 3, 2],
    ],
    (q, k, v) => attention(q, k, v, { isCausal: true }),
  ),
  "causal attention with earlier keys": three(
    [
      [1, 2, 2, 2],
      [1, 1, 4, 2],
      [1, 1, 4, 2],
    ],
    (q, k, v) => attention(q, k, v, { isCausal: true, scale: 0.7 }),
  ),
  "attention of packed rows": {
    shapes: [
      [2, 4, 5, 2],
      [2, 2, 5, 2],
      [2, 2, 5, 2],
    ],
    build: ([q, k, v], ints) => {
      const starts = ints([0, 0, 2, 2, 4, 0, 1, 1, 1, 4]).reshape([2, 5]);
      return attention(q as Tensor, k as Tensor, v as Tensor, { isCausal: true, starts });
    },
  },
  "attention in a window behind a prefix": three(
    [
      [1, 2, 5, 2],
      [1, 1, 7, 2],
      [1, 1, 7, 2],
    ],
    (q, k, v) => attention(q, k, v, { isCausal: true, window: 2, prefix: 2 }),
  ),
  "attention with a soft cap": three(
    [
      [1, 4, 3, 2],
      [1, 2, 5, 2],
      [1, 2, 5, 2],
    ],
    (q, k, v) => attention(q, k, v, { isCausal: true, scores: (s) => s.div(2).tanh().mul(2) }),
  ),
  "attention with a slope for each head, which is differentiated": {
    shapes: [
      [2, 2, 3, 2],
      [2, 2, 3, 2],
      [2, 2, 3, 2],
      [2, 1, 1],
    ],
    build: ([q, k, v, slope]) =>
      attention(q as Tensor, k as Tensor, v as Tensor, {
        isCausal: true,
        scores: (s, { query, key }) => s.gelu().add(key.sub(query).mul(slope as Tensor)),
      }),
  },
  "attention with scores that look at their row": three(
    [
      [1, 2, 3, 2],
      [1, 2, 4, 2],
      [1, 2, 4, 2],
    ],
    (q, k, v) => attention(q, k, v, { scores: (s) => s.mul(s.square().mean(-1, { keepDims: true })) }),
  ),
  "attention of one tensor": one([1, 2, 3, 2], (x) => attention(x, x, x, { isCausal: true })),
  "attention with a mask": {
    shapes: [
      [1, 2, 3, 2],
      [1, 2, 3, 2],
      [1, 2, 3, 2],
      [3, 3],
    ],
    build: ([q, k, v, mask]) => attention(q as Tensor, k as Tensor, v as Tensor, { mask: mask as Tensor }),
  },
  conv2d: three([[2, 4, 5, 4], [6, 2, 3, 2], [6]], (x, w, b) => {
    return conv2d(x, w, b, { groups: 2, stride: [2, 1], padding: [1, 0], dilation: [1, 2] }).square();
  }),
  linearCrossEntropy: {
    shapes: [
      [4, 3],
      [5, 3],
    ],
    build: ([h, w], ints) => linearCrossEntropy(h as Tensor, w as Tensor, ints([1, -100, 4, 0])),
  },
  "linearCrossEntropy with a soft cap and a bias for each class": {
    shapes: [
      [4, 3],
      [5, 3],
    ],
    build: ([h, w], ints) =>
      linearCrossEntropy(h as Tensor, w as Tensor, ints([1, -100, 4, 0]), {
        logits: (l, { class: position }) =>
          l
            .div(2)
            .tanh()
            .mul(2)
            .add(ints([3, 1, 0, 2, 1]))
            .sub(position.mul(0.25)),
      }),
  },
  "linearCrossEntropy with a bias for each class, which is differentiated": {
    shapes: [[4, 3], [5, 3], [5]],
    build: ([h, w, bias], ints) =>
      linearCrossEntropy(h as Tensor, w as Tensor, ints([1, -100, 4, 0]), { logits: (l) => l.mul(bias as Tensor).tanh() }),
  },
  "linearCrossEntropy with logits that look at their row": {
    shapes: [
      [4, 3],
      [5, 3],
    ],
    build: ([h, w], ints) =>
      linearCrossEntropy(h as Tensor, w as Tensor, ints([1, -100, 4, 0]), {
        logits: (l) => l.div(l.square().mean(-1, { keepDims: true }).add(1)),
      }),
  },
  "linearCrossEntropy of a function of the weight": {
    shapes: [
      [4, 3],
      [5, 3],
    ],
    build: ([h, w], ints) => linearCrossEntropy((h as Tensor).tanh(), (w as Tensor).mul((h as Tensor).sum()), ints([1, -100, 4, 0])),
  },
  "linearCrossEntropy whose gradient depends on it": {
    shapes: [
      [4, 3],
      [5, 3],
    ],
    build: ([h, w], ints) => linearCrossEntropy(h as Tensor, w as Tensor, ints([1, -100, 4, 0])).square(),
  },
  crossEntropy: { shapes: [[4, 5]], build: ([x], ints) => crossEntropy(x as Tensor, ints([1, -100, 4, 0])) },
  checkpoint: two([2, 3], [3, 2], (a, b) => checkpoint((x, w) => x.matmul(w).tanh().matmul(w.t()), a, b).square()),
};
