import type { Attributes } from "../graph/node.js";
import type { Tensor } from "../graph/tensor.js";
import { isFloat } from "../tensor/dtype.js";
import { ShapeError, showShape } from "../tensor/errors.js";
import type { Shape } from "../tensor/shape.js";
import { defineComposite } from "./composite.js";
import { matmul } from "./matmul.js";
import { expand, flip, pad, permute, reshape, slice } from "./movement.js";

/** A number for both axes, or one for rows and one for columns. */
export type Pair = number | readonly [rows: number, columns: number];

export interface Conv2dOptions {
  /** Steps between neighbouring windows; 1 when absent. */
  readonly stride?: Pair;
  /** Zeros on either side; 0 when absent. */
  readonly padding?: Pair;
  /** Steps between neighbouring elements of a window; 1 when absent. */
  readonly dilation?: Pair;
  /** Channels are in so many groups, each of which sees its own inputs only; 1 when absent. */
  readonly groups?: number;
}

/** What a convolution does along one of its two axes, as in jax.lax.conv_general_dilated: negative padding takes elements away. */
interface Window {
  readonly kernel: number;
  readonly stride: number;
  readonly low: number;
  readonly high: number;
  /** Steps between neighbours of the input, with zeros in between. */
  readonly spread: number;
  readonly dilation: number;
}

/** Positions of the windows along an axis of `size`. */
function positions(size: number, { kernel, stride, low, high, spread, dilation }: Window): number {
  const padded = spread * (size - 1) + 1 + low + high;
  return Math.max(0, Math.floor((padded - dilation * (kernel - 1) - 1) / stride) + 1);
}

function attributesOf([rows, columns]: readonly [Window, Window], groups: number): Attributes {
  const named = (axis: string, window: Window): [string, number][] => Object.entries(window).map(([name, value]) => [axis + name, value]);
  return { groups, ...Object.fromEntries([...named("rows.", rows), ...named("columns.", columns)]) };
}

function windowsOf(attributes: Attributes): readonly [Window, Window] {
  const window = (axis: string): Window => {
    const of = (name: keyof Window): number => Number(attributes[`${axis}.${name}`]);
    return {
      kernel: of("kernel"),
      stride: of("stride"),
      low: of("low"),
      high: of("high"),
      spread: of("spread"),
      dilation: of("dilation"),
    };
  };
  return [window("rows"), window("columns")];
}

/** The last two axes with zeros between neighbours and around them, or without what negative padding takes away. */
function surrounded(x: Tensor, windows: readonly [Window, Window]): Tensor {
  const leading = x.shape.slice(0, -2);
  const [height = 1, width = 1] = x.shape.slice(-2);
  const [rows, columns] = windows;
  let result = x;
  if (rows.spread > 1 || columns.spread > 1) {
    const apart = reshape(x, [...leading, height, 1, width, 1]);
    const none = [...leading.map(() => [0, 0] as const), [0, 0] as const];
    const wide = pad(apart, [...none, [0, rows.spread - 1], [0, 0], [0, columns.spread - 1]]);
    const all = reshape(wide, [...leading, height * rows.spread, width * columns.spread]);
    result = slice(all, [...leading.map(() => null), [0, (height - 1) * rows.spread + 1], [0, (width - 1) * columns.spread + 1]]);
  }
  const sizes = result.shape.slice(-2);
  result = slice(result, [
    ...leading.map(() => null),
    ...windows.map(({ low, high }, i) => [Math.max(0, -low), (sizes[i] ?? 1) - Math.max(0, -high)] as const),
  ]);
  const widths = windows.map(({ low, high }) => [Math.max(0, low), Math.max(0, high)] as const);
  return widths.every(([low, high]) => low === 0 && high === 0) ? result : pad(result, [...leading.map(() => [0, 0] as const), ...widths]);
}

/**
 * An axis as its windows: [..., size, ...] → [..., kernel, count, ...], whose element [k, i] is element k · dilation + i · stride. A view, in
 * which a row repeats the axis from `dilation` elements further on: the axis repeated, cut in rows that are so much longer.
 */
function unfolded(x: Tensor, axis: number, { kernel, stride, dilation }: Window, count: number): Tensor {
  const size = x.shape[axis] ?? 1;
  const [before, after] = [x.shape.slice(0, axis), x.shape.slice(axis + 1)];
  const all = before.map(() => null);
  const times = Math.ceil((kernel * (size + dilation)) / size);
  const repeated = expand(reshape(x, [...before, 1, size, ...after]), [...before, times, size, ...after]);
  const line = slice(reshape(repeated, [...before, times * size, ...after]), [...all, [0, kernel * (size + dilation)]]);
  const rows = reshape(line, [...before, kernel, size + dilation, ...after]);
  return slice(rows, [...all, null, [0, (count - 1) * stride + 1, stride]]);
}

