import type { nn } from "@lowrank/autograd";
import {
  concat,
  crossEntropy,
  type Device,
  type DType,
  type FileSystem,
  ignoredLabel,
  linearCrossEntropy,
  type QuantizedType,
  type Shape,
  ShapeError,
  showShape,
  sum,
  Tensor,
} from "@lowrank/tensor";
import type { KeyValueCache } from "./cache.js";
import type { ModelConfig } from "./config.js";
import type { BatchLayout } from "./data/batches.js";
import { checkLabels } from "./labels.js";
import { type PackedRows, type VisibleRows, visibleRows, withoutFirst } from "./packed-rows.js";
import type { StoredPiece } from "./parameters.js";
import type { VirtualPrompt, VirtualTokens } from "./virtual-tokens.js";

/** What a forward pass is told besides the token ids. */
export interface ForwardOptions {
  /** Keys and values of the tokens before. */
  readonly cache?: KeyValueCache;
  /** Which row each token belongs to, where rows are packed one behind the other. */
  readonly packed?: PackedRows | null;
}

/** What attention has to be told about its surroundings; made once for each forward pass. */
export interface AttentionContext {
  readonly prefix: VisiblePrefix | null;
  readonly prompt: VirtualPrompt | null;
  readonly cache: KeyValueCache | null;
  readonly packed: VisibleRows | null;
}

/** A prefix as one forward pass sees it: keys and values of each layer, [1 or batch, kvHeads, length, headDim]. */
export interface VisiblePrefix {
  readonly length: number;
  readonly layers: readonly { readonly keys: Tensor; readonly values: Tensor }[];
}

/**
 * The names of a layer's parts among the model's modules: attention, or what mixes tokens in its place, the feed-forward, and the norms in
 * front of them, which read the residual stream. Null where there is none: a sublayer without a norm in front reads the stream itself.
 */
export interface BlockNames {
  readonly name: string;
  readonly attentionNorm: string | null;
  readonly attention: string;
  readonly mlpNorm: string | null;
  readonly mlp: string | null;
}

/**
 * What a layer keeps of a text between the passes over it: keys and values of its tokens, a state of a fixed size, both, or nothing.
 * `cache.append` adds the former, `cache.state` and `cache.keep` read and replace the latter.
 */
export interface Kept {
  readonly keysValues?: { readonly kvHeads: number; readonly keyDim: number; readonly valueDim: number; readonly window?: number | null };
  /** f32 tensors by name, each of this shape behind the batch's axis; zeros in front of a text's first token. */
  readonly state?: Readonly<Record<string, Shape>>;
}

/** Sizes of the keys and values of layers that are all alike. */
export interface CacheShape {
  readonly layers: number;
  readonly kvHeads: number;
  readonly headDim: number;
}

/** Where a model was read from; its tokenizer's files are copied from there. */
export interface ModelOrigin {
  readonly files: FileSystem;
  readonly folder: string;
  /** The dtype that each parameter has there, by name. */
  readonly dtypes?: ReadonlyMap<string, DType>;
  /** Digests of the adapters that its config.json says are merged into the weights. */
  readonly merged?: readonly string[];
}

