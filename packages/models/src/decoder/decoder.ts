import { nn } from "@lowrank/autograd";
import { type Device, type QuantizedType, ShapeError, type Tensor } from "@lowrank/tensor";
import {
  attentionContext,
  type BlockNames,
  type CacheShape,
  type CausalLM,
  causalLoss,
  checkIds,
  type ForwardOptions,
  type Kept,
  type ModelOrigin,
  withPrompt,
} from "../causal-lm.js";
import { endTokens, type ModelConfig } from "../config.js";
import type { BatchLayout } from "../data/batches.js";
import { bestLayout } from "../packed-rows.js";
import { type StoredPiece, type Weights, zeros } from "../parameters.js";
import { VirtualTokens } from "../virtual-tokens.js";
import { type AltUpOptions, Streams } from "./alt-up.js";
import { Layer, type LayerOptions } from "./layer.js";
import { Norm, type NormOptions } from "./norm.js";
import { passOf } from "./pass.js";
import { PerLayerInputs, type PerLayerOptions } from "./per-layer-inputs.js";
import { dependsOnLength, type RopeOptions, Rotary } from "./rope.js";

/** A decoder: embeddings, a list of layers, a norm and a head. Names are the checkpoint's. */
export interface DecoderOptions {
  readonly vocabSize: number;
  readonly width: number;
  /** Most positions that it looks at. */
  readonly contextLength: number;
  /** A text that grows to so many tokens is read once more: its keys turn otherwise from there on. */
  readonly rereadsAt?: number;
  readonly embedding: {
    readonly name: string;
    /** Embeddings are multiplied by this; 1 when absent. */
    readonly scale?: number;
    /** So are those of a virtual prompt, which else stands in front of scaled ones as it is. */
    readonly scalesPrompt?: boolean;
    /** A learned vector a position is added: the name of that table. */
    readonly positions?: string;
    /** A norm stands behind. */
    readonly norm?: { readonly name: string; readonly options: NormOptions };
  };
  readonly layers: { readonly name: string; readonly count: number; readonly at: (layer: number) => LayerOptions };
  /** The last norm. */
  readonly norm: { readonly name: string; readonly options: NormOptions };
  readonly head: {
    readonly name: string;
    /** The head is the embedding. */
    readonly isTied: boolean;
    readonly bias?: boolean;
    /** Logits are multiplied by this; 1 when absent. */
    readonly scale?: number;
    /** Logits l become cap · tanh(l / cap), after the scale. */
    readonly cap?: number | null;
  };
  /** What each layer is told of each token beside the hidden state. */
  readonly perLayer?: PerLayerOptions;
  /** Streams of hidden states through all layers, each of which has the same. */
  readonly altUp?: AltUpOptions;
  /** What of a name is another in checkpoints. */
  readonly savedNames?: readonly [own: string, stored: string];
  /** What names begin with inside of a larger model, of which this is the text model. */
  readonly wholePath?: string;
  /** Tensors of checkpoints that it has no use for, by their names there: keys and values of layers that see another's. */
  readonly isUnread?: (name: string) => boolean;
  /** Tensors of layers behind its own, which predict further tokens. */
  readonly isForeign?: (name: string) => boolean;
}

/** A language model of one token after the other, put together as its family says. */
export class Decoder extends nn.Module implements CausalLM {
  readonly device: Device;
  readonly virtualTokens: VirtualTokens = new VirtualTokens();
  stopTokens: readonly number[];
  origin: ModelOrigin | null = null;
  quantization: QuantizedType | null = null;
  reread: CausalLM["reread"] = null;
  readonly #options: DecoderOptions;
  readonly #pieces: ReadonlyMap<string, readonly StoredPiece[]>;
  readonly #embedding: nn.Embedding;
  readonly #positions: nn.Embedding | null;
  readonly #embeddingNorm: Norm | null;
  readonly #perLayer: PerLayerInputs | null;
  readonly #streams: Streams | null;
  readonly #layers: readonly Layer[];
  readonly #norm: Norm;
  readonly #head: nn.Linear;
  readonly #rotaries: Map<string, Rotary> = new Map();

