import { CheckpointError } from "@lowrank/tensor";
import { isDataFile } from "../../data/formats/format.js";

/** A data set of the hub as it is named: `hub:user/name[/CONFIG[/SPLIT]][@REVISION]`. */
export interface DataReference {
  /** "user/name" */
  readonly name: string;
  /** A configuration (subset), or null for the one there is, or the one called "default". */
  readonly config: string | null;
  /** Null for "train", or the one there is. */
  readonly split: string | null;
  readonly revision: string | null;
}

const scheme = "hub:";

/** Whether a text names a data set of the hub. */
export function isDataReference(text: string): boolean {
  return text.startsWith(scheme);
}

/** Reads `hub:user/name[/CONFIG[/SPLIT]][@REVISION]`. Throws CheckpointError for what is not that. */
export function parseDataReference(text: string): DataReference {
  const [path = "", ...rest] = text.slice(scheme.length).split("@");
  const revision = rest.length === 0 ? null : rest.join("@");
  const [user = "", own = "", config = null, split = null, ...more] = path.split("/");
  if (!isDataReference(text) || [user, own, config ?? "x", split ?? "x", revision ?? "x"].includes("") || more.length > 0)
    throw new CheckpointError(
      `${text}: this names no data set of the hub. Write hub:user/name, hub:user/name/CONFIG or hub:user/name/CONFIG/SPLIT, and @REVISION behind it perhaps.`,
      text,
    );
  return { name: `${user}/${own}`, config, split, revision };
}

/** The files of each split of each configuration, in the order of their names. */
export type Splits = ReadonlyMap<string, ReadonlyMap<string, readonly string[]>>;

/** Words in the names of files and folders that say which split they are, and what it is called. */
const splitWords: Readonly<Record<string, string>> = {
  ...{ train: "train", training: "train" },
  ...{ validation: "validation", valid: "validation", dev: "validation", val: "validation" },
  ...{ test: "test", testing: "test", eval: "test", evaluation: "test" },
};

/**
 * Which of a repository's files are which split. The hub's conversion has them as CONFIG/SPLIT/0000.parquet (CONFIG/partial-SPLIT where it stopped early).
 * Else it is as in Python's datasets without a description of their own: a word in the path, set apart by what is no letter or digit, says which
 * split a file is, "train" where none does; folders in front are the configuration, but for "data".
 */
export function splitsOf(names: Iterable<string>, isConverted: boolean): Splits {
  const splits = new Map<string, Map<string, string[]>>();
  for (const name of [...names].sort()) {
    const parts = name.split("/");
    if (!isDataFile(name) || parts.some((part) => part.startsWith("."))) continue;
    const [config, split] = isConverted ? convertedPlace(parts) : ownPlace(parts);
    const own = splits.get(config) ?? new Map<string, string[]>();
    splits.set(config, own);
    own.set(split, [...(own.get(split) ?? []), name]);
  }
  return splits;
}

function convertedPlace(parts: readonly string[]): readonly [config: string, split: string] {
  const [config = "default", split = "train"] = parts.length >= 3 ? parts : ["default", parts.length === 2 ? parts[0] : undefined];
  return [config, split.replace(/^partial-/, "")];
}

function ownPlace(parts: readonly string[]): readonly [config: string, split: string] {
  const wordOf = (part: string): string | undefined =>
    part
      .toLowerCase()
      .split(/[^a-z0-9]+/)
      .find((word) => Object.hasOwn(splitWords, word));
  // The file's own name says it first, then the folders nearest to it.
  const word = [...parts]
    .reverse()
    .map(wordOf)
    .find((each) => each !== undefined);
  const config = parts
    .slice(0, -1)
    .filter((part) => part !== "data" && wordOf(part) === undefined)
    .join("-");
  return [config === "" ? "default" : config, word === undefined ? "train" : (splitWords[word] ?? "train")];
}

/** The files that a reference means. Throws CheckpointError where it leaves a choice, or means none, with what there is. */
export function splitOf(splits: Splits, { name, config, split }: DataReference): readonly string[] {
  const choose = <T>(kind: string, of: ReadonlyMap<string, T>, asked: string | null, usual: string): T => {
    const names = [...of.keys()];
    const chosen = asked ?? (of.has(usual) ? usual : names.length === 1 ? names[0] : undefined);
    const found = chosen === undefined ? undefined : of.get(chosen);
    if (found !== undefined) return found;
    const shown = `${names.slice(0, 20).join(", ")}${names.length > 20 ? ` and ${names.length - 20} more` : ""}`;
    throw new CheckpointError(
      `hub:${name}: ${names.length === 0 ? "the data set has no file of a kind that is read" : `${asked === null ? `there are several ${kind}s` : `there is no ${kind} "${asked}"`}: ${shown}`}. Write hub:${name}/CONFIG/SPLIT, or give a file.`,
      name,
    );
  };
  return choose("split", choose("configuration", splits, config, "default"), split, "train");
}
