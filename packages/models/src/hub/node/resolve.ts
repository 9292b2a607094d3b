import { stat } from "node:fs/promises";
import { CheckpointError } from "@lowrank/tensor";
import { isGgufPath } from "../../checkpoint/folder.js";
import { type CachedRepository, isHubId, repositoryIn, within } from "./cache.js";
import { type Hub, type HubOptions, hubOf } from "./environment.js";
import { withLock } from "./lock.js";
import { checkRevision } from "./revision.js";
import { type Cached, ggufParts, lookUp, OtherKindError, type Wanted } from "./wanted.js";

/**
 * The folder of a model: a path as it is; a hub id ("org/name" or "name") from the local cache, else fetched into it. A GGUF file stands for a folder:
 * its path, or "org/name:file.gguf", the first of several. What is cached whole is used without asking the hub. Rejects with CheckpointError when it is neither a folder nor on the hub, the hub cannot be reached, or gives what is not
 * what its list says; with the signal's reason when that is aborted. huggingface_hub's snapshot_download.
 */
export function resolveModel(pathOrId: string, options: HubOptions = {}): Promise<string> {
  return resolveFolder(pathOrId, "model", options);
}

/** The folder of an adapter, likewise: a path as it is, or a hub id, whose adapter_config.json and tensors (PEFT's or mlx-lm's) are fetched. */
export function resolveAdapter(pathOrId: string, options: HubOptions = {}): Promise<string> {
  return resolveFolder(pathOrId, "adapter", options);
}

/** A folder with a model's config.json: a path as it is, or a hub id, of which nothing else is fetched. */
export function resolveConfig(pathOrId: string, options: HubOptions = {}): Promise<string> {
  return resolveFolder(pathOrId, "config", options);
}

/** The folder of a model or an adapter, whichever has the name, likewise. */
export async function resolveEither(pathOrId: string, options: HubOptions = {}): Promise<string> {
  if (isHubId(pathOrId) && (await stat(pathOrId).catch(() => null)) === null) {
    const hub = hubOf(options, pathOrId);
    const cached = await lookUp(repositoryIn(hub.cache, pathOrId), options.revision ?? "main", "adapter");
    if (cached && isWhole(cached)) return cached.folder;
  }
  return resolveModel(pathOrId, options).catch((error: unknown) => {
    if (error instanceof OtherKindError && error.kind === "adapter") return resolveAdapter(pathOrId, options);
    throw error;
  });
}

const modelExample = "Give the folder of a Hugging Face checkpoint, a GGUF file, or a hub id such as openai-community/gpt2.";
const examples: Readonly<Record<Extract<Wanted, string>, string>> = {
  model: modelExample,
  config: modelExample,
  adapter: "Give the folder of an adapter, or its id on the hub, such as user/name.",
};

/** A repository's id and a GGUF file in it, of "org/name:file.gguf"; null for others. */
export function ggufOnHub(text: string): { readonly id: string; readonly file: string } | null {
  const [, id = "", file = ""] = /^([^:]+):([^:]+\.gguf)$/i.exec(text) ?? [];
  const isPath = file.split("/").every((part) => /^[^/\\\0]+$/.test(part) && !/^\.\.?$/.test(part));
  return id !== "" && isHubId(id) && isPath ? { id, file } : null;
}

async function resolveFolder(pathOrId: string, kind: Extract<Wanted, string>, options: HubOptions): Promise<string> {
  const info = await stat(pathOrId).catch(() => null);
  if (info?.isDirectory()) return pathOrId;
  const isModel = kind !== "adapter";
  if (info && isModel && isGgufPath(pathOrId)) return pathOrId;
  const file = isModel ? ggufOnHub(pathOrId) : null;
  if (info || !(file || isHubId(pathOrId)))
    throw new CheckpointError(
      `${pathOrId}: ${info ? "this is a file, not a folder" : isModel && isGgufPath(pathOrId) ? "there is no such file" : "there is no such folder"}. ${examples[kind]}`,
      pathOrId,
    );
  if (!file) return fromHub(pathOrId, kind, options);
  return within(await fromHub(file.id, { gguf: file.file }, options), ggufParts(file.file)[0] ?? file.file);
}

/** The folder, or the GGUF file, of a model of the hub where the cache has all of it; null where it has not. Rejects with CheckpointError for what is not there while offline. */
export async function cachedModel(pathOrId: string, options: HubOptions): Promise<string | null> {
  const gguf = ggufOnHub(pathOrId);
  const id = gguf?.id ?? pathOrId;
  const hub = hubOf(options, id);
  const revision = options.revision ?? "main";
  checkRevision(id, revision);
  const repository = repositoryIn(hub.cache, id);
  const cached = await lookUp(repository, revision, gguf ? { gguf: gguf.file } : "model");
  if (!hub.isOffline && !(cached && cached.missing.length === 0)) return null;
  const folder = cached?.missing.length === 0 ? cached.folder : offline(hub, repository, revision, cached);
  return gguf ? within(folder, ggufParts(gguf.file)[0] ?? gguf.file) : folder;
}

/** The folder of the cache that has what is wanted of a repository. */
async function fromHub(id: string, wanted: Wanted, options: HubOptions): Promise<string> {
  const hub = hubOf(options, id);
  const revision = options.revision ?? "main";
  checkRevision(id, revision);
  const repository = repositoryIn(hub.cache, id);
  const cached = await lookUp(repository, revision, wanted);
  if (cached && isWhole(cached)) return cached.folder;
  if (hub.isOffline) return offline(hub, repository, revision, cached);
  // What is cached needs nothing that speaks to the network.
  const { fetchSnapshot } = await import("./snapshot.js");
  const isUsable = cached !== null && cached.missing.length === 0;
  try {
    return await withLock(
      repository.locks,
      { signal: hub.signal, onWait: () => hub.onNote(`another lowrank fetches ${id} into ${hub.cache}; waiting for it …`) },
      async () => {
        const now = await lookUp(repository, revision, wanted);
        return now && isWhole(now) ? now.folder : fetchSnapshot(hub, repository, revision, wanted, options);
      },
    );
  } catch (error) {
    // All that is needed is here; what could not be asked is whether there is more.
    if (!isUsable || !(error instanceof CheckpointError)) throw error;
    hub.onNote(`${id}: taken from the cache as it is, since it could not be asked whether the model has more files (${error.message})`);
    return cached.folder;
  }
}

const isWhole = ({ missing, isUnsure }: Cached): boolean => missing.length === 0 && !isUnsure;

function offline(hub: Hub, { id }: CachedRepository, revision: string, cached: Cached | null): string {
  if (cached && cached.missing.length === 0) return cached.folder;
  const of = revision === "main" ? "" : ` (revision ${revision})`;
  const fact = cached
    ? `the cache ${hub.cache} has it${of} in part only, without ${cached.missing.join(", ")}`
    : `it is not in the cache ${hub.cache}${of}`;
  throw new CheckpointError(`${id}: there is no such folder, and ${fact} while HF_HUB_OFFLINE is set. Unset it or give a folder.`, id);
}
