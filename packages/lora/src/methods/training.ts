import { type Tensor, tensor } from "@lowrank/tensor";
import { AdapterError } from "../errors.js";
import { product, transposed } from "../linalg/product.js";
import { svd } from "../linalg/svd.js";
import type { Attachment, TrainingRules } from "./method.js";
import { outlined, type PairValues } from "./pair-values.js";
import type { Passenger } from "./rider.js";

/** How a pair is trained beyond plain AdamW. Files do not hold these. */
export interface LoraTrainingOptions {
  /** LoRA+ (Hayou et al. 2024): B learns this many times as fast as A; 16 is usual. Off when absent. */
  readonly loraPlusRatio?: number;
  /** LoRA+: the learning rate of embeddings' pairs, as a share of A's. Default 0.005 (PEFT's is absolute, 1e-6). */
  readonly loraPlusEmbeddingRatio?: number;
  /** LoRA-FA (Zhang et al. 2023): A stays as it starts; only B is trained, along a gradient that makes up for it. Default false. */
  readonly freezeA?: boolean;
}

/** Throws AdapterError for values out of range and for two ways at once. */
export function checkTraining({ loraPlusRatio, loraPlusEmbeddingRatio, freezeA }: LoraTrainingOptions): void {
  for (const [name, value] of Object.entries({ loraPlusRatio, loraPlusEmbeddingRatio })) {
    if (value !== undefined && !(value > 0 && Number.isFinite(value)))
      throw new AdapterError(`${name} is ${value}. It multiplies a learning rate: use a number above 0.`, [name]);
  }
  if (loraPlusEmbeddingRatio !== undefined && loraPlusRatio === undefined)
    throw new AdapterError("loraPlusEmbeddingRatio is given without loraPlusRatio, which turns LoRA+ on. Give both or none.", [
      "loraPlusEmbeddingRatio",
    ]);
  if (freezeA && loraPlusRatio !== undefined)
    throw new AdapterError("freezeA (LoRA-FA) leaves A alone, so that B cannot learn faster than A (loraPlusRatio). Choose one of them.", [
      "freezeA",
      "loraPlusRatio",
    ]);
}

/** A parameter's name in the file and what tells its group. */
interface Named {
  readonly name: string;
  readonly key: string;
  readonly rank: number;
  /** True for the weight and bias of a layer norm: RMS norms have no bias. */
  readonly isLayerNorm: boolean;
}

function named(trained: readonly Passenger[]): Named[] {
  return trained.flatMap(({ place, attachment: { parameters } }) =>
    Object.entries(parameters).map(([key, { rank }]) => ({
      name: `base_model.model.${place}.${key}`,
      key,
      rank,
      isLayerNorm: parameters.weight?.rank === 1 && parameters.bias?.rank === 1,
    })),
  );
}

/**
 * LoRA+'s groups: A's rate for matrices other than B, `ratio` times that for B and whatever has one axis (biases, magnitudes, norms), and
 * an own one for embeddings' pairs. In the fast group biases and layer norms do not decay. peft.create_loraplus_optimizer.
 */
function loraPlus(trained: readonly Passenger[], ratio: number, embeddingRatio: number): TrainingRules {
  const learningRateFactors = new Map<string, number>();
  const weightDecays = new Map<string, number>();
  for (const { name, key, rank, isLayerNorm } of named(trained)) {
    if (key.startsWith("lora_embedding_")) learningRateFactors.set(name, embeddingRatio);
    else if (key.includes("lora_B") || rank === 1) {
      learningRateFactors.set(name, ratio);
      if (name.includes("bias") || isLayerNorm) weightDecays.set(name, 0);
    }
  }
  return { learningRateFactors, weightDecays };
}

/** What LoRA+ or LoRA-FA ask of the training loop; nothing where neither is on. */
export function loraTraining(
  attachments: ReadonlyMap<string, Attachment>,
  options: LoraTrainingOptions,
  passengers: readonly Passenger[],
): TrainingRules {
  if (options.loraPlusRatio !== undefined) {
    const own = [...attachments].map(([place, attachment]) => ({ place, attachment }));
    return loraPlus([...own, ...passengers], options.loraPlusRatio, options.loraPlusEmbeddingRatio ?? 0.005);
  }
  if (!options.freezeA) return {};
  const changes = new Map<string, (gradient: Tensor) => Tensor>();
  for (const [place, { parameters, changeGradient }] of attachments)
    for (const key of Object.keys(parameters))
      if (changeGradient) changes.set(`base_model.model.${place}.${key}`, (gradient) => changeGradient(key, gradient));
  return {
    adamw: { eps: 1e-6, form: "transformers" },
    changeGradients: (gradients) => new Map([...gradients].map(([name, gradient]) => [name, changes.get(name)?.(gradient) ?? gradient])),
  };
}

/** The gradient of B that LoRA-FA's optimizer is given. */
export interface GradientProjection {
  /** Reads A, once: it does not change. */
  prepare(): Promise<void>;
  /** Stands in for `prepare` where A has no values. */
  outline(): void;
  /** What it holds. */
  tensors(): readonly Tensor[];
  /** Throws AdapterError before `prepare`. */
  change(key: string, gradient: Tensor): Tensor;
}

/**
 * g = (1 / s²) dB (A Aᵀ + 1e-8 I)⁺: the step of B whose product with A is nearest to a step of the whole weight (LoRA-FA, section 3.3).
 * The pseudo-inverse leaves out what f32 could not tell from 0. peft.optimizers.LoraFAOptimizer.
 */
export function gradientProjection(values: PairValues): GradientProjection {
  let inverse: Tensor | null = null;
  return {
    prepare: async () => {
      if (inverse) return;
      const [rank = 0, inFeatures = 0] = values.a.shape;
      const a = Float64Array.from(await values.a.data());
      const gram = product(a, transposed(a, rank, inFeatures), rank, inFeatures, rank);
      for (let k = 0; k < rank; k++) gram[k * rank + k] = (gram[k * rank + k] ?? 0) + 1e-8;
      const { u, s, v } = svd(gram, rank, rank);
      const smallest = rank * 2 ** -23 * (s[0] ?? 0);
      const result = new Float32Array(rank * rank);
      for (let i = 0; i < rank; i++)
        for (let j = 0; j < rank; j++)
          for (const [k, value] of s.entries())
            if (value > smallest)
              result[i * rank + j] = (result[i * rank + j] ?? 0) + ((v[i * rank + k] ?? 0) * (u[j * rank + k] ?? 0)) / value;
      inverse = tensor(result, { device: values.a.device, shape: [rank, rank] });
    },
    outline: () => {
      const [rank = 0] = values.a.shape;
      inverse ??= outlined(values.a.device, [rank, rank]);
    },
    tensors: () => (inverse ? [inverse] : []),
    change: (key, gradient) => {
      if (key !== "lora_B.weight") return gradient;
      if (!inverse)
        throw new AdapterError(
          `LoRA-FA needs the inverse of A Aᵀ on ${values.context.name}, and A has not been read. Call \`await adapter.initialize()\` first.`,
          [values.context.name],
        );
      return gradient.matmul(inverse).mul(1 / values.scaling ** 2);
    },
  };
}