/** What each window sees: [batch, channels, ...] → [batch, channels, kernel rows, rows, kernel columns, columns]. */
function patchesOf(x: Tensor, windows: readonly [Window, Window]): Tensor {
  const [height = 1, width = 1] = x.shape.slice(-2);
  const [rows, columns] = windows;
  const around = surrounded(x, windows);
  return unfolded(unfolded(around, 2, rows, positions(height, rows)), 4, columns, positions(width, columns));
}

/** out[b, o, i, j] = Σ weight[o, c, k, l] · input[b, c, i · stride + k · dilation, …]: weight times patches, group by group. */
const convolution = defineComposite("conv2d", {
  outputs: ([x = [], weight = []], attributes) => {
    const [rows, columns] = windowsOf(attributes);
    return [{ shape: [x[0] ?? 1, weight[0] ?? 1, positions(x[2] ?? 1, rows), positions(x[3] ?? 1, columns)], dtype: "f32" }];
  },
  decompose: ([x, weight], attributes) => {
    if (!x || !weight) throw new Error("conv2d: takes an input and a weight.");
    const groups = Number(attributes["groups"]);
    const [batch = 1, channels = 1] = x.shape;
    const [outputs = 1, own = 1, kernelRows = 1, kernelColumns = 1] = weight.shape;
    const patches = patchesOf(x, windowsOf(attributes));
    const [, , , rows = 1, , columns = 1] = patches.shape;
    const depth = own * kernelRows * kernelColumns;
    const right = reshape(permute(patches, [0, 1, 2, 4, 3, 5]), [
      batch,
      groups,
      (channels / groups) * kernelRows * kernelColumns,
      rows * columns,
    ]);
    const left = reshape(weight, [1, groups, outputs / groups, depth]);
    return [reshape(matmul(left, right), [batch, outputs, rows, columns])];
  },
});

/** dL/dweight[o, c, k, l] = Σ dy[b, o, i, j] · input[b, c, i · stride + k · dilation, …]: dy times patches, group by group. */
const weightGradient = defineComposite("conv2dWeightGradient", {
  outputs: ([x = [], dy = []], attributes) => {
    const [rows, columns] = windowsOf(attributes);
    return [{ shape: [dy[1] ?? 1, (x[1] ?? 1) / Number(attributes["groups"]), rows.kernel, columns.kernel], dtype: "f32" }];
  },
  decompose: ([x, dy], attributes) => {
    if (!x || !dy) throw new Error("conv2dWeightGradient: takes an input and a gradient.");
    const groups = Number(attributes["groups"]);
    const [batch = 1, channels = 1] = x.shape;
    const [, outputs = 1, rows = 1, columns = 1] = dy.shape;
    const own = channels / groups;
    const patches = patchesOf(x, windowsOf(attributes));
    const [, , kernelRows = 1, , kernelColumns = 1] = patches.shape;
    const depth = batch * rows * columns;
    const left = permute(reshape(dy, [batch, groups, outputs / groups, rows * columns]), [1, 2, 0, 3]);
    const right = permute(reshape(patches, [batch, groups, own, kernelRows, rows, kernelColumns, columns]), [1, 0, 4, 6, 2, 3, 5]);
    const product = matmul(
      reshape(left, [groups, outputs / groups, depth]),
      reshape(right, [groups, depth, own * kernelRows * kernelColumns]),
    );
    return [reshape(product, [outputs, own, kernelRows, kernelColumns])];
  },
});

function only(results: readonly Tensor[]): Tensor {
  return results[0] as Tensor; // these composites have one result
}

