import { concat, type Generator, type Tensor, zeros } from "@lowrank/tensor";
import { type NamedTensors, parameterOf } from "./encoder.js";

/** Sizes of a bidirectional LSTM. */
export interface LstmSizes {
  /** Entries of an input. */
  readonly inputSize: number;
  /** Entries of a state; the output has twice as many. */
  readonly hiddenSize: number;
  readonly layers: number;
}

const directions = ["", "_reverse"] as const;

/** Parameters under torch's names, all uniform in ±1/√hiddenSize as torch.nn.LSTM starts. */
export function lstm(name: string, { inputSize, hiddenSize, layers }: LstmSizes, generator: Generator): NamedTensors {
  const bound = 1 / Math.sqrt(hiddenSize);
  const parameters: Record<string, Tensor> = {};
  for (let layer = 0; layer < layers; layer++) {
    for (const direction of directions) {
      const add = (what: string, shape: readonly number[]): void => {
        parameters[`${name}.${what}_l${layer}${direction}`] = generator.uniform(shape, -bound, bound);
      };
      add("weight_ih", [4 * hiddenSize, layer === 0 ? inputSize : 2 * hiddenSize]);
      add("weight_hh", [4 * hiddenSize, hiddenSize]);
      add("bias_ih", [4 * hiddenSize]);
      add("bias_hh", [4 * hiddenSize]);
    }
  }
  return parameters;
}

/**
 * Runs a bidirectional LSTM (Hochreiter & Schmidhuber 1997; with a forget gate) over one sequence, [seq, inputSize] → [seq, 2 hiddenSize],
 * unrolled into the graph. `between` stands between layers: dropout. torch.nn.LSTM(bidirectional=True).
 */
export function throughLstm(
  parameters: NamedTensors,
  name: string,
  { hiddenSize, layers }: LstmSizes,
  x: Tensor,
  between: (x: Tensor) => Tensor,
): Tensor {
  let sequence = x;
  for (let layer = 0; layer < layers; layer++) {
    const input = layer === 0 ? sequence : between(sequence);
    const passes = directions.map((direction) => {
      const at = (what: string): Tensor => parameterOf(parameters, `${name}.${what}_l${layer}${direction}`);
      const gates = input.matmul(at("weight_ih").t()).add(at("bias_ih")).add(at("bias_hh"));
      return unrolled(gates, at("weight_hh").t(), hiddenSize, direction === "_reverse");
    });
    sequence = concat(passes, 1);
  }
  return sequence;
}

/**
 * One direction over what the inputs give to the gates, [seq, 4 hidden], in torch's order input, forget, cell, output:
 * c = σ(f) c + σ(i) tanh(g), h = σ(o) tanh(c). Gives every h, [seq, hidden].
 */
function unrolled(gates: Tensor, recurrent: Tensor, hiddenSize: number, isReverse: boolean): Tensor {
  const length = gates.sizeAt(0);
  let hidden = zeros([1, hiddenSize], { device: gates.device });
  let cell = hidden;
  const states: Tensor[] = [];
  for (let step = 0; step < length; step++) {
    const position = isReverse ? length - 1 - step : step;
    const own = gates.narrow(0, position, 1).add(hidden.matmul(recurrent));
    const [input, forget, candidate, output] = own.split(4, 1) as [Tensor, Tensor, Tensor, Tensor]; // split(4) gives four
    cell = forget.sigmoid().mul(cell).add(input.sigmoid().mul(candidate.tanh()));
    hidden = output.sigmoid().mul(cell.tanh());
    states[position] = hidden;
  }
  return concat(states, 0);
}
