import { CheckpointError } from "@lowrank/tensor";
import * as z from "zod/mini";
import { templateFolder } from "../../checkpoint/files.js";
import { dataPrefix } from "./cache.js";
import type { Hub } from "./environment.js";
import { type Answer, ask, bodyOf } from "./request.js";
import { persistently, UnreachableError } from "./retry.js";
import { commitPattern, isCommit } from "./revision.js";

/** A file of a repository at one commit, as the hub lists it. */
export interface HubFile {
  readonly name: string;
  readonly size: number;
  /** Which digest its content has: a large file's SHA-256, a small one's as git makes it of a blob. */
  readonly digest: { readonly kind: "sha256" | "git"; readonly hex: string };
}

/** The repository has no branch, tag or commit of that name. */
export class NoRevisionError extends CheckpointError {}

/** A page of the list holds a thousand files. */
const mostBodyBytes = 32 * 2 ** 20;
const mostFiles = 100_000;
const mostPages = 500;

/** The commit that a revision stands for now, as 40 hexadecimal digits. */
export async function commitOf(hub: Hub, id: string, revision: string): Promise<string> {
  if (isCommit(revision)) return revision;
  const { datasetInfo, modelInfo } = await import("@huggingface/hub");
  const asked = { revision, hubUrl: hub.endpoint, fetch: fetchOf(hub, id, revision), additionalFields: ["sha" as const] };
  const info = isData(id) ? await datasetInfo({ name: id.slice(dataPrefix.length), ...asked }) : await modelInfo({ name: id, ...asked });
  const { sha } = info as { readonly sha?: unknown };
  if (typeof sha === "string" && isCommit(sha)) return sha;
  throw new CheckpointError(
    `${id}: the hub names ${JSON.stringify(sha)?.slice(0, 80)} as the commit of "${revision}", which is none (40 hexadecimal digits). Check HF_ENDPOINT.`,
    id,
  );
}

const sizes = z.number().check(z.refine((size) => Number.isSafeInteger(size) && size >= 0));
const entrySchema = z.object({
  type: z.string(),
  path: z.string(),
  size: z.optional(sizes),
  oid: z.optional(z.string().check(z.regex(commitPattern))),
  lfs: z.nullish(z.object({ oid: z.string().check(z.regex(/^(sha256:)?[0-9a-f]{64}$/)), size: sizes })),
});

/** The files in a repository's outermost folder at one commit, by name, those of another folder by their paths, and its further chat templates. */
export async function filesAt(hub: Hub, id: string, commit: string, folder = ""): Promise<Map<string, HubFile>> {
  const { files: outer, folders } = await filesIn(hub, id, commit, "");
  const isThere = folder !== "" && folders.has(folder.split("/")[0] ?? "");
  const files = isThere ? new Map([...outer, ...(await filesIn(hub, id, commit, folder)).files]) : outer;
  if (!folders.has(templateFolder)) return files;
  const templates = await filesIn(hub, id, commit, templateFolder);
  return new Map([...files, ...[...templates.files].filter(([name]) => name.endsWith(".jinja"))]);
}

/** All files of a data set at one commit, those in folders too, by their paths. */
export async function dataFilesAt(hub: Hub, id: string, commit: string): Promise<Map<string, HubFile>> {
  return everyFileAt(hub, id, commit, { type: "dataset", name: id.slice(dataPrefix.length) });
}

/** All GGUF files of a model's repository at one commit, those in folders too, by their paths. */
export async function ggufFilesAt(hub: Hub, id: string, commit: string): Promise<readonly string[]> {
  const files = await everyFileAt(hub, id, commit, { type: "model", name: id });
  return [...files.keys()].filter((file) => /\.gguf$/i.test(file));
}

async function everyFileAt(
  hub: Hub,
  id: string,
  commit: string,
  repo: { readonly type: "dataset" | "model"; readonly name: string },
): Promise<Map<string, HubFile>> {
  const { listFiles } = await import("@huggingface/hub");
  const files = new Map<string, HubFile>();
  const asked = { repo, recursive: true, revision: commit, hubUrl: hub.endpoint, fetch: fetchOf(hub, id, commit) };
  for await (const entry of listed(id, listFiles(asked))) {
    const isPath = entry.path.split("/").every((part) => part !== "" && !/^\.\.?$|\\/.test(part));
    const file = isPath ? fileOf(entry, entry.path) : null;
    if (file) files.set(entry.path, file);
  }
  return files;
}

interface Listing {
  readonly files: Map<string, HubFile>;
  readonly folders: ReadonlySet<string>;
}

/** What lies in a folder of a repository, "" for the outermost, by names from there. */
async function filesIn(hub: Hub, id: string, commit: string, folder: string): Promise<Listing> {
  const { listFiles } = await import("@huggingface/hub");
  const files = new Map<string, HubFile>();
  const folders = new Set<string>();
  const asked = {
    repo: { type: "model", name: id } as const,
    ...(folder !== "" && { path: folder }),
    revision: commit,
    hubUrl: hub.endpoint,
    fetch: fetchOf(hub, id, commit),
  };
  for await (const entry of listed(id, listFiles(asked))) {
    const { type, path } = entry;
    const name = folder === "" ? path : path.startsWith(`${folder}/`) ? path.slice(folder.length + 1) : "";
    if (name === "" || name === "." || name === ".." || /[/\\]/.test(name)) continue;
    if (type === "directory") folders.add(name);
    const file = fileOf(entry, path);
    if (file) files.set(path, file);
  }
  return { files, folders };
}

