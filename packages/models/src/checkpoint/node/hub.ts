import { readFile, stat } from "node:fs/promises";
import { homedir } from "node:os";
import { join } from "node:path";
import { CheckpointError, writeFileAtomic } from "@lowrank/tensor";

/** Where models of the Hugging Face hub are looked for and fetched from. */
export interface HubOptions {
  /** Default: $HF_ENDPOINT or https://huggingface.co. */
  readonly endpoint?: string;
  /** Default: $HF_HUB_CACHE, $HF_HOME/hub or ~/.cache/huggingface/hub, which Python's hub client uses too. */
  readonly cache?: string;
  /** Branch, tag or commit. */
  readonly revision?: string;
  /** Called before each file is fetched. */
  readonly onFile?: (name: string, bytes: number | null) => void;
}

const wanted = [
  "config.json",
  "generation_config.json",
  "tokenizer.json",
  "tokenizer_config.json",
  "special_tokens_map.json",
  "chat_template.jinja",
];

/**
 * The folder of a model: a path as it is; a hub id ("org/name" or "name") from the local cache, else fetched over https into it.
 * Rejects with CheckpointError when it is neither a folder nor on the hub, or the hub cannot be reached.
 */
export async function resolveModel(pathOrId: string, options: HubOptions = {}): Promise<string> {
  if (await isFolder(pathOrId)) return pathOrId;
  if (!/^[\w.-]+(\/[\w.-]+)?$/.test(pathOrId) || pathOrId.startsWith(".") || pathOrId.includes("..")) {
    throw new CheckpointError(
      `${pathOrId}: there is no such folder. Give the folder of a Hugging Face checkpoint, or a hub id such as openai-community/gpt2.`,
      pathOrId,
    );
  }
  const cache = options.cache ?? defaultCache();
  const repository = join(cache, `models--${pathOrId.replaceAll("/", "--")}`);
  const revision = options.revision ?? "main";
  const cached = await cachedSnapshot(repository, revision);
  if (cached) return cached;
  if (isOffline()) {
    throw new CheckpointError(
      `${pathOrId}: there is no such folder, and it is not in the cache ${cache} while HF_HUB_OFFLINE is set. Unset it or give a folder.`,
      pathOrId,
    );
  }
  return fetchSnapshot(pathOrId, repository, revision, options);
}

function defaultCache(): string {
  const { HF_HUB_CACHE: hub, HF_HOME: home, XDG_CACHE_HOME: xdg } = process.env;
  // An empty variable counts as unset, as the XDG base directory specification has it; a path made of it would be relative.
  return hub || (home ? join(home, "hub") : join(xdg || join(homedir(), ".cache"), "huggingface", "hub"));
}

function isOffline(): boolean {
  return ["1", "true", "yes", "on"].includes((process.env["HF_HUB_OFFLINE"] ?? "").toLowerCase());
}

async function cachedSnapshot(repository: string, revision: string): Promise<string | null> {
  const commit = await readFile(join(repository, "refs", revision), "utf8").catch(() => revision);
  const folder = join(repository, "snapshots", commit.trim());
  const hasConfig = await isFile(join(folder, "config.json"));
  const hasWeights = (await isFile(join(folder, "model.safetensors"))) || (await isFile(join(folder, "model.safetensors.index.json")));
  return hasConfig && hasWeights ? folder : null;
}

