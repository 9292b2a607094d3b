import { Generator, realizeNow, type Tensor } from "@lowrank/tensor";
import { setActive } from "./active.js";
import { AdapterError, listed } from "./errors.js";
import { eachInOrder } from "./linalg/beside.js";
import type { AdapterParts, Attachment, InitializationData, TrainingRules } from "./methods/method.js";
import { type AnyMethod, type MethodName, methodNamed, methods, type OptionsOf } from "./methods/table.js";
import { type Passenger, type RiderOptions, ride, splitRiders, withoutWhole } from "./riders/index.js";
import type { TargetOptions } from "./targeting/match.js";
import { type AdaptableModel, deviceOf } from "./targeting/model.js";

/** What a checkpoint says about an adapter beside its method's options; kept as it was when an adapter is loaded and saved. */
export interface AdapterOrigin {
  /** Path or hub name of the base, for whoever loads the adapter (`base_model_name_or_path`). */
  readonly baseModel: string | null;
  /** The base's revision on the hub. */
  readonly revision: string | null;
  readonly taskType: string | null;
  readonly autoMapping: unknown;
  /** What the base's weights were quantized to when it was loaded; null where they were not, or nothing says so. */
  readonly quantization: string | null;
}

/** Settings that every method takes. */
export interface ApplyOptions extends RiderOptions {
  /** Seed of the parameters' first values and of dropout. Default 0. */
  readonly seed?: number;
  /** Dropout's random numbers, where a training run keeps its own. */
  readonly dropoutGenerator?: Generator;
  /** Path or hub name of the base, written into adapter_config.json. */
  readonly baseModel?: string;
  /** The base's branch, tag or commit on the hub, for the adapter's file. */
  readonly revision?: string;
  /** Told what is unusual but allowed; `console.warn` when absent. */
  readonly onWarning?: (message: string) => void;
}

/** A method's name and options, as `applyAdapter` takes them. */
export type AdapterOptions = ApplyOptions & { [Name in MethodName]: { readonly method: Name } & Partial<OptionsOf<Name>> }[MethodName];

/** How merged weights become the old ones again, and the tensors that this takes. */
export interface WayBack {
  undo(): void;
  dispose(): void;
}

/** A trained or trainable adapter on a model. Made by `applyAdapter` and `loadAdapter`. */
export class Adapter {
  #removers: (() => void)[] = [];
  #parts: AdapterParts<unknown, unknown>;
  #training: TrainingRules | null = null;
  #isDisposed = false;
  /** The way back from the merged weights; null while not merged. For `merge` and `unmerge`. */
  wayBack: WayBack | null = null;

  constructor(
    readonly model: AdaptableModel,
    readonly method: AnyMethod,
    parts: AdapterParts<unknown, unknown>,
    /** What is trained beside the method's own. */
    readonly riders: { readonly options: RiderOptions; readonly passengers: readonly Passenger[] },
    readonly dropoutGenerator: Generator,
    readonly origin: AdapterOrigin,
    /** Tensors that were made for it and go with it, beside those of its attachments. */
    readonly others: readonly Tensor[] = [],
  ) {
    this.#parts = parts;
  }

  /** The method's options, defaults filled in. */
  get options(): unknown {
    return this.#parts.options;
  }

  /** What the method chose to go on, by name. */
  get places(): ReadonlyMap<string, unknown> {
    return this.#parts.places;
  }

  /** What was put there. */
  get attachments(): ReadonlyMap<string, Attachment> {
    return this.#parts.attachments;
  }

  /** What the method asks of the training loop beyond gradients. */
  get training(): TrainingRules {
    this.checkAlive();
    // Made once: it may hold state.
    this.#training ??= this.method.training?.(this.attachments, this.options, this.riders.passengers) ?? {};
    return this.#training;
  }

  /** What the method put on its places, and what rides along. */
  get everything(): readonly Passenger[] {
    this.checkAlive();
    return [...[...this.attachments].map(([place, attachment]) => ({ place, attachment })), ...this.riders.passengers];
  }

