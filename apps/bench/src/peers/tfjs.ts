// The tasks in TensorFlow.js, on whichever backend is set. Its wasm backend has a fast product only of two plain matrices, so
// with `hasPlainProductsOnly` transposes are made first and batches are taken apart.

// The whole package registers the gradients, which the core alone does not in Node.
import "@tensorflow/tfjs";
import * as tf from "@tensorflow/tfjs-core";
import { inputIds, inputValues, sampleOf } from "../formula.js";
import type { StepShape } from "../gpt-start.js";
import { gptStart, loraAlpha, loraStart, type NamedValues } from "../gpt-start.js";
import { oneHot, type Prepared, type TaskOf, type Tasks } from "./serve.js";
import { type Layers, type Matrix, tfjsLayers } from "./tfjs-layers.js";

export function tfjsTasks({ hasPlainProductsOnly }: { readonly hasPlainProductsOnly: boolean }): Tasks {
  const layers = tfjsLayers(hasPlainProductsOnly);
  const { matmul } = layers;

  const input = (shape: readonly number[], number: number, seed?: number): tf.Tensor =>
    tf.tensor(inputValues(size(shape), number, seed), [...shape], "float32");

  /** A function of fixed inputs, repeated. */
  const repeated = async (call: (...inputs: tf.Tensor[]) => tf.Tensor, inputs: readonly tf.Tensor[]): Promise<Prepared> => {
    const once = (): tf.Tensor => tf.tidy(() => call(...inputs));
    const first = once();
    const sample = sampleOf((await first.data()) as Float32Array);
    first.dispose();
    return {
      sample,
      async run(count) {
        for (let i = 1; i < count; i++) once().dispose();
        const last = once();
        const read = tf.tidy(() => tf.slice(tf.reshape(last, [-1]), [0], [1]));
        await read.data();
        tf.dispose([last, read]);
      },
      dispose: () => tf.dispose([...inputs]),
    };
  };

  const attention = ({ batch, heads, length, headDim, causal, backward, seed }: TaskOf<"attention">): Promise<Prepared> => {
    const inputs = [0, 1, 2, 3].map((number) => input([batch * heads, length, headDim], number, seed));
    const mask = causal ? causalMask(length) : null;
    const forward = (q: tf.Tensor, k: tf.Tensor, v: tf.Tensor): tf.Tensor => layers.attend(q, k, v, mask);
    if (!backward) return repeated((q, k, v) => forward(q as tf.Tensor, k as tf.Tensor, v as tf.Tensor), inputs.slice(0, 3));
    const gradients = tf.grads((q, k, v) => forward(q as tf.Tensor, k as tf.Tensor, v as tf.Tensor));
    return repeated((q, k, v, upstream) => gradients([q, k, v] as tf.Tensor[], upstream as tf.Tensor)[0] as tf.Tensor, inputs);
  };

  const crossEntropy = ({ rows, width, vocab, backward, seed }: TaskOf<"crossEntropy">): Promise<Prepared> => {
    const targets = tf.tensor2d(oneHot(inputIds(rows, vocab), vocab), [rows, vocab]);
    const head = input([vocab, width], 1, seed) as Matrix;
    const transposed = tf.transpose(head);
    const loss = (hidden: tf.Tensor): tf.Scalar => layers.crossEntropy(layers.frozenLinear(hidden as Matrix, transposed, head), targets);
    const call = backward ? tf.grad(loss) : loss;
    return repeated((hidden) => call(hidden as tf.Tensor), [input([rows, width], 0, seed)]);
  };

  return {
    matmul({ m, n, k, transA, transB, batch, seed }) {
      const leading = batch ? [batch] : [];
      const a = input([...leading, ...(transA ? [k, m] : [m, k])], 0, seed);
      const b = input([...leading, ...(transB ? [n, k] : [k, n])], 1, seed);
      return repeated((x, y) => matmul(x as tf.Tensor, y as tf.Tensor, transA, transB), [a, b]);
    },
    elementwise: ({ size: count, seed }) =>
      repeated(
        (a, b, c) => layers.gelu(tf.add(tf.mul(a as tf.Tensor, b as tf.Tensor), c as tf.Tensor)),
        [0, 1, 2].map((number) => input([count], number, seed)),
      ),
    sum: ({ rows, columns, seed }) => repeated((x) => tf.sum(x as tf.Tensor, -1), [input([rows, columns], 0, seed)]),
    softmax: ({ rows, columns, seed }) => repeated((x) => tf.softmax(x as tf.Tensor), [input([rows, columns], 0, seed)]),
    layernorm: ({ rows, columns, seed }) =>
      repeated(
        (x, weight, bias) => layers.norm(x as Matrix, weight as tf.Tensor, bias as tf.Tensor),
        [input([rows, columns], 0, seed), tf.ones([columns]), tf.zeros([columns])],
      ),
    attention,
    crossEntropy,
    gather: ({ rows, width, count, seed }) =>
      repeated(
        (table, ids) => tf.gather(table as tf.Tensor, ids as tf.Tensor),
        [input([rows, width], 0, seed), tf.tensor1d(inputIds(count, rows), "int32")],
      ),
    loraStep: (task) => loraStep(task, layers),
  };
}

