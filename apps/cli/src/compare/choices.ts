import type { CausalLM } from "@lowrank/models";
import { UsageError } from "../failure.js";
import type { Values } from "../flags.js";
import { defaultOptions, fullMethod, methodFlags, methodNames, methodOf, methodOptions } from "../method.js";

/** What is compared when nothing is said, as far as this installation has it. */
const usualMethods = ["full", "lora", "dora", "adapter", "prefix", "prompt", "ptuning", "ptuning-v2", "ia3", "bitfit"];

/** The methods asked for. Throws UsageError for one that this installation does not have, or that is named twice. */
export function chosenMethods(asked: readonly string[] | undefined): readonly string[] {
  const names = asked ?? usualMethods.filter((name) => methodNames.includes(name));
  const unknown = names.filter((name) => !methodNames.includes(name));
  if (unknown.length > 0)
    throw new UsageError(`--methods: this installation has no ${unknown.join(", ")}. Choose among ${methodNames.join(", ")}.`);
  if (new Set(names).size < names.length) throw new UsageError(`--methods names a method twice: ${names.join(", ")}. Name each once.`);
  return names;
}

/** `--set lora.rank=4` is for one method, `--set rank=4` for all that have a rank. */
function setFor(method: string, set: Readonly<Record<string, unknown>>): Readonly<Record<string, unknown>> {
  const entries = Object.entries(set);
  const own = entries.flatMap(([name, value]) => (name.startsWith(`${method}.`) ? [[name.slice(method.length + 1), value] as const] : []));
  return Object.fromEntries([...entries.filter(([name]) => !name.includes(".")), ...own]);
}

/** The options of each method; a flag that none of them understands is a mistake. */
export function optionsOf(
  model: CausalLM,
  names: readonly string[],
  values: Values<typeof methodFlags>,
  given: ReadonlySet<string>,
  steps: number,
): Map<string, Readonly<Record<string, unknown>>> {
  const set = values.set ?? {};
  const stray = Object.keys(set).find((name) => name.includes(".") && !names.includes(name.slice(0, name.indexOf("."))));
  if (stray !== undefined) throw new UsageError(`--set ${stray}: no method of that name is compared. They are ${names.join(", ")}.`);
  const adapters = names.filter((name) => methodOf(name) !== fullMethod);
  const options = new Map(
    adapters.map(
      (name) => [name, methodOptions(name, model, { ...values, set: setFor(name, set) }, given, { isLenient: true, steps })] as const,
    ),
  );
  for (const flag of Object.keys(methodFlags)) {
    if (flag === "set" || !given.has(flag)) continue;
    const isUnderstood = adapters.some((name) => {
      try {
        return methodOptions(name, model, { ...values, set: undefined }, new Set([flag])) !== null;
      } catch (error) {
        if (error instanceof UsageError) return false;
        throw error;
      }
    });
    if (!isUnderstood) throw new UsageError(`--${flag} means nothing to any of ${names.join(", ")}. Leave it out.`);
  }
  for (const [name, value] of Object.entries(set)) {
    const option = name.slice(name.indexOf(".") + 1);
    if (![...options.values()].some((own) => own[option] === value))
      throw new UsageError(
        `--set ${name} means nothing to ${name.includes(".") ? "this method" : `any of ${names.join(", ")}`}. Leave it out.`,
      );
  }
  return options;
}

/** The learning rates that are given, by method. Throws UsageError for a value that is not a rate, or of a method that is not compared. */
export function givenRates(names: readonly string[], given: Readonly<Record<string, unknown>> | undefined): ReadonlyMap<string, number> {
  const rates = new Map<string, number>();
  for (const [name, rate] of Object.entries(given ?? {})) {
    if (!names.includes(name)) throw new UsageError(`--lr ${name}=…: that method is not compared. They are ${names.join(", ")}.`);
    if (typeof rate !== "number" || !(rate > 0))
      throw new UsageError(`--lr ${name}=${String(rate)}: a learning rate is a number above 0. Write --lr ${name}=1e-3.`);
    rates.set(name, rate);
  }
  return rates;
}

/** Positions of the context that a method will take, as its options say. */
export function virtualTokensOf(name: string, own: Readonly<Record<string, unknown>>, model: CausalLM): number {
  const count = own["virtualTokens"] ?? defaultOptions(name, model)["virtualTokens"];
  return typeof count === "number" ? count : 0;
}
