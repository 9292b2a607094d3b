import { readFile, stat } from "node:fs/promises";
import { CheckpointError, type Json, jsonObject } from "@lowrank/tensor";
import { describingFiles, shardsOf, weightFiles } from "../../checkpoint/files.js";
import { absentAt, type CachedRepository, cachedCommit, isFile, namesAt, snapshotOf, within } from "./cache.js";

/** What is wanted of a repository: a whole model, an adapter, what a model's config says, or a GGUF file by its path there, all its parts. */
export type Wanted = "model" | "adapter" | "config" | { readonly gguf: string };

/** What has the name is something else than was asked for. */
export class OtherKindError extends CheckpointError {
  constructor(
    message: string,
    id: string,
    readonly kind: "model" | "adapter",
  ) {
    super(message, id);
  }
}

/** The names under which an adapter's tensors lie: PEFT's, and mlx-lm's. */
export const adapterWeights: readonly string[] = ["adapter_model.safetensors", "adapters.safetensors"];

/** Which files are wanted. A model's weights come to that. */
export interface Needed {
  readonly required: readonly string[];
  /** Of these the first that is there; none where nothing of the kind is needed. */
  readonly oneOf: readonly string[];
  readonly optional: readonly string[];
}

const needed: Readonly<Record<Extract<Wanted, string>, Needed>> = {
  model: { required: describingFiles.slice(0, 1), oneOf: [], optional: describingFiles.slice(1) },
  adapter: { required: ["adapter_config.json"], oneOf: adapterWeights, optional: [] },
  config: { required: ["config.json"], oneOf: [], optional: [] },
};

export function neededOf(wanted: Wanted): Needed {
  // A tokenizer beside the file is read where the one in it cannot be.
  return typeof wanted === "string"
    ? needed[wanted]
    : { required: ggufParts(wanted.gguf), oneOf: [], optional: ["tokenizer.json", "tokenizer_config.json"] };
}

/** Paths of all files of a GGUF model, of which one is named: `name-00001-of-00003.gguf` stands for three. */
export function ggufParts(path: string): readonly string[] {
  const [, stem = "", count = "1"] = /^(.*)-\d{5}-of-(\d{5})\.gguf$/i.exec(path) ?? [];
  if (stem === "" || Number(count) > 10_000 || Number(count) < 1) return [path];
  return Array.from({ length: Number(count) }, (_, i) => `${stem}-${String(i + 1).padStart(5, "0")}-of-${count}.gguf`);
}

/** The names of what is needed among those that there are: the one of `oneOf` that is there, or its first, which then lacks. */
export function requiredAmong({ required, oneOf }: Needed, names: { has(name: string): boolean }): readonly string[] {
  const [usual] = oneOf;
  return usual === undefined ? required : [...required, oneOf.find((name) => names.has(name)) ?? usual];
}

/** What the cache has of what is wanted. */
export interface Cached {
  readonly folder: string;
  /** Names that are needed and not there. */
  readonly missing: readonly string[];
  /** Whether something else may belong to it: the cache does not say whether the commit has it. */
  readonly isUnsure: boolean;
}

/** Looks into the cache, which another client may have filled in part; null where it has nothing of the revision. */
export async function lookUp(repository: CachedRepository, revision: string, wanted: Wanted): Promise<Cached | null> {
  const commit = await cachedCommit(repository, revision);
  if (commit === null) return null;
  const names = await namesAt(repository, commit);
  const absent = await absentAt(repository, commit);
  const { optional } = neededOf(wanted);
  const missing: string[] = [];
  for (const name of requiredAmong(neededOf(wanted), names))
    if (!names.has(name) && !(await isFile(within(snapshotOf(repository, commit), name)))) missing.push(name);
  const isUnsure = optional.some((name) => !names.has(name) && !absent.has(name));
  const folder = snapshotOf(repository, commit);
  if (wanted !== "model") return { folder, missing, isUnsure };
  const found = weightFiles(names);
  if (found?.kind === "index") {
    const shards = await shardsIn(within(folder, found.name)).catch(() => null);
    return shards === null
      ? { folder, missing: [...missing, found.name], isUnsure }
      : { folder, missing: [...missing, ...shards.filter((name) => !names.has(name))], isUnsure };
  }
  if (found === null) return { folder, missing: [...missing, "model.safetensors"], isUnsure };
  // Without an index nothing says how many there are, unless their names do.
  const isSingle = found.names.length === 1 && found.names[0] === "model.safetensors";
  const numbered = numberedLike(found.names);
  return {
    folder,
    missing: [...missing, ...numbered.filter((name) => !names.has(name))],
    isUnsure: isUnsure || !(isSingle || numbered.length > 0),
  };
}

/** All names of a numbered series (`model-00001-of-00003.safetensors`) of which some are there; none where the names are not of one. */
function numberedLike(names: readonly string[]): readonly string[] {
  const [, stem = "", count = ""] = /^(.*)\d{5}-of-(\d{5})\.safetensors$/.exec(names[0] ?? "") ?? [];
  if (count === "" || Number(count) > 10_000) return [];
  return Array.from({ length: Number(count) }, (_, i) => `${stem}${String(i + 1).padStart(5, "0")}-of-${count}.safetensors`);
}

/** Bytes of an index; the largest have some megabytes. */
const mostIndexBytes = 2 ** 26;

/** The files that an index of the cache names. Rejects with CheckpointError for what is not an index. */
export async function shardsIn(path: string): Promise<readonly string[]> {
  const { size } = await stat(path);
  const json: Json | string =
    size > mostIndexBytes ? `${size} bytes long, more than an index has` : jsonObject(await readFile(path, "utf8"));
  if (typeof json === "string")
    throw new CheckpointError(`${path}: this is ${json}. Choose another revision, or fetch the model again.`, path);
  return [...shardsOf(json, path).keys()];
}
