import { type AdaptableModel, type Adapter, AdapterError, type AdapterOptions, type AnyMethod, applyAdapter, methods } from "@lowrank/lora";
import { UsageError } from "./failure.js";
import type { Flags, Values } from "./flags.js";

/** Full fine-tuning: no adapter, every weight moves. */
export const fullMethod = "full";

/** Other names of methods. */
const aliases: Readonly<Record<string, string>> = { adapter: "pfeiffer" };

/** What --method takes: every method of the library's table, its other names, and full fine-tuning. */
export const methodNames: readonly string[] = [
  ...new Set([
    ...Object.keys(methods),
    ...Object.entries(aliases).flatMap(([alias, name]) => (Object.hasOwn(methods, name) ? [alias] : [])),
    fullMethod,
  ]),
];

/** A method's name in the library's table. Throws UsageError for one that is not there. */
export function methodOf(name: string): string {
  if (!methodNames.includes(name))
    throw new UsageError(`There is no method "${name}" in this installation. Choose among ${methodNames.join(", ")}.`);
  return Object.hasOwn(methods, name) ? name : (aliases[name] ?? name);
}

/** Flags that set an adapter up. They have no defaults of their own, because each method has its own. */
export const methodFlags = {
  rank: { type: "integer", help: "inner size of the low-rank pairs (LoRA: 8)" },
  alpha: { type: "number", help: "the pairs are scaled by alpha / rank (16)" },
  dropout: { type: "number", min: 0, below: 1, help: "dropout on the bypass (0)" },
  targets: { type: "list", value: "q_proj,v_proj", help: "layers by name, or all-linear (lora, dora and adalora: all-linear)" },
  rslora: { type: "switch", help: "scale by alpha / sqrt(rank)" },
  init: {
    type: "text",
    value: "NAME",
    help: "initialization: kaiming, gaussian, orthogonal, default, pissa, pissa_niter_4, olora, loftq (with --quantize), eva (kaiming)",
  },
  "virtual-tokens": { type: "integer", min: 1, help: "positions that a prefix or a prompt takes" },
  bottleneck: { type: "integer", min: 1, help: "inner size of a bottleneck adapter" },
  set: { type: "pairs", value: "name=value", help: "any other option of the method, as often as needed; values are JSON or plain words" },
} as const satisfies Flags;

type MethodValues = Values<typeof methodFlags>;

/** The options that a general flag may be, the first that the method understands. */
const optionsOfFlag: Readonly<Record<string, readonly string[]>> = {
  "virtual-tokens": ["virtualTokens"],
  bottleneck: ["bottleneck", "bottleneckSize", "size", "width"],
  rank: ["rank", "targetRank"],
};

/** Methods that the command line puts on every dense layer. The library keeps PEFT's default, the family's attention projections. */
const everywhere: ReadonlySet<string> = new Set(["lora", "dora", "adalora"]);

/** Options that the command line sets where the method has them and no flag says otherwise. */
function ownDefaults(name: string): Readonly<Record<string, unknown>> {
  return { alpha: 16, ...(everywhere.has(name) ? { targets: "all-linear" } : {}) };
}

const targetOptions = ["targets", "exclude", "layers", "layersPattern"];

/** The value of a record's property, with the reading noted. */
function noting<T extends object>(value: T, read: Set<string>): T {
  return new Proxy(value, {
    get(target, name, receiver) {
      if (typeof name === "string") read.add(name);
      return Reflect.get(target, name, receiver);
    },
  });
}

/** What a method understands. `isOpen`: it may understand more, because it passes on what it does not know. */
export interface KnownOptions {
  readonly names: ReadonlySet<string>;
  readonly isOpen: boolean;
}

/**
 * The names of a method's options: those that it fills in, and those that it looks at. A method says nothing else about its options, and
 * nothing else is needed for a new one.
 */
export function knownOptions(method: AnyMethod, model: AdaptableModel): KnownOptions {
  const read = new Set<string>();
  const stray = "not an option of any method";
  let isOpen = false;
  try {
    const filled = method.options(noting({}, read), model);
    for (const name of Object.keys(filled as object)) read.add(name);
    isOpen = Object.hasOwn(method.options({ [stray]: 1 }, model) as object, stray);
    method.places(model, noting(filled as object, read), false);
  } catch {
    // An option without a default, or default targets that the family lacks: what was read up to here is known all the same.
  }
  if (targetOptions.some((name) => read.has(name))) for (const name of targetOptions) read.add(name);
  return { names: read, isOpen };
}

/** Whether a method understands an option: it is known, or the method checks its value, or keeps it while it drops what it does not know. */
function understands(method: AnyMethod, model: AdaptableModel, known: KnownOptions, option: string): boolean {
  if (known.names.has(option)) return true;
  try {
    method.options({}, model);
  } catch {
    return true; // it cannot be asked; the library itself will refuse what it does not take
  }
  try {
    // No option is an empty record with nothing in it but this.
    return Object.hasOwn(method.options({ [option]: { [option]: {} } }, model) as object, option) && !known.isOpen;
  } catch {
    return true;
  }
}