  constructor(
    weights: Weights,
    readonly config: ModelConfig,
    options: DecoderOptions,
  ) {
    super();
    this.#options = options;
    this.#pieces = weights.pieces;
    const { vocabSize, width, contextLength, embedding, layers, norm, head } = options;
    const normAt = (name: string, of: NormOptions): Norm => weights.module(name, (below) => new Norm(below, width, of));
    this.#embedding = weights.embedding(embedding.name, vocabSize, width);
    this.device = this.#embedding.weight.device;
    this.#positions = embedding.positions === undefined ? null : weights.embedding(embedding.positions, contextLength, width);
    this.#perLayer = options.perLayer ? new PerLayerInputs(weights, width, layers.count, options.perLayer) : null;
    this.#streams = options.altUp ? new Streams(weights, width, options.altUp) : null;
    this.#embeddingNorm = embedding.norm ? normAt(embedding.norm.name, embedding.norm.options) : null;
    const rotary = (of: RopeOptions): Rotary => this.#rotary(of);
    this.#layers = Array.from({ length: layers.count }, (_, layer) => {
      const name = `${layers.name}.${layer}`;
      return weights.module(name, (below) => new Layer(below, name, { layer, width, rotary }, layers.at(layer)));
    });
    this.#norm = normAt(norm.name, norm.options);
    this.#head = head.isTied
      ? weights.module(
          head.name,
          (below) => new nn.Linear(this.#embedding.weight, head.bias ? below.tensor("bias", [vocabSize], zeros) : null),
        )
      : weights.dense(head.name, width, vocabSize, { bias: head.bias ?? false });
    this.stopTokens = endTokens(config.eos_token_id);
  }

  storedWeight(parameter: Tensor): Promise<Float32Array> | null {
    const name = [...this.namedParameters()].find(([, own]) => own === parameter)?.[0];
    return name === undefined ? null : (this.reread?.(name) ?? null);
  }

  get head(): nn.Linear {
    return this.#head;
  }

  get vocabSize(): number {
    return this.#options.vocabSize;
  }

  get contextLength(): number {
    return this.#options.contextLength;
  }

  get rereadsAt(): number | null {
    return this.#options.rereadsAt ?? null;
  }

  get keeps(): readonly Kept[] {
    return this.#layers.map(({ mixer }) => mixer.keeps);
  }

  get cacheShape(): CacheShape | null {
    const [first] = this.keeps;
    if (!first?.keysValues) return null;
    const { kvHeads, keyDim: headDim } = first.keysValues;
    const isSame = ({ keysValues: own, state }: Kept): boolean =>
      own?.kvHeads === kvHeads && own.keyDim === headDim && own.valueDim === headDim && state === undefined;
    return this.keeps.every(isSame) ? { layers: this.#layers.length, kvHeads, headDim } : null;
  }

  get batchLayout(): BatchLayout {
    return this.#takesPacked ? bestLayout(this) : "padded";
  }

  get blocks(): readonly BlockNames[] {
    return this.#layers.map(({ names }) => names);
  }

  get promptScale(): number {
    const { scale = 1, scalesPrompt = false } = this.#options.embedding;
    return scalesPrompt ? 1 : scale;
  }

  get wholePath(): string | null {
    return this.#options.wholePath ?? null;
  }

  get usualTargets(): readonly string[] {
    return [...new Set(this.#layers.flatMap(({ mixer }) => mixer.usualTargets))];
  }

  savedAs(name: string): { readonly name: string; readonly pieces: readonly StoredPiece[] } {
    const { savedNames } = this.#options;
    const saved = (own: string): string => (savedNames ? own.replace(...savedNames) : own);
    return { name: saved(name), pieces: (this.#pieces.get(name) ?? []).map((piece) => ({ ...piece, name: saved(piece.name) })) };
  }

  hidden(ids: Tensor, options: ForwardOptions = {}): Tensor {
    this.checkAlive(ids);
    checkIds(ids);
    const context = attentionContext(this.virtualTokens, options);
    if (context.packed && !this.#takesPacked)
      throw new ShapeError("Rows of this model cannot be packed: its layers do not tell them apart. Use a row of the batch for each.");
    const { embedding, contextLength } = this.#options;
    const { scale = 1, scalesPrompt = false } = embedding;
    const scaled = (t: Tensor, isDue: boolean): Tensor => (isDue && scale !== 1 ? t.mul(scale) : t);
    const tokens = scaled(this.#embedding.forward(ids), !scalesPrompt);
    const embedded = scaled(withPrompt(tokens, context), scalesPrompt);
    const [batch = 0, length = 0] = embedded.shape;
    if (this.#perLayer && context.prompt)
      throw new ShapeError("A virtual prompt has no token ids, which this model's layers look up. Use a method that goes on layers.");
    const pass = passOf(batch, length, context, contextLength, ids.device, this.#perLayer?.forward(ids, embedded));
    let x = this.#positions ? embedded.add(this.#positions.forward(pass.positions)) : embedded;
    if (this.#embeddingNorm) x = this.#embeddingNorm.forward(x);
    if (this.#streams) {
      const streams = this.#layers.reduce((all, layer) => layer.streams(all, pass), this.#streams.from(x));
      return this.#norm.forward(this.#streams.mean(streams));
    }
    for (const layer of this.#layers) x = layer.forward(x, pass);
    return this.#norm.forward(x);
  }

  logits(hidden: Tensor): Tensor {
    const logits = this.#head.forward(hidden);
    return this.#shaped?.(logits) ?? logits;
  }

  forward(ids: Tensor, options: ForwardOptions = {}): Tensor {
    return this.logits(this.hidden(ids, options));
  }

  loss(ids: Tensor, labels: Tensor, { packed = null }: Pick<ForwardOptions, "packed"> = {}): Tensor {
    return causalLoss(this.hidden(ids, { packed }), this.#head, labels, packed, this.#shaped);
  }

  /** What becomes of the head's logits. */
  get #shaped(): ((logits: Tensor) => Tensor) | null {
    const { scale = 1, cap = null } = this.#options.head;
    if (scale === 1 && cap === null) return null;
    return (logits) => {
      const scaled = scale === 1 ? logits : logits.mul(scale);
      return cap === null ? scaled : scaled.div(cap).tanh().mul(cap);
    };
  }

  get #takesPacked(): boolean {
    const isFree = [...this.#rotaries.values()].every(({ options }) => !dependsOnLength(options));
    const hidesPrefix = ({ keysValues }: Kept): boolean => this.virtualTokens.prefix !== null && keysValues?.window != null;
    return isFree && this.#layers.every(({ mixer }) => mixer.takesPacked && !hidesPrefix(mixer.keeps));
  }

  #rotary(options: RopeOptions): Rotary {
    const key = JSON.stringify(options);
    const rotary = this.#rotaries.get(key) ?? new Rotary(options, this.device);
    this.#rotaries.set(key, rotary);
    return rotary;
  }

  protected override disposeOthers(): void {
    for (const rotary of this.#rotaries.values()) rotary.dispose();
  }
}
