import { createReadStream } from "node:fs";
import { stat } from "node:fs/promises";
import type { DataSource } from "@lowrank/models";
import { fileSource } from "@lowrank/tensor";

/** What `use` reads of a data file, item by item; the file is open for as long as they are taken. Rejects as `withSource` does. */
export async function* fromSource<T>(path: string, use: (source: DataSource) => AsyncIterable<T>): AsyncGenerator<T> {
  const pipe = await pipeOf(path);
  if (pipe) return yield* use(pipe);
  const source = await fileSource(path);
  try {
    yield* use(source);
  } finally {
    await source.close?.();
  }
}

/**
 * A data file, opened for the length of `use`: one that can be read twice, or a pipe, of which "-" is the standard input. Rejects with the
 * system's error, or with CheckpointError for a folder, where it cannot be opened.
 */
export async function withSource<R>(path: string, use: (source: DataSource) => Promise<R>): Promise<R> {
  const pipe = await pipeOf(path);
  if (pipe) return use(pipe);
  const source = await fileSource(path);
  try {
    return await use(source);
  } finally {
    await source.close?.();
  }
}

/** What is neither a file nor a folder, as a stream; null for those. */
async function pipeOf(path: string): Promise<DataSource | null> {
  if (path === "-") return createReadStream("-", { fd: 0, autoClose: false });
  const info = await stat(path);
  return info.isFile() || info.isDirectory() ? null : createReadStream(path);
}
