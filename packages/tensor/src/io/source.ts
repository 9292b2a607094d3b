import { CheckpointError, showValue } from "../tensor/errors.js";

/**
 * Bytes that can be read in parts: a file, a Blob, an HTTP resource with range requests. Reads never go past `byteLength`, which is
 * known before anything is read.
 */
export interface ByteSource {
  /** What error messages call it: a path or an address. */
  readonly name: string;
  readonly byteLength: number;
  /** Exactly `length` bytes from `offset` on; may put them into `into`, which is as long, and return that. Rejects when the source has become shorter. */
  read(offset: number, length: number, into?: Uint8Array): Promise<Uint8Array>;
  /** What its text is as JSON, where that is at hand: what is large need not be written to be read. */
  readonly json?: Readonly<Record<string, unknown>>;
  /** Gives the file handle back. */
  close?(): Promise<void>;
}

/** What is written: a whole, or parts one after another. */
export type Bytes = Uint8Array | Iterable<Uint8Array> | AsyncIterable<Uint8Array>;

/** The few things that checkpoints need of a file system; `nodeFiles` is Node's, a browser can pass its own (OPFS, a zip, a server). */
export interface FileSystem {
  /** Null where there is no such file. */
  open(path: string): Promise<ByteSource | null>;
  /** Names of the files in a folder, sorted; null where there is no such folder. */
  list(folder: string): Promise<readonly string[] | null>;
  /** Writes a whole file or leaves the old one as it was; makes the folder. Rejects with CheckpointError. */
  write(path: string, bytes: Bytes): Promise<void>;
  /** A path below a folder. */
  join(folder: string, name: string): string;
}

/** Throws CheckpointError for what is not a file system: from JavaScript, `files` may be missing. `what` names the call. */
export function checkFiles(files: unknown, what: string): asserts files is FileSystem {
  const isComplete =
    typeof files === "object" &&
    files !== null &&
    ["open", "list", "write", "join"].every((name) => typeof (files as Readonly<Record<string, unknown>>)[name] === "function");
  if (isComplete) return;
  const fact =
    files === undefined ? "`files` is missing" : `\`files\` is ${showValue(files)}, not an object with open, list, write and join`;
  throw new CheckpointError(
    `${what}: ${fact}. Give an address (https://…), or pass \`files\`: urlFiles(), memoryFiles(), or your own.`,
    what,
  );
}

/** Throws CheckpointError for what is not the path of a folder. `what` names the call. */
export function checkPath(path: unknown, what: string): asserts path is string {
  if (typeof path === "string" && path !== "") return;
  const fact = path === "" ? "an empty text" : showValue(path);
  throw new CheckpointError(`${what}: the folder is ${fact}, not a path. Give the folder's path or address as a text.`, what);
}

/** A source over bytes in memory. */
export function bytesSource(bytes: Uint8Array, name = "bytes"): ByteSource {
  return { name, byteLength: bytes.byteLength, read: async (offset, length) => bytes.subarray(offset, offset + length) };
}

/** A source over a JSON object, which becomes a text when its bytes are asked for. */
export function jsonSource(json: Readonly<Record<string, unknown>>, name: string): ByteSource {
  let written: Uint8Array | null = null;
  const bytes = (): Uint8Array => {
    written ??= new TextEncoder().encode(`${JSON.stringify(json, null, 1)}\n`);
    return written;
  };
  return {
    name,
    json,
    get byteLength() {
      return bytes().byteLength;
    },
    read: async (offset, length) => bytes().slice(offset, offset + length),
  };
}

/** A source over a Blob or File, as file inputs and drag and drop give them. */
export function blobSource(blob: Blob, name = "blob"): ByteSource {
  return {
    name,
    byteLength: blob.size,
    read: async (offset, length) => new Uint8Array(await blob.slice(offset, offset + length).arrayBuffer()),
  };
}

/** The whole of a source as UTF-8 text; the source is closed. */
export async function readText(source: ByteSource): Promise<string> {
  try {
    return new TextDecoder().decode(await source.read(0, source.byteLength));
  } finally {
    await source.close?.();
  }
}

/** A file system in memory, for tests and for browsers that only hold a model for a while. */
export function memoryFiles(
  initial: Readonly<Record<string, Uint8Array | string>> = {},
): FileSystem & { readonly files: Map<string, Uint8Array> } {
  const encoder = new TextEncoder();
  const files = new Map(Object.entries(initial).map(([path, value]) => [path, typeof value === "string" ? encoder.encode(value) : value]));
  return {
    files,
    open: async (path) => {
      const bytes = files.get(path);
      return bytes ? bytesSource(bytes, path) : null;
    },
    list: async (folder) => {
      const prefix = folder === "" ? "" : `${folder}/`;
      const names = [...files.keys()].filter((path) => path.startsWith(prefix)).map((path) => path.slice(prefix.length));
      return names.length > 0 ? names.filter((name) => !name.includes("/")).sort() : null;
    },
    write: async (path, bytes) => void files.set(path, await joined(bytes)),
    join: (folder, name) => (folder === "" ? name : `${folder}/${name}`),
  };
}

/** All parts in one array. */
export async function joined(bytes: Bytes): Promise<Uint8Array> {
  if (bytes instanceof Uint8Array) return bytes;
  const parts: Uint8Array[] = [];
  let length = 0;
  for await (const part of bytes) {
    parts.push(part.slice());
    length += part.byteLength;
  }
  const whole = new Uint8Array(length);
  let offset = 0;
  for (const part of parts) {
    whole.set(part, offset);
    offset += part.byteLength;
  }
  return whole;
}