/** Whether a method cannot do without an option. */
function needs(method: AnyMethod, model: AdaptableModel, option: string): boolean {
  try {
    method.options({}, model);
    return false;
  } catch (error) {
    return error instanceof AdapterError && error.names.includes(option);
  }
}

/** A method's options where nothing is said; empty where it cannot do without some. */
export function defaultOptions(name: string, model: AdaptableModel): Readonly<Record<string, unknown>> {
  try {
    return (tableEntry(name)?.options({}, model) ?? {}) as Readonly<Record<string, unknown>>;
  } catch {
    return {};
  }
}

function tableEntry(name: string): AnyMethod | undefined {
  return (methods as unknown as Readonly<Record<string, AnyMethod>>)[methodOf(name)];
}

/** The targets as the library takes them. */
function targetsOf(targets: readonly string[]): readonly string[] | string {
  return targets.length === 1 && targets[0] === "all-linear" ? "all-linear" : targets;
}

/**
 * A method's options from the flags. Throws UsageError for a flag that was written out and means nothing to the method, unless `isLenient`
 * (flags for several methods at once). `set` options that an open method may or may not know are warned about.
 */
export function methodOptions(
  name: string,
  model: AdaptableModel,
  values: MethodValues,
  given: ReadonlySet<string>,
  {
    isLenient = false,
    steps,
    warn = () => {},
  }: { readonly isLenient?: boolean; readonly steps?: number | undefined; readonly warn?: (message: string) => void } = {},
): Readonly<Record<string, unknown>> {
  const method = tableEntry(name);
  if (!method) throw new UsageError(`Full fine-tuning has no adapter options. Leave them out.`);
  const known = knownOptions(method, model);
  const options: Record<string, unknown> = steps !== undefined && needs(method, model, "totalSteps") ? { totalSteps: steps } : {};
  for (const [option, value] of Object.entries(ownDefaults(name))) if (known.names.has(option)) options[option] = value;
  for (const flag of Object.keys(methodFlags)) {
    if (flag === "set" || !given.has(flag)) continue;
    const option = [...(optionsOfFlag[flag] ?? [flag])]
      .sort((a, b) => Number(known.names.has(b)) - Number(known.names.has(a)))
      .find((candidate) => understands(method, model, known, candidate));
    if (option !== undefined) {
      const value = values[flag as keyof MethodValues];
      options[option] = flag === "targets" ? targetsOf(value as readonly string[]) : value;
    } else if (!isLenient) {
      throw new UsageError(`--${flag} means nothing to the method ${name}. Leave it out; ${understood(name, known)}`);
    }
  }
  for (const [option, value] of Object.entries(values.set ?? {})) {
    const isUnderstood = understands(method, model, known, option);
    if (isUnderstood || (known.isOpen && !isLenient)) {
      if (!isUnderstood) warn(`--set ${option}: ${name} passes it on without looking at it first; check its spelling.`);
      options[option] = value;
    } else if (!isLenient) {
      throw new UsageError(`--set ${option}=… means nothing to the method ${name}. Leave it out; ${understood(name, known)}`);
    }
  }
  return options;
}

function understood(name: string, { names }: KnownOptions): string {
  return names.size === 0 ? `${name} has no options.` : `${name} understands ${[...names].join(", ")}.`;
}

/** Whether a method's adapters can be saved as plain pairs of LoRA. */
export function hasPlainForm(name: string): boolean {
  return tableEntry(name)?.asPlain !== undefined;
}

/** Throws UsageError when a flag that sets an adapter up was written out for full fine-tuning. */
export function refuseMethodFlags(given: ReadonlySet<string>): void {
  const stray = Object.keys(methodFlags).filter((flag) => given.has(flag));
  if (stray.length > 0)
    throw new UsageError(
      `${stray.map((flag) => `--${flag}`).join(", ")} set${stray.length > 1 ? "" : "s"} an adapter up, and --method full has none. Leave ${stray.length > 1 ? "them" : "it"} out, or choose a method.`,
    );
}

/** Options as settings of a run: one line each, so that a resumed run can be compared with the one before. */
export function optionSettings(options: Readonly<Record<string, unknown>>): Record<string, string | number | boolean | null> {
  return Object.fromEntries(
    Object.entries(options).map(([name, value]) => [
      name,
      typeof value === "string" || typeof value === "number" || typeof value === "boolean" || value === null
        ? value
        : Array.isArray(value) && value.every((item) => typeof item === "string")
          ? value.join()
          : JSON.stringify(value),
    ]),
  );
}

/** Puts a method on a model with options that `methodOptions` made. Throws AdapterError. */
export function applyMethod(
  model: AdaptableModel,
  name: string,
  options: Readonly<Record<string, unknown>>,
  settings: {
    readonly seed: number;
    readonly baseModel: string;
    readonly revision?: string;
    readonly onWarning: (message: string) => void;
  },
): Adapter {
  // The library checks names and values; the types of all methods' options together are of no use to a command line.
  return applyAdapter(model, { method: methodOf(name), ...options, ...settings } as AdapterOptions);
}
