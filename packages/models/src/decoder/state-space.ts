import { concat, type Tensor, zeros } from "@lowrank/tensor";
import { scanChunks } from "./chunk-scan.js";
import { chunkDecays, chunksOf, inChunks, outOfChunks, visibleInChunks } from "./chunks.js";
import type { Recurred } from "./gated-delta-rule.js";

/** What a state space with one decay per head reads, all f32. */
export interface StateSpaceInputs {
  /** What reads the state (Mamba's C), [batch, heads, seq, stateDim]. */
  readonly queries: Tensor;
  /** Where the state is written (Mamba's B), [batch, heads, seq, stateDim]. */
  readonly keys: Tensor;
  /** What is written (Mamba's Δ x), [batch, heads, seq, headDim]. */
  readonly values: Tensor;
  /** The logarithm of what remains of the state (Mamba's Δ A), at most 0; [batch, heads, seq]. */
  readonly decay: Tensor;
}

/** Token by token from `state` [batch, heads, stateDim, headDim] or zeros: S ← e^g S + k vᵀ, o = Sᵀ q. For few tokens. */
export function recurrentStateSpace({ queries, keys, values, decay }: StateSpaceInputs, state: Tensor | null): Recurred {
  const [batch = 0, heads = 0, tokens = 0, keyDim = 0] = keys.shape;
  let s = state ?? zeros([batch, heads, keyDim, values.shape[3] ?? 0], { device: keys.device });
  const outputs: Tensor[] = [];
  for (let token = 0; token < tokens; token++) {
    const of = (x: Tensor): Tensor => x.narrow(2, token, 1);
    s = s.mul(of(decay).exp().unsqueeze(3)).add(of(keys).t().mul(of(values)));
    outputs.push(of(queries).matmul(s));
  }
  return { output: concat(outputs, 2), state: s };
}

/**
 * The same in chunks of `length` tokens, by products of matrices (Dao & Gu 2024, "Transformers are SSMs", §6, SSD). `starts` as in
 * `chunkedGatedDelta`. Time and memory are linear in the tokens.
 */
export function chunkedStateSpace(inputs: StateSpaceInputs, state: Tensor | null, starts: Tensor | null = null, length = 64): Recurred {
  const { device, shape } = inputs.keys;
  const tokens = shape[2] ?? 0;
  const chunks = chunksOf(tokens, length);
  const split = (x: Tensor): Tensor => inChunks(x, chunks);
  const [queries, keys, values] = [split(inputs.queries), split(inputs.keys), split(inputs.values)];
  const decays = chunkDecays(split(inputs.decay.unsqueeze(3)).squeeze(4), visibleInChunks(chunks, starts, device));
  const states = scanChunks(
    { a: decays.across, b: keys.mul(decays.behind).t().matmul(values), isScalar: true },
    state?.unsqueeze(2) ?? null,
  );
  const inside = queries.matmul(keys.t()).mul(decays.within).matmul(values);
  const output = queries.mul(decays.before).matmul(states.before).add(inside);
  return { output: outOfChunks(output, tokens), state: states.last.squeeze(2) };
}
