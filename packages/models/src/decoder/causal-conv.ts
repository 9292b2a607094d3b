import { concat, dynamicSlice, type Tensor } from "@lowrank/tensor";

/** A depthwise causal convolution's weights: each channel has a kernel of its own over its own past. */
export interface DepthwiseKernel {
  /** [channels, 1, size], as torch.nn.Conv1d has it; the last tap is of the present token. */
  readonly weight: Tensor;
  /** [channels]. */
  readonly bias: Tensor | null;
}

/** What stands in front of the tokens of a convolution. */
export interface ConvContext {
  /** The inputs before the first token, [batch, size − 1, channels]; zeros when null. */
  readonly before: Tensor | null;
  /** i32 [batch, seq]: each token's position in its row, where rows are packed and none sees another. */
  readonly positions: Tensor | null;
}

/** y[t, c] = Σ w[c, j] x[t − size + 1 + j, c] + b[c]: x [batch, seq, channels] → the same shape. torch.nn.Conv1d with groups = channels. */
export function causalConv(x: Tensor, { weight, bias }: DepthwiseKernel, { before, positions }: ConvContext): Tensor {
  const [channels = 0, , size = 0] = weight.shape;
  const [, tokens = 0] = x.shape;
  const extended = withPast(x, size - 1, before);
  const taps = weight.reshape([channels, size]);
  let sum: Tensor | null = bias;
  for (let tap = 0; tap < size; tap++) {
    const distance = size - 1 - tap;
    const product = extended.narrow(1, tap, tokens).mul(taps.narrow(1, tap, 1).reshape([channels]));
    const seen = positions && distance > 0 ? product.mul(positions.greaterEqual(distance).cast("f32").unsqueeze(2)) : product;
    sum = sum ? seen.add(sum) : seen;
  }
  return sum as Tensor;
}

/** The inputs that a later pass needs in front of it, [batch, size − 1, channels]. `counts`, i32 [batch]: how many tokens of each row count; all when null. */
export function convStateAfter(x: Tensor, size: number, before: Tensor | null, counts: Tensor | null): Tensor {
  const [batch = 0, tokens = 0, channels = 0] = x.shape;
  const extended = withPast(x, size - 1, before);
  if (!counts) return extended.narrow(1, tokens, size - 1);
  const starts = counts.reshape([batch, 1]).pad([
    [0, 0],
    [0, 1],
  ]);
  return dynamicSlice(extended, starts, [size - 1, channels]);
}

function withPast(x: Tensor, length: number, before: Tensor | null): Tensor {
  if (before) return concat([before, x], 1);
  return x.pad([
    [0, 0],
    [length, 0],
    [0, 0],
  ]);
}