/** A language model that predicts the next token from those before. */
export interface CausalLM extends nn.Module {
  /** config.json with defaults filled in, under its own names. */
  readonly config: ModelConfig;
  readonly device: Device;
  /** Tokens that end a generation. */
  stopTokens: readonly number[];
  readonly vocabSize: number;
  /** Most tokens that it can look at. */
  readonly contextLength: number;
  /** The length of a growing text at which all of it is read once more; null where there is none. */
  readonly rereadsAt: number | null;
  /** What each of its layers keeps of a text between passes. */
  readonly keeps: readonly Kept[];
  /** Null where layers keep other things than keys and values, or of several sizes. */
  readonly cacheShape: CacheShape | null;
  /** Its layers, first to last. */
  readonly blocks: readonly BlockNames[];
  /** Dense layers, by the last parts of their names, that adapters go on where nobody says which. */
  readonly usualTargets: readonly string[];
  /** What its modules' names begin with where it is a part of a larger model: "model.language_model.". */
  readonly wholePath: string | null;
  /** The projection to the vocabulary. */
  readonly head: nn.Linear;
  /** Null for a model made by `initModel`. */
  origin: ModelOrigin | null;
  /** What its dense weights were quantized to while they were loaded; null where they are as they were stored. */
  quantization: QuantizedType | null;
  /** Reads a parameter's numbers from the checkpoint once more, by its name; null unless it was quantized while it was loaded. */
  reread: ((name: string) => Promise<Float32Array>) | null;
  /** The numbers of a parameter that was quantized as they were before, in its own shape; null where nobody has them. */
  storedWeight(parameter: Tensor): Promise<Float32Array> | null;
  /** What checkpoints call a parameter, and the pieces in which they hold it, if they do. */
  savedAs(name: string): { readonly name: string; readonly pieces: readonly StoredPiece[] };
  /** Where prefix and prompt methods enter. */
  readonly virtualTokens: VirtualTokens;
  /** What a token's embedding is multiplied by, where a virtual prompt's is not. */
  readonly promptScale: number;
  /** How batches are best laid out for it as it is now, on its device. */
  readonly batchLayout: BatchLayout;
  /** Hidden states before the head: ids i32 [batch, seq] → f32 [batch, seq, width]. */
  hidden(ids: Tensor, options?: ForwardOptions): Tensor;
  /** Hidden states [..., width] → logits f32 [..., vocab]. */
  logits(hidden: Tensor): Tensor;
  /** ids i32 [batch, seq] → logits f32 [batch, seq, vocab]. */
  forward(ids: Tensor, options?: ForwardOptions): Tensor;
  /**
   * Mean cross-entropy of each next token: ids and labels i32 [batch, seq]; labels are the ids themselves, shifted inside, -100 where a
   * position does not count. NaN when none counts. Throws RangeError for a label that is neither, where it comes from JavaScript. transformers' `model(input_ids, labels=labels).loss`. Of packed rows the same as of
   * the rows apart: no token predicts another row's.
   */
  loss(ids: Tensor, labels: Tensor, options?: Pick<ForwardOptions, "packed">): Tensor;
}

/**
 * What the layers of one forward pass are told. A cache that is not empty already holds what the virtual tokens gave.
 * Throws ShapeError for packed rows behind a cache, and behind a prompt, which would have to stand before each of them.
 */
export function attentionContext(virtualTokens: VirtualTokens, { cache, packed }: ForwardOptions): AttentionContext {
  const { prefix, prompt } = virtualTokens;
  if (packed && (cache || prompt))
    throw new ShapeError("Packed rows have no place for a cache or for a prompt before each of them. Use a row of the batch for each.");
  const isInCache = cache !== undefined && !cache.isEmpty;
  return {
    prefix: prefix && !isInCache ? { length: prefix.length, layers: prefix.layers() } : null,
    prompt: isInCache ? null : prompt,
    cache: cache ?? null,
    packed: packed ? visibleRows(packed) : null,
  };
}

/** Throws ShapeError unless ids are integers [batch, seq]. */
export function checkIds(ids: Tensor): void {
  if (ids.rank !== 2 || (ids.dtype !== "i32" && ids.dtype !== "u32")) {
    throw new ShapeError(
      `The model needs token ids as i32 [batch, seq], got ${ids.dtype} ${showShape(ids.shape)}. Make them with tensor([[…]], { dtype: "i32", device }).`,
      [ids.shape],
    );
  }
}

/**
 * Positions that the longest row of a forward pass takes; `length` is that of the batch's rows. Throws ShapeError when they are more than
 * the model can look at.
 */
export function longestRow(length: number, { packed, prefix }: AttentionContext, contextLength: number): number {
  const longest = (packed?.rowLimit ?? length) + (prefix?.length ?? 0);
  if (longest > contextLength)
    throw new ShapeError(`${longest} tokens are more than the model's context of ${contextLength}. Shorten the text or split it.`);
  return longest;
}

/**
 * Throws RangeError when an id is no token of the vocabulary. Ids on a device cannot be checked there (gather clamps them), so whoever
 * makes them calls this first.
 */
