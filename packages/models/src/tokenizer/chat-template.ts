import { TokenizerError } from "./pipeline/error.js";
import { fromJson } from "./template/from-json.js";
import { Refusal } from "./template/globals.js";
import { Meter, RenderLimit } from "./template/meter.js";
import { parseTemplate } from "./template/parser.js";
import { type Rendering, render } from "./template/render.js";
import type { Statement } from "./template/syntax.js";

/** Characters of a template; those of models have some ten thousand. */
const longestTemplate = 2 ** 20;

/** Steps of any rendering, and those that what is rendered adds: templates of models take some hundred a message. */
const steps = { base: 1e6, perValue: 5000, perCharacter: 4 };

/** A checkpoint's Jinja template, which renders as jinja2 does set up by transformers, within bounds of time and memory. */
export class ChatTemplate {
  readonly #program: readonly Statement[];

  /** Throws TokenizerError where the text is not a template. */
  constructor(text: string) {
    if (text.length > longestTemplate)
      throw new TokenizerError(
        `The chat template has ${text.length} characters, more than ${longestTemplate}. Fetch the checkpoint's tokenizer again.`,
      );
    try {
      this.#program = parseTemplate(text);
    } catch (error) {
      throw new TokenizerError(
        `The chat template is not valid Jinja (${reasonOf(error)}). Fetch the checkpoint's tokenizer again, or use another template.`,
      );
    }
  }

  /**
   * The text for some variables, which are JSON's values. `now` is the clock of `strftime_now`.
   * Throws TokenizerError where the template refuses them, fails, or takes too long.
   */
  render(variables: Readonly<Record<string, unknown>>, now?: () => Date): string {
    return this.renderSpans(variables, now).text;
  }

  /** As `render`, with the spans that `{% generation %}` marks. */
  renderSpans(variables: Readonly<Record<string, unknown>>, now: () => Date = () => new Date()): Rendering {
    try {
      const values = new Map(Object.entries(variables).map(([name, value]) => [name, fromJson(value)]));
      return render(this.#program, values, now, new Meter(allowed(variables)));
    } catch (error) {
      if (error instanceof Refusal)
        throw new TokenizerError(
          `The chat template refuses the messages: ${reasonOf(error).replace(/[.!]?$/, ".")} Change their roles or their order.`,
        );
      if (error instanceof RenderLimit)
        throw new TokenizerError(
          `The chat template was not rendered to its end: ${error.message}. Use the template of another checkpoint, or shorter messages.`,
        );
      throw new TokenizerError(
        `The chat template cannot be rendered with these messages (${reasonOf(error)}). Check their roles and fields.`,
      );
    }
  }
}

/** Steps that rendering may take, by the size of what is rendered. */
function allowed(variables: Readonly<Record<string, unknown>>): number {
  let total = steps.base;
  const waiting: unknown[] = [variables];
  const seen = new Set<object>();
  while (waiting.length > 0) {
    const value = waiting.pop();
    total += steps.perValue;
    if (typeof value === "string") total += steps.perCharacter * value.length;
    if (typeof value !== "object" || value === null || seen.has(value)) continue;
    seen.add(value);
    for (const item of Object.values(value)) waiting.push(item);
  }
  return total;
}

function reasonOf(error: unknown): string {
  const text = error instanceof Error ? error.message : String(error);
  return text.length > 300 ? `${text.slice(0, 300)}…` : text;
}
