import { CheckpointError } from "../tensor/errors.js";
import { isPage } from "./page.js";
import { type ByteSource, blobSource, bytesSource, type FileSystem } from "./source.js";

/** How files are fetched. */
export interface UrlOptions {
  /** In place of the global `fetch`. */
  readonly fetch?: (address: string, init: RequestInit) => Promise<Response>;
  /** Sent with every request, for instance an authorization. */
  readonly headers?: Readonly<Record<string, string>>;
}

/** True for what begins with http:// or https://. */
export function isAddress(path: string): boolean {
  return /^https?:\/\//i.test(path);
}

/** Bytes that tell what a file is, asked for first. */
const firstBytes = 1024;

/**
 * A file system over HTTP, whose folders are addresses: for models and adapters on a web server, in browsers and in Node. Files are read in
 * ranges where the host knows them, else whole. What the host does not have is absent, whether it answers 404, 410, or 403 (as stores of
 * objects do), or a web page with status 200. Folders cannot be listed, and nothing is written. Rejects with CheckpointError naming the
 * address when the host cannot be reached or refuses.
 */
export function urlFiles({ fetch: get = (address, init) => fetch(address, init), headers = {} }: UrlOptions = {}): FileSystem {
  const request = async (address: string, more: Readonly<Record<string, string>> = {}): Promise<Response> => {
    const response = await get(address, { headers: { ...headers, ...more } }).catch((error: unknown) => {
      if (error instanceof CheckpointError) throw error; // of a `fetch` of the caller's
      const reason = error instanceof Error && error.cause instanceof Error ? error.cause.message : String(error);
      throw new CheckpointError(
        `${address}: the host cannot be reached (${reason}). Check the address and the connection; for a page of another origin the host must allow it (CORS).`,
        address,
      );
    });
    if (response.ok || [403, 404, 410, 416].includes(response.status)) return response;
    throw new CheckpointError(`${address}: the host answers ${response.status}. Check the address, or try again later.`, address);
  };
  return {
    async open(path) {
      const response = await request(path, { range: `bytes=0-${firstBytes - 1}` });
      if (response.status === 416) return bytesSource(new Uint8Array(), path);
      if (!response.ok) {
        await response.body?.cancel();
        return null;
      }
      const total = response.status === 206 ? /\/(\d+)$/.exec(response.headers.get("content-range") ?? "")?.[1] : undefined;
      // Without ranges, or where the page may not see how long the file is, all of it comes at once.
      const whole = response.status === 206 && total === undefined ? await request(path) : response;
      const blob = await received(whole.blob(), path);
      const start = new Uint8Array(await blob.slice(0, firstBytes).arrayBuffer());
      const saysPage = /^text\/html\b/i.test(whole.headers.get("content-type") ?? "");
      if (isPage(start) || (saysPage && start[0] === "<".charCodeAt(0))) return null;
      return total === undefined ? blobSource(blob, path) : rangeSource(path, start, Number(total), request);
    },
    list: async () => null,
    write: async (path) => {
      throw new CheckpointError(`${path}: an address cannot be written to. Give a folder, or \`files\` of your own.`, path);
    },
    join(folder, name) {
      const address = new URL(folder);
      address.pathname = `${address.pathname.replace(/\/*$/, "")}/${encodeURIComponent(name)}`;
      return address.href;
    },
  };
}

function rangeSource(
  path: string,
  start: Uint8Array,
  byteLength: number,
  request: (address: string, headers: Readonly<Record<string, string>>) => Promise<Response>,
): ByteSource {
  return {
    name: path,
    byteLength,
    async read(offset, length) {
      if (offset + length <= start.byteLength) return start.slice(offset, offset + length);
      const response = await request(path, { range: `bytes=${offset}-${offset + length - 1}` });
      const bytes = new Uint8Array(await received(response.arrayBuffer(), path));
      if (response.status === 206 && bytes.byteLength === length) return bytes;
      throw new CheckpointError(
        `${path}: the host gave ${bytes.byteLength} bytes with status ${response.status} where ${length} from byte ${offset} on were asked for. The file may have changed while it was read: load it again.`,
        path,
      );
    },
  };
}

/** A body, or the error of one that broke off. */
async function received<T>(body: Promise<T>, path: string): Promise<T> {
  return body.catch((error: unknown) => {
    const reason = error instanceof Error && error.cause instanceof Error ? error.cause.message : String(error);
    throw new CheckpointError(`${path}: the answer broke off (${reason}). Try again.`, path);
  });
}
