import { compile, dynamicSlice, fromBytes, largest, roundedActivations, type Tensor, tensor } from "@lowrank/tensor";
import { type CacheDType, KeyValueCache } from "../cache.js";
import { type CausalLM, checkTokenIds } from "../causal-lm.js";
import { type ChoiceKind, type ChoiceText, type Chosen, choiceKind, chosen, countOn, readChoice } from "./choice.js";
import { chunkStep, chunksFor } from "./chunks.js";
import { checkSampling, type SamplingOptions, seededRandom } from "./sample.js";

/** What to generate and when to stop. */
export interface GenerateOptions extends SamplingOptions {
  readonly maxNewTokens: number;
  /** Tokens that end a text and are not part of it; the model's end tokens when absent. */
  readonly stopTokens?: readonly number[];
  /** Whether the log-probability of each token is told to `onToken`; reads all logits for it. */
  readonly hasLogProbabilities?: boolean;
  /** Called with each new token of each row as soon as it is known, and with the logarithm of its probability where that is wanted. */
  readonly onToken?: (token: number, row: number, logProbability: number | null) => void;
  /** Ends a row after its newest token: because of a text that the tokens make, for instance. */
  readonly isEnd?: (row: number, tokens: readonly number[]) => boolean;
  /**
   * Which tokens may come after the new ones of a row, as bits: of token i the bit i % 32 of number ⌊i / 32⌋; null for all. For answers that follow a
   * grammar. All logits are read for it. Where no token may come, `generate` rejects with RangeError.
   */
  readonly allowedTokens?: (row: number, tokens: readonly number[]) => ArrayLike<number> | null;
  /** Ends it before the next token: `generate` then rejects with the signal's reason. */
  readonly signal?: AbortSignal;
}

/** How a generator keeps what it has read. */
export interface GeneratorOptions {
  /** How keys and values are stored: "bf16" takes half the memory, and as much less to read for each token, with 8 bits of each number. */
  readonly cacheDType?: CacheDType;
}

/** Smallest number of positions of a cache. */
const smallest = 32;

/** A row of a batch while it grows. */
interface Row {
  readonly prompt: readonly number[];
  readonly tokens: number[];
  isDone: boolean;
}

type Compiled<F> = F & { dispose(): void };

/** A cache with the compiled functions that work on it. */
interface Stage {
  readonly cache: KeyValueCache;
  /** f32 [batch, width]: hidden states of each prompt's last token, once it was read. */
  readonly last: Tensor;
  /** Reads ids [batch, chunk] at positions i32 [batch]; `ends`, i32 [batch], is where in the chunk each prompt has its last token, if it does. */
  readonly read: Compiled<(ids: Tensor, positions: Tensor, ends: Tensor, isFirst: boolean) => void>;
  /** What chooses each text's first new token. */
  readonly begin: Compiled<(kind: ChoiceKind, k: Tensor | null) => Chosen>;
  /** ids [batch, 1], positions i32 [batch] → what chooses the tokens after them. */
  readonly decode: Compiled<(ids: Tensor, positions: Tensor, kind: ChoiceKind, k: Tensor | null) => Chosen>;
}

/**
 * Generates with one model again and again: the recorded plans and the cache are kept between calls. Adapters may be put on,
 * merged and taken off between calls.
 */
export class TextGenerator {
  readonly #stages: Map<string, Stage> = new Map();

  constructor(
    readonly model: CausalLM,
    readonly options: GeneratorOptions = {},
  ) {}

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
    const texts = rows.map(({ prompt, tokens }, row): ChoiceText => {
      const seen = (): number[] => [...prompt, ...tokens];
      return {
        random: seededRandom((options.seed ?? 0) + row * 2 ** 32),
        seen,
        allowed: () => options.allowedTokens?.(row, tokens) ?? null,
      };
    });
    const choosing = { ...options, isMasked: options.allowedTokens !== undefined };
    const kind = choiceKind(choosing, model.vocabSize);
    const k = kind === "greedy" ? null : countOn(model.device, options);
    const take = async (result: Chosen): Promise<void> => {
      const choices = await readChoice(result, choosing, texts, (index) => !rows[index]?.isDone);
      for (const [index, row] of rows.entries()) {
        const choice = choices[index];
        if (row.isDone || !choice) continue;
        const { token, logProbability } = choice;
        row.isDone = stops.has(token);
        if (row.isDone) continue;
        row.tokens.push(token);
        options.onToken?.(token, index, logProbability);
        row.isDone = row.tokens.length >= maxNewTokens || options.isEnd?.(index, row.tokens) === true;
      }
    };

