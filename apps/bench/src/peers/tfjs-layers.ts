// Layers in TensorFlow.js with gradients of their own: fewer and faster kernels than the composed ones.
import * as tf from "@tensorflow/tfjs-core";

export type Matrix = tf.Tensor2D;

const geluScale = Math.sqrt(2 / Math.PI);
const normEps = 1e-5;

/** The product of matrices, and of batches of them, [batch, m, k] x [batch, k, n]. */
interface Products {
  matmul<T extends tf.Tensor>(a: T, b: T, transposesA?: boolean, transposesB?: boolean): T;
}

function products(hasPlainProductsOnly: boolean): Products {
  if (!hasPlainProductsOnly) return { matmul: (a, b, transposesA, transposesB) => tf.matMul(a, b, transposesA, transposesB) };
  const flip = <T extends tf.Tensor>(x: T): T => tf.transpose(x, x.rank === 2 ? [1, 0] : [0, 2, 1]) as T;
  return {
    matmul<T extends tf.Tensor>(a: T, b: T, transposesA = false, transposesB = false): T {
      return tf.tidy(() => {
        const left = transposesA ? flip(a) : a;
        const right = transposesB ? flip(b) : b;
        if (left.rank === 2) return tf.matMul(left, right);
        const rights = apart(right);
        return tf.stack(apart(left).map((x, i) => tf.matMul(x, rights[i] as tf.Tensor))) as T; // as many as on the left
      });
    },
  };
}

/** tf.unstack by way of groups: the wasm backend copies the whole input for each part that it cuts off. */
function apart(x: tf.Tensor): tf.Tensor[] {
  const [count = 1, ...rest] = x.shape;
  let group = Math.floor(Math.sqrt(count));
  while (count % group !== 0) group--;
  return tf.unstack(tf.reshape(x, [count / group, group, ...rest])).flatMap((part) => tf.unstack(part));
}

/** Weights of norms and of frozen layers get no gradient. */
export function tfjsLayers(hasPlainProductsOnly: boolean) {
  const { matmul } = products(hasPlainProductsOnly);
  const rowMean = (x: tf.Tensor): tf.Tensor => tf.mean(x, -1, true);
  return {
    matmul,
    /** x [n, in] times a frozen weight [in, out], whose transpose is kept for the gradient. */
    frozenLinear(x: Matrix, weight: Matrix, transposed: Matrix): Matrix {
      return tf.customGrad((input) => ({
        value: tf.matMul(input as Matrix, weight) as Matrix,
        gradFunc: (dy) => tf.matMul(dy as Matrix, transposed),
      }))(x) as Matrix;
    },
    /** x [n, in] times trained w [out, in], transposed. */
    linear(x: Matrix, weight: Matrix): Matrix {
      return tf.customGrad((...given) => {
        const [input, w, save] = given as unknown as [Matrix, Matrix, tf.GradSaveFunc];
        save([input, w]);
        return {
          value: matmul(input, w, false, true),
          gradFunc: (dy: Matrix, saved: tf.Tensor[]) => {
            const [x0, w0] = saved as [Matrix, Matrix];
            return [matmul(dy, w0), matmul(dy, x0, true, false)];
          },
        };
      })(x, weight) as Matrix;
    },
    gelu<T extends tf.Tensor>(x: T): T {
      return tf.customGrad((given, save) => {
        const input = given as tf.Tensor;
        const square = tf.mul(input, input);
        const tanh = tf.tanh(tf.mul(input, tf.add(tf.mul(square, 0.044715 * geluScale), geluScale)));
        const half = tf.mul(tf.add(tanh, 1), 0.5);
        (save as tf.GradSaveFunc)([input, square, half]);
        return {
          value: tf.mul(input, half) as T,
          gradFunc: (dy: T, saved: tf.Tensor[]) => {
            const [x1, x2, h] = saved as [tf.Tensor, tf.Tensor, tf.Tensor];
            // ½ (1 − tanh²) = 2 h (1 − h), with h = ½ (1 + tanh).
            const slope = tf.mul(tf.mul(x1, 2), tf.mul(h, tf.sub(1, h)));
            return tf.mul(dy, tf.add(h, tf.mul(slope, tf.add(tf.mul(x2, 3 * 0.044715 * geluScale), geluScale))));
          },
        };
      })(x);
    },
    norm(x: Matrix, weight: tf.Tensor, bias: tf.Tensor): Matrix {
      return tf.customGrad((input, save) => {
        const centered = tf.sub(input as tf.Tensor, rowMean(input as tf.Tensor));
        const inverse = tf.rsqrt(tf.add(rowMean(tf.square(centered)), normEps));
        const normal = tf.mul(centered, inverse);
        (save as tf.GradSaveFunc)([normal, inverse]);
        return {
          value: tf.add(tf.mul(normal, weight), bias) as Matrix,
          gradFunc: (dy: tf.Tensor, saved: tf.Tensor[]) => {
            const [y, scale] = saved as [tf.Tensor, tf.Tensor];
            const g = tf.mul(dy, weight);
            const along = tf.mul(y, rowMean(tf.mul(g, y)));
            return tf.mul(scale, tf.sub(tf.sub(g, rowMean(g)), along));
          },
        };
      })(x) as Matrix;
    },
    /** Queries, keys and values [batch · heads, length, headDim]; `mask` [length, length] is added to the scores. */
    attend(queries: tf.Tensor, keys: tf.Tensor, values: tf.Tensor, mask: tf.Tensor | null): tf.Tensor {
      if (hasPlainProductsOnly) return attendApart(queries, keys, values, mask);
      const scale = 1 / Math.sqrt(queries.shape[2] ?? 1);
      return tf.customGrad((...given) => {
        const [q, k, v, save] = given as unknown as [tf.Tensor, tf.Tensor, tf.Tensor, tf.GradSaveFunc];
        const scores = tf.mul(matmul(q, k, false, true), scale);
        const weights = tf.softmax(mask ? tf.add(scores, mask) : scores);
        save([q, k, v, weights]);
        return {
          value: matmul(weights, v),
          gradFunc: (dy: tf.Tensor, saved: tf.Tensor[]) => {
            const [q0, k0, v0, p] = saved as [tf.Tensor, tf.Tensor, tf.Tensor, tf.Tensor];
            const dWeights = tf.mul(matmul(dy, v0, false, true), p);
            const dScores = tf.mul(tf.sub(dWeights, tf.mul(p, tf.sum(dWeights, -1, true))), scale);
            return [matmul(dScores, k0), matmul(dScores, q0, true, false), matmul(p, dy, true, false)];
          },
        };
      })(queries, keys, values);
    },
    /** Mean over the rows; `targets` one-hot. */
    crossEntropy(logits: Matrix, targets: Matrix): tf.Scalar {
      const rows = logits.shape[0];
      return tf.customGrad((given, save) => {
        const input = given as tf.Tensor;
        const shifted = tf.sub(input, tf.max(input, -1, true));
        const exponentials = tf.exp(shifted);
        const sums = tf.sum(exponentials, -1, true);
        (save as tf.GradSaveFunc)([exponentials, sums]);
        const loss = tf.sub(tf.sum(tf.log(sums)), tf.sum(tf.mul(shifted, targets)));
        return {
          value: tf.div(loss, rows) as tf.Scalar,
          gradFunc: (dy: tf.Tensor, saved: tf.Tensor[]) => {
            const [e, total] = saved as [tf.Tensor, tf.Tensor];
            return tf.mul(tf.sub(tf.div(e, total), targets), tf.div(dy, rows));
          },
        };
      })(logits) as tf.Scalar;
    },
  };
}

