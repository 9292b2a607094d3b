import { largest } from "@lowrank/tensor";
import { UsageError } from "./failure.js";
import { program } from "./program.js";
import { wrapped } from "./terminal/wrap.js";

/** What a flag takes. `value` is what help shows for it; a flag without a default is absent unless given. */
export type Flag =
  | {
      readonly type: "text";
      readonly value: string;
      readonly help: string;
      readonly required?: boolean;
      readonly default?: string;
      /** For the name of a file or folder: whether the command reads what is there or writes it. */
      readonly path?: "read" | "written";
    }
  | {
      readonly type: "integer" | "number";
      readonly help: string;
      readonly min?: number;
      readonly above?: number;
      readonly below?: number;
      readonly default?: number;
    }
  | { readonly type: "choice"; readonly choices: readonly string[]; readonly help: string; readonly default?: string }
  | { readonly type: "list"; readonly value: string; readonly help: string }
  | { readonly type: "pairs"; readonly value: string; readonly help: string }
  /** Once or several times, each a text of its own. */
  | { readonly type: "texts"; readonly value: string; readonly help: string; readonly required?: boolean; readonly path?: "read" }
  | { readonly type: "switch"; readonly help: string };

export type Flags = Readonly<Record<string, Flag>>;

type Given<F extends Flag> = F extends { type: "switch" }
  ? boolean
  : F extends { type: "list" | "texts" }
    ? readonly string[]
    : F extends { type: "pairs" }
      ? Readonly<Record<string, unknown>>
      : F extends { type: "integer" | "number" }
        ? number
        : F extends { type: "choice"; choices: readonly (infer C)[] }
          ? C
          : string;
type IsPresent<F extends Flag> = F extends { type: "switch" } | { required: true } | { default: string | number } ? true : false;

/** The values of a command's flags, by the flags' own names. */
export type Values<T extends Flags> = { readonly [K in keyof T]: IsPresent<T[K]> extends true ? Given<T[K]> : Given<T[K]> | undefined };

/** What the command line gave. `given` holds the names of flags that were written out. */
export interface Parsed<T extends Flags> {
  readonly values: Values<T>;
  readonly given: ReadonlySet<string>;
  readonly positionals: readonly string[];
}

/** Reads `--name value`, `--name=value` and switches. Throws UsageError for an unknown flag, a missing or an unfit value. */
export function parseFlags<const T extends Flags>(flags: T, args: readonly string[], command: string): Parsed<T> {
  const values: Record<string, unknown> = {};
  const given = new Set<string>();
  const positionals: string[] = [];
  for (let i = 0; i < args.length; i++) {
    const arg = args[i] as string; // i < args.length
    if (!arg.startsWith("-") || arg === "-") {
      positionals.push(arg);
      continue;
    }
    const equals = arg.indexOf("=");
    const name = (equals < 0 ? arg : arg.slice(0, equals)).replace(/^--?/, "");
    const flag = Object.hasOwn(flags, name) && arg.startsWith("--") ? flags[name] : undefined;
    if (!flag) throw new UsageError(unknownFlag(arg, Object.keys(flags), command));
    if (flag.type === "switch") {
      if (equals >= 0) throw new UsageError(`--${name} takes no value, but ${arg} gives one. Write --${name} alone, or leave it out.`);
      values[name] = true;
    } else {
      const text = equals >= 0 ? arg.slice(equals + 1) : args[++i];
      if (text === undefined || (equals < 0 && text.startsWith("--")))
        throw new UsageError(`--${name} needs a value. Write --${name} ${shown(flag)}.`);
      const value = parseValue(name, flag, text);
      // Flags of pairs and of texts may be written several times.
      const before = values[name];
      values[name] =
        flag.type === "pairs"
          ? { ...(before as object | undefined), ...(value as object) }
          : flag.type === "texts"
            ? [...((before as readonly string[] | undefined) ?? []), text]
            : value;
    }
    given.add(name);
  }
  for (const [name, flag] of Object.entries(flags)) {
    if (given.has(name)) continue;
    if (flag.type === "switch") values[name] = false;
    else if ("default" in flag) values[name] = flag.default;
    else if ((flag.type === "text" || flag.type === "texts") && flag.required) throw missingFlag(name, flag, command);
  }
  return { values: values as Values<T>, given, positionals };
}

/** What to say of a flag that a command cannot do without. */
export function missingFlag(name: string, flag: Flag, command: string): UsageError {
  return new UsageError(`--${name} is missing. Add --${name} ${shown(flag)}; \`${program()} ${command} --help\` lists all flags.`);
}

/** Arguments without some flags and their values, which `parseFlags` has understood. */
export function withoutFlags(flags: Flags, args: readonly string[], names: ReadonlySet<string>): string[] {
  const kept: string[] = [];
  for (let i = 0; i < args.length; i++) {
    const arg = args[i] as string; // i < args.length
    const name = arg.startsWith("--") ? (arg.slice(2).split("=")[0] ?? "") : "";
    const flag = Object.hasOwn(flags, name) ? flags[name] : undefined;
    const own = flag && flag.type !== "switch" && !arg.includes("=") ? args.slice(i, i + 2) : [arg];
    if (!names.has(name)) for (const arg of own) kept.push(arg);
    i += own.length - 1;
  }
  return kept;
}

