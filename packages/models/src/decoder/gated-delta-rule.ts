import { arange, concat, eye, type Tensor, zeros } from "@lowrank/tensor";
import { scanChunks } from "./chunk-scan.js";
import { chunkDecays, chunksOf, inChunks, lowerTriangle, outOfChunks, visibleInChunks } from "./chunks.js";

/** Tokens per chunk, as transformers and the paper have it. */
const chunkLength = 64;

/** What the gated delta rule reads, all f32. */
export interface DeltaInputs {
  /** [batch, heads, seq, keyDim], of length 1/√keyDim. */
  readonly queries: Tensor;
  /** [batch, heads, seq, keyDim], of length 1. */
  readonly keys: Tensor;
  /** [batch, heads, seq, valueDim]. */
  readonly values: Tensor;
  /** The logarithm g of what remains of the state, at most 0; [batch, heads, seq]. */
  readonly decay: Tensor;
  /** How much of the value at a key is replaced, 0 to 1; [batch, heads, seq]. */
  readonly beta: Tensor;
}

/** What a recurrence gives. */
export interface Recurred {
  /** [batch, heads, seq, valueDim]. */
  readonly output: Tensor;
  /** Behind the last token, [batch, heads, keyDim, valueDim]. */
  readonly state: Tensor;
}

/**
 * The gated delta rule (Yang et al. 2024, "Gated Delta Networks", eq. 10), token by token from `state` or zeros: S ← e^g S, then
 * S ← S + k (β (v − Sᵀ k))ᵀ, and o = Sᵀ q. For few tokens.
 */
export function recurrentGatedDelta({ queries, keys, values, decay, beta }: DeltaInputs, state: Tensor | null): Recurred {
  const [batch = 0, heads = 0, tokens = 0, keyDim = 0] = keys.shape;
  let s = state ?? zeros([batch, heads, keyDim, values.shape[3] ?? 0], { device: keys.device });
  const outputs: Tensor[] = [];
  for (let token = 0; token < tokens; token++) {
    const of = (x: Tensor): Tensor => x.narrow(2, token, 1);
    const key = of(keys);
    const decayed = s.mul(of(decay).exp().unsqueeze(3));
    const change = of(values).sub(key.matmul(decayed)).mul(of(beta).unsqueeze(3));
    s = decayed.add(key.t().mul(change));
    outputs.push(of(queries).matmul(s));
  }
  return { output: concat(outputs, 2), state: s };
}

/**
 * The gated delta rule in chunks of 64 tokens, from `state` or zeros: what `recurrentGatedDelta` gives, by products of matrices (Yang et
 * al. 2024, "Parallelizing Linear Transformers with the Delta Rule over Sequence Length", §3.2). With D the decays from token to token,
 * L = tril(diag(β) K Kᵀ ∘ D, −1) and T = (I + L)⁻¹, a chunk replaces the values U = T (β V) − T (β e^G K) S. `starts`, i32 [batch, seq]:
 * the first token of each token's row where rows are packed, each of which begins with zeros. Time and memory are linear in the tokens.
 */
export function chunkedGatedDelta(inputs: DeltaInputs, state: Tensor | null, starts: Tensor | null = null): Recurred {
  const { device, shape } = inputs.keys;
  const [, , tokens = 0, keyDim = 0] = shape;
  const chunks = chunksOf(tokens, chunkLength);
  const split = (x: Tensor): Tensor => inChunks(x, chunks);
  const [queries, keys, values] = [split(inputs.queries), split(inputs.keys), split(inputs.values)];
  const beta = split(inputs.beta.unsqueeze(3));
  const decays = chunkDecays(split(inputs.decay.unsqueeze(3)).squeeze(4), visibleInChunks(chunks, starts, device));

  const replaced = keys.mul(beta);
  const overlaps = replaced
    .matmul(keys.t())
    .mul(decays.within)
    .mul(lowerTriangle(chunks.length, device, true).cast("f32"));
  const inverse = inverseUnitLower(overlaps);
  const fresh = inverse.matmul(values.mul(beta));
  const known = inverse.matmul(replaced.mul(decays.before));
  const late = keys.mul(decays.behind).t();
  const states = scanChunks(
    { a: eye(keyDim, { device }).mul(decays.across).sub(late.matmul(known)), b: late.matmul(fresh), isScalar: false },
    state?.unsqueeze(2) ?? null,
  );
  const changes = fresh.sub(known.matmul(states.before));
  const inside = queries.matmul(keys.t()).mul(decays.within).matmul(changes);
  const output = queries.mul(decays.before).matmul(states.before).add(inside);
  return { output: outOfChunks(output, tokens), state: states.last.squeeze(2) };
}

/**
 * (I + L)⁻¹ for strictly lower L [..., n, n]. The inverses of the blocks of two, four, … along the diagonal follow from those of half
 * the size: T ← T − T (L between the halves) T, which is as stable as substitution. One step of Newton's, 2 T − T (I + L) T, changes
 * nothing but the gradient, which is exact through it: −Tᵀ dT Tᵀ.
 */
export function inverseUnitLower(lower: Tensor): Tensor {
  const n = lower.shape[lower.rank - 1] ?? 0;
  const identity = eye(n, { device: lower.device });
  if (n === 1) return lower.add(1);
  const constant = lower.detach();
  let inverse: Tensor | null = null;
  for (let half = 1; half < n; half *= 2) {
    const between = constant.mul(betweenHalves(n, half, lower));
    inverse = inverse ? inverse.sub(inverse.matmul(between).matmul(inverse)) : identity.sub(between);
  }
  const found = (inverse ?? identity).detach();
  return found.mul(2).sub(found.matmul(lower.add(identity)).matmul(found));
}

/** 1 where row and column are in one block of 2 · half, the row in its second half and the column in its first: f32 [n, n]. */
function betweenHalves(n: number, half: number, { device }: Tensor): Tensor {
  const block = arange(n, { device }).intDivide(half);
  const [row, column] = [block.unsqueeze(1), block.unsqueeze(0)];
  return row.mod(2).equal(1).and(row.sub(1).equal(column)).cast("f32");
}