export function checkTokenIds(ids: ArrayLike<number>, vocabSize: number): void {
  for (let i = 0; i < ids.length; i++) {
    const id = ids[i] ?? -1;
    if (!Number.isInteger(id) || id < 0 || id >= vocabSize) {
      throw new RangeError(
        `Token id ${id} at position ${i} is outside the model's vocabulary of ${vocabSize} (0 to ${vocabSize - 1}). Use the tokenizer that belongs to the model.`,
      );
    }
  }
}

/**
 * `CausalLM.loss` from the hidden states; without materialising the logits while the head is a plain matrix. `shaped` is what becomes of
 * the logits, element by element.
 */
export function causalLoss(
  hidden: Tensor,
  head: nn.Linear,
  labels: Tensor,
  packed: PackedRows | null = null,
  shaped: ((logits: Tensor) => Tensor) | null = null,
): Tensor {
  const [batch = 0, length = 0, width = 0] = hidden.shape;
  const labelLength = labels.shape[1] ?? 0;
  if (labels.rank !== 2 || labels.shape[0] !== batch || labelLength > length || labels.dtype !== "i32") {
    throw new ShapeError(
      `loss: labels are ${labels.dtype} ${showShape(labels.shape)}, the ids give ${showShape([batch, length])}. Labels are i32 of the ids' shape.`,
      [labels.shape, hidden.shape],
    );
  }
  checkLabels(labels, head.outFeatures);
  // Position i predicts token i + 1. Of the virtual tokens in front (prompt methods) the last predicts the text's first token, as in PEFT.
  const virtual = length - labelLength;
  const learned = packed ? withoutFirst(labels, packed) : labels;
  const next = virtual > 0 ? learned : learned.narrow(1, 1, labelLength - 1);
  const targets = next
    .pad(
      [
        [0, 0],
        [Math.max(virtual - 1, 0), 1],
      ],
      ignoredLabel,
    )
    .reshape([batch * length]);
  const rows = hidden.reshape([batch * length, width]);
  const isPlain = head.wrappers.length === 0 && head.bias === null && !head.isTransposed;
  if (!isPlain) {
    const logits = head.forward(rows);
    return crossEntropy(shaped?.(logits) ?? logits, targets);
  }
  return sum(linearCrossEntropy(rows, head.weight, targets, shaped ? { logits: shaped } : {})).div(
    sum(targets.notEqual(ignoredLabel).cast("f32")),
  );
}

/** [batch, seq, heads · dim] → [batch, heads, seq, dim]. */
export function splitHeads(x: Tensor, heads: number): Tensor {
  const [batch = 0, length = 0, width = 0] = x.shape;
  return x.reshape([batch, length, heads, width / heads]).permute([0, 2, 1, 3]);
}

/** [batch, heads, seq, dim] → [batch, seq, heads · dim]. */
export function joinHeads(x: Tensor): Tensor {
  const [batch = 0, heads = 0, length = 0, dim = 0] = x.shape;
  return x.permute([0, 2, 1, 3]).reshape([batch, length, heads * dim]);
}

/** Token embeddings [batch, seq, width] with the virtual prompt in front, where the pass has one. */
export function withPrompt(embedded: Tensor, { prompt }: AttentionContext): Tensor {
  if (!prompt) return embedded;
  const [batch = 0, , width = 0] = embedded.shape;
  return concat([prompt.embeddings().reshape([1, prompt.length, width]).expand([batch, prompt.length, width]), embedded], 1);
}

/** Positions of a forward pass, i32 [length] (the same for all rows) or [batch, length] behind a cache and of packed rows. */
export function positionsOf(batch: number, length: number, context: AttentionContext, device: Device): Tensor {
  const from = context.prefix?.length ?? 0;
  if (context.packed) return from === 0 ? context.packed.positions : context.packed.positions.add(from);
  const iota = new Tensor({ op: "iota", axis: 0, shape: [length], dtype: "i32" }, device);
  const own = from === 0 ? iota : iota.add(from);
  return context.cache ? context.cache.positions.reshape([batch, 1]).add(own) : own;
}