async function fetchSnapshot(id: string, repository: string, revision: string, options: HubOptions): Promise<string> {
  const endpoint = (options.endpoint ?? (process.env["HF_ENDPOINT"] || "https://huggingface.co")).replace(/\/$/, "");
  if (!URL.canParse(endpoint) || !/^https?:/.test(endpoint))
    throw new CheckpointError(
      `${id}: it is no folder, and the hub's address is "${endpoint}", which is none. Set HF_ENDPOINT to one such as https://huggingface.co, or unset it.`,
      id,
    );
  const address = (name: string): string => `${endpoint}/${id}/resolve/${encodeURIComponent(revision)}/${name}`;
  const config = await request(id, address("config.json"));
  if (!config)
    throw new CheckpointError(
      `${id}: it is no folder, and the hub has no config.json for it at ${endpoint}. Check the path or the id.`,
      id,
    );
  const commit = config.headers.get("x-repo-commit") ?? revision;
  const folder = join(repository, "snapshots", commit);
  const save = async (name: string, response: Response): Promise<void> => {
    const length = response.headers.get("content-length");
    options.onFile?.(name, length === null ? null : Number(length));
    await writeFileAtomic(join(folder, name), checkedBody(response, id, name));
  };
  const fetchFile = async (name: string): Promise<boolean> => {
    const response = await request(id, address(name));
    if (response) await save(name, response);
    return response !== null;
  };
  const text = await config.arrayBuffer();
  for (const name of wanted.slice(1)) await fetchFile(name);
  if (!(await fetchFile("model.safetensors"))) {
    const index = await request(id, address("model.safetensors.index.json"));
    if (!index)
      throw new CheckpointError(`${id}: the hub has no model.safetensors for it. Choose a checkpoint that ships safetensors.`, id);
    const bytes = new Uint8Array(await index.arrayBuffer());
    const map = (JSON.parse(new TextDecoder().decode(bytes)) as { weight_map?: Record<string, string> }).weight_map ?? {};
    for (const shard of [...new Set(Object.values(map))].sort()) {
      if (!/^[\w.-]+$/.test(shard) || !(await fetchFile(shard)))
        throw new CheckpointError(`${id}: the hub has no file ${shard}, which the index names. Choose another revision.`, id);
    }
    await writeFileAtomic(join(folder, "model.safetensors.index.json"), bytes);
  }
  // Last, so that an interrupted fetch is never taken for a whole snapshot.
  await writeFileAtomic(join(folder, "config.json"), new Uint8Array(text));
  await writeFileAtomic(join(repository, "refs", revision), commit);
  return folder;
}

/** Null for 404. */
async function request(id: string, address: string): Promise<Response | null> {
  const token = process.env["HF_TOKEN"];
  const response = await fetch(address, token ? { headers: { authorization: `Bearer ${token}` } } : {}).catch((error: unknown) => {
    const cause = error instanceof Error && error.cause instanceof Error ? error.cause.message : String(error);
    throw new CheckpointError(
      `${id}: it is no folder, and the hub cannot be reached at ${new URL(address).origin} (${cause}). Give a local folder, or connect to the network.`,
      id,
    );
  });
  if (response.status === 404) return null;
  if (response.status === 401 || response.status === 403) {
    throw new CheckpointError(
      `${id}: it is no folder, and the hub refuses it (${response.status}): no such model, or a gated one. Check the id; for a gated model set HF_TOKEN.`,
      id,
    );
  }
  if (!response.ok)
    throw new CheckpointError(`${id}: the hub answers ${response.status} for ${address}. Try again later or give a local folder.`, id);
  return response;
}

async function* checkedBody(response: Response, id: string, name: string): AsyncGenerator<Uint8Array> {
  const length = response.headers.get("content-encoding") ? null : response.headers.get("content-length");
  let received = 0;
  if (response.body) {
    for await (const part of response.body as unknown as AsyncIterable<Uint8Array>) {
      received += part.byteLength;
      yield part;
    }
  }
  if (length !== null && received !== Number(length))
    throw new CheckpointError(`${id}: ${name} broke off after ${received} of ${length} bytes. Try again.`, id);
}

async function isFolder(path: string): Promise<boolean> {
  return stat(path).then(
    (info) => info.isDirectory(),
    () => false,
  );
}

async function isFile(path: string): Promise<boolean> {
  return stat(path).then(
    (info) => info.isFile(),
    () => false,
  );
}
