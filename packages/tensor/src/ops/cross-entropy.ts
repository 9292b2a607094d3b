import { applyBody, argument, recordBody } from "../graph/body.js";
import type { CompositeDefinition, CompositeOutput } from "../graph/composites.js";
import type { Attributes, Node } from "../graph/node.js";
import { Tensor } from "../graph/tensor.js";
import { ShapeError, showShape } from "../tensor/errors.js";
import { type Shape, sameShape } from "../tensor/shape.js";
import { defineComposite } from "./composite.js";
import { concat } from "./movement.js";
import { logsumexp, sum } from "./reduce.js";

/** The label that takes no part in a loss, as in PyTorch. */
export const ignoredLabel = -100;

/** logits[i, labels[i]]; 0 where the label is outside 0 … classes-1. */
function labelled(logits: Tensor, labels: Tensor): Tensor {
  const [rows = 0] = logits.shape;
  const position = new Tensor({ op: "iota", axis: 1, shape: logits.shape, dtype: "i32" }, logits.device);
  return sum(position.equal(labels.reshape([rows, 1])).where(logits, 0), -1);
}

/** Logits through a body, which is recorded for one row. */
function modified(logits: Tensor, body: Node | undefined, captures: readonly Tensor[]): Tensor {
  return body ? applyBody(body, [logits, ...captures]) : logits;
}

type Decomposition = CompositeDefinition["decompose"];

/** Bytes of logits that are computed at a time, and rows that a part has all the same: the weight is read anew for each. */
const partBytes = 32 * 2 ** 20;
const leastRows = 128;

/**
 * What the rows of some operands give part by part, so that the logits of all rows never exist at a time (Wijmans et al. 2024, "Cut Your
 * Losses", by rows). Results are put
 * one behind the other.
 */
function byParts(classes: number, operands: readonly Tensor[], each: (parts: readonly Tensor[]) => readonly Tensor[]): Tensor[] {
  const rows = operands[0]?.shape[0] ?? 0;
  const count = Math.ceil((rows * classes * 4) / partBytes);
  const partRows = Math.max(leastRows, Math.ceil(rows / Math.max(count, 1)));
  if (rows <= partRows) return [...each(operands)];
  const results: Tensor[][] = [];
  for (let start = 0; start < rows; start += partRows) {
    const length = Math.min(partRows, rows - start);
    for (const [i, result] of each(operands.map((operand) => operand.narrow(0, start, length))).entries()) (results[i] ??= []).push(result);
  }
  return results.map((parts) => concat(parts, 0));
}

const losses: Decomposition = ([hidden, weight, labels, ...captures], _attributes, [value] = []) => {
  if (!hidden || !weight || !labels) throw new Error("linearCrossEntropy: needs hidden, weight and labels.");
  return byParts(weight.shape[0] ?? 0, [hidden, labels], ([x, y]) => {
    const [part, partLabels] = [x as Tensor, y as Tensor];
    const logits = modified(part.matmul(weight.t()), value, captures);
    const total = logsumexp(logits, -1);
    return [partLabels.notEqual(ignoredLabel).where(total.sub(labelled(logits, partLabels)), 0), total];
  });
};

const gradients: Decomposition = ([hidden, weight, labels, total, dLoss, ...captures], { needsWeight }, [value, slope] = []) => {
  if (!hidden || !weight || !labels || !total || !dLoss) throw new Error("linearCrossEntropyBackward: needs five inputs.");
  let dWeight: Tensor | null = null;
  const [dHidden] = byParts(weight.shape[0] ?? 0, [hidden, labels, total, dLoss], (parts) => {
    const [x, partLabels, partTotal, partLoss] = parts as [Tensor, Tensor, Tensor, Tensor];
    const plain = x.matmul(weight.t());
    const logits = modified(plain, value, captures);
    const rows = logits.shape[0] ?? 0;
    const position = new Tensor({ op: "iota", axis: 1, shape: logits.shape, dtype: "i32" }, logits.device);
    const isLabel = position.equal(partLabels.reshape([rows, 1])).cast("f32");
    const share = partLabels.notEqual(ignoredLabel).where(partLoss, 0).reshape([rows, 1]);
    const dModified = logits
      .sub(partTotal.reshape([rows, 1]))
      .exp()
      .sub(isLabel)
      .mul(share);
    const dLogits = slope ? dModified.mul(modified(plain, slope, captures)) : dModified;
    if (needsWeight) {
      const term = dLogits.t().matmul(x);
      dWeight = dWeight ? dWeight.add(term) : term;
    }
    return [dLogits.matmul(weight)];
  });
  return [dHidden as Tensor, ...(dWeight ? [dWeight] : [])];
};

const perRow = ([hidden = []]: readonly Shape[]): CompositeOutput[] =>
  [0, 1].map(() => ({ shape: hidden.slice(0, 1), dtype: "f32" as const }));

const perOperand = ([hidden = [], weight = []]: readonly Shape[], { needsWeight }: Attributes): CompositeOutput[] =>
  [hidden, ...(needsWeight ? [weight] : [])].map((shape) => ({ shape, dtype: "f32" as const }));

/** Losses and their logsumexp, which the gradient reads: a backend need not compute it for labels of -100, whose probabilities may be 0. */
const forward = defineComposite("linearCrossEntropy", { outputs: perRow, decompose: losses, operands: [1] });
const backward = defineComposite("linearCrossEntropyBackward", { outputs: perOperand, decompose: gradients, operands: [1] });

