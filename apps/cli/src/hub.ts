import { stat } from "node:fs/promises";
import {
  ggufOnHub,
  type HubOptions,
  isHubId,
  type ModelPlace,
  modelOnHub,
  parseDataReference,
  resolveAdapter,
  resolveConfig,
  resolveData,
  resolveEither,
  resolveModel,
} from "@lowrank/models";
import { UsageError } from "./failure.js";
import { FetchProgress } from "./fetch-progress.js";
import type { Flags } from "./flags.js";
import type { Output } from "./output.js";

export const revisionFlag = {
  type: "text",
  value: "NAME",
  help: "branch, tag or commit of a model of the hub (default: main)",
} as const satisfies Flags[string];

/** What a command that may fetch something knows: where it speaks, what stops it, and which revision is meant. */
export interface Fetching {
  readonly output?: Output | null;
  readonly signal?: AbortSignal | undefined;
  readonly revision?: string | undefined;
}

/** What an adapter's file says of the model that it is for. */
export function baseOf({ model, revision }: { readonly model: string; readonly revision: string | undefined }): {
  readonly baseModel: string;
  readonly revision?: string;
} {
  return { baseModel: model, ...(revision !== undefined && { revision }) };
}

/** The folder of a model: a path as it is, or one of the hub's, which is fetched with a bar where the cache lacks it. */
export function modelFolder(path: string, fetching: Fetching): Promise<string> {
  return fetched(path, fetching, resolveModel);
}

/** A folder with a model's config.json, likewise. */
export function configFolder(path: string, fetching: Fetching): Promise<string> {
  return fetched(path, fetching, resolveConfig);
}

/** Where the headers of a model of the hub are, which is not fetched. */
export function hubModel(path: string, fetching: Fetching): Promise<ModelPlace> {
  const { revision } = fetching;
  return watched(path, fetching, (options) => modelOnHub(path, { ...options, ...(revision !== undefined && { revision }) }));
}

/** The folder of an adapter, likewise. A path that is no name on the hub stays as it is, and is found missing where it is read. */
export async function adapterFolder(path: string, fetching: Fetching): Promise<string> {
  return (await isOnHub(path)) ? fetched(path, fetching, resolveAdapter) : path;
}

/** The folder of whatever has a name on the hub, a model or an adapter, likewise. */
export async function anyFolder(path: string, fetching: Fetching): Promise<string> {
  await refuseRevision(path, fetching.revision);
  if (ggufOnHub(path)) return fetched(path, fetching, resolveModel);
  return (await isOnHub(path)) ? fetched(path, fetching, resolveEither) : path;
}

/** The files of a data set of the hub, likewise. Rejects with CheckpointError where there is no such data set, configuration or split. */
export function dataFilesOf(name: string, fetching: Fetching): Promise<readonly string[]> {
  return watched(name, fetching, (options) => resolveData(parseDataReference(name), options));
}

/** Throws UsageError for the revision of what is here. */
async function refuseRevision(path: string, revision: string | undefined): Promise<void> {
  if (revision === undefined || (await stat(path).catch(() => null)) === null) return;
  throw new UsageError(`--revision is for models of the hub, and ${path} is here. Leave it out, or give the model's name on the hub.`);
}

/** Whether a text is no path of something, and can be "user/name" on the hub. */
export async function isOnHub(path: string): Promise<boolean> {
  return path.includes("/") && isHubId(path) && (await stat(path).catch(() => null)) === null;
}

async function fetched(path: string, fetching: Fetching, resolve: (path: string, options: HubOptions) => Promise<string>): Promise<string> {
  const { revision } = fetching;
  await refuseRevision(path, revision);
  return watched(path, fetching, (options) => resolve(path, { ...options, ...(revision !== undefined && { revision }) }));
}

/** What is fetched, with a bar, and a line where it is stopped. */
async function watched<R>(name: string, { output = null, signal }: Fetching, resolve: (options: HubOptions) => Promise<R>): Promise<R> {
  const progress = output ? new FetchProgress(output) : null;
  try {
    const found = await resolve({
      ...(signal && { signal }),
      ...(progress && { onProgress: (step) => progress.step(step) }),
      onNote: (message) => output?.note(message),
    });
    progress?.finish();
    return found;
  } catch (error) {
    output?.draw("");
    if (signal?.aborted && error === signal.reason)
      output?.note(`Stopped while ${name} was fetched; what came of it is kept, and the next call continues.`);
    throw error;
  }
}
