import { compile, largest, type Tensor, tensor } from "@lowrank/tensor";
import { type CausalLM, checkTokenIds } from "../causal-lm.js";
import { KeyValueCache } from "./cache.js";
import { checkSampling, type SamplingOptions, sample, seededRandom } from "./sample.js";

/** What to generate and when to stop. */
export interface GenerateOptions extends SamplingOptions {
  readonly maxNewTokens: number;
  /** Tokens that end a text and are not part of it; the model's end tokens when absent. */
  readonly stopTokens?: readonly number[];
  /** Called with each new token of each row as soon as it is known. */
  readonly onToken?: (token: number, row: number) => void;
  /** Ends it before the next token: `generate` then rejects with the signal's reason. */
  readonly signal?: AbortSignal;
}

/** Smallest number of positions of a cache, and of tokens that a prompt is padded to. */
const smallest = 32;

/** A row of a batch while it grows. */
interface Row {
  readonly prompt: readonly number[];
  readonly tokens: number[];
  isDone: boolean;
}

/** A cache with the compiled functions that work on it. */
interface Stage {
  readonly cache: KeyValueCache;
  /** ids [batch, padded], lengths i32 [batch] → logits of each row's last token [batch, vocab]. */
  readonly prefill: ((ids: Tensor, lengths: Tensor) => Tensor) & { dispose(): void };
  /** ids [batch, 1], positions i32 [batch] → logits [batch, vocab]. */
  readonly decode: ((ids: Tensor, positions: Tensor) => Tensor) & { dispose(): void };
}

/**
 * Generates with one model again and again: the recorded plans and the cache are kept between calls. Adapters may be put on,
 * merged and taken off between calls.
 */
export class TextGenerator {
  readonly #stages: Map<string, Stage> = new Map();

  constructor(readonly model: CausalLM) {}

  /**
   * Continues token ids; for several rows (of any lengths) at once, a list for each. Only new tokens are returned, without the stop token.
   * Rejects with RangeError when an id is outside the vocabulary, a prompt is empty, or prompt and new tokens exceed the context.
   */
  async generate(prompts: readonly (readonly number[])[], options: GenerateOptions): Promise<number[][]> {
    const { model } = this;
    checkSampling(options);
    const { maxNewTokens } = options;
    if (!Number.isInteger(maxNewTokens) || maxNewTokens < 0)
      throw new RangeError(`generate: maxNewTokens is ${maxNewTokens}. Use an integer of at least 0.`);
    const rows = prompts.map((prompt): Row => ({ prompt, tokens: [], isDone: false }));
    for (const { prompt } of rows) checkPrompt(prompt, maxNewTokens, model);
    if (rows.length === 0 || maxNewTokens === 0) return rows.map(() => []);
    const stops = new Set(options.stopTokens ?? model.stopTokens);
    const randoms = rows.map((_, row) => seededRandom((options.seed ?? 0) + row * 2 ** 32));
    const take = (logits: ArrayLike<number>): void => {
      for (const [index, row] of rows.entries()) {
        if (row.isDone) continue;
        const token = sample(rowOf(logits, index, model.vocabSize), options, randoms[index] as () => number);
        row.isDone = stops.has(token);
        if (row.isDone) continue;
        row.tokens.push(token);
        options.onToken?.(token, index);
        row.isDone = row.tokens.length >= maxNewTokens;
      }
    };

    const longest = largest(rows.map(({ prompt }) => prompt.length));
    const virtual = model.virtualTokens.length;
    const padded = Math.min(bucket(longest), model.contextLength - virtual);
    options.signal?.throwIfAborted();
    let stage = this.#stage(rows.length, this.#capacity(virtual + Math.max(padded, longest + 1)));
    take(await this.#prefill(stage, rows, padded).data());
    while (rows.some(({ isDone }) => !isDone)) {
      options.signal?.throwIfAborted();
      // The newest token of every row is not in the cache yet; rows that are done stay where they are.
      const positions = rows.map(({ prompt, tokens }) => virtual + prompt.length + Math.max(tokens.length, 1) - 1);
      const needed = largest(positions) + 1;
      if (needed > stage.cache.capacity) stage = this.#grown(stage, this.#capacity(needed));
      const newest = rows.map(({ prompt, tokens }) => [tokens.at(-1) ?? prompt.at(-1) ?? 0]);
      const { device } = model;
      const logits = stage.decode(tensor(newest, { device, dtype: "i32" }), tensor(positions, { device, dtype: "i32" }));
      take(await logits.data());
      logits.dispose();
    }
    return rows.map(({ tokens }) => tokens);
  }

  /** Gives the caches back. */
  dispose(): void {
    for (const { cache, prefill, decode } of this.#stages.values()) {
      cache.dispose();
      prefill.dispose();
      decode.dispose();
    }
    this.#stages.clear();
  }

  #prefill(stage: Stage, rows: readonly Row[], padded: number): Tensor {
    const { device } = this.model;
    const ids = new Int32Array(rows.length * padded);
    for (const [index, { prompt }] of rows.entries()) ids.set(prompt, index * padded);
    const lengths = rows.map(({ prompt }) => prompt.length);
    return stage.prefill(tensor(ids, { device, dtype: "i32", shape: [rows.length, padded] }), tensor(lengths, { device, dtype: "i32" }));
  }

