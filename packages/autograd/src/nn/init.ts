import { type Generator, type Shape, sizeOf, type Tensor } from "@lowrank/tensor";

/** Where initial values come from; they live on the generator's device. */
export interface InitOptions {
  readonly generator: Generator;
}

/** Inputs that reach one output of a weight [out, in, …]. */
function fanIn(shape: Shape): number {
  return Math.max(sizeOf(shape.slice(1)), 1);
}

/** Uniform f32 in [low, high). torch.nn.init.uniform_. */
export function uniform(shape: Shape, options: InitOptions & { readonly low?: number; readonly high?: number }): Tensor {
  return options.generator.uniform(shape, options.low ?? 0, options.high ?? 1);
}

/** Normal f32. torch.nn.init.normal_. */
export function normal(shape: Shape, options: InitOptions & { readonly mean?: number; readonly deviation?: number }): Tensor {
  return options.generator.normal(shape, options.mean ?? 0, options.deviation ?? 1);
}

/**
 * Uniform in ±√(6 / ((1 + a²) · fanIn)) for a weight [out, in] (He et al. 2015, eq. 10). a is the negative slope; its default √5 gives
 * ±1/√fanIn, what torch.nn.Linear and PEFT's lora_A start from. torch.nn.init.kaiming_uniform_(a=√5).
 */
export function kaimingUniform(shape: Shape, options: InitOptions & { readonly a?: number }): Tensor {
  const a = options.a ?? Math.sqrt(5);
  const bound = Math.sqrt(6 / ((1 + a * a) * fanIn(shape)));
  return options.generator.uniform(shape, -bound, bound);
}

/** Normal with deviation √(2 / fanIn) for a weight [out, in] before a ReLU (He et al. 2015). torch.nn.init.kaiming_normal_. */
export function kaimingNormal(shape: Shape, options: InitOptions): Tensor {
  return options.generator.normal(shape, 0, Math.sqrt(2 / fanIn(shape)));
}
