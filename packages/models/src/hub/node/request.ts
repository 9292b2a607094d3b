import { Agent as HttpAgent, type IncomingHttpHeaders, type IncomingMessage, type RequestOptions } from "node:http";
import { Agent as HttpsAgent } from "node:https";
import { pipeline, type Readable } from "node:stream";
import { createBrotliDecompress, createGunzip, createInflate } from "node:zlib";
import type { Hub } from "./environment.js";
import { openRequest } from "./proxy.js";
import { askedWaitMs, TransientError, UnreachableError } from "./retry.js";

/** An answer whose body has not been read. Whoever does not read it destroys it. */
export interface Answer {
  readonly status: number;
  readonly headers: IncomingHttpHeaders;
  /** As it was before the host compressed it, if it did. */
  readonly body: Readable;
  /** Whether the host compressed the body, though it was asked not to: nothing about its length is known then. */
  readonly isCompressed: boolean;
  /** Where the answer comes from, after all redirects. */
  readonly address: URL;
  /** The commit that the hub itself names, in this answer or in one that led here; null where it names none. */
  readonly commit: string | null;
}

const agents = new Map<string, HttpAgent>();

/** Keeps connections for the next request. Made for the first one: a start that asks for nothing loads no HTTP. */
function agentOf(protocol: string): HttpAgent {
  const options = { keepAlive: true, timeout: 5000 };
  const agent = agents.get(protocol) ?? (protocol === "https:" ? new HttpsAgent(options) : new HttpAgent(options));
  agents.set(protocol, agent);
  return agent;
}

const mostRedirects = 8;

/** Statuses after which the same request may succeed: RFC 9110 and 6585. */
const transientStatuses: ReadonlySet<number> = new Set([408, 429, 500, 502, 503, 504]);

const decompressors: Readonly<Record<string, () => NodeJS.ReadWriteStream>> = {
  gzip: () => createGunzip(),
  "x-gzip": () => createGunzip(),
  deflate: () => createInflate(),
  br: () => createBrotliDecompress(),
};

/**
 * Asks for an address and follows where it leads. The token goes to the hub's own origin only, whatever redirects say, and no redirect leads from
 * https to http. Rejects with TransientError for what may work later, with UnreachableError where nobody answers.
 */
export async function ask(hub: Hub, start: string, headers: Readonly<Record<string, string>> = {}): Promise<Answer> {
  const origin = new URL(hub.endpoint).origin;
  let commit: string | null = null;
  let address = new URL(start);
  for (let count = 0; ; count++) {
    const token = address.origin === origin ? hub.token() : null;
    const message = await received(hub, address, {
      ...headers,
      "accept-encoding": "identity",
      "user-agent": "lowrank",
      ...(token !== null && { authorization: `Bearer ${token}` }),
    });
    hub.contact.isMade = true;
    const { statusCode: status = 0 } = message;
    if (address.origin === origin) commit ??= text(message.headers["x-repo-commit"]);
    const location = message.headers.location;
    if ([301, 302, 303, 307, 308].includes(status) && location !== undefined) {
      message.destroy();
      address = redirected(address, location, count);
      continue;
    }
    if (transientStatuses.has(status)) {
      message.destroy();
      throw new TransientError(`${address.host} answers ${status}`, { waitMs: askedWaitMs(message.headers) });
    }
    return { status, headers: message.headers, ...decompressed(message), address, commit };
  }
}

const text = (header: string | readonly string[] | undefined): string | null => (typeof header === "string" ? header : null);

function redirected(from: URL, location: string, count: number): URL {
  // Addresses of stores of objects hold signatures, which are as good as a token: errors name the host only.
  if (!URL.canParse(location, from)) throw new UnreachableError(`${from.host} redirects to what is not an address`);
  const to = new URL(location, from);
  if (count >= mostRedirects) throw new UnreachableError(`${from.host} redirects more than ${mostRedirects} times`);
  if (to.protocol !== "https:" && !(to.protocol === "http:" && from.protocol === "http:"))
    throw new UnreachableError(`${from.host} redirects from ${from.protocol}// to ${to.protocol}//, which is not followed`);
  return to;
}

