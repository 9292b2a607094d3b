import { checkShape, type Shape } from "../tensor/shape.js";
import { tensor } from "./create.js";
import type { Device } from "./device.js";
import { Tensor } from "./tensor.js";
import { currentTrace } from "./trace.js";

/** What it takes to go on with the same random numbers: the key's two words and the number of draws so far. */
export interface GeneratorState {
  readonly key: readonly [number, number];
  readonly draws: number;
}

/**
 * Random numbers from a seed: Philox4x32-10 (Salmon et al. 2011), counter-based, so the same on every backend and for any number
 * of threads. Each draw has its own stream. Inside a compiled function the key's second word advances with every run.
 */
export class Generator {
  /** u32 [2]: seed, and the number of runs of compiled functions that drew from this generator. */
  readonly key: Tensor;
  #draws = 0;

  constructor(
    readonly device: Device,
    seed: number | GeneratorState,
  ) {
    const state: GeneratorState = typeof seed === "number" ? { key: [seed >>> 0, 0], draws: 0 } : seed;
    this.key = tensor([...state.key], { device, dtype: "u32" });
    this.#draws = state.draws;
  }

  /** Reads the state that `new Generator(device, state)` continues from. */
  async state(): Promise<GeneratorState> {
    const [seed = 0, runs = 0] = await this.key.data();
    return { key: [seed, runs], draws: this.#draws };
  }

  /** Uniform u32 words of the given shape. */
  bits(shape: Shape): Tensor {
    checkShape(shape, "bits");
    const { device } = this;
    // In memory, so that draws that are equal but for it are one kernel.
    const stream = tensor(currentTrace()?.nextStream(this) ?? this.#draws++, { device, dtype: "u32" }).node;
    return new Tensor({ op: "random", key: this.key.node, stream, shape: [...shape], dtype: "u32" }, device);
  }

  /** Uniform f32 in [low, high), 24 random bits each. torch.rand. */
  uniform(shape: Shape, low = 0, high = 1): Tensor {
    const unit = this.bits(shape)
      .shiftRight(8)
      .cast("f32")
      .mul(2 ** -24);
    return low === 0 && high === 1 ? unit : unit.mul(high - low).add(low);
  }

  /** Normal f32 by Box–Muller from two uniforms. torch.randn. */
  normal(shape: Shape, mean = 0, deviation = 1): Tensor {
    const radius = this.uniform(shape).neg().add(1).log().mul(-2).sqrt();
    const angle = this.uniform(shape).mul(2 * Math.PI);
    return radius.mul(angle.cos()).mul(deviation).add(mean);
  }
}
