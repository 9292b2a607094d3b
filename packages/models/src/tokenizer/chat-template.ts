import { TokenizerError } from "./error.js";
import { Environment, type Node, parseTemplate, type Scope } from "./jinja.js";
import { MeteredInterpreter, type Places, placesOf, RenderLimit } from "./metered.js";
import { strftime } from "./strftime.js";

/** Characters of a template; those of models have some ten thousand. */
const longestTemplate = 2 ** 20;
/** Looking for `{% generation %}` takes the square of a run of white space. */
const mostBlankSquares = 1e8;

/** Steps of any rendering, and those that what is rendered adds: templates of models take some hundred a message. */
const steps = { base: 1e6, perValue: 5000, perCharacter: 4 };

/** The template itself says no: `raise_exception`. */
class Refusal extends Error {}

/** A checkpoint's Jinja template, rendered within bounds of time and memory wherever JavaScript runs. */
export class ChatTemplate {
  readonly #program: Node;
  readonly #places: Places;

  /** Throws TokenizerError where the text is not a template. */
  constructor(text: string) {
    if (text.length > longestTemplate)
      throw new TokenizerError(
        `The chat template has ${text.length} characters, more than ${longestTemplate}. Fetch the checkpoint's tokenizer again.`,
      );
    let squares = 0;
    for (const [run] of text.matchAll(/\s{100,}/g)) squares += run.length ** 2;
    if (squares > mostBlankSquares)
      throw new TokenizerError("The chat template holds long runs of white space. Fetch the checkpoint's tokenizer again.");
    try {
      this.#program = parseTemplate(text);
      this.#places = placesOf(this.#program);
    } catch (error) {
      throw new TokenizerError(
        `The chat template is not valid Jinja (${reasonOf(error)}). Fetch the checkpoint's tokenizer again, or use another template.`,
      );
    }
  }

  /** The text for some variables. Throws TokenizerError where the template refuses them, fails, or takes too long. */
  render(variables: Readonly<Record<string, unknown>>): string {
    try {
      const environment = new Environment();
      const interpreter = new MeteredInterpreter(environment, this.#places, allowed(variables));
      setGlobals(environment, interpreter);
      for (const [name, value] of Object.entries(variables)) environment.set(name, value);
      return String(interpreter.run(this.#program).value);
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

/** The names that every template may use; what jinja2 and transformers define. */
function setGlobals(environment: Scope, meter: MeteredInterpreter): void {
  for (const [name, value] of Object.entries({ true: true, false: false, none: null, True: true, False: false, None: null }))
    environment.set(name, value);
  environment.set("raise_exception", (reason: unknown) => {
    throw new Refusal(typeof reason === "string" ? reason : "it gives no reason");
  });
  environment.set("range", (...args: readonly unknown[]) => range(args, meter));
  environment.set("strftime_now", (format: unknown) => {
    if (typeof format !== "string") throw new Error("strftime_now() takes a text");
    return strftime(new Date(), format);
  });
}

/** Python's range as a list, its elements paid for. */
function range(args: readonly unknown[], meter: MeteredInterpreter): number[] {
  const numbers = args.filter((arg): arg is number => Number.isSafeInteger(arg));
  if (numbers.length !== args.length || args.length < 1 || args.length > 3) throw new Error("range() takes one to three whole numbers");
  const [first = 0, second, step = 1] = numbers;
  const [start, stop] = second === undefined ? [0, first] : [first, second];
  if (step === 0) throw new Error("range() takes no step of 0");
  const length = Math.max(0, Math.ceil((stop - start) / step));
  meter.charge(length);
  return Array.from({ length }, (_, i) => start + i * step);
}

function reasonOf(error: unknown): string {
  const text = error instanceof Error ? error.message : String(error);
  return text.length > 300 ? `${text.slice(0, 300)}…` : text;
}
