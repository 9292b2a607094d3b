import type { optim } from "@lowrank/autograd";
import type { Generator, Tensor } from "@lowrank/tensor";
import { NotApplicableError } from "../errors.js";
import type { PeftFields } from "../peft/fields.js";
import type { AdaptableModel, AdaptableModule, Wrapper } from "../targeting/model.js";
import type { LowRankPair } from "./pair.js";
import type { Passenger, RiderName } from "./rider.js";

/** One of the base's weights with an adapter in it, and the way back. */
export interface MergedWeight {
  /** The base's own tensor. */
  readonly weight: Tensor;
  /** Its new value, in its own layout, f32. */
  readonly value: Tensor;
  /** Tensors that the way back needs; they are computed before the weight is written over. */
  readonly kept?: readonly Tensor[];
  /** The weight from before, out of the merged one; f32. Absent where arithmetic loses it: then a copy of the weight is kept. */
  readonly restore?: (merged: Tensor) => Tensor;
  /** True where all modules that share the weight take part in the change; else merging a shared weight is refused. */
  readonly isWhole?: boolean;
}

/** What a method put on one place of a model. */
export interface Attachment {
  /** The trained tensors by their names below the place in adapter_model.safetensors, for instance `lora_A.weight`. */
  readonly parameters: Readonly<Record<string, Tensor>>;
  /** Tensors that are saved and loaded with them, and not trained. */
  readonly constants?: Readonly<Record<string, Tensor>>;
  /** What it holds besides: tensors made for it alone, which go with it. */
  readonly others?: () => readonly Tensor[];
  /** What the file holds where that is not `parameters` and `constants`, for instance what a prompt encoder gives. Lazy. */
  readonly saved?: () => Readonly<Record<string, Tensor>>;
  /** Puts it into the model's forward; the function returned takes it out. */
  readonly enable: () => () => void;
  /** Present where the adapter can become part of the base's weights. Lazy. */
  readonly merge?: () => readonly MergedWeight[];
  /** Reads the weights for first values, or for what training needs. Until it has run, the forward throws AdapterError where values lack. */
  readonly initialize?: () => Promise<void>;
  /** Stands in for `initialize` on a device without values, for planning: tensors of the same sizes. */
  readonly outline?: () => void;
  /** What the optimizer is given in place of the gradient of one of the parameters, by its key. Lazy. */
  readonly changeGradient?: (key: string, gradient: Tensor) => Tensor;
  /** What the file holds of the adapter as a plain pair, where that is not `saved`; for methods with `asPlain`. Lazy. */
  readonly plain?: () => Readonly<Record<string, Tensor>>;
  /** The low-rank pair, where there is one and nothing else. */
  readonly pair?: LowRankPair;
}

/** What `initialize` may look at. */
export interface InitializationData {
  /** Each runs the base on a batch and gives its result, as often as asked for: EVA looks at what layers are given meanwhile. */
  readonly runs?: Iterable<DataRun>;
  /** Receives the name of each layer once its first values are there, and how many of all have theirs. */
  readonly onLayer?: (name: string, done: number, count: number) => void;
}

/** A run of the base on a batch; with a mask, only tokens count whose number in it, in the batch's order, is not 0. */
export type DataRun = (() => Tensor) | { readonly run: () => Tensor; readonly mask: ArrayLike<number> };

/** An adapter's parts, which `Method.initialize` may choose anew. */
export interface AdapterParts<Options, Place, Made extends Attachment = Attachment> {
  /** The method's options, defaults filled in. */
  readonly options: Options;
  /** What the method chose to go on, by name. */
  readonly places: ReadonlyMap<string, Place>;
  /** What was put there. */
  readonly attachments: ReadonlyMap<string, Made>;
}

/** What `attach` is given besides the places and the options. */
export interface AttachContext {
  readonly model: AdaptableModel;
  /** For the parameters' first values. */
  readonly generator: Generator;
  /** For dropout: its state is part of a training run's. */
  readonly dropoutGenerator: Generator;
  /** True for an adapter from a file, whose tensors will replace the first values. */
  readonly isLoaded: boolean;
  /** Told what is unusual but allowed. */
  readonly warn: (message: string) => void;
}

/** `AttachContext` of one place. */
export interface PlaceContext extends AttachContext {
  /** The module's name in the model. */
  readonly name: string;
}

/** What a method asks of the training loop beyond gradients of the loss; nothing, for most. */
export interface TrainingRules {
  /** What the learning rate is multiplied by, for parameters that differ (LoRA+). */
  readonly learningRateFactors?: ReadonlyMap<string, number>;
  /** The weight decay of parameters that differ (LoRA+), by name. */
  readonly weightDecays?: ReadonlyMap<string, number>;
  /** AdamW's settings where the method was published with others (LoRA-FA). */
  readonly adamw?: Pick<optim.AdamWOptions, "eps" | "form">;
  /** A scalar that is added to the loss. Lazy. */
  readonly regularization?: () => Tensor;
  /** Other gradients for the optimizer in place of the loss's, which are clipped by then; by parameter name, in the same order. Lazy. */
  readonly changeGradients?: (gradients: ReadonlyMap<string, Tensor>) => ReadonlyMap<string, Tensor>;
  /** Part of the compiled step, before the optimizer reads the parameters: may assign to them. */
  readonly beforeUpdate?: () => void;
  /** Part of the compiled step, after the optimizer has assigned the parameters' new values: assigns the method's own state. */
  readonly afterUpdate?: (gradients: ReadonlyMap<string, Tensor>) => void;
  /** Between two steps; `step` counts from 1. */
  readonly afterStep?: (step: number) => Promise<void>;
  /** The method's state by name, for checkpoints. */
  readonly state?: () => ReadonlyMap<string, Tensor>;
  /** After a checkpoint has been read into `state`, before the first step that follows. */
  readonly restored?: () => Promise<void>;
}