/** 0 where a query may look, a large negative number elsewhere. */
function causalMask(length: number): tf.Tensor2D {
  const values = Float32Array.from({ length: length * length }, (_, i) => (i % length > Math.floor(i / length) ? -1e9 : 0));
  return tf.tensor2d(values, [length, length]);
}

type LoraShape = StepShape & { readonly rank: number; readonly seed?: number };

async function loraStep(shape: LoraShape, { frozenLinear, linear, gelu, norm, attend, crossEntropy }: Layers): Promise<Prepared> {
  const { layers, width, heads, vocab, batch, length, rank } = shape;
  const headDim = width / heads;
  const placed = <T>(tensors: readonly NamedValues[], make: (t: tf.Tensor) => T): Map<string, T> =>
    new Map(tensors.map(({ name, shape: dims, values }) => [name, make(tf.tensor(values, [...dims], "float32"))]));
  const weights = placed(gptStart(shape), (t) => t);
  const pairs = placed(loraStart(shape), (t) => tf.variable(t));
  const weight = (name: string): tf.Tensor => weights.get(name) as tf.Tensor; // every name is one of gptStart's
  const pair = (name: string): Matrix => pairs.get(name) as unknown as Matrix; // every name is one of loraStart's
  const tokens = inputIds(batch * length, vocab);
  const ids = tf.tensor2d(tokens, [batch, length], "int32");
  const labels = tokens.filter((_, i) => i % length !== 0);
  const targets = tf.tensor2d(oneHot(labels, vocab), [labels.length, vocab]);
  const mask = causalMask(length);
  // Frozen weights are transposed once for their backward products.
  const flipped = new Map([...weights].filter(([, t]) => t.rank === 2).map(([name, t]) => [name, tf.transpose(t)]));

  const project = (x: Matrix, name: string): Matrix =>
    tf.add(frozenLinear(x, weight(`${name}.weight`) as Matrix, flipped.get(`${name}.weight`) as Matrix), weight(`${name}.bias`)) as Matrix;
  const normed = (x: Matrix, name: string): Matrix => norm(x, weight(`${name}.weight`), weight(`${name}.bias`));
  const low = (x: Matrix, name: string): tf.Tensor => tf.mul(linear(linear(x, pair(`${name}.A`)), pair(`${name}.B`)), loraAlpha / rank);
  const split = (x: tf.Tensor): tf.Tensor =>
    tf.reshape(tf.transpose(tf.reshape(x, [batch, length, heads, headDim]), [0, 2, 1, 3]), [batch * heads, length, headDim]);
  const join = (x: tf.Tensor): Matrix =>
    tf.reshape(tf.transpose(tf.reshape(x, [batch, heads, length, headDim]), [0, 2, 1, 3]), [batch * length, width]);

  const lossOf = (): tf.Scalar => {
    let x: Matrix = tf.reshape(tf.add(tf.gather(weight("wte.weight"), ids), weight("wpe.weight")), [batch * length, width]);
    for (let layer = 0; layer < layers; layer++) {
      const at = `h.${layer}`;
      const hidden = normed(x, `${at}.ln_1`);
      const [q, k, v] = tf.split(project(hidden, `${at}.attn.c_attn`), 3, -1) as [tf.Tensor, tf.Tensor, tf.Tensor];
      const attended = attend(split(tf.add(q, low(hidden, `${at}.q`))), split(k), split(tf.add(v, low(hidden, `${at}.v`))), mask);
      x = tf.add(x, project(join(attended), `${at}.attn.c_proj`));
      x = tf.add(x, project(gelu(project(normed(x, `${at}.ln_2`), `${at}.mlp.c_fc`)), `${at}.mlp.c_proj`));
    }
    const last = tf.reshape(normed(x, "ln_f"), [batch, length, width]);
    const rows = tf.reshape(tf.slice(last, [0, 0, 0], [batch, length - 1, width]), [batch * (length - 1), width]) as Matrix;
    return crossEntropy(frozenLinear(rows, flipped.get("wte.weight") as Matrix, weight("wte.weight") as Matrix), targets);
  };
  const optimizer = new tf.AdamOptimizer(1e-3, 0.9, 0.999, 1e-8);
  const trained = [...pairs.values()];
  const once = (): tf.Scalar => optimizer.minimize(lossOf, true, trained) as tf.Scalar; // with `true` it returns the loss
  const read = async (loss: tf.Scalar): Promise<number> => {
    const [value = Number.NaN] = await loss.data();
    loss.dispose();
    return value;
  };
  const sample: number[] = [];
  for (let i = 0; i < 3; i++) sample.push(await read(once()));
  return {
    sample,
    async run(steps) {
      for (let i = 1; i < steps; i++) once().dispose();
      await read(once());
      // The parameters' update comes after the loss.
      const updated = tf.tidy(() => tf.slice(trained[trained.length - 1] as tf.Tensor, [0, 0], [1, 1]));
      await updated.data();
      updated.dispose();
    },
    dispose: () => tf.dispose([...weights.values(), ...pairs.values(), ...flipped.values(), ids, targets, mask]),
  };
}

function size(shape: readonly number[]): number {
  return shape.reduce((product, n) => product * n, 1);
}
