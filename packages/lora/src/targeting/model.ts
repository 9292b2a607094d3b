import { type Device, Tensor } from "@lowrank/tensor";

/** What stands around a module's forward: it may change the input, the result, or both. */
export type Wrapper = (x: Tensor, next: (x: Tensor) => Tensor) => Tensor;

/** A part of a model that lets an adapter in. `nn.Module` of @lowrank/autograd is one. */
export interface AdaptableModule {
  /** True while dropout is on. */
  readonly isTraining: boolean;
  /** Runs the forward through `wrapper` from now on; the function returned takes it out again. */
  use(wrapper: Wrapper): () => void;
}

/** A dense layer: y = x Wᵀ + b with W [out, in], or y = x W + b with W [in, out] where `isTransposed` (GPT-2's Conv1D). */
export interface DenseLayer extends AdaptableModule {
  readonly weight: Tensor;
  readonly bias: Tensor | null;
  readonly inFeatures: number;
  readonly outFeatures: number;
  readonly isTransposed: boolean;
}

/** All that an adapter needs of a model: its parts and parameters by the checkpoint's names. */
export interface AdaptableModel {
  namedModules(): ReadonlyMap<string, AdaptableModule>;
  namedParameters(): ReadonlyMap<string, Tensor>;
}

/** True for a dense layer, by its shape: no class of another package is asked for. */
export function isDense(module: AdaptableModule): module is DenseLayer {
  const layer = module as Partial<DenseLayer>;
  return layer.weight instanceof Tensor && typeof layer.inFeatures === "number" && typeof layer.outFeatures === "number";
}

/** The model's dense layers by name. */
export function denseLayers(model: AdaptableModel): Map<string, DenseLayer> {
  const layers = new Map<string, DenseLayer>();
  for (const [name, module] of model.namedModules()) if (isDense(module)) layers.set(name, module);
  return layers;
}

/** The device that holds the model's parameters. Throws TypeError for a model without any. */
export function deviceOf(model: AdaptableModel): Device {
  for (const parameter of model.namedParameters().values()) return parameter.device;
  throw new TypeError("The model has no parameters. Pass the model itself, not a part without weights.");
}

/** The family that a Hugging Face config names ("llama", "gpt2"), where the model carries one. */
export function modelType(model: AdaptableModel): string | null {
  const { config } = model as { config?: { model_type?: unknown; modelType?: unknown } };
  const type = config?.modelType ?? config?.model_type;
  return typeof type === "string" ? type : null;
}
