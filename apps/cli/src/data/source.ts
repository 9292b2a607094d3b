import { createReadStream } from "node:fs";
import { stat } from "node:fs/promises";
import type { DataSource } from "@lowrank/models";
import { fileSource } from "@lowrank/tensor";

/** What `use` reads of a data file, item by item; the file is open for as long as they are taken. Rejects as `withSource` does. */
export async function* fromSource<T>(path: string, use: (source: DataSource) => AsyncIterable<T>): AsyncGenerator<T> {
  const info = await stat(path);
  if (!info.isFile() && !info.isDirectory()) return yield* use(createReadStream(path));
  const source = await fileSource(path);
  try {
    yield* use(source);
  } finally {
    await source.close?.();
  }
}

/**
 * A data file, opened for the length of `use`: one that can be read twice, or a pipe. Rejects with the system's error, or with
 * CheckpointError for a folder, where it cannot be opened.
 */
export async function withSource<R>(path: string, use: (source: DataSource) => Promise<R>): Promise<R> {
  const info = await stat(path);
  if (!info.isFile() && !info.isDirectory()) return use(createReadStream(path));
  const source = await fileSource(path);
  try {
    return await use(source);
  } finally {
    await source.close?.();
  }
}
