import { createHash, type Hash } from "node:crypto";
import { type FileHandle, open, readdir, rename, rm, stat } from "node:fs/promises";
import { join } from "node:path";
import type { ProgressMeter } from "./progress.js";
import type { HubFile } from "./repository.js";

/** What a file's digest shows not to be it. */
export class WrongContentError extends Error {}

/** A file that could not be written, with the system's reason. */
export class WriteError extends Error {
  constructor(override readonly cause: NodeJS.ErrnoException) {
    super(cause.message);
  }
}

/** The names of files of ours that are not whole: the digest, then the host's ETag in base64url. Python's end in .incomplete. */
const partialPattern = /^\.[0-9a-f]{40,64}\.[\w-]*\.lowrank$/;
const longestName = 250;

/** Names of partial files of ours in a folder of blobs. */
export async function partialsIn(blobs: string): Promise<readonly string[]> {
  return (await readdir(blobs).catch(() => [])).filter((name) => partialPattern.test(name));
}

function nameOf(hex: string, etag: string | null): string {
  const name = `.${hex}.${Buffer.from(etag ?? "").toString("base64url")}.lowrank`;
  return name.length <= longestName ? name : `.${hex}..lowrank`;
}

/** The beginning of a file that is being fetched, and the digest of what is there. */
export class PartialFile {
  /** Bytes that are there. */
  length = 0;
  /** The most that was there at any time. */
  #furthest = 0;
  #hash: Hash;

  private constructor(
    readonly blobs: string,
    readonly file: HubFile,
    readonly meter: ProgressMeter,
    private name: string,
    private readonly handle: FileHandle,
  ) {
    this.#hash = emptyHash(file);
  }

  /** Opens what an earlier attempt left, or a new file. */
  static async open(blobs: string, file: HubFile, meter: ProgressMeter): Promise<PartialFile> {
    const { hex } = file.digest;
    const found = (await partialsIn(blobs)).find((name) => name.startsWith(`.${hex}.`));
    const name = found ?? nameOf(hex, null);
    const part = await written(async () => new PartialFile(blobs, file, meter, name, await open(join(blobs, name), found ? "r+" : "w+")));
    try {
      await part.#readBack();
    } catch (error) {
      await part.close();
      throw error;
    }
    return part;
  }

  /** The host's ETag of what is there; null where none is known. */
  get etag(): string | null {
    const [, tag = ""] = /^\.[0-9a-f]+\.([\w-]+)\.lowrank$/.exec(this.name) ?? [];
    return tag === "" ? null : Buffer.from(tag, "base64url").toString();
  }

  async #readBack(): Promise<void> {
    const { size } = await this.handle.stat();
    if (size > this.file.size) return this.restart();
    const buffer = Buffer.allocUnsafe(Math.min(size, 2 ** 20));
    while (this.length < size) {
      const { bytesRead } = await this.handle.read(buffer, 0, buffer.length, this.length);
      if (bytesRead === 0) break;
      this.#hash.update(buffer.subarray(0, bytesRead));
      this.length += bytesRead;
    }
    this.progress();
    this.meter.found(this.length);
  }

  async append(bytes: Buffer): Promise<void> {
    this.#hash.update(bytes);
    await written(async () => {
      for (let done = 0; done < bytes.length; )
        done += (await this.handle.write(bytes, done, bytes.length - done, this.length + done)).bytesWritten;
    });
    this.length += bytes.length;
    this.meter.received(bytes.length);
  }

  /** How much further it has come since this was last asked: what is fetched a second time does not count. */
  progress(): number {
    const before = this.#furthest;
    this.#furthest = Math.max(before, this.length);
    return this.#furthest - before;
  }

  /** Prepares for bytes that begin at `start`, where it is or at 0, of what the host calls `etag`. */
  async continueAt(start: number, etag: string | null): Promise<void> {
    if (start !== this.length) await this.restart();
    const name = nameOf(this.file.digest.hex, etag);
    if (name === this.name) return;
    await written(() => rename(join(this.blobs, this.name), join(this.blobs, name)));
    this.name = name;
  }

  /** Throws away what is there. */
  async restart(): Promise<void> {
    await written(() => this.handle.truncate(0));
    this.meter.found(-this.length);
    this.length = 0;
    this.#hash = emptyHash(this.file);
  }

  /** Puts the whole file into its place. Rejects with WrongContentError where it is not the one that was asked for. */
  async complete(path: string): Promise<void> {
    const found = this.#hash.digest("hex");
    if (this.length !== this.file.size || found !== this.file.digest.hex)
      throw new WrongContentError(
        `its ${this.file.digest.kind === "git" ? "git digest" : "SHA-256"} is ${found} and not ${this.file.digest.hex}`,
      );
    await written(async () => {
      await this.handle.sync();
      await rename(join(this.blobs, this.name), path);
    });
  }

  async discard(): Promise<void> {
    this.meter.found(-this.length);
    await rm(join(this.blobs, this.name), { force: true });
  }

  async close(): Promise<void> {
    await this.handle.close();
    // An attempt that brought nothing leaves nothing.
    const path = join(this.blobs, this.name);
    if ((await stat(path).catch(() => null))?.size === 0) await rm(path, { force: true });
  }
}

/** A large file's hash, or a small one's as git makes it: of "blob", its length, and its bytes. */
function emptyHash({ size, digest }: HubFile): Hash {
  return digest.kind === "sha256" ? createHash("sha256") : createHash("sha1").update(`blob ${size}\0`);
}

async function written<T>(write: () => Promise<T>): Promise<T> {
  try {
    return await write();
  } catch (error) {
    throw new WriteError(error as NodeJS.ErrnoException); // nothing but the file system is called
  }
}