/** The gradient of a convolution's input: a convolution of dy, its elements `stride` apart, with the kernel reversed and its channels exchanged. */
export function conv2dInputGradient(dy: Tensor, weight: Tensor, input: Shape, attributes: Attributes): Tensor {
  const groups = Number(attributes["groups"]);
  const [outputs = 1, own = 1, kernelRows = 1, kernelColumns = 1] = weight.shape;
  const inGroups = reshape(weight, [groups, outputs / groups, own, kernelRows, kernelColumns]);
  const exchanged = reshape(flip(flip(permute(inGroups, [0, 2, 1, 3, 4]), 3), 4), [
    groups * own,
    outputs / groups,
    kernelRows,
    kernelColumns,
  ]);
  const windows = windowsOf(attributes).map((window, i): Window => {
    const { kernel, stride, low, spread, dilation } = window;
    const reach = dilation * (kernel - 1);
    const [size, count] = [input[2 + i] ?? 1, dy.shape[2 + i] ?? 1];
    const before = reach - low;
    const high = spread * (size - 1) + 1 + reach - before - (stride * (count - 1) + 1);
    return { kernel, stride: spread, low: before, high, spread: stride, dilation };
  });
  return only(convolution([dy, exchanged], attributesOf(windows as unknown as readonly [Window, Window], groups)));
}

/** The gradient of a convolution's weight. */
export function conv2dWeightGradient(x: Tensor, dy: Tensor, attributes: Attributes): Tensor {
  return only(weightGradient([x, dy], attributes));
}

/** The convolution that a composite node stands for, of other tensors of the same shapes. */
export function convolved(x: Tensor, weight: Tensor, attributes: Attributes): Tensor {
  return only(convolution([x, weight], attributes));
}

function pairOf(name: string, value: Pair, least: number): readonly [number, number] {
  const pair = typeof value === "number" ? ([value, value] as const) : value;
  if (pair.length !== 2 || pair.some((each) => !Number.isInteger(each) || each < least)) {
    throw new ShapeError(
      `conv2d: ${name} ${JSON.stringify(value)} is not an integer of at least ${least}, or two. Give one or [rows, columns].`,
    );
  }
  return pair;
}

/**
 * Convolution (cross-correlation) of images: x [batch, channels, height, width], weight [outputs, channels / groups, rows, columns], bias
 * [outputs]; the result is [batch, outputs, …], f32. Forward and for both gradients it is a matrix product over patches that are read where
 * they lie and never stored (implicit GEMM, Chetlur et al. 2014). Throws ShapeError where shapes or options do not fit.
 * torch.nn.functional.conv2d.
 */
export function conv2d(x: Tensor, weight: Tensor, bias: Tensor | null = null, options: Conv2dOptions = {}): Tensor {
  const { groups = 1 } = options;
  const [stride, padding, dilation] = [
    pairOf("stride", options.stride ?? 1, 1),
    pairOf("padding", options.padding ?? 0, 0),
    pairOf("dilation", options.dilation ?? 1, 1),
  ];
  if (x.rank !== 4 || weight.rank !== 4) {
    throw new ShapeError(
      `conv2d: needs x [batch, channels, height, width] and weight [outputs, channels / groups, rows, columns], got ${showShape(x.shape)} and ${showShape(weight.shape)}. Add the missing axes with unsqueeze().`,
      [x.shape, weight.shape],
    );
  }
  const [, channels = 0] = x.shape;
  const [outputs = 0, own = 0] = weight.shape;
  if (!Number.isInteger(groups) || groups < 1 || channels !== own * groups || outputs % groups !== 0) {
    throw new ShapeError(
      `conv2d: ${groups} groups do not divide ${channels} channels of x ${showShape(x.shape)} and ${outputs} outputs of weight ${showShape(weight.shape)}. The weight's second axis is channels / groups.`,
      [x.shape, weight.shape],
    );
  }
  if (bias && (bias.rank !== 1 || bias.shape[0] !== outputs)) {
    throw new ShapeError(`conv2d: bias ${showShape(bias.shape)} is not one number for each of ${outputs} outputs.`, [bias.shape]);
  }
  const windows = [0, 1].map((i): Window => {
    const around = padding[i] ?? 0;
    return { kernel: weight.shape[2 + i] ?? 1, stride: stride[i] ?? 1, low: around, high: around, spread: 1, dilation: dilation[i] ?? 1 };
  }) as unknown as readonly [Window, Window];
  if (windows.some((window, i) => window.kernel < 1 || positions(x.shape[2 + i] ?? 1, window) < 1)) {
    throw new ShapeError(
      `conv2d: the kernel of weight ${showShape(weight.shape)} does not fit into x ${showShape(x.shape)}. Take more padding or less dilation.`,
      [x.shape, weight.shape],
    );
  }
  const float = (t: Tensor): Tensor => (isFloat(t.dtype) ? t : t.cast("f32"));
  const product = convolved(float(x), float(weight), attributesOf(windows, groups));
  return bias ? product.add(reshape(bias, [outputs, 1, 1])) : product;
}
