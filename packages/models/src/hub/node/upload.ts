import type { IncomingMessage, RequestOptions } from "node:http";
import { Readable } from "node:stream";
import { pipeline } from "node:stream/promises";
import { CheckpointError } from "@lowrank/tensor";
import type { Hub } from "./environment.js";
import { openRequest } from "./proxy.js";
import { networkError } from "./request.js";
import { askedWaitMs, persistently, TransientError, UnreachableError } from "./retry.js";

/** Bytes of an answer to an upload; a batch of a hundred files has some ten thousand. */
const mostAnswerBytes = 2 ** 24;
const transientStatuses: ReadonlySet<number> = new Set([408, 429, 500, 502, 503, 504]);

/** What an answer of the hub that is no success means; null where it is left to the client. */
export type Refusing = (status: number, address: URL, says: string) => Error | null;

/**
 * A `fetch` for what @huggingface/hub sends: with our proxy, limits and repetitions. The token goes to the hub's own origin and nowhere else, whatever the
 * client asks for, and no redirect is followed: what was renamed is said to be. Rejects with what `refusing` makes of an answer.
 */
export function uploadFetch(hub: Hub, id: string, refusing: Refusing): typeof fetch {
  return async (input, init = {}) => {
    const address = new URL(input instanceof Request ? input.url : input);
    if (!/^https?:$/.test(address.protocol))
      throw new CheckpointError(`${id}: the hub names ${address.protocol} as a place for files.`, id);
    const response = await persistently(hub, id, "a file", () => sent(hub, address, init), "written to the hub");
    const text = await response.text();
    const error = response.ok ? null : refusing(response.status, address, saying(text));
    if (error) throw error;
    if (address.origin === new URL(hub.endpoint).origin && !isJson(text))
      throw new CheckpointError(
        `${id}: ${address.host} answers with ${/^\s*</.test(text) ? "a web page" : "what is not JSON"} where the hub takes files. Check HF_ENDPOINT, and whether the network asks for a login.`,
        id,
      );
    return new Response(response.status === 204 ? null : text, { status: response.status, headers: response.headers });
  };
}

function isJson(text: string): boolean {
  try {
    JSON.parse(text);
    return true;
  } catch {
    return false;
  }
}

/** What the hub says in words, for people; empty where it does not. */
function saying(text: string): string {
  try {
    const { error } = JSON.parse(text) as { readonly error?: unknown };
    return typeof error === "string" ? error.slice(0, 300) : "";
  } catch {
    return "";
  }
}

/** One request with its body, and the whole of its answer. Rejects with TransientError for what may work later. */
async function sent(hub: Hub, address: URL, { method = "GET", headers: given, body, signal }: RequestInit): Promise<Response> {
  const isOwn = address.origin === new URL(hub.endpoint).origin;
  const token = isOwn ? hub.token() : null;
  const { authorization: _, ...headers } = Object.fromEntries(new Headers(given));
  const [stream, length] = bodyOf(body);
  const options: RequestOptions = {
    method,
    headers: {
      ...headers,
      "user-agent": "lowrank",
      "accept-encoding": "identity",
      ...(length !== null && { "content-length": String(length) }),
      ...(token !== null && { authorization: `Bearer ${token}` }),
    },
    timeout: hub.stallMs,
    ...(signal && { signal }),
  };
  try {
    const request = await openRequest(address, hub.proxies(address), options);
    const answered = new Promise<IncomingMessage>((resolve, reject) => {
      request.once("response", resolve);
      request.once("error", reject);
      request.on("timeout", () =>
        request.destroy(new TransientError(`${address.host} took nothing for ${hub.stallMs / 1000} s`, { cost: 2 })),
      );
    });
    const [message] = await Promise.all([answered, stream ? pipeline(stream, request).catch(endedEarly(answered)) : request.end()]);
    hub.contact.isMade = true;
    const parts: Buffer[] = [];
    let size = 0;
    for await (const part of message as AsyncIterable<Buffer>) {
      size += part.length;
      if (size > mostAnswerBytes) throw new UnreachableError(`${address.host} answers with more than ${mostAnswerBytes} bytes`);
      parts.push(part);
    }
    const status = message.statusCode ?? 0;
    if (transientStatuses.has(status))
      throw new TransientError(`${address.host} answers ${status}`, { waitMs: askedWaitMs(message.headers) });
    const own = Object.entries(message.headers).flatMap(([name, value]) =>
      value === undefined ? [] : [[name, [value].flat().join(", ")] as [string, string]],
    );
    return new Response(status === 204 ? null : Buffer.concat(parts), { status, headers: own });
  } catch (error) {
    throw networkError(hub, address, error);
  }
}

/** A hub that refuses answers before it has read all, and closes: its answer counts, not the body that broke off. */
function endedEarly(answered: Promise<unknown>): (error: unknown) => Promise<void> {
  return async (error) => {
    await Promise.race([answered, new Promise((_, reject) => setTimeout(() => reject(error), 200))]);
  };
}

function bodyOf(body: RequestInit["body"]): readonly [stream: Readable | null, length: number | null] {
  if (body === undefined || body === null) return [null, 0];
  if (typeof body === "string") {
    const bytes = Buffer.from(body);
    return [Readable.from([bytes]), bytes.byteLength];
  }
  if (body instanceof Blob) return [Readable.fromWeb(body.stream() as never), body.size];
  if (body instanceof ReadableStream) return [Readable.fromWeb(body as never), null];
  const bytes = Buffer.from(body as ArrayBuffer);
  return [Readable.from([bytes]), bytes.byteLength];
}
