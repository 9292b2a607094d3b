import { type GenerateOptions, type SchemaConstraint, type TextGenerator, TextStream, type Tokenizer } from "@lowrank/models";
import { largest } from "@lowrank/tensor";
import type { Output } from "../output.js";
import { endingOf } from "./ending.js";

/** An answer, and its tokens. */
export interface Answer {
  readonly text: string;
  readonly tokens: readonly number[];
  readonly logProbabilities: readonly number[];
  /** What ended it. */
  readonly end: "end token" | "stop text" | "length" | "complete JSON";
  /** Whether it is whole JSON of the schema; null where there is none. */
  readonly isComplete: boolean | null;
}

/** How prompts are answered. */
export interface AnswerOptions extends GenerateOptions {
  /** Texts that end an answer and are no part of it. */
  readonly stopTexts: readonly string[];
  /** What answers are held to. */
  readonly constraint: SchemaConstraint | null;
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
  const { stopTexts, onText, maxNewTokens, constraint } = options;
  const rows = prompts.map((prompt) => new AnswerRow(new TextStream(tokenizer, prompt), stopTexts));
  const at = (row: number): AnswerRow => rows[row] as AnswerRow; // one a prompt
  const { stops, words } = endingOf(generator.model, tokenizer);
  const held = constraint?.options;
  // Within JSON it is a word like others.
  const endsByWord = (own: readonly number[]): boolean => !constraint && words.has(own.at(-1) ?? -1);
  const tokens = await generator.generate(prompts, {
    ...options,
    ...held,
    stopTokens: stops,
    onToken(token, row, logProbability) {
      if (logProbability !== null) at(row).logProbabilities.push(logProbability);
      onText(at(row).push(token), row);
    },
    isEnd: (row, own) => at(row).isStopped || endsByWord(own) || held?.isEnd(row, own) === true,
  });
  return rows.map((row, i) => {
    onText(row.finish(), i);
    const own = tokens[i] ?? [];
    const isComplete = constraint ? !row.isStopped && constraint.isComplete(i, own) : null;
    return {
      text: row.text,
      tokens: own,
      logProbabilities: row.logProbabilities,
      end: row.isStopped
        ? "stop text"
        : held?.isEnd(i, own)
          ? "complete JSON"
          : own.length >= maxNewTokens && !endsByWord(own)
            ? "length"
            : "end token",
      isComplete,
    };
  });
}

/** Says which answers are no whole JSON, and what to do. */
export function noteCutJson(answers: readonly Answer[], output: Output): void {
  const cut = answers.filter(({ isComplete }) => isComplete === false);
  if (cut.length === 0) return;
  const reason = cut.every(({ end }) => end === "stop text")
    ? "a stop text ended it"
    : "--max-new-tokens or the context ended it; raise it, or give texts a maxLength in the schema";
  output.note(
    `${answers.length === 1 ? "the JSON is" : `the JSON of ${cut.length} answers of ${answers.length} is`} not complete: ${reason}`,
  );
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