  #named(tensors: (attachment: Attachment) => Readonly<Record<string, Tensor>>): Map<string, Tensor> {
    const fileName = this.method.fileName ?? ((place, key) => `base_model.model.${place}.${key}`);
    const named = new Map<string, Tensor>();
    for (const { place, attachment } of this.everything)
      for (const [key, tensor] of Object.entries(tensors(attachment))) named.set(fileName(place, key), tensor);
    return named;
  }

  /** Trained tensors by their names in adapter_model.safetensors, in the model's order. */
  namedParameters(): Map<string, Tensor> {
    return this.#named(({ parameters }) => parameters);
  }

  /** Trained tensors, in the order of `namedParameters`: what to pass to `grad` and to an optimizer. */
  parameters(): Tensor[] {
    return [...this.namedParameters().values()];
  }

  /** What a file is read into: the trained tensors and those that are saved with them. */
  namedTensors(): Map<string, Tensor> {
    return this.#named(({ parameters, constants }) => ({ ...parameters, ...constants }));
  }

  /** What a file holds; `isPlain`: as a plain low-rank pair, where the method can be one. */
  savedTensors(isPlain = false): Map<string, Tensor> {
    return this.#named(({ parameters, constants, saved, plain }) => (isPlain && plain?.()) || saved?.() || { ...parameters, ...constants });
  }

  /** True while the base's weights hold the adapter. */
  get isMerged(): boolean {
    return this.wayBack !== null;
  }

  /** True while the model's forward runs through the adapter. */
  get isEnabled(): boolean {
    return this.#removers.length > 0;
  }

  /** Puts the adapter into the model's forward (again). Throws AdapterError while it is merged. */
  enable(): void {
    this.checkAlive();
    if (this.isMerged)
      throw new AdapterError("The adapter is merged into the weights; in the forward as well it would count twice. unmerge() it first.");
    if (this.isEnabled) return;
    this.#removers = this.everything.map(({ attachment }) => attachment.enable());
    setActive(this.model, this, true);
  }

  /** Takes the adapter out of the model's forward, which is then exactly the base's; its parameters stay. */
  disable(): void {
    for (const remove of this.#removers.reverse()) remove();
    this.#removers = [];
    setActive(this.model, this, this.isMerged);
  }

  /**
   * Sets first values that depend on the base's weights (PiSSA, OLoRA) or on data (EVA), and reads what LoRA-FA needs of A; nothing for other
   * methods, and nothing the second time. EVA gives layers other tensors: call it before `parameters()`. Rejects with AdapterError when data
   * is needed and not given, or says too little.
   */
  async initialize(data: InitializationData = {}): Promise<void> {
    this.checkAlive();
    const wasEnabled = this.isEnabled;
    // What layers are given is the base's business, and those that are left out afterwards must go.
    this.disable();
    try {
      const parts = (await this.method.initialize?.(this.#parts, data)) ?? this.#parts;
      let done = 0;
      await eachInOrder(
        [...parts.attachments],
        ([, { pair }]) => (pair ? 8 * pair.values.layer.inFeatures * pair.values.layer.outFeatures : 0),
        async ([, { initialize }]) =>
          async () =>
            initialize?.(),
        (_, [name]) => data.onLayer?.(name, ++done, parts.attachments.size),
      );
      if (parts !== this.#parts) {
        this.#refuseStray(parts);
        this.#parts = parts;
        this.#training = null;
      }
    } finally {
      if (wasEnabled) this.enable();
    }
  }

  /** Stands in for `initialize` on a device without values (`planningDevice`), so that what training takes can be planned. */
  outline(): void {
    for (const { outline } of this.attachments.values()) outline?.();
  }

  get isDisposed(): boolean {
    return this.#isDisposed;
  }

  /**
   * Takes the adapter out of the model's forward and gives its memory back at once: parameters, what is saved and trained with them, and
   * what `unmerge` would need. Weights that it is merged into stay as they are. The base's own tensors stay; a second call does nothing.
   * Using a disposed adapter throws AdapterError.
   */
  dispose(): void {
    if (this.#isDisposed) return;
    this.wayBack?.dispose();
    this.wayBack = null;
    this.disable();
    const own = this.everything.flatMap(({ attachment: { parameters, constants = {}, others } }) => [
      ...Object.values(parameters),
      ...Object.values(constants),
      ...(others?.() ?? []),
    ]);
    const state = this.#training?.state?.().values() ?? [];
    this.#isDisposed = true;
    const base = new Set(this.model.namedParameters().values());
    for (const t of [...own, ...state, ...this.others]) if (!base.has(t)) t.dispose();
  }

  [Symbol.dispose](): void {
    this.dispose();
  }

  /** Throws AdapterError when the adapter was disposed. */
  checkAlive(): void {
    if (this.#isDisposed)
      throw new AdapterError("The adapter was used after dispose(), which gave its parameters back. Apply or load it again.");
  }

  /** Throws AdapterError where something rides on a layer that the method has left. */
  #refuseStray({ attachments }: AdapterParts<unknown, unknown>): void {
    const stray = this.riders.passengers
      .filter(
        ({ place, attachment }) =>
          !attachments.has(place) && Object.keys(attachment.parameters).some((key) => key.startsWith("base_layer.")),
      )
      .map(({ place }) => place);
    if (stray.length > 0) {
      throw new AdapterError(
        `The data leaves ${listed(stray)} without a pair, and the biases there were to be trained as those of adapted layers. Set eva.rho to 1, or leave bias out.`,
        stray,
      );
    }
  }
}

/**
 * Puts trainable parameters beside a model's frozen weights and its forward through them:
 * `applyAdapter(model, { method: "lora", rank: 8, alpha: 16, targets: ["q_proj", "v_proj"] })`.
 * Only the adapter's `parameters()` are meant for `grad`; weights that are not asked for get no gradient. The output is at first exactly
 * the base's, except where the method says otherwise (virtual tokens are random). First values that come from weights or data need
 * `await adapter.initialize()` before the first forward. Throws AdapterError for options out of range and for targets that fit no layer,
 * before anything is changed.
 * peft.get_peft_model.
 */
export function applyAdapter(model: AdaptableModel, options: AdapterOptions): Adapter {
  const { method: name, seed = 0, dropoutGenerator, baseModel = null, revision = null, onWarning = console.warn, ...given } = options;
  const method = methodNamed(name);
  if (!method) {
    throw new AdapterError(
      `There is no adapter method "${String(name)}". Choose among ${Object.keys(methods).join(", ")}.`,
      Object.keys(methods),
    );
  }
  const origin: AdapterOrigin = { baseModel, revision, taskType: "CAUSAL_LM", autoMapping: null, quantization: model.quantization ?? null };
  const adapter = attach(model, method, given, { seed, dropoutGenerator, origin, warn: onWarning, isLoaded: false });
  adapter.enable();
  return adapter;
}

/** For `attach`. */
export interface AttachSettings {
  readonly seed: number;
  readonly dropoutGenerator: Generator | undefined;
  readonly origin: AdapterOrigin;
  readonly warn: (message: string) => void;
  /** True for an adapter from a file: targets may then name more than there is. */
  readonly isLoaded: boolean;
}

/** Makes an adapter and computes its parameters' first values. The model is not touched: `enable()` puts it in. Throws AdapterError. */
export function attach(model: AdaptableModel, method: AnyMethod, given: object, settings: AttachSettings): Adapter {
  const adapter = attachLazily(model, method, given, settings);
  realizeNow([...adapter.namedTensors().values()]);
  return adapter;
}

/** `attach` without the values, so that sizes can be looked at before memory is taken. */
export function attachLazily(model: AdaptableModel, method: AnyMethod, given: object, settings: AttachSettings): Adapter {
  const { seed, origin, warn, isLoaded } = settings;
  const { riders, own } = splitRiders(given, method.name, method.riders ?? []);
  const options = method.options(own, model);
  const places = withoutWhole(method.places(model, options, !isLoaded), riders);
  const device = deviceOf(model);
  const generator = new Generator(device, seed);
  const dropoutGenerator = settings.dropoutGenerator ?? new Generator(device, seed + 1);
  const generators = settings.dropoutGenerator ? [generator] : [generator, dropoutGenerator];
  const context = { model, generator, dropoutGenerator, isLoaded, warn };
  const attachments = method.attach(places, options, context);
  const passengers = ride(riders, { ...context, targeted: new Set(places.keys()) }, (options as TargetOptions).targets);
  const parts = { options, places, attachments };
  const others = generators.map(({ key }) => key);
  return new Adapter(model, method, parts, { options: riders, passengers }, dropoutGenerator, origin, others);
}
