import { createHash } from "node:crypto";
import { createServer, type IncomingMessage, type Server, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import { HubUploads } from "./hub-upload.js";

type Files = Readonly<Record<string, Uint8Array | string>>;

/** A request as the hub or its store of large files saw it. */
export interface HubRequest {
  /** The hub itself, or the store at another origin to which it redirects for large files. */
  readonly at: "hub" | "store";
  readonly method: string;
  readonly path: string;
  readonly query: URLSearchParams;
  readonly headers: IncomingMessage["headers"];
  /** The file that is asked for, where it is one. */
  readonly file: string | null;
}

/** Answers a request in place of the hub, or returns false. */
export type HubFault = (request: HubRequest, response: ServerResponse, content: Buffer | null) => boolean;

interface Repository {
  readonly branches: Map<string, string>;
  readonly commits: Map<string, Map<string, Buffer>>;
  /** Whether it is shown to whoever has the token only. */
  access: "open" | "gated" | "private";
}

const sha1 = (...parts: readonly (string | Uint8Array)[]): string =>
  parts.reduce((hash, part) => hash.update(part), createHash("sha1")).digest("hex");
export const sha256 = (content: Uint8Array): string => createHash("sha256").update(content).digest("hex");
/** The name that git gives a blob. */
export const gitBlob = (content: Uint8Array): string => sha1(`blob ${content.byteLength}\0`, content);

/**
 * A server that speaks the hub's protocol: a model's revision, the list of its files, files with their commit and ETags, large ones by a redirect to
 * a store at another origin, ranges with If-Range, and refusals with the hub's codes. https://huggingface.co/docs/hub/api
 */
export class TestHub {
  readonly asked: HubRequest[] = [];
  readonly #repositories = new Map<string, Repository>();
  #fault: HubFault = () => false;
  readonly token = "hf_aTokenOfTheTests";
  /** What was written to it. */
  readonly uploads: HubUploads;

  private constructor(
    private readonly hub: Server,
    private readonly store: Server,
    readonly endpoint: string,
    readonly storeEndpoint: string,
  ) {
    this.uploads = new HubUploads({
      endpoint,
      storeEndpoint,
      token: this.token,
      isLarge,
      filesAt: (id, branch) => {
        const repository = this.#repositories.get(id);
        return repository ? repository.commits.get(repository.branches.get(branch) ?? "") : null;
      },
      commit: (id, branch, files) => this.push(id, Object.fromEntries(files), { branch }),
    });
    hub.on("request", (request, response) => this.#answer("hub", request, response));
    store.on("request", (request, response) => this.#answer("store", request, response));
  }

  static async start(): Promise<TestHub> {
    const [hub, store] = [createServer(), createServer()];
    const listening = async (server: Server): Promise<string> => {
      await new Promise<void>((resolve) => void server.listen(0, "127.0.0.1", resolve));
      return `http://127.0.0.1:${(server.address() as AddressInfo).port}`; // of a server that listens on a port
    };
    // Another host as well: Python's client trusts all ports of the hub's.
    return new TestHub(hub, store, await listening(hub), (await listening(store)).replace("127.0.0.1", "localhost"));
  }

  async stop(): Promise<void> {
    for (const server of [this.hub, this.store]) {
      server.closeAllConnections();
      await new Promise((resolve) => server.close(resolve));
    }
  }

  /** Makes a commit of some files and moves the branch there; returns the commit. A data set's id is "datasets/user/name". */
  push(id: string, files: Files, { branch = "main", access = "open" }: { branch?: string; access?: Repository["access"] } = {}): string {
    const repository = this.#repositories.get(id) ?? { branches: new Map(), commits: new Map(), access };
    this.#repositories.set(id, repository);
    const contents = new Map(Object.entries(files).map(([name, content]) => [name, Buffer.from(content)]));
    const commit = sha1(id, ...[...contents].flat());
    repository.commits.set(commit, contents);
    repository.branches.set(branch, commit);
    repository.access = access;
    return commit;
  }

  /** From now on, what answers in place of the hub. */
  failWith(fault: HubFault): void {
    this.#fault = fault;
  }

  /** Forgets what was asked, and answers as it should. */
  reset(): void {
    this.asked.length = 0;
    this.uploads.reset();
    this.#fault = () => false;
  }

  #answer(at: HubRequest["at"], request: IncomingMessage, response: ServerResponse): unknown {
    const { pathname, searchParams: query } = new URL(request.url ?? "/", this.endpoint);
    const path = decodeURIComponent(pathname);
    const [, file = null] = /\/(?:resolve|store)\/[^/]+\/(.+)$/.exec(path) ?? [];
    const found = at === "store" ? this.#stored(path) : this.#resolved(path);
    const asked: HubRequest = { at, method: request.method ?? "GET", path, query, headers: request.headers, file };
    this.asked.push(asked);
    if (this.#fault(asked, response, found?.content ?? null)) return null;
    if (asked.method === "POST" || asked.method === "PUT") return void this.uploads.answer(at, path, request, response);
    const isAsked = request.method !== "HEAD";
    if (at === "store") {
      // As the stores behind the hub: a signed address takes no second authorization.
      if (request.headers.authorization !== undefined) return response.writeHead(400).end();
      if (!found) return response.writeHead(404).end();
      return this.send(request, response, found.content, { etag: `"${sha1(found.content)}-1"` });
    }
    const [, id = "", rest = ""] =
      /^\/(?:api\/models\/|api\/(?=datasets\/))?((?:datasets\/)?[\w.-]+(?:\/(?!resolve\/|revision\/|tree\/)[\w.-]+)?)\/((?:resolve|revision|tree)\/.*)$/.exec(
        path,
      ) ?? [];
    const repository = this.#repositories.get(id);
    const isKnown = request.headers.authorization === `Bearer ${this.token}`;
    const refuse = (status: number, code: string): unknown =>
      response.writeHead(status, { "x-error-code": code, "content-type": "application/json" }).end(isAsked ? `{"error":"${code}"}` : "");
    if (!repository || (repository.access === "private" && !isKnown)) return refuse(isKnown ? 404 : 401, "RepoNotFound");
    const commitOf = (revision: string): string | undefined =>
      repository.branches.get(revision) ?? (repository.commits.has(revision) ? revision : undefined);
    const [kind = "", ...names] = rest.split("/");
    if (kind === "revision") {
      const commit = commitOf(names.join("/"));
      return commit === undefined
        ? refuse(404, "RevisionNotFound")
        : this.json(response, {
            _id: "1",
            id,
            sha: commit,
            gated: repository.access === "gated",
            private: false,
            downloads: 0,
            likes: 0,
            lastModified: "2026-01-01T00:00:00.000Z",
            siblings: [...(repository.commits.get(commit)?.keys() ?? [])].map((rfilename) => ({ rfilename })),
          });
    }
    const commit = commitOf(names[0] ?? "");
    if (commit === undefined) return refuse(404, "RevisionNotFound");
    if (kind === "tree")
      return this.json(response, this.#tree(repository, commit, names.slice(1).join("/"), query.get("recursive") === "true"));
    if (repository.access === "gated" && !isKnown) return refuse(request.headers.authorization ? 403 : 401, "GatedRepo");
    if (!found) return refuse(404, "EntryNotFound");
    const { content } = found;
    const head = { "x-repo-commit": commit };
    if (!isLarge(file ?? "")) return this.send(request, response, content, { ...head, etag: `"${gitBlob(content)}"` });
    return response
      .writeHead(302, {
        ...head,
        location: `${this.storeEndpoint}/store/${sha256(content)}/${file}?X-Signature=secret`,
        "x-linked-etag": `"${sha256(content)}"`,
        "x-linked-size": content.length,
      })
      .end();
  }

  json(response: ServerResponse, value: unknown): boolean {
    response.writeHead(200, { "content-type": "application/json" }).end(JSON.stringify(value));
    return true;
  }

  /** A file, whole or the part that is asked for. */
  send(
    request: Pick<IncomingMessage, "headers" | "method">,
    response: ServerResponse,
    content: Buffer,
    headers: { readonly etag: string } & Readonly<Record<string, string>>,
  ): void {
    const [, first, last = ""] = /^bytes=(\d+)-(\d*)$/.exec(request.headers.range ?? "") ?? [];
    const condition = request.headers["if-range"];
    const isPart = first !== undefined && (condition === undefined || condition === headers.etag);
    const start = isPart ? Number(first) : 0;
    if (isPart && start >= content.length) return void response.writeHead(416, { "content-range": `bytes */${content.length}` }).end();
    const end = isPart && last !== "" ? Math.min(Number(last) + 1, content.length) : content.length;
    response.writeHead(isPart ? 206 : 200, {
      ...headers,
      "accept-ranges": "bytes",
      "content-length": end - start,
      ...(isPart && { "content-range": `bytes ${start}-${end - 1}/${content.length}` }),
    });
    response.end(request.method === "HEAD" ? undefined : content.subarray(start, end));
  }

  /** What lies in a folder at a commit, folders in it too. */
  #tree({ commits }: Repository, commit: string, folder: string, isDeep: boolean): unknown[] {
    const start = folder === "" ? "" : `${folder}/`;
    const inside = [...(commits.get(commit) ?? [])].filter(([path]) => path.startsWith(start));
    const folders = new Set(
      inside.flatMap(([path]) => (path.slice(start.length).includes("/") ? [path.slice(start.length).split("/")[0] ?? ""] : [])),
    );
    return [
      ...[...folders].map((name) => ({ type: "directory", path: `${start}${name}`, size: 0, oid: sha1(name) })),
      ...inside
        .filter(([path]) => isDeep || !path.slice(start.length).includes("/"))
        .map(([path, content]) => ({
          type: "file",
          path,
          size: content.length,
          oid: isLarge(path) ? sha1(path) : gitBlob(content),
          ...(isLarge(path) && { lfs: { oid: sha256(content), size: content.length, pointerSize: 134 } }),
        })),
    ];
  }

  #resolved(path: string): { readonly content: Buffer } | null {
    const [, id = "", revision = "", file = ""] = /^\/((?:datasets\/)?[\w.-]+(?:\/[\w.-]+)?)\/resolve\/([^/]+)\/(.+)$/.exec(path) ?? [];
    const repository = this.#repositories.get(id);
    const content = repository?.commits.get(repository.branches.get(revision) ?? revision)?.get(file);
    return content ? { content } : null;
  }

  #stored(path: string): { readonly content: Buffer } | null {
    const [, digest = ""] = /^\/store\/([0-9a-f]+)\//.exec(path) ?? [];
    for (const { commits } of this.#repositories.values())
      for (const files of commits.values()) for (const content of files.values()) if (sha256(content) === digest) return { content };
    return null;
  }
}

/** What the hub keeps as large files: weights, tokenizers and tables. */
function isLarge(name: string): boolean {
  return /\.(safetensors|parquet)$/.test(name) || name === "tokenizer.json";
}