export type Layers = ReturnType<typeof tfjsLayers>;

/** Attention whose heads stay apart from the first product to the last: parts are cut only of queries, keys, values and the output's gradient. */
function attendApart(queries: tf.Tensor, keys: tf.Tensor, values: tf.Tensor, mask: tf.Tensor | null): tf.Tensor {
  const scale = 1 / Math.sqrt(queries.shape[2] ?? 1);
  const each = (count: number, call: (i: number) => tf.Tensor): tf.Tensor[] =>
    Array.from({ length: count }, (_, i) => tf.tidy(() => call(i)));
  return tf.customGrad((...given) => {
    const [q, k, v, save] = given as unknown as [tf.Tensor, tf.Tensor, tf.Tensor, tf.GradSaveFunc];
    const count = q.shape[0] ?? 0;
    const [qs, ks, vs] = [apart(q), apart(k), apart(v)];
    const at = (list: readonly tf.Tensor[], i: number): Matrix => list[i] as Matrix; // all lists have a part a head
    const weights = each(count, (i) => {
      const scores = tf.mul(tf.matMul(at(qs, i), tf.transpose(at(ks, i))), scale);
      return tf.softmax(mask ? tf.add(scores, mask) : scores);
    });
    save([...qs, ...ks, ...vs, ...weights]);
    return {
      value: tf.stack(each(count, (i) => tf.matMul(at(weights, i), at(vs, i)))),
      gradFunc: (dy: tf.Tensor, saved: tf.Tensor[]) => {
        const [qs0, ks0, vs0, ps] = [0, 1, 2, 3].map((n) => saved.slice(n * count, (n + 1) * count)) as [
          Matrix[],
          Matrix[],
          Matrix[],
          Matrix[],
        ];
        const dys = apart(dy);
        const dScores = each(count, (i) => {
          const p = at(ps, i);
          const dWeights = tf.mul(tf.matMul(at(dys, i), tf.transpose(at(vs0, i))), p);
          return tf.mul(tf.sub(dWeights, tf.mul(p, tf.sum(dWeights, -1, true))), scale);
        });
        return [
          tf.stack(each(count, (i) => tf.matMul(at(dScores, i), at(ks0, i)))),
          tf.stack(each(count, (i) => tf.matMul(tf.transpose(at(dScores, i)), at(qs0, i)))),
          tf.stack(each(count, (i) => tf.matMul(tf.transpose(at(ps, i)), at(dys, i)))),
        ];
      },
    };
  })(queries, keys, values);
}
