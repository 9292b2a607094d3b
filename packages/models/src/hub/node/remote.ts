import { CheckpointError, type FileSystem, nodeFiles, urlFiles } from "@lowrank/tensor";
import { type Hub, type HubOptions, hubOf } from "./environment.js";
import { asked, commitOf, refusal } from "./repository.js";
import { bodyOf } from "./request.js";
import { cachedModel, ggufOnHub } from "./resolve.js";
import { persistently } from "./retry.js";
import { checkRevision } from "./revision.js";
import { ggufParts } from "./wanted.js";

/** Where a model's files are, and how they are read. */
export interface ModelPlace {
  readonly files: FileSystem;
  /** Of a folder, or of a GGUF file. */
  readonly folder: string;
}

/**
 * Where a model of the hub ("org/name", "org/name:file.gguf") can be looked into without fetching it: in the cache, where that has all of it, else on the hub, a
 * part of a file at a time. For headers; nothing is written. Rejects with CheckpointError as `resolveModel` does.
 */
export async function modelOnHub(pathOrId: string, options: HubOptions = {}): Promise<ModelPlace> {
  const gguf = ggufOnHub(pathOrId);
  const id = gguf?.id ?? pathOrId;
  const cached = await cachedModel(pathOrId, options);
  if (cached !== null) return { files: nodeFiles, folder: cached };
  const hub = hubOf(options, id);
  const revision = options.revision ?? "main";
  checkRevision(id, revision);
  const commit = await commitOf(hub, id, revision);
  const folder = `${hub.endpoint}/${id}/resolve/${commit}`;
  const files = urlFiles({ fetch: fetchOf(hub, id, commit) });
  if (!gguf) return { files, folder };
  const path = (ggufParts(gguf.file)[0] ?? gguf.file).split("/").map(encodeURIComponent).join("/");
  return { files, folder: `${folder}/${path}` };
}

/** Bytes that are taken at a time; headers are read in parts of a megabyte. */
const mostBytes = 32 * 2 ** 20;

/** A `fetch` with our proxy, token and repetitions. What was received stays at hand: headers are read more than once. */
function fetchOf(hub: Hub, id: string, commit: string): (address: string, init: RequestInit) => Promise<Response> {
  const known = new Map<string, Answered>();
  return async (address, { headers }) => {
    const range = new Headers(headers).get("range");
    const key = `${range} ${address}`;
    const answered = known.get(key) ?? (await fetched(hub, id, commit, { address, range }));
    known.set(key, answered);
    const { status, body, contentRange } = answered;
    // A Response takes the bytes of these statuses as its body.
    return new Response(Uint8Array.from(body), { status, headers: contentRange === undefined ? {} : { "content-range": contentRange } });
  };
}

interface Answered {
  readonly status: number;
  readonly body: Uint8Array;
  readonly contentRange: string | undefined;
}

function fetched(
  hub: Hub,
  id: string,
  commit: string,
  { address, range }: { readonly address: string; readonly range: string | null },
): Promise<Answered> {
  const name = decodeURIComponent(address.split(`/${commit}/`)[1] ?? address);
  return persistently(hub, id, name, async () => {
    const answer = await asked(hub, id, address, range === null ? {} : { range });
    if (answer.status === 401 || answer.status === 403) {
      answer.body.destroy();
      throw refusal(hub, id, commit, answer);
    }
    const body = await bodyOf(hub, answer, mostBytes).catch((error: unknown) => {
      if (!(error instanceof RangeError)) throw error;
      throw new CheckpointError(
        `${id}: ${answer.address.host} gives no parts of ${name}, and all of it is more than ${mostBytes} bytes. Fetch the model, and give its folder.`,
        id,
      );
    });
    return { status: answer.status, body, contentRange: answer.headers["content-range"] };
  });
}