    const virtual = model.virtualTokens.length;
    options.signal?.throwIfAborted();
    let stage = this.#read(
      rows.map(({ prompt }) => prompt),
      maxNewTokens,
      options.signal,
    );
    await take(stage.begin(kind, k));
    while (rows.some(({ isDone }) => !isDone)) {
      options.signal?.throwIfAborted();
      if (rows.some((row) => !row.isDone && virtual + row.prompt.length + row.tokens.length === model.rereadsAt)) {
        stage = this.#read(
          rows.map(({ prompt, tokens }) => [...prompt, ...tokens]),
          maxNewTokens,
          options.signal,
        );
        await take(stage.begin(kind, k));
        continue;
      }
      // The newest token of every row is not in the cache yet; rows that are done stay where they are.
      const positions = rows.map(({ prompt, tokens }) => virtual + prompt.length + Math.max(tokens.length, 1) - 1);
      const needed = largest(positions) + 1;
      if (needed > stage.cache.capacity) stage = this.#grown(stage, this.#capacity(needed));
      const newest = rows.map(({ prompt, tokens }) => [tokens.at(-1) ?? prompt.at(-1) ?? 0]);
      const [ids, at] = [this.#ints(newest), this.#ints(positions)];
      const result = stage.decode(ids, at, kind, k);
      for (const t of [ids, at]) t.dispose();
      await take(result);
    }
    k?.dispose();
    return rows.map(({ tokens }) => tokens);
  }

  /** Gives the caches back. */
  dispose(): void {
    for (const { cache, last, read, begin, decode } of this.#stages.values())
      for (const held of [cache, last, read, begin, decode]) held.dispose();
    this.#stages.clear();
  }

  #ints(values: readonly number[] | readonly (readonly number[])[]): Tensor {
    return tensor(values as number[], { device: this.model.device, dtype: "i32" });
  }

  /** Reads texts, chunk by chunk, into a cache that holds them, and `ahead` further tokens where that takes no more than the next larger one. */
  #read(texts: readonly (readonly number[])[], ahead: number, signal: AbortSignal | undefined): Stage {
    const virtual = this.model.virtualTokens.length;
    const longest = largest(texts.map(({ length }) => length));
    const chunks = chunksFor(longest, this.#most - virtual);
    const padded = chunks.reduce((sum, size) => sum + size, 0);
    const least = this.#capacity(virtual + Math.max(padded, longest + 1));
    // What grows is copied. A text may also end long before the last token that it is allowed.
    const stage = this.#stage(
      texts.length,
      Math.max(least, Math.min(this.#capacity(virtual + longest + ahead), this.#capacity(least + 1))),
    );
    let start = 0;
    for (const size of chunks) {
      signal?.throwIfAborted();
      const ids = texts.map((text) => Array.from({ length: size }, (_, i) => text[start + i] ?? 0));
      const ends = texts.map(({ length }) => length - 1 - start);
      const isFirst = start === 0 && virtual > 0;
      const positions = texts.map(() => (start === 0 ? 0 : virtual + start));
      const given = [this.#ints(ids), this.#ints(positions), this.#ints(ends)] as const;
      stage.read(...given, isFirst);
      for (const t of given) t.dispose();
      start += size;
    }
    return stage;
  }

  /** Most positions that a cache has: the last chunk of a prompt may end a little beyond the context. */
  get #most(): number {
    return (Math.ceil(this.model.contextLength / chunkStep) + 1) * chunkStep;
  }

  #capacity(positions: number): number {
    return Math.min(bucket(positions), this.#most);
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
    const { device } = model;
    const cache = new KeyValueCache(model.keeps, batch, capacity, device, this.options.cacheDType);
    const width = model.head.inFeatures;
    const last = fromBytes(new Uint8Array(4 * batch * width), "f32", [batch, width], device);
    const stage: Stage = {
      cache,
      last,
      read: compile((ids: Tensor, positions: Tensor, ends: Tensor, isFirst: boolean) => {
        const size = ids.shape[1] ?? 0;
        const virtual = isFirst ? model.virtualTokens.length : 0;
        const lengths = positions.add(ends).add(1 + virtual);
        cache.begin({
          positions,
          isFirst,
          lengths,
          counts: lengths
            .sub(positions)
            .maximum(0)
            .minimum(size + virtual),
        });
        const hidden = roundedActivations(() => model.hidden(ids, { cache }));
        const [, length = 0] = hidden.shape;
        const starts = ends
          .add(length - size)
          .reshape([batch, 1])
          .pad([
            [0, 0],
            [0, 1],
          ]);
        const own = dynamicSlice(hidden, starts, [1, width]).reshape([batch, width]);
        const isHere = ends.greaterEqual(0).and(ends.less(size)).reshape([batch, 1]);
        last.assign(isHere.where(own, last));
      }),
      begin: compile((kind: ChoiceKind, k: Tensor | null) =>
        chosen(
          roundedActivations(() => model.logits(last)),
          kind,
          k,
        ),
      ),
      decode: compile((ids: Tensor, positions: Tensor, kind: ChoiceKind, k: Tensor | null) => {
        cache.begin({ positions, isFirst: false, lengths: positions.add(1), counts: positions.mul(0).add(1) });
        const logits = roundedActivations(() => model.logits(model.hidden(ids, { cache }).reshape([batch, width])));
        return chosen(logits, kind, k);
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
export async function generate(model: CausalLM, ids: readonly number[], options: GenerateOptions & GeneratorOptions): Promise<number[]> {
  const generator = new TextGenerator(model, options);
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
