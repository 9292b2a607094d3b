import { nn } from "@lowrank/autograd";
import { type Device, Generator, type Tensor } from "@lowrank/tensor";

/** A stand-in for a block of a language model: two named projections, one of them stored as GPT-2's Conv1D, and an output layer. */
export class TinyModel extends nn.Module {
  readonly config = { model_type: "llama" };
  readonly layers: Block[];
  readonly lm_head: nn.Linear;

  constructor(
    readonly device: Device,
    seed = 1,
    blocks = 2,
  ) {
    super();
    const generator = new Generator(device, seed);
    this.layers = Array.from({ length: blocks }, () => new Block(generator));
    this.lm_head = nn.Linear.init(8, 5, { generator, bias: false });
  }

  forward(x: Tensor): Tensor {
    return this.lm_head.forward(this.layers.reduce((hidden, block) => block.forward(hidden), x));
  }

  /** Mean squared distance to y. */
  loss(x: Tensor, y: Tensor): Tensor {
    return this.forward(x).sub(y).square().mean();
  }
}

class Block extends nn.Module {
  readonly q_proj: nn.Linear;
  readonly c_fc: nn.Linear;

  constructor(generator: Generator) {
    super();
    this.q_proj = nn.Linear.init(8, 8, { generator, bias: false });
    const plain = nn.Linear.init(8, 8, { generator });
    this.c_fc = new nn.Linear(plain.weight, plain.bias, { isTransposed: true });
  }

  forward(x: Tensor): Tensor {
    return x.add(this.c_fc.forward(this.q_proj.forward(x).tanh()));
  }
}

/** Random rows [count, width]. */
export function rows(device: Device, count: number, width: number, seed: number): Tensor {
  return new Generator(device, seed).normal([count, width]);
}
