import { type GenerateOptions, type TextGenerator, TextStream, type Tokenizer } from "@lowrank/models";
import { largest } from "@lowrank/tensor";

/** An answer, and its tokens. */
export interface Answer {
  readonly text: string;
  readonly tokens: readonly number[];
  readonly logProbabilities: readonly number[];
  /** What ended it. */
  readonly end: "end token" | "stop text" | "length";
}

/** How prompts are answered. */
export interface AnswerOptions extends GenerateOptions {
  /** Texts that end an answer and are no part of it. */
  readonly stopTexts: readonly string[];
  /** Shows what comes, of each row as soon as it is known to stay. */
  onText(text: string, row: number): void;
}

/** Answers prompts, and shows them while they come. */
export async function answered(
  generator: TextGenerator,
  tokenizer: Tokenizer,
  prompts: readonly (readonly number[])[],
  options: AnswerOptions,
): Promise<Answer[]> {
  const { stopTexts, onText, maxNewTokens } = options;
  const rows = prompts.map((prompt) => new AnswerRow(new TextStream(tokenizer, prompt), stopTexts));
  const at = (row: number): AnswerRow => rows[row] as AnswerRow; // one a prompt
  // An end token that is a word, a full stop for one, belongs to the text that it ends.
  const specials = new Set(tokenizer.specialTokens);
  const isWord = (token: number): boolean => token !== tokenizer.eosTokenId && !specials.has(tokenizer.token(token) ?? "");
  const words = new Set(generator.model.stopTokens.filter(isWord));
  const tokens = await generator.generate(prompts, {
    ...options,
    stopTokens: generator.model.stopTokens.filter((token) => !words.has(token)),
    onToken(token, row, logProbability) {
      if (logProbability !== null) at(row).logProbabilities.push(logProbability);
      onText(at(row).push(token), row);
    },
    isEnd: (row, own) => at(row).isStopped || words.has(own.at(-1) ?? -1),
  });
  return rows.map((row, i) => {
    onText(row.finish(), i);
    const own = tokens[i] ?? [];
    return {
      text: row.text,
      tokens: own,
      logProbabilities: row.logProbabilities,
      end: row.isStopped ? "stop text" : own.length >= maxNewTokens && !words.has(own.at(-1) ?? -1) ? "length" : "end token",
    };
  });
}

/** One answer while it grows. */
class AnswerRow {
  text = "";
  isStopped = false;
  readonly logProbabilities: number[] = [];
  /** What may be the beginning of a text that stops. */
  #held = "";
  readonly #longest: number;

  constructor(
    readonly stream: TextStream,
    readonly stopTexts: readonly string[],
  ) {
    this.#longest = largest(
      stopTexts.map(({ length }) => length),
      0,
    );
  }

  /** The text that a token makes certain. */
  push(token: number): string {
    return this.#take(this.stream.push(token), false);
  }

  finish(): string {
    return this.isStopped ? "" : this.#take(this.stream.finish(), true);
  }

  #take(more: string, isLast: boolean): string {
    this.#held += more;
    const found = this.stopTexts.map((stop) => this.#held.indexOf(stop)).filter((place) => place >= 0);
    this.isStopped = found.length > 0;
    const end = this.isStopped
      ? found.reduce((least, place) => Math.min(least, place))
      : isLast
        ? this.#held.length
        : Math.max(0, this.#held.length - Math.max(0, this.#longest - 1));
    const certain = this.#held.slice(0, end);
    this.#held = this.#held.slice(end);
    this.text += certain;
    return certain;
  }
}
