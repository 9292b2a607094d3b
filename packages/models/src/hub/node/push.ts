import { pathToFileURL } from "node:url";
import { CheckpointError } from "@lowrank/tensor";
import { isHubId } from "./cache.js";
import { type Hub, type HubOptions, hubOf } from "./environment.js";
import { UnreachableError } from "./retry.js";
import { uploadFetch } from "./upload.js";

/** How files are written to the hub. */
export interface PushOptions extends Pick<HubOptions, "endpoint" | "token" | "stallMs" | "retryMs" | "signal" | "onNote"> {
  /** Makes a new repository visible to its owner alone; one that is there stays as it is. Default false. */
  readonly isPrivate?: boolean;
  /** The branch, which has to be there; default main. */
  readonly revision?: string;
  /** The commit's message. */
  readonly message: string;
  /** Called with the file that is on its way and the part of it that has arrived, from 0 to 1. */
  readonly onUpload?: (name: string, part: number) => void;
}

/** What a push came to. */
export interface Pushed {
  /** The repository's page. */
  readonly url: string;
  readonly commit: string;
  /** True where the repository was made for it. */
  readonly isNew: boolean;
}

/** A file to be written: its name in the repository, and where it lies or what is in it. */
export type FileToPush = { readonly name: string } & ({ readonly path: string } | { readonly text: string });

/**
 * Writes files to a model's repository on the hub in one commit, and makes the repository where there is none. Large files go where the hub says, and
 * without the token; what it has already is not sent again. Rejects with CheckpointError, without the token in it: where none is set, where it gives no
 * right to write, where somebody else has written meanwhile, where the hub cannot be reached. huggingface_hub's upload_folder.
 */
export async function pushFiles(id: string, files: readonly FileToPush[], options: PushOptions): Promise<Pushed> {
  if (!isHubId(id) || !id.includes("/"))
    throw new CheckpointError(`"${id}" is no name of a repository on the hub. Give one such as user/name.`, id);
  const hub = hubOf(options, id);
  if (hub.isOffline) throw new CheckpointError(`${id}: HF_HUB_OFFLINE is set, and the hub is to be written to. Unset it.`, id);
  if (hub.token() === null)
    throw new CheckpointError(
      `${id}: there is no token, and the hub takes files of nobody. Run \`hf auth login\`, or set HF_TOKEN to one with the right to write.`,
      id,
    );
  const { createRepo, commitIter } = await import("@huggingface/hub");
  const repo = { type: "model", name: id } as const;
  const revision = options.revision ?? "main";
  const isNew = await reached(hub, id, async () => {
    // The token is put in by `uploadFetch`, by the origin that is asked: the client never has it.
    const request = {
      repo,
      visibility: options.isPrivate ? "private" : "public",
      hubUrl: hub.endpoint,
      fetch: uploadFetch(hub, id, creating(hub, id)),
    };
    await createRepo(request as unknown as Parameters<typeof createRepo>[0]);
    return true;
  }).catch((error: unknown) => {
    if (error instanceof ExistsError) return false;
    throw error;
  });
  const commit = await reached(hub, id, async () => {
    const steps = commitIter({
      repo,
      title: options.message,
      branch: revision,
      operations: files.map((file) => ({
        operation: "addOrUpdate",
        path: file.name,
        content: "path" in file ? pathToFileURL(file.path) : new Blob([file.text]),
      })),
      hubUrl: hub.endpoint,
      useXet: false,
      fetch: uploadFetch(hub, id, writing(hub, id, revision)),
      ...(hub.signal && { abortSignal: hub.signal }),
    });
    for (let step = await steps.next(); ; step = await steps.next()) {
      if (step.done) return step.value?.commit.oid ?? "";
      if (step.value.event === "fileProgress" && step.value.state === "uploading") options.onUpload?.(step.value.path, step.value.progress);
    }
  });
  return { url: `${hub.endpoint}/${id}${revision === "main" ? "" : `/tree/${revision}`}`, commit, isNew };
}

/** The repository that was to be made is there. */
class ExistsError extends Error {}

/** Errors of the way as what they mean. */
async function reached<T>(hub: Hub, id: string, work: () => Promise<T>): Promise<T> {
  try {
    return await work();
  } catch (error) {
    if (hub.signal?.aborted) throw hub.signal.reason;
    if (error instanceof CheckpointError || error instanceof ExistsError) throw error;
    if (error instanceof UnreachableError)
      throw new CheckpointError(
        `${id}: the hub cannot be reached at ${new URL(hub.endpoint).origin} (${error.message}). Connect to the network, or check HF_ENDPOINT.`,
        id,
      );
    if (error instanceof Error && /Hub|Invalid/.test(error.constructor.name))
      throw new CheckpointError(
        `${id}: the hub does not answer as it should (${error.message.split(/[.\n]/, 1)[0]}). Check HF_ENDPOINT, or try again later.`,
        id,
      );
    throw error;
  }
}

const rights = "Make one with the right to write at https://huggingface.co/settings/tokens, and set HF_TOKEN to it or run `hf auth login`.";

function refused(hub: Hub, id: string, status: number, says: string): CheckpointError | null {
  const told = says === "" ? "" : ` (${says})`;
  if (status === 401) return new CheckpointError(`${id}: the hub does not know the token that is set (401)${told}. ${rights}`, id);
  if (status === 403) return new CheckpointError(`${id}: the token that is set gives no right to write there (403)${told}. ${rights}`, id);
  if (status >= 300 && status < 400)
    return new CheckpointError(
      `${id}: the hub says that the repository has another name now (${status}). Give that one; ${hub.endpoint}/${id} leads there.`,
      id,
    );
  return null;
}

function creating(hub: Hub, id: string): (status: number, address: URL, says: string) => Error | null {
  return (status, _address, says) => {
    if (status === 409) return new ExistsError();
    return (
      refused(hub, id, status, says) ??
      new CheckpointError(`${id}: the hub does not make the repository (${status})${says === "" ? "" : ` (${says})`}. Check the name.`, id)
    );
  };
}

function writing(hub: Hub, id: string, revision: string): (status: number, address: URL, says: string) => Error | null {
  return (status, address, says) => {
    const isHub = address.origin === new URL(hub.endpoint).origin;
    const known = isHub ? refused(hub, id, status, says) : null;
    if (known) return known;
    if (isHub && (status === 409 || status === 412))
      return new CheckpointError(`${id}: somebody else has written to ${revision} meanwhile (${status}). Push again.`, id);
    if (isHub && status === 404)
      return new CheckpointError(
        `${id}: the hub has no branch "${revision}" of it (404). Make it on ${hub.endpoint}/${id}, or leave --revision out.`,
        id,
      );
    return new CheckpointError(`${id}: ${address.host} answers ${status}${says === "" ? "" : ` (${says})`}. Push again later.`, id);
  };
}