  #capacity(positions: number): number {
    return Math.min(bucket(positions), this.model.contextLength);
  }

  #grown(stage: Stage, capacity: number): Stage {
    const larger = this.#stage(stage.cache.batch, capacity);
    larger.cache.take(stage.cache);
    return larger;
  }

  #stage(batch: number, capacity: number): Stage {
    const key = `${batch} ${capacity}`;
    const known = this.#stages.get(key);
    if (known) return known;
    const { model } = this;
    const cache = new KeyValueCache(model.cacheShape, batch, capacity, model.device);
    const stage: Stage = {
      cache,
      prefill: compile((ids: Tensor, lengths: Tensor) => {
        cache.positions = null;
        const hidden = model.hidden(ids, { cache });
        const [rows = 0, length = 0, width = 0] = hidden.shape;
        const extra = length - (ids.shape[1] ?? 0);
        const starts = tensor(
          Array.from({ length: rows }, (_, row) => row * length + extra - 1),
          { device: model.device, dtype: "i32" },
        );
        const last = hidden.reshape([rows * length, width]).gather(lengths.add(starts));
        return model.lm_head.forward(last);
      }),
      decode: compile((ids: Tensor, positions: Tensor) => {
        cache.positions = positions;
        const hidden = model.hidden(ids, { cache });
        return model.lm_head.forward(hidden.reshape([batch, hidden.sizeAt(-1)]));
      }),
    };
    this.#stages.set(key, stage);
    return stage;
  }
}

/**
 * Continues token ids and returns the new ones, without the stop token. Every token after the first costs one token's work: keys and values
 * are cached. Rejects with RangeError when an id is outside the vocabulary, or prompt and new tokens exceed the model's context.
 */
export async function generate(model: CausalLM, ids: readonly number[], options: GenerateOptions): Promise<number[]> {
  const generator = new TextGenerator(model);
  try {
    const [tokens = []] = await generator.generate([ids], options);
    return tokens;
  } finally {
    generator.dispose();
  }
}

function checkPrompt(prompt: readonly number[], maxNewTokens: number, model: CausalLM): void {
  if (prompt.length === 0) throw new RangeError("generate: the prompt has no tokens. Begin with the begin-of-text token or some text.");
  checkTokenIds(prompt, model.vocabSize);
  const taken = model.virtualTokens.length;
  if (taken + prompt.length + maxNewTokens > model.contextLength) {
    const beside = taken > 0 ? ` and ${taken} virtual tokens` : "";
    throw new RangeError(
      `generate: ${prompt.length} prompt tokens${beside} and ${maxNewTokens} new ones are more than the model's context of ${model.contextLength}. Shorten the prompt or ask for fewer tokens.`,
    );
  }
}

function bucket(length: number): number {
  return 2 ** Math.ceil(Math.log2(Math.max(length, smallest)));
}

function rowOf(logits: ArrayLike<number>, row: number, width: number): ArrayLike<number> {
  return (logits as Float32Array).subarray(row * width, (row + 1) * width);
}
