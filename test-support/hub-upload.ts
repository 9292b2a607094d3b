import { createHash } from "node:crypto";
import type { IncomingMessage, ServerResponse } from "node:http";

/** What an upload needs of the hub that it goes to. */
export interface UploadTarget {
  readonly endpoint: string;
  readonly storeEndpoint: string;
  readonly token: string;
  /** The files at a branch; null where there is no such repository, undefined where there is no such branch. */
  filesAt(id: string, branch: string): ReadonlyMap<string, Buffer> | null | undefined;
  /** Makes a commit on a branch, and gives it. */
  commit(id: string, branch: string, files: ReadonlyMap<string, Buffer>): string;
  isLarge(name: string): boolean;
}

/** A commit as it was asked for. */
export interface ReceivedCommit {
  readonly id: string;
  readonly branch: string;
  readonly summary: string;
  /** What came as large files, by digest. */
  readonly large: readonly string[];
}

/**
 * The part of the hub's protocol that writes: repositories are made; of each file it is said whether it is large; large ones go to a store at another origin,
 * whole or in parts, under addresses that take no token; a commit names all. https://huggingface.co/docs/hub/api, git-lfs' batch API
 */
export class HubUploads {
  readonly commits: ReceivedCommit[] = [];
  /** What new repositories are to be. */
  readonly made: { readonly id: string; readonly visibility: unknown }[] = [];
  /** Larger files come in parts of so many bytes. */
  partBytes: number = Number.POSITIVE_INFINITY;
  readonly #blobs = new Map<string, Buffer>();
  readonly #parts = new Map<string, Buffer[]>();

  constructor(private readonly hub: UploadTarget) {}

  reset(): void {
    this.commits.length = 0;
    this.made.length = 0;
    this.partBytes = Number.POSITIVE_INFINITY;
  }

  /** Answers a request that writes. */
  async answer(at: "hub" | "store", path: string, request: IncomingMessage, response: ServerResponse): Promise<void> {
    const parts: Buffer[] = [];
    for await (const part of request as AsyncIterable<Buffer>) parts.push(part);
    const body = Buffer.concat(parts);
    const json = (status: number, value: unknown): void =>
      void response.writeHead(status, { "content-type": "application/json" }).end(JSON.stringify(value));
    if (at === "store") {
      if (request.headers.authorization !== undefined) return void response.writeHead(400).end();
      const [, digest = "", part] = /^\/store\/([0-9a-f]{64})\/upload(?:\/(\d+))?$/.exec(path) ?? [];
      if (part === undefined) this.#blobs.set(digest, body);
      else (this.#parts.get(digest) ?? this.#parts.set(digest, []).get(digest) ?? [])[Number(part) - 1] = body;
      return void response.writeHead(200, { etag: `"${digest.slice(0, 8)}-${part ?? 0}"` }).end();
    }
    const complete = /^\/complete\/([0-9a-f]{64})$/.exec(path);
    if (complete?.[1]) {
      this.#blobs.set(complete[1], Buffer.concat(this.#parts.get(complete[1]) ?? []));
      return json(200, { message: "done" });
    }
    if (request.headers.authorization !== `Bearer ${this.hub.token}`) return json(401, { error: "Invalid username or password." });
    if (path === "/api/repos/create") {
      const { name, organization, visibility } = JSON.parse(body.toString());
      const id = `${organization}/${name}`;
      if (this.hub.filesAt(id, "main") !== null) return json(409, { error: "You already created this model repo" });
      this.made.push({ id, visibility });
      this.hub.commit(id, "main", new Map());
      return json(200, { url: `${this.hub.endpoint}/${id}`, id });
    }
    const [, ofApi, kind, ofGit, revision = "main"] =
      /^\/(?:api\/models\/([\w.-]+\/[\w.-]+)\/(preupload|commit)|([\w.-]+\/[\w.-]+)\.git\/info\/lfs\/objects\/batch)(?:\/(.+))?$/.exec(
        path,
      ) ?? [];
    const id = ofApi ?? ofGit ?? "";
    const files = this.hub.filesAt(id, revision);
    if (!files) return json(404, { error: files === null ? "Repository not found" : "Invalid rev id" });
    if (kind === "preupload") {
      const { files: asked } = JSON.parse(body.toString()) as { files: { path: string }[] };
      return json(200, {
        files: asked.map(({ path: name }) => ({ path: name, uploadMode: this.hub.isLarge(name) ? "lfs" : "regular", shouldIgnore: false })),
      });
    }
    return kind === "commit" ? this.#commit({ id, revision, files }, body, json) : this.#batch(body, json);
  }

  #batch(body: Buffer, json: (status: number, value: unknown) => void): void {
    const { objects } = JSON.parse(body.toString()) as { objects: { oid: string; size: number }[] };
    const address = (oid: string, part = ""): string => `${this.hub.storeEndpoint}/store/${oid}/upload${part}?X-Signature=secret`;
    const uploadOf = (oid: string, size: number): object => {
      if (size <= this.partBytes) return { href: address(oid) };
      const count = Math.ceil(size / this.partBytes);
      const parts = Array.from({ length: count }, (_, i) => [String(i + 1).padStart(5, "0"), address(oid, `/${i + 1}`)]);
      return { href: `${this.hub.endpoint}/complete/${oid}`, header: { chunk_size: String(this.partBytes), ...Object.fromEntries(parts) } };
    };
    json(200, {
      transfer: "basic",
      objects: objects.map(({ oid, size }) => ({ oid, size, ...(!this.#blobs.has(oid) && { actions: { upload: uploadOf(oid, size) } }) })),
    });
  }

  #commit(
    { id, revision, files }: { readonly id: string; readonly revision: string; readonly files: ReadonlyMap<string, Buffer> },
    body: Buffer,
    json: (status: number, value: unknown) => void,
  ): void {
    const next = new Map(files);
    const large: string[] = [];
    let summary = "";
    for (const line of body
      .toString()
      .split("\n")
      .filter((text) => text !== "")) {
      const { key, value } = JSON.parse(line);
      if (key === "header") summary = value.summary;
      else if (key === "file") next.set(value.path, Buffer.from(value.content, value.encoding));
      else if (key === "lfsFile") {
        const blob = this.#blobs.get(value.oid);
        if (!blob || createHash("sha256").update(blob).digest("hex") !== value.oid) throw new Error(`no such object ${value.oid}`);
        large.push(value.oid);
        next.set(value.path, blob);
      }
    }
    const commit = this.hub.commit(id, revision, next);
    this.commits.push({ id, branch: revision, summary, large });
    json(200, { success: true, commitOid: commit, commitUrl: `${this.hub.endpoint}/${id}/commit/${commit}`, hookOutput: "" });
  }
}