function parseValue(name: string, flag: Exclude<Flag, { type: "switch" }>, text: string): unknown {
  switch (flag.type) {
    case "text":
    case "texts":
      return text;
    case "list": {
      const items = text
        .split(",")
        .map((item) => item.trim())
        .filter((item) => item !== "");
      if (items.length === 0) throw new UsageError(`--${name} is empty. Write --${name} ${flag.value}.`);
      return items;
    }
    case "pairs": {
      const equals = text.indexOf("=");
      if (equals < 1) throw new UsageError(`--${name} is "${text}". Write --${name} ${flag.value}.`);
      return { [text.slice(0, equals).trim()]: plainValue(text.slice(equals + 1).trim()) };
    }
    case "choice":
      if (!flag.choices.includes(text)) throw new UsageError(`--${name} is "${text}". Choose ${flag.choices.join(", ")}.`);
      return text;
    case "integer":
    case "number": {
      const number = text.trim() === "" ? Number.NaN : Number(text);
      const { min, above, below } = flag;
      const isFit =
        (flag.type === "integer" ? Number.isSafeInteger(number) : Number.isFinite(number)) &&
        (min === undefined || number >= min) &&
        (above === undefined || number > above) &&
        (below === undefined || number < below);
      if (!isFit)
        throw new UsageError(`--${name} is "${text}". Give ${flag.type === "integer" ? "a whole number" : "a number"}${bounds(flag)}.`);
      return number;
    }
  }
}

/** JSON where it is JSON, else the text itself. */
function plainValue(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return text;
  }
}

function bounds({ min, above, below }: { readonly min?: number; readonly above?: number; readonly below?: number }): string {
  const parts = [
    min === undefined ? "" : `of at least ${min}`,
    above === undefined ? "" : `above ${above}`,
    below === undefined ? "" : `below ${below}`,
  ];
  const said = parts.filter((part) => part !== "").join(" and ");
  return said === "" ? "" : ` ${said}`;
}

function unknownFlag(arg: string, names: readonly string[], command: string): string {
  const wanted = arg.replace(/^-+/, "").split("=")[0] ?? "";
  // A flag whose first or last word it is, as another command may call it, before one that is spelled alike.
  const distance = (name: string): number =>
    name.startsWith(`${wanted}-`) || name.endsWith(`-${wanted}`) ? 1 : editDistance(name, wanted);
  const nearest = names.map((name) => ({ name, distance: distance(name) })).sort((a, b) => a.distance - b.distance)[0];
  const guess = nearest && nearest.distance <= Math.max(2, Math.floor(wanted.length / 3)) ? ` Did you mean --${nearest.name}?` : "";
  return `There is no flag ${arg.split("=")[0]} for lowrank ${command}.${guess} \`${program()} ${command} --help\` lists all flags.`;
}

/** Levenshtein distance, by rows. */
export function editDistance(a: string, b: string): number {
  let row = Array.from({ length: b.length + 1 }, (_, j) => j);
  for (let i = 1; i <= a.length; i++) {
    const next = [i];
    for (let j = 1; j <= b.length; j++) {
      next[j] = Math.min((row[j] ?? 0) + 1, (next[j - 1] ?? 0) + 1, (row[j - 1] ?? 0) + (a[i - 1] === b[j - 1] ? 0 : 1));
    }
    row = next;
  }
  return row[b.length] ?? 0;
}

/** The flag's value as help shows it: `N`, `lora|full`, `FILE`. */
function shown(flag: Flag): string {
  switch (flag.type) {
    case "switch":
      return "";
    case "choice":
      return flag.choices.join("|");
    case "integer":
      return "N";
    case "number":
      return "X";
    case "text":
    case "texts":
    case "list":
    case "pairs":
      return flag.value;
  }
}

/** The flags as help lists them within `columns`: what each is for stands beside it, or below it where the flag is long. */
export function helpLines(flags: Flags, columns = 80): string[] {
  const rows = Object.entries(flags).map(([name, flag]) => {
    const standard = "default" in flag && flag.default !== undefined ? ` (default ${flag.default})` : "";
    const required = (flag.type === "text" || flag.type === "texts") && flag.required ? " (required)" : "";
    return { left: `  --${name} ${shown(flag)}`.trimEnd(), right: `${flag.help}${standard}${required}` };
  });
  const widest = largest(rows.map(({ left }) => left.length));
  const width = Math.min(columns < 60 ? 4 : 30, widest);
  const margin = " ".repeat(width + 2);
  return rows.flatMap(({ left, right }) => {
    const [first = "", ...others] = wrapped(right, Math.max(20, columns - margin.length)).split("\n");
    const below = others.map((line) => `${margin}${line}`);
    return left.length > width
      ? [...wrappedChoices(left, columns), `${margin}${first}`, ...below]
      : [`${left.padEnd(width + 2)}${first}`, ...below];
  });
}

/** A flag with many choices on several lines, cut between two of them. */
function wrappedChoices(left: string, columns: number): string[] {
  if (left.length <= columns) return [left];
  const lines = [""];
  for (const part of left.split(/(?<=\|)/)) {
    if ((lines.at(-1) ?? "").length + part.length > columns) lines.push("      ");
    lines[lines.length - 1] += part;
  }
  return lines;
}