/** Sends one request; resolves when the head of its answer is there. */
async function received(hub: Hub, address: URL, headers: Readonly<Record<string, string>>): Promise<IncomingMessage> {
  const options: RequestOptions = {
    agent: agentOf(address.protocol), // http: or https:, of which the endpoint is one and redirects keep it
    headers,
    timeout: hub.stallMs,
    ...(hub.signal && { signal: hub.signal }),
  };
  try {
    const request = await openRequest(address, hub.proxies(address), options);
    return await new Promise<IncomingMessage>((resolve, reject) => {
      let answer: IncomingMessage | null = null;
      const silent = (): unknown =>
        (answer ?? request).destroy(new TransientError(`${address.host} sent nothing for ${seconds(hub.stallMs)}`, { cost: 2 }));
      // A head that comes byte by byte is one that does not come.
      const head = setTimeout(silent, 3 * hub.stallMs);
      request.on("timeout", silent);
      request.once("response", (message) => {
        clearTimeout(head);
        answer = message;
        resolve(message);
      });
      request.on("error", (error) => {
        clearTimeout(head);
        reject(error);
      });
      request.end();
    });
  } catch (error) {
    throw networkError(hub, address, error);
  }
}

const cuts: ReadonlySet<string> = new Set(["ECONNRESET", "EPIPE", "ETIMEDOUT", "ERR_STREAM_PREMATURE_CLOSE"]);

/** Errors of the connection as what they mean for a repetition. */
export function networkError(hub: Hub, address: URL, error: unknown): unknown {
  if (hub.signal?.aborted) return hub.signal.reason;
  const code = error instanceof Error && "code" in error ? String(error.code) : "";
  if (!(error instanceof Error) || code === "") return error; // not of the network
  const reason = error.message === "" ? code : error.message; // an AggregateError of several addresses has no message
  const isCut = cuts.has(code) || /^(HPE|Z)_/.test(code);
  if (isCut) return new TransientError(`the connection to ${address.host} broke off (${reason})`);
  return hub.contact.isMade ? new TransientError(`${address.host} cannot be reached (${reason})`) : new UnreachableError(reason);
}

function decompressed(message: IncomingMessage): Pick<Answer, "body" | "isCompressed"> {
  const encoding = (text(message.headers["content-encoding"]) ?? "identity").trim().toLowerCase();
  if (encoding === "identity" || encoding === "") return { body: message, isCompressed: false };
  const make = Object.hasOwn(decompressors, encoding) ? decompressors[encoding] : undefined;
  if (!make) {
    message.destroy();
    throw new UnreachableError(`the answer is compressed as ${encoding}, though it was asked for as it is`);
  }
  const stream = make() as NodeJS.ReadWriteStream & Readable; // zlib's are transforms
  pipeline(message, stream, () => undefined); // an error of either ends the other, and reading it
  return { body: stream, isCompressed: true };
}

export const seconds = (ms: number): string => `${Number((ms / 1000).toPrecision(2))} s`;

/** The whole of a small body. Rejects with TransientError where it breaks off or takes too long, with RangeError where it is longer than `most` bytes. */
export async function bodyOf(hub: Hub, { body, address }: Answer, most: number): Promise<Buffer> {
  const parts: Buffer[] = [];
  let length = 0;
  const late = setTimeout(
    () => body.destroy(new TransientError(`${address.host} took longer than ${seconds(6 * hub.stallMs)} for an answer`, { cost: 2 })),
    6 * hub.stallMs,
  );
  try {
    for await (const part of body as AsyncIterable<Buffer>) {
      length += part.length;
      if (length > most) throw new RangeError(`an answer of more than ${most} bytes`);
      parts.push(part);
    }
  } catch (error) {
    throw error instanceof RangeError ? error : networkError(hub, address, error);
  } finally {
    clearTimeout(late);
    body.destroy();
  }
  return Buffer.concat(parts);
}
