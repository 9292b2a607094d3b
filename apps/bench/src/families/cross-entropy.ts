import { grad } from "@lowrank/autograd";
import { linearCrossEntropy, type Tensor } from "@lowrank/tensor";
import { at, type Case, dot, type Family, f32Bytes, ids, input, rowwise } from "./family.js";

/** Head and mean cross-entropy together; backward is the hidden rows' gradient, the forward pass included. */
function crossEntropyCase(rows: number, width: number, vocab: number, isBackward: boolean): Case {
  return {
    name: `${isBackward ? "forward + backward" : "forward"}, V ${vocab}`,
    size: vocab,
    curve: isBackward ? "forward + backward" : "forward",
    flops: 2 * rows * width * vocab * (isBackward ? 2 : 1) + 4 * rows * vocab,
    bytes: f32Bytes(rows * width * (isBackward ? 2 : 1), vocab * width, rows),
    inputs: [input(0, [rows, width]), input(1, [vocab, width]), ids(rows, vocab)],
    build([hidden, weight, labels]) {
      const loss = linearCrossEntropy(hidden as Tensor, weight as Tensor, labels as Tensor).mean();
      return isBackward ? grad(loss, [hidden as Tensor]) : [loss];
    },
    reference: ([hidden, weight, labels], positions) => {
      const logitsOf = rowwise((row) => {
        const logits = Float64Array.from({ length: vocab }, (_, j) =>
          dot(
            width,
            (i) => at(hidden, row * width + i),
            (i) => at(weight, j * width + i),
          ),
        );
        let [largest, total] = [Number.NEGATIVE_INFINITY, 0];
        for (const logit of logits) largest = Math.max(largest, logit);
        for (const logit of logits) total += Math.exp(logit - largest);
        return { logits, logTotal: Math.log(total) + largest };
      });
      if (isBackward) {
        return positions.map((position) => {
          const [row, column] = [Math.floor(position / width), position % width];
          const { logits, logTotal } = logitsOf(row);
          return dot(
            vocab,
            (j) => (Math.exp(at(logits, j) - logTotal) - (j === at(labels, row) ? 1 : 0)) / rows,
            (j) => at(weight, j * width + column),
          );
        });
      }
      let loss = 0;
      for (let row = 0; row < rows; row++) {
        const { logits, logTotal } = logitsOf(row);
        loss += (logTotal - at(logits, at(labels, row))) / rows;
      }
      return positions.map(() => loss);
    },
    tolerance: 2e-5,
    task: { task: "crossEntropy", rows, width, vocab, seed: 0, ...(isBackward ? { backward: true } : {}) },
  };
}

/** The language model's head and loss by vocabulary. */
export const crossEntropy: Family = {
  name: "cross-entropy",
  sizeLabel: "vocabulary",
  cases: (isQuick) =>
    (isQuick ? [512] : [512, 2048, 8192, 32768]).flatMap((vocab) =>
      [false, true].map((isBackward) => crossEntropyCase(isQuick ? 32 : 128, isQuick ? 64 : 256, vocab, isBackward)),
    ),
};
