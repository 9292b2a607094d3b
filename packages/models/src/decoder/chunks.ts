import { type Device, Tensor } from "@lowrank/tensor";

/** Tokens cut into chunks, each of which is treated by products of matrices at once. */
export interface Chunks {
  readonly count: number;
  /** Tokens per chunk. */
  readonly length: number;
}

/** Chunks of at most `most` tokens. */
export function chunksOf(tokens: number, most: number): Chunks {
  const length = Math.max(1, Math.min(most, tokens));
  return { count: Math.ceil(tokens / length), length };
}

/** [batch, heads, seq, dim] → [batch, heads, chunks, length, dim], with zeros behind the last token. */
export function inChunks(x: Tensor, { count, length }: Chunks): Tensor {
  const [batch = 0, heads = 0, tokens = 0, dim = 0] = x.shape;
  const full = x.pad([
    [0, 0],
    [0, 0],
    [0, count * length - tokens],
    [0, 0],
  ]);
  return full.reshape([batch, heads, count, length, dim]);
}

/** [batch, heads, chunks, length, dim] → [batch, heads, seq, dim]. */
export function outOfChunks(x: Tensor, tokens: number): Tensor {
  const [batch = 0, heads = 0, count = 0, length = 0, dim = 0] = x.shape;
  return x.reshape([batch, heads, count * length, dim]).narrow(2, 0, tokens);
}

const iota = (shape: readonly number[], axis: number, device: Device): Tensor =>
  new Tensor({ op: "iota", axis, shape, dtype: "i32" }, device);

/** True where row i ≥ column j (or >, where `isStrict`): bool [size, size]. */
export function lowerTriangle(size: number, device: Device, isStrict = false): Tensor {
  const [row, column] = [iota([size, size], 0, device), iota([size, size], 1, device)];
  return isStrict ? row.greater(column) : row.greaterEqual(column);
}

/** Sums from the first to each element of the last axis, f32. torch.cumsum. */
export function cumulativeSum(x: Tensor): Tensor {
  const length = x.shape[x.rank - 1] ?? 0;
  return x.matmul(lowerTriangle(length, x.device).cast("f32").t());
}

/** What may be seen of what, where decays act: f32 of 0 and 1, which broadcast to [batch, heads, chunks, length, length] or [..., 1]. */
export interface Visible {
  /** Of a token by itself and by later ones of its chunk and row. */
  readonly within: Tensor;
  /** Of the state in front of a chunk by its tokens; null where all see it. */
  readonly before: Tensor | null;
  /** Of a token by the state behind its chunk. */
  readonly behind: Tensor | null;
  /** Of the state in front of a chunk by the state behind it, [..., 1, 1]. */
  readonly across: Tensor | null;
}

/**
 * The visibility in chunks. `starts`, i32 [batch, seq]: the first token of each token's row where rows are packed; no row sees another.
 * The state of all zeros in front of the first chunk may be seen by all.
 */
export function visibleInChunks(chunks: Chunks, starts: Tensor | null, device: Device): Visible {
  const lower = lowerTriangle(chunks.length, device);
  if (!starts) return { within: lower.cast("f32"), before: null, behind: null, across: null };
  const [batch = 0, tokens = 0] = starts.shape;
  const row = inChunks(starts.reshape([batch, 1, tokens, 1]), chunks);
  const last = row.narrow(3, chunks.length - 1, 1);
  // The row of the token in front of each chunk; in front of the first, none.
  const previous = last.narrow(2, 0, chunks.count - 1).pad(
    [
      [0, 0],
      [0, 0],
      [1, 0],
      [0, 0],
      [0, 0],
    ],
    -1,
  );
  const equal = (a: Tensor, b: Tensor): Tensor => a.equal(b).cast("f32");
  return {
    within: equal(row, row.t()).mul(lower.cast("f32")),
    before: equal(row, previous),
    behind: equal(row, last),
    across: equal(last, previous),
  };
}

/** Decays of a chunk out of their logarithms [batch, heads, chunks, length], with what is visible: each as it multiplies. */
export interface ChunkDecays {
  /** From token j to token i, 0 where j is not visible, [..., length, length]. */
  readonly within: Tensor;
  /** From the state in front to each token, [..., length, 1]. */
  readonly before: Tensor;
  /** From each token to the chunk's end, [..., length, 1]. */
  readonly behind: Tensor;
  /** Over the whole chunk, [..., 1, 1]. */
  readonly across: Tensor;
}

/** The decays of chunks; no exponential is of a positive number. */
export function chunkDecays(logarithms: Tensor, visible: Visible): ChunkDecays {
  const length = logarithms.shape[3] ?? 0;
  const total = cumulativeSum(logarithms).unsqueeze(4);
  const end = total.narrow(3, length - 1, 1);
  const seen = (x: Tensor, mask: Tensor | null): Tensor => (mask ? x.exp().mul(mask) : x.exp());
  return {
    within: total.sub(total.t()).minimum(0).exp().mul(visible.within),
    before: seen(total, visible.before),
    behind: seen(end.sub(total), visible.behind),
    across: seen(end, visible.across),
  };
}