/** The entries of a list of the hub's, checked. Rejects with CheckpointError for what describes no file, and for more than there can be. */
async function* listed(id: string, entries: AsyncIterable<unknown>): AsyncGenerator<z.infer<typeof entrySchema>> {
  let count = 0;
  for await (const entry of entries) {
    count += 1;
    const { success, data } = z.safeParse(entrySchema, entry);
    if (!success || count > mostFiles)
      throw new CheckpointError(
        `${id}: the hub's list of files ${success ? `has more than ${mostFiles} entries` : `holds ${JSON.stringify(entry)?.slice(0, 120)}, which describes no file`}. Check HF_ENDPOINT, or try again later.`,
        id,
      );
    yield data;
  }
}

/** A file of a list, by its path; null for what is none. */
function fileOf({ type, size, oid, lfs }: z.infer<typeof entrySchema>, name: string): HubFile | null {
  if (type !== "file") return null;
  if (lfs) return { name, size: lfs.size, digest: { kind: "sha256", hex: lfs.oid.replace("sha256:", "") } };
  return size !== undefined && oid !== undefined ? { name, size, digest: { kind: "git", hex: oid } } : null;
}

function isData(id: string): boolean {
  return id.startsWith(dataPrefix);
}

/**
 * A `fetch` for @huggingface/hub: with our proxy, token, limits and repetitions. What the hub refuses becomes a CheckpointError here, so that the
 * client's own errors, which name addresses only, are never met.
 */
function fetchOf(hub: Hub, id: string, revision: string): typeof fetch {
  let pageCount = 0;
  return async (input) => {
    const address = new URL(input instanceof Request ? input.url : input);
    if (++pageCount > mostPages)
      throw new CheckpointError(`${id}: the hub's list of files has more than ${mostPages} pages. Check HF_ENDPOINT.`, id);
    const { answer, body } = await persistently(hub, id, "the list of its files", async () => {
      const answer = await asked(hub, id, address.href);
      return { answer, body: await bodyOf(hub, answer, mostBodyBytes) };
    }).catch((error: unknown) => {
      if (!(error instanceof RangeError)) throw error;
      throw new CheckpointError(`${id}: ${address.host} sends ${error.message} about the model. Check HF_ENDPOINT.`, id);
    });
    if (answer.status !== 200) throw refusal(hub, id, revision, answer);
    if (!isJson(body))
      throw new CheckpointError(
        `${id}: ${address.host} answers with ${/^\s*</.test(body.toString("latin1", 0, 100)) ? "a web page" : "what is not JSON"} where the hub describes a model. Check HF_ENDPOINT, and whether the network asks for a login.`,
        id,
      );
    const link = answer.headers["link"];
    return new Response(body.toString(), {
      status: 200,
      headers: { "content-type": "application/json", ...(link !== undefined && { link: [link].flat().join(", ") }) },
    });
  };
}

function isJson(body: Buffer): boolean {
  try {
    JSON.parse(body.toString("utf8"));
    return true;
  } catch {
    return false;
  }
}

/** `ask`, where nobody to be reached is the error of a user who may have meant a folder. */
export async function asked(hub: Hub, id: string, address: string, headers: Readonly<Record<string, string>> = {}): Promise<Answer> {
  return ask(hub, address, headers).catch((error: unknown) => {
    if (!(error instanceof UnreachableError)) throw error;
    throw new CheckpointError(
      `${id}: it is no folder, and the hub cannot be reached at ${new URL(hub.endpoint).origin} (${error.message}). Give a local folder, or connect to the network.`,
      id,
    );
  });
}

/** What an answer that is neither a success nor worth a repetition means to whoever asked for the model. The hub says which in `x-error-code`. */
export function refusal(hub: Hub, id: string, revision: string, { status, headers }: Pick<Answer, "status" | "headers">): CheckpointError {
  const code = String(headers["x-error-code"] ?? "");
  const hasToken = hub.token() !== null;
  const login = hasToken
    ? "the token that is set (HF_TOKEN, or of `hf auth login`) does not give access: check it"
    : "log in with `hf auth login`, or set HF_TOKEN";
  const page = `${hub.endpoint}/${id}`;
  const kind = isData(id) ? "data set" : "model";
  const says = (fact: string, remedy: string): CheckpointError =>
    new CheckpointError(`${id}: ${isData(id) ? "" : "it is no folder, and "}${fact}. ${remedy}.`, id);
  if (code === "RevisionNotFound")
    return new NoRevisionError(
      says(`the hub has no revision "${revision}" of it`, "Give a branch, a tag or a commit that it has").message,
      id,
    );
  if (code === "GatedRepo" || (status === 403 && code === ""))
    return says(`on the hub it is gated (${status})`, `Ask for access at ${page}; then ${login}`);
  if (status === 401 || status === 403)
    return says(
      `the hub refuses it (${status}): no such ${kind}, or a private or gated one`,
      `Check the id; for a private or gated one ${login}`,
    );
  if (status === 404) return says(`the hub has no ${kind} of that name at ${hub.endpoint}`, "Check the path or the id");
  return says(`the hub answers ${status}`, "Try again later, or give a local folder");
}
