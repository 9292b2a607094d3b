import { arange, oneHot, scatterAdd, type Tensor } from "@lowrank/tensor";
import { cumulativeSum } from "./chunks.js";

/** Rows per block at most: as many as make reading an expert's weight worth while. */
const mostRows = 64;

/**
 * Where the tokens of each expert go: rows sorted by expert, in blocks of equal size each of which has one expert, so that the products
 * of all experts are one batched product whose cost follows the tokens and not the experts.
 */
export interface Dispatch {
  readonly blocks: number;
  /** Rows per block. */
  readonly rows: number;
  /** i32 [blocks]: each block's expert. */
  readonly experts: Tensor;
  /** i32 [blocks · rows]: the token in each row; rows that no token takes hold some token, and nobody reads them. */
  readonly tokens: Tensor;
  /** i32 [tokens, choices]: the row of each token with each of its experts. */
  readonly rowOf: Tensor;
}

/** Sums over all rows in front of each row: x f32 [rows, columns], integers below 2²⁴. */
function sumsBefore(x: Tensor): Tensor {
  const [rows = 0, columns = 0] = x.shape;
  const length = Math.min(rows, 128);
  const count = Math.ceil(rows / length);
  const chunks = x
    .pad([
      [0, count * length - rows],
      [0, 0],
    ])
    .reshape([count, length, columns])
    .permute([0, 2, 1]);
  const inside = cumulativeSum(chunks).permute([0, 2, 1]);
  const totals = inside.narrow(1, length - 1, 1).reshape([count, columns]);
  const upTo = count === 1 ? inside : inside.add(sumsBefore(totals).reshape([count, 1, columns]));
  return upTo
    .reshape([count * length, columns])
    .narrow(0, 0, rows)
    .sub(x);
}

/** Sorts tokens by the experts that they chose, `chosen` i32 [tokens, choices], of so many experts. */
export function dispatch(chosen: Tensor, experts: number): Dispatch {
  const { device } = chosen;
  const [tokens = 0, choices = 0] = chosen.shape;
  const count = tokens * choices;
  // About one block an expert where tokens are few; a power of two, so that lengths that differ a little share their kernels.
  const rows = Math.min(mostRows, 2 ** Math.floor(Math.log2(Math.max(1, count / experts))));
  // Most blocks where as many experts as can be have a row at least, and every other row fills up a block.
  const busy = Math.min(experts, count);
  const blocks = busy + Math.floor((count - busy) / rows);
  const isChosen = oneHot(chosen.reshape([count]), experts);
  const before = sumsBefore(isChosen);
  const blocksOf = isChosen
    .sum(0, { keepDims: true })
    .add(rows - 1)
    .div(rows)
    .floor();
  const ends = cumulativeSum(blocksOf);
  const row = before.add(ends.sub(blocksOf).mul(rows)).mul(isChosen).sum(1).cast("i32");
  const taken = scatterAdd(row, arange(count, { device, dtype: "f32" }).reshape([count, 1]), blocks * rows);
  const block = arange(blocks, { device, dtype: "f32" }).reshape([blocks, 1]);
  return {
    blocks,
    rows,
    experts: ends
      .lessEqual(block)
      .cast("i32")
      .sum(1)
      .minimum(experts - 1)
      .detach(),
    tokens: taken
      .reshape([blocks * rows])
      .cast("i32")
      .intDivide(choices)
      .detach(),
    rowOf: row.reshape([tokens, choices]).detach(),
  };
}

/** Tokens [tokens, width] in the rows of the blocks, [blocks, rows, width]. */
export function toBlocks(x: Tensor, { tokens, blocks, rows }: Dispatch): Tensor {
  return x.gather(tokens, 0).reshape([blocks, rows, x.shape[1] ?? 0]);
}

/** Each block times its expert's matrix: x [blocks, rows, in], weight [experts, in, out] (a view of what is stored) → [blocks, rows, out]. */
export function groupedProduct(x: Tensor, weight: Tensor, { experts }: Dispatch): Tensor {
  return x.matmul(weight.gather(experts, 0).cast("f32"));
}

/** What the experts gave, [blocks, rows, width], summed per token with its weights, [tokens, choices]: [tokens, width]. */
export function fromBlocks(y: Tensor, weights: Tensor, { rowOf, blocks, rows }: Dispatch): Tensor {
  const width = y.shape[2] ?? 0;
  return y
    .reshape([blocks * rows, width])
    .gather(rowOf, 0)
    .mul(weights.unsqueeze(2))
    .sum(1);
}