/**
 * An adapter method: where it attaches, what it trains, what it saves, and whether and how it merges. Everything else (freezing, names,
 * files, merging, reports) follows from it.
 */
export interface Method<Options, Place = AdaptableModule, Made extends Attachment = Attachment> {
  readonly name: string;
  /** Fills defaults in and checks. Throws AdapterError. */
  readonly options: (given: Partial<Options>, model: AdaptableModel) => Options;
  /** What it goes on, by name, in the model's order. `isStrict`: names that fit nothing are an error. */
  readonly places: (model: AdaptableModel, options: Options, isStrict: boolean) => ReadonlyMap<string, Place>;
  /** Makes the parameters for the places and what uses them; `onEach` for methods whose places do not know each other. */
  readonly attach: (places: ReadonlyMap<string, Place>, options: Options, context: AttachContext) => ReadonlyMap<string, Made>;
  /** A tensor's name in the file; `base_model.model.<place>.<key>` when absent. */
  readonly fileName?: (place: string, key: string) => string;
  /** First values that places find together (EVA), while the adapter is out of the forward; gives its parts from then on. */
  readonly initialize?: (
    parts: AdapterParts<Options, Place, Made>,
    data: InitializationData,
  ) => Promise<AdapterParts<Options, Place, Made>>;
  /** The options under which `Attachment.plain` is the same adapter as a plain pair. */
  readonly asPlain?: (options: Options) => Options;
  /** True where PEFT would not find the same function in the usual file, so that the plain one is written unless asked otherwise. */
  readonly needsPlain?: (options: Options, places: ReadonlyMap<string, Place>) => boolean;
  /** What it asks of the training loop; `passengers`: what is trained beside its own. */
  readonly training?: (attachments: ReadonlyMap<string, Made>, options: Options, passengers: readonly Passenger[]) => TrainingRules;
  /** What may be trained beside its own tensors (riders/), by the names of the options. */
  readonly riders?: readonly RiderName[];
  /** What PEFT calls the biases of its own layers: `lora` in "lora_only", which is the default. */
  readonly peftBias?: string;
  /** Why it cannot be merged and what to do instead, for methods that cannot. */
  readonly unmergeable?: string;
  /** The fields of adapter_config.json that say which method it is and how it is set. */
  readonly toPeft: (
    options: Options,
    places: ReadonlyMap<string, Place>,
    attachments: ReadonlyMap<string, Made>,
  ) => Readonly<Record<string, unknown>>;
  /** The options that a configuration holds, or null where it describes another method. Takes every field it understands. */
  readonly fromPeft: (fields: PeftFields) => Partial<Options> | null;
}

/** A method under its name, for the table. */
export function defineMethod<Options, Place, Made extends Attachment = Attachment>(
  name: string,
  definition: Omit<Method<Options, Place, Made>, "name">,
): Method<Options, Place, Made> {
  return { name, ...definition };
}

/** `attach` of a method that treats each place on its own. */
export function onEach<Options, Place>(
  attach: (place: Place, options: Options, context: PlaceContext) => Attachment,
): Method<Options, Place>["attach"] {
  return (places, options, context) =>
    new Map([...places].map(([name, place]) => [name, attach(place, options, { ...context, name })] as const));
}

/** `enable` of an attachment that stands around a module's forward. */
export function wrapping(module: AdaptableModule, wrapper: Wrapper): () => () => void {
  return () => module.use(wrapper);
}

/** `enable` of an attachment that puts other tensors in the place of a module's parameters. */
export function replacing(module: AdaptableModule, parameters: Readonly<Record<string, Tensor>>): () => () => void {
  return () => {
    const removers = Object.entries(parameters).map(([key, value]) => module.replace(key, value));
    return () => {
      for (const remove of removers) remove();
    };
  };
}

/** Throws NotApplicableError for a parameter that lies in blocks, where the method trains the model's own numbers. */
export function refusePackedParameter(method: string, name: string, { packing }: Tensor): void {
  if (!packing) return;
  throw new NotApplicableError(
    `${method} trains ${name} itself, which is packed as ${packing.type}: blocks take no steps. Leave it out of the targets, use a method that adds parameters, for instance lora, or load the model in f32.`,
  );
}

/** A parameter's first value where it stands for one of the model's own: its numbers in f32, in memory of their own. */
export function copyOf(weight: Tensor): Tensor {
  return weight.cast("f32").mul(1);
}