/** Both at once, of hidden, weight, labels and dLoss: what the scheduler makes of a pair, for backends that compute the logits once. */
defineComposite("linearCrossEntropyTraining", {
  operands: [1],
  outputs: (shapes, attributes) => [...perRow(shapes), ...perOperand(shapes, attributes)],
  decompose([hidden, weight, labels, dLoss, ...captures], attributes, bodies) {
    if (!hidden || !weight || !labels || !dLoss) throw new Error("linearCrossEntropyTraining: needs four inputs.");
    const [loss, total] = losses([hidden, weight, labels, ...captures], attributes, bodies) as [Tensor, Tensor];
    return [loss, total, ...gradients([hidden, weight, labels, total, dLoss, ...captures], attributes, bodies)];
  },
});

/** What becomes of logits in front of the softmax. */
export interface LinearCrossEntropyOptions {
  /**
   * Element by element, as `scores` of attention: called once with logits [1, classes] that have no values yet and stand for those of any
   * row, and with the class of each, i32 [1, classes]; returns a tensor of their shape. What is not elementwise is computed from all
   * logits, which then exist at a time.
   */
  readonly logits?: (logits: Tensor, at: { readonly class: Tensor }) => Tensor;
}

/**
 * Cross-entropy of softmax(hidden weightᵀ) against labels, a loss a row, without keeping the logits.
 * hidden [rows, width], weight [classes, width], labels i32 [rows] (-100 gives loss 0); f32 [rows].
 * torch.nn.functional.cross_entropy(hidden @ weight.T, labels, reduction="none").
 */
export function linearCrossEntropy(hidden: Tensor, weight: Tensor, labels: Tensor, options: LinearCrossEntropyOptions = {}): Tensor {
  if (
    hidden.rank !== 2 ||
    weight.rank !== 2 ||
    hidden.shape[1] !== weight.shape[1] ||
    labels.size !== hidden.shape[0] ||
    labels.dtype !== "i32"
  ) {
    throw new ShapeError(
      `linearCrossEntropy: needs hidden [rows, width], weight [classes, width] and i32 labels [rows], got ${showShape(hidden.shape)}, ${showShape(weight.shape)} and ${labels.dtype} ${showShape(labels.shape)}.`,
      [hidden.shape, weight.shape, labels.shape],
    );
  }
  const flat = labels.reshape([labels.size]);
  const inputs = [hidden.cast("f32"), weight, flat] as const;
  if (!options.logits) return forward(inputs, {})[0] as Tensor;
  const { device } = hidden;
  const classes = new Tensor({ op: "iota", axis: 1, shape: [1, weight.sizeAt(0)], dtype: "i32" }, device);
  const recorded = recordBody(modify(argument(classes.shape, device), classes, options.logits), [classes]);
  if (recorded) {
    const captures = recorded.captures.map((node) => new Tensor(node, device));
    return forward([...inputs, ...captures], captureAttributes(captures.length), [recorded.body])[0] as Tensor;
  }
  const logits = modify(inputs[0].matmul(weight.t()), classes, options.logits);
  return flat.notEqual(ignoredLabel).where(logsumexp(logits, -1).sub(labelled(logits, flat)), 0);
}

/** Calls the function on logits [rows, classes]. Throws ShapeError for a result of another shape. */
function modify(logits: Tensor, classes: Tensor, change: NonNullable<LinearCrossEntropyOptions["logits"]>): Tensor {
  const result = change(logits, { class: classes });
  if (!sameShape(result.shape, logits.shape)) {
    throw new ShapeError(
      `linearCrossEntropy: logits returned ${showShape(result.shape)} for logits ${showShape(logits.shape)}. Return a tensor of the logits' shape, the same function for each row.`,
      [result.shape, logits.shape],
    );
  }
  return result.cast("f32");
}

const captureAttributes = (captures: number): Attributes => (captures > 0 ? { captures } : {});

/**
 * Gradients [dHidden] or [dHidden, dWeight] of `linearCrossEntropy`; inputs: hidden, weight, labels, logsumexp, dLoss, and what the body of
 * logits captured; `bodies` are that one and its slope.
 */
export function linearCrossEntropyBackward(inputs: readonly Tensor[], needsWeight: boolean, bodies?: readonly Node[]): Tensor[] {
  return backward(inputs, { needsWeight, ...captureAttributes(inputs.length - 5) }, bodies);
}

/** Mean cross-entropy of logits [rows, classes] against labels i32 [rows], over labels that are not -100. torch.nn.functional.cross_entropy. */
export function crossEntropy(logits: Tensor, labels: Tensor): Tensor {
  if (logits.rank !== 2 || labels.size !== logits.shape[0]) {
    throw new ShapeError(
      `crossEntropy: needs logits [rows, classes] and labels [rows], got ${showShape(logits.shape)} and ${showShape(labels.shape)}.`,
      [logits.shape, labels.shape],
    );
  }
  const flat = labels.reshape([labels.size]);
  const counts = flat.notEqual(ignoredLabel);
  const losses = counts.where(logsumexp(logits, -1).sub(labelled(logits.cast("f32"), flat)), 0);
  return sum(losses).div(sum(counts));
}
