// The tasks in jax-js, on whichever device is its default: everything inside jit, as its documentation advises.
import { createRequire } from "node:module";
import type { numpy } from "@jax-js/jax";
import { inputIds, inputValues, sampleOf } from "../formula.js";
import type { StepShape } from "../gpt-start.js";
import { gptStart, loraAlpha, loraStart } from "../gpt-start.js";
import { oneHot, type Prepared, type TaskOf, type Tasks } from "./serve.js";

/** Results that are waited for together. */
const inFlightLimit = 8;

type Jax = typeof import("@jax-js/jax");
type Tensor = numpy.Array;

export function jaxVersion(): string {
  // The package exports its entry only; its manifest lies two folders up.
  const entry = createRequire(import.meta.url).resolve("@jax-js/jax");
  return (createRequire(entry)("../package.json") as { version: string }).version;
}

/** jax-js' tasks. Its arrays are owned: a function takes its arguments for good, and `.ref` keeps one for later. */
export function jaxTasks(jax: Jax): Tasks {
  const { numpy: np, nn, jit, grad } = jax;

  const input = (shape: readonly number[], number: number, seed?: number): Tensor =>
    np.array(inputValues(size(shape), number, seed), { shape: [...shape] });
  const ids = (count: number, vocab: number): Tensor => np.array(inputIds(count, vocab), { dtype: np.int32 });

  /** A function of fixed inputs, repeated. */
  const repeated = async (call: (...inputs: Tensor[]) => Tensor, inputs: readonly Tensor[]): Promise<Prepared> => {
    const compiled = jit(call);
    const once = (): Tensor => compiled(...inputs.map((x) => x.ref)) as Tensor;
    return {
      sample: sampleOf((await once().data()) as Float32Array),
      async run(count) {
        // A result that is given up before it is waited for is never computed.
        let results: Tensor[] = [];
        for (let i = 1; i < count; i++) {
          results.push(once());
          if (results.length === inFlightLimit || i === count - 1) {
            await jax.blockUntilReady(results);
            for (const result of results) result.dispose();
            results = [];
          }
        }
        await readOne(once());
      },
      dispose() {
        for (const x of inputs) x.dispose();
        compiled.dispose();
      },
    };
  };
  /** Waits for a result and reads one element of it. */
  const readOne = async (result: Tensor): Promise<void> => {
    await result.ref.blockUntilReady();
    await result.reshape([-1]).slice([0, 1]).data();
  };

  /** [batch, length, heads, headDim] → [batch, heads, length, headDim], and back. */
  const swapHeads = (x: Tensor): Tensor => np.transpose(x, [0, 2, 1, 3]);
  /** As nn.dotProductAttention, which in Node 20 fails over a missing iterator method. All [batch, heads, length, headDim]. */
  const attend = (queries: Tensor, keys: Tensor, values: Tensor, isCausal: boolean): Tensor => {
    const [, , length = 0, headDim = 1] = queries.shape;
    const scores = np.matmul(queries, np.matrixTranspose(keys)).mul(1 / Math.sqrt(headDim));
    const masked = isCausal ? np.where(np.tri(length, length, 0, { dtype: np.bool }), scores, Number.NEGATIVE_INFINITY) : scores;
    return np.matmul(nn.softmax(masked, -1), values);
  };

  const attention = (task: TaskOf<"attention">): Promise<Prepared> => {
    const { batch, heads, length, headDim, causal = false, seed } = task;
    const inputs = [0, 1, 2, 3].map((number) => input([batch, heads, length, headDim], number, seed));
    const forward = (q: Tensor, k: Tensor, v: Tensor): Tensor => attend(q, k, v, causal);
    if (!task.backward) return repeated((q, k, v) => forward(q as Tensor, k as Tensor, v as Tensor), inputs.slice(0, 3));
    const pulled = grad((q: Tensor, k: Tensor, v: Tensor, upstream: Tensor) => forward(q, k, v).mul(upstream).sum(), {
      argnums: [0, 1, 2],
    });
    // All three gradients are computed: the sum over keys' and values' enters the result times zero.
    return repeated((...all) => {
      const [dq, dk, dv] = pulled(...(all as [Tensor, Tensor, Tensor, Tensor])) as [Tensor, Tensor, Tensor];
      return dq.add(dk.sum().add(dv.sum()).mul(0));
    }, inputs);
  };

  const crossEntropy = (task: TaskOf<"crossEntropy">): Promise<Prepared> => {
    const { rows, width, vocab, seed } = task;
    const targets = np.array(oneHot(inputIds(rows, vocab), vocab), { shape: [rows, vocab] });
    const loss = (hidden: Tensor, head: Tensor, hot: Tensor): Tensor =>
      nn
        .logSoftmax(np.matmul(hidden, head.transpose()))
        .mul(hot)
        .sum()
        .mul(-1 / rows);
    const call = task.backward ? grad(loss) : loss;
    return repeated(
      (...all) => call(...(all as [Tensor, Tensor, Tensor])) as Tensor,
      [input([rows, width], 0, seed), input([vocab, width], 1, seed), targets],
    );
  };

  const normalize = (x: Tensor, weight: Tensor, bias: Tensor): Tensor => nn.standardize(x, -1, { epsilon: 1e-5 }).mul(weight).add(bias);

  return {
    matmul({ m, n, k, transA, transB, batch, seed }) {
      const leading = batch ? [batch] : [];
      const a = input([...leading, ...(transA ? [k, m] : [m, k])], 0, seed);
      const b = input([...leading, ...(transB ? [n, k] : [k, n])], 1, seed);
      const flipped = (x: Tensor): Tensor => np.matrixTranspose(x);
      return repeated(
        (x, y) => np.matmul(transA ? flipped(x as Tensor) : (x as Tensor), transB ? flipped(y as Tensor) : (y as Tensor)),
        [a, b],
      );
    },
    elementwise: ({ size: count, seed }) =>
      repeated(
        (a, b, c) => nn.gelu((a as Tensor).mul(b as Tensor).add(c as Tensor)),
        [0, 1, 2].map((number) => input([count], number, seed)),
      ),
    sum: ({ rows, columns, seed }) => repeated((x) => np.sum(x as Tensor, -1), [input([rows, columns], 0, seed)]),
    softmax: ({ rows, columns, seed }) => repeated((x) => nn.softmax(x as Tensor), [input([rows, columns], 0, seed)]),
    layernorm: ({ rows, columns, seed }) =>
      repeated(
        (x, weight, bias) => normalize(x as Tensor, weight as Tensor, bias as Tensor),
        [input([rows, columns], 0, seed), np.ones([columns]), np.zeros([columns])],
      ),
    attention,
    crossEntropy,
    gather: ({ rows, width, count, seed }) =>
      repeated((table, at) => np.take(table as Tensor, at as Tensor, 0), [input([rows, width], 0, seed), ids(count, rows)]),
    loraStep: (task) => loraStep(task),
  };

  /** Mean loss of the next tokens. `pairs` and `weights` as `loraStart` and `gptStart` name them; both are taken. */
  function gptLoss(pairs: Record<string, Tensor>, weights: Record<string, Tensor>, tokens: Tensor, hot: Tensor, shape: LoraShape): Tensor {
    const { layers, width, heads, batch, length, rank } = shape;
    const weight = (name: string): Tensor => (weights[name] as Tensor).ref; // every name is one of gptStart's
    const pair = (name: string): Tensor => (pairs[name] as Tensor).ref; // every name is one of loraStart's
    const norm = (x: Tensor, name: string): Tensor => normalize(x, weight(`${name}.weight`), weight(`${name}.bias`));
    const linear = (x: Tensor, name: string): Tensor => np.matmul(x, weight(`${name}.weight`)).add(weight(`${name}.bias`));
    const low = (x: Tensor, name: string): Tensor =>
      np.matmul(np.matmul(x, pair(`${name}.A`).transpose()), pair(`${name}.B`).transpose()).mul(loraAlpha / rank);
    const split = (x: Tensor): Tensor => swapHeads(x.reshape([batch, length, heads, width / heads]));

    let x = np
      .take(weight("wte.weight"), tokens, 0)
      .reshape([batch, length, width])
      .add(weight("wpe.weight"))
      .reshape([batch * length, width]);
    for (let layer = 0; layer < layers; layer++) {
      const at = `h.${layer}`;
      const hidden = norm(x.ref, `${at}.ln_1`);
      const [q, k, v] = np.split(linear(hidden.ref, `${at}.attn.c_attn`), 3, -1) as [Tensor, Tensor, Tensor];
      const queries = q.add(low(hidden.ref, `${at}.q`));
      const values = v.add(low(hidden, `${at}.v`));
      const attended = swapHeads(attend(split(queries), split(k), split(values), true)).reshape([batch * length, width]);
      x = x.add(linear(attended, `${at}.attn.c_proj`));
      x = x.ref.add(linear(nn.gelu(linear(norm(x, `${at}.ln_2`), `${at}.mlp.c_fc`)), `${at}.mlp.c_proj`));
    }
    const logits = np.matmul(norm(x, "ln_f"), weight("wte.weight").transpose());
    const loss = nn
      .logSoftmax(logits)
      .mul(hot)
      .sum()
      .mul(-1 / (batch * (length - 1)));
    for (const t of [...Object.values(pairs), ...Object.values(weights)]) t.dispose();
    return loss;
  }

  async function loraStep(task: LoraShape & { readonly seed?: number }): Promise<Prepared> {
    const { vocab, batch, length } = task;
    const place = (tensors: ReturnType<typeof gptStart>): Record<string, Tensor> =>
      Object.fromEntries(tensors.map(({ name, shape, values }) => [name, np.array(values, { shape: [...shape] })]));
    const weights = place(gptStart(task));
    const start = place(loraStart(task));
    const tokens = inputIds(batch * length, vocab);
    // A row's label is the next token; a text's last row has none.
    const hot = oneHot(
      tokens.map((_, i) => ((i + 1) % length === 0 ? -1 : (tokens[i + 1] ?? -1))),
      vocab,
    );
    const constants = [np.array(tokens, { dtype: np.int32 }), np.array(hot, { shape: [batch * length, vocab] })] as const;
    const lossAndGradients = jax.valueAndGrad(
      (pairs: Record<string, Tensor>, frozen: Record<string, Tensor>, ids: Tensor, targets: Tensor) =>
        gptLoss(pairs, frozen, ids, targets, task),
    );

    type State = { pairs: Record<string, Tensor>; means: Record<string, Tensor>; squares: Record<string, Tensor> };
    /** `rates`: learning rate over the first correction, and 1 over the second's root. */
    const step = jit((state: State, frozen: Record<string, Tensor>, ids: Tensor, targets: Tensor, rates: [Tensor, Tensor]) => {
      const [loss, gradients] = lossAndGradients(
        Object.fromEntries(Object.entries(state.pairs).map(([name, t]) => [name, t.ref])),
        frozen,
        ids,
        targets,
      ) as [Tensor, Record<string, Tensor>];
      const next: State = { pairs: {}, means: {}, squares: {} };
      for (const [name, gradient] of Object.entries(gradients)) {
        const mean = (state.means[name] as Tensor).mul(0.9).add(gradient.ref.mul(0.1)); // the state has the pairs' names
        const square = (state.squares[name] as Tensor).mul(0.999).add(gradient.ref.mul(gradient).mul(0.001));
        next.means[name] = mean.ref;
        next.squares[name] = square.ref;
        const change = mean.mul(rates[0].ref).div(np.sqrt(square).mul(rates[1].ref).add(1e-8));
        next.pairs[name] = (state.pairs[name] as Tensor).sub(change);
      }
      for (const rate of rates) rate.dispose();
      return { loss, state: next };
    });

    const zerosLike = (pairs: Record<string, Tensor>): Record<string, Tensor> =>
      Object.fromEntries(Object.entries(pairs).map(([name, t]) => [name, np.zeros(t.shape)]));
    let state: State = { pairs: start, means: zerosLike(start), squares: zerosLike(start) };
    let count = 0;
    const refs = (tensors: Record<string, Tensor>): Record<string, Tensor> =>
      Object.fromEntries(Object.entries(tensors).map(([name, t]) => [name, t.ref]));
    const once = (): Tensor => {
      count++;
      const rates: [Tensor, Tensor] = [np.array(1e-3 / (1 - 0.9 ** count)), np.array(1 / Math.sqrt(1 - 0.999 ** count))];
      const result = step(state, refs(weights), constants[0].ref, constants[1].ref, rates) as { loss: Tensor; state: State };
      state = result.state;
      return result.loss;
    };
    const sample: number[] = [];
    for (let i = 0; i < 3; i++) sample.push(Number((await once().data())[0]));
    return {
      sample,
      async run(steps) {
        // Each step's parameters go into the next, so only the loss itself is left out where it is given up.
        for (let i = 1; i < steps; i++) once().dispose();
        await once().data();
        await jax.blockUntilReady(state.pairs);
      },
    };
  }
}

type LoraShape = StepShape & { readonly rank: number };

function size(shape: readonly number[]): number {
  return shape.reduce((product, n) => product * n, 1);
}
