import { createReadStream } from "node:fs";
import { stat } from "node:fs/promises";
import type { DataSource } from "@lowrank/models";
import { fileSource } from "@lowrank/tensor";

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
