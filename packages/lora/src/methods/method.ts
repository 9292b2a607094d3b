import type { Generator, Tensor } from "@lowrank/tensor";
import type { PeftFields } from "../peft/fields.js";
import type { AdaptableModel, AdaptableModule, Wrapper } from "../targeting/model.js";

/** A layer's weight with an adapter in it, and the way back. */
export interface MergedWeight {
  /** The new weight in the layer's own layout, f32. */
  readonly value: Tensor;
  /** Tensors that the way back needs; they are computed before the weight is written over. */
  readonly kept: readonly Tensor[];
  /** The weight from before, out of the merged one; f32. */
  restore(merged: Tensor): Tensor;
}

/** What a method put on one module. */
export interface Attachment {
  /** The trained tensors by their names below the module in adapter_model.safetensors, for instance `lora_A.weight`. */
  readonly parameters: Readonly<Record<string, Tensor>>;
  /** The module's forward with the adapter. */
  readonly forward: Wrapper;
  /** Present where the adapter can become part of the module's weight. Lazy. */
  readonly merge?: () => MergedWeight;
}

/** What `attach` is given besides the module and the options. */
export interface AttachContext {
  /** The module's name in the model. */
  readonly name: string;
  /** For the parameters' first values. */
  readonly generator: Generator;
  /** For dropout: its state is part of a training run's. */
  readonly dropoutGenerator: Generator;
  /** Told what is unusual but allowed. */
  readonly warn: (message: string) => void;
}

/**
 * An adapter method: where it attaches, what it trains, what it saves, and whether and how it merges. Everything else (freezing, names,
 * files, merging, reports) follows from it.
 */
export interface Method<Options, Module extends AdaptableModule = AdaptableModule> {
  readonly name: string;
  /** Fills defaults in and checks. Throws AdapterError. */
  readonly options: (given: Partial<Options>, model: AdaptableModel) => Options;
  /** The modules that it goes on, by name, in the model's order. `isStrict`: names that fit nothing are an error. */
  readonly places: (model: AdaptableModel, options: Options, isStrict: boolean) => ReadonlyMap<string, Module>;
  /** Makes the parameters for one module and the forward that uses them. */
  readonly attach: (module: Module, options: Options, context: AttachContext) => Attachment;
  /** The fields of adapter_config.json that say which method it is and how it is set. */
  readonly toPeft: (options: Options, places: ReadonlyMap<string, Module>) => Readonly<Record<string, unknown>>;
  /** The options that a configuration holds, or null where it describes another method. Takes every field it understands. */
  readonly fromPeft: (fields: PeftFields) => Partial<Options> | null;
}

/** A method under its name, for the table. */
export function defineMethod<Options, Module extends AdaptableModule>(
  name: string,
  definition: Omit<Method<Options, Module>, "name">,
): Method<Options, Module> {
  return { name, ...definition };
}
