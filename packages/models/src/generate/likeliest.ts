import { Tensor } from "@lowrank/tensor";

/** The likeliest tokens of each text, and how many there are; of more than fit, some are missing. */
export interface Likeliest {
  /** i32 [batch]. */
  readonly count: Tensor;
  /** i32 [batch, slots], and f32 of the same shape. */
  readonly ids: Tensor;
  readonly logits: Tensor;
}

/** Steps of the search for the k-th largest logit, each of which leaves a quarter of the interval: 24 bits of it together. */
const searchSteps = 12;
const width = 64;

/**
 * All logits from about the k-th largest on, in the order of their ids, without sorting: a search for a number that at least k logits
 * reach, and hardly more; then a place for each from sums of how many come before it, block by block. logits [batch, vocab]; k a number
 * on the device, so that one plan serves all that fit the slots.
 */
export function likeliest(logits: Tensor, k: Tensor, slots: number): Likeliest {
  const [batch = 0, vocab = 0] = logits.shape;
  const { device } = logits;
  const iota = (shape: readonly number[], axis: number): Tensor => new Tensor({ op: "iota", axis, shape, dtype: "i32" }, device);
  const least = threshold(logits, k.cast("f32"));
  // Blocks of 64 tokens, 64 of those in a group; f32 counts exactly up to 2^24.
  const groups = Math.ceil(vocab / width ** 2);
  const isIn = logits
    .greaterEqual(least)
    .cast("f32")
    .pad([
      [0, 0],
      [0, groups * width ** 2 - vocab],
    ]);
  const within = sumsSoFar(isIn.reshape([batch * groups * width, width]));
  const blocks = sumsSoFar(within.narrow(1, width - 1, 1).reshape([batch * groups, width]));
  const all = sumsSoFar(blocks.narrow(1, width - 1, 1).reshape([batch, groups]));
  // The slot's place among those before it, level by level: groups, blocks, tokens.
  const slot = iota([batch, slots], 1).cast("f32");
  const row = iota([batch, slots], 0);
  const group = placed(all.reshape([batch, 1, groups]).expand([batch, slots, groups]), slot);
  const groupRow = row.mul(groups).add(group.index);
  const block = placed(blocks.gather(groupRow), group.rest);
  const token = placed(within.gather(groupRow.mul(width).add(block.index)), block.rest);
  const ids = group.index
    .mul(width)
    .add(block.index)
    .mul(width)
    .add(token.index)
    .minimum(vocab - 1);
  return {
    count: all
      .narrow(1, groups - 1, 1)
      .reshape([batch])
      .cast("i32"),
    ids,
    logits: logits.reshape([batch * vocab]).gather(row.mul(vocab).add(ids)),
  };
}

/** A number [batch, 1] that at least k of each row reach, as large as the search finds. */
function threshold(logits: Tensor, k: Tensor): Tensor {
  const [batch = 0, vocab = 0] = logits.shape;
  let low = logits.min(1, { keepDims: true });
  let span = logits.max(1, { keepDims: true }).sub(low);
  const part = new Tensor({ op: "iota", axis: 1, shape: [1, 3], dtype: "i32" }, logits.device).add(1).cast("f32").mul(0.25);
  for (let i = 0; i < searchSteps; i++) {
    const tried = low.add(span.mul(part)).reshape([batch, 3, 1]);
    const reached = logits.reshape([batch, 1, vocab]).greaterEqual(tried).cast("f32").sum(2);
    const passed = reached.greaterEqual(k).cast("f32").sum(1, { keepDims: true });
    low = low.add(span.mul(passed.mul(0.25)));
    span = span.mul(0.25);
  }
  return low;
}

/** Sums of each row up to each column. */
function sumsSoFar(x: Tensor): Tensor {
  const size = x.sizeAt(-1);
  const iota = (axis: number): Tensor => new Tensor({ op: "iota", axis, shape: [size, size], dtype: "i32" }, x.device);
  return x.matmul(iota(0).lessEqual(iota(1)).cast("f32"));
}

/** Where in rows of sums so far [..., n] the element number `rank` (from 0) lies, and its number among those of that place. */
function placed(sums: Tensor, rank: Tensor): { readonly index: Tensor; readonly rest: Tensor } {
  const last = sums.sizeAt(-1) - 1;
  const isBefore = sums.lessEqual(rank.reshape([...rank.shape, 1]));
  const index = isBefore.cast("f32").sum(-1).cast("i32").minimum(last);
  // The largest of the sums before it is the number of all elements before its place.
  return { index, rest: rank.sub(isBefore.where(sums, 0).max(-1)) };
}
