import { rm, stat } from "node:fs/promises";
import { CheckpointError, fileError } from "@lowrank/tensor";
import { type CachedRepository, isFile, within } from "./cache.js";
import type { Hub } from "./environment.js";
import { PartialFile, WriteError, WrongContentError } from "./partial.js";
import type { ProgressMeter } from "./progress.js";
import { asked, type HubFile, refusal } from "./repository.js";
import { type Answer, networkError, seconds } from "./request.js";
import { persistently, TransientError } from "./retry.js";

/** What one file is fetched for. */
export interface Transfer {
  readonly hub: Hub;
  readonly repository: CachedRepository;
  readonly commit: string;
  readonly file: HubFile;
  readonly meter: ProgressMeter;
}

/** Slower than so many bytes a second, a host might as well be silent. */
const leastSpeed = 1024;

/**
 * Fetches a file into the blobs, unless it is there; resolves to its path. It comes to its place whole and checked against the digest that the
 * hub's list gives, or not at all. What a cut leaves is kept under a name of ours and continued, by this call or a later one.
 */
export async function fetchBlob(transfer: Transfer): Promise<string> {
  const { hub, repository, file } = transfer;
  const { id } = repository;
  const blob = within(repository.blobs, file.digest.hex);
  if (await isFile(blob)) {
    if ((await stat(blob)).size === file.size) {
      transfer.meter.found(file.size);
      return blob;
    }
    await rm(blob, { force: true }); // an earlier client's, which broke off
  }
  for (let isSecond = false; ; isSecond = true) {
    const part = await PartialFile.open(repository.blobs, file, transfer.meter);
    try {
      await persistently(hub, id, file.name, () => receive(transfer, part));
      await part.complete(blob);
      return blob;
    } catch (error) {
      if (error instanceof WriteError || error instanceof WrongContentError) await part.discard();
      if (error instanceof WriteError) throw fileError(blob, `${id}: ${file.name} cannot be written`, error.cause);
      if (!(error instanceof WrongContentError)) throw error;
      // Once more from its beginning: what an earlier process left may be what was wrong.
      if (isSecond)
        throw new CheckpointError(
          `${id}: what ${new URL(hub.endpoint).host} gives as ${file.name} is not the file that its list describes: ${error.message}. Nothing of it is kept; try again later.`,
          id,
        );
    } finally {
      await part.close();
    }
  }
}

/** One attempt: asks for what is missing and takes it. Rejects with TransientError where it broke off, with WrongContentError where it cannot be the file. */
async function receive({ hub, repository, commit, file }: Transfer, part: PartialFile): Promise<void> {
  const { id } = repository;
  if (part.length === file.size) return;
  const address = `${hub.endpoint}/${id}/resolve/${commit}/${file.name.split("/").map(encodeURIComponent).join("/")}`;
  const answer = await asked(hub, id, address, {
    ...(part.length > 0 && { range: `bytes=${part.length}-`, ...(part.etag !== null && { "if-range": part.etag }) }),
  });
  try {
    if (answer.status === 416) {
      await part.restart();
      throw new TransientError(`${answer.address.host} does not have the rest of it`);
    }
    if (![200, 206].includes(answer.status)) throw refused(hub, id, commit, file, answer);
    if (answer.commit !== null && answer.commit !== commit)
      throw new CheckpointError(
        `${id}: the hub gives ${file.name} of another commit (${JSON.stringify(answer.commit.slice(0, 60))}) than the one asked for (${commit}). Try again later.`,
        id,
      );
    checkLength(answer, file);
    await part.continueAt(startOf(answer, part.length), strongTag(answer));
    await take(hub, answer, file, part);
  } finally {
    answer.body.destroy();
  }
}

function refused(hub: Hub, id: string, commit: string, file: HubFile, answer: Answer): CheckpointError {
  if (answer.status === 404 || answer.address.origin !== new URL(hub.endpoint).origin)
    return new CheckpointError(
      `${id}: ${answer.address.host} answers ${answer.status} for ${file.name}, which the hub lists. Try again later.`,
      id,
    );
  return refusal(hub, id, commit, answer);
}

/** Where an answer's bytes begin in the file. Throws WrongContentError for a range that was not asked for. */
function startOf({ status, headers }: Answer, wanted: number): number {
  if (status === 200) return 0;
  const start = /^bytes (\d+)-/.exec(headers["content-range"] ?? "")?.[1];
  if (start !== undefined && [wanted, 0].includes(Number(start))) return Number(start);
  throw new WrongContentError(
    `bytes from ${wanted} on were asked for, and the answer says ${JSON.stringify(headers["content-range"] ?? null)}`,
  );
}

/** An ETag that says that bytes are the same (RFC 9110 § 8.8.3), which If-Range needs. */
function strongTag({ headers, isCompressed }: Answer): string | null {
  const { etag } = headers;
  return !isCompressed && etag !== undefined && /^"[\x21\x23-\x7e]*"$/.test(etag) ? etag : null;
}

/** Throws WrongContentError where the head says already that it is not the file. */
function checkLength({ status, headers, isCompressed }: Answer, { size }: HubFile): void {
  const total = status === 206 ? /\/(\d+)$/.exec(headers["content-range"] ?? "")?.[1] : headers["content-length"];
  if (isCompressed || total === undefined || Number(total) === size) return;
  const kind = /^text\/html\b/i.test(headers["content-type"] ?? "") ? "a web page (HTML)" : "something";
  throw new WrongContentError(`${kind} of ${total} bytes in place of ${size}`);
}

async function take(hub: Hub, { body, address, isCompressed }: Answer, file: HubFile, part: PartialFile): Promise<void> {
  let window = { since: performance.now(), bytes: 0 };
  try {
    for await (const bytes of body as AsyncIterable<Buffer>) {
      if (part.length + bytes.length > file.size) throw new WrongContentError(`it does not end after ${file.size} bytes`);
      await part.append(bytes);
      window.bytes += bytes.length;
      const ms = performance.now() - window.since;
      if (ms < hub.stallMs) continue;
      if (window.bytes < (leastSpeed * ms) / 1000)
        throw new TransientError(`${address.host} sent ${window.bytes} bytes in ${seconds(ms)}, too few to wait for`, { cost: 2 });
      window = { since: performance.now(), bytes: 0 };
    }
    if (part.length < file.size)
      throw new TransientError(`${address.host} ended the answer after ${part.length} of ${file.size} bytes`, { cost: 2 });
  } catch (error) {
    const known = networkError(hub, address, error);
    if (!(known instanceof TransientError)) throw known;
    known.receivedBytes = part.progress();
    // Where a compressed answer broke off, no range continues it.
    if (isCompressed) await part.restart();
    throw known;
  }
}
