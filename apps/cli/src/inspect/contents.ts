import { stat } from "node:fs/promises";
import { basename, join } from "node:path";
import { isGgufPath, modelFiles, packedWeights, packingIn, readConfig, readJson } from "@lowrank/models";
import { CheckpointError, device, fileSource, nodeFiles, readSafetensors, type SafetensorsEntry } from "@lowrank/tensor";
import { UsageError } from "../failure.js";
import type { Output } from "../output.js";
import { shownName } from "../terminal/printable.js";

/** A tensor of a file; of a GGUF file the dtype is its type. */
export type TensorEntry = Pick<SafetensorsEntry, "name" | "dtype" | "shape" | "bytes">;

/** What a folder or a file holds, read from its headers. */
export interface Contents {
  readonly config: Readonly<Record<string, unknown>> | null;
  readonly adapter: Readonly<Record<string, unknown>> | null;
  readonly entries: ReadonlyMap<string, TensorEntry>;
  /** Where the tensors lie. */
  readonly files: readonly string[];
}

export async function contentsOf(path: string): Promise<Contents> {
  const info = await stat(path).catch(() => null);
  if (!info) throw new UsageError(`${path}: there is no such file or folder. Check the path.`);
  if (info.isFile()) {
    const config = isGgufPath(path) ? await readConfig(modelFiles, path) : null;
    return { config, adapter: null, entries: await entriesOf(path), files: [path] };
  }
  const names = (await nodeFiles.list(path)) ?? [];
  // A run's folder holds its training state as well, which is no part of the model.
  const files = names.filter((name) => name.endsWith(".safetensors") && name !== "training-state.safetensors");
  if (files.length === 0) {
    const gguf = names.find(isGgufPath);
    const pickle = names.find((name) => /\.(bin|pt|pth|ckpt|pkl)$/.test(name));
    throw new UsageError(
      pickle
        ? `${path} holds its weights as ${pickle}, a Python pickle, which can run any code and is not read. Save it with save_pretrained(..., safe_serialization=True).`
        : `${path} holds no *.safetensors. Give a folder with a checkpoint or an adapter, or a file${gguf === undefined ? "" : `: ${join(path, gguf)}`}.`,
    );
  }
  const entries = new Map<string, TensorEntry>();
  for (const name of files) for (const [key, entry] of await entriesOf(join(path, name))) entries.set(key, entry);
  const paths = files.map((name) => join(path, name));
  return {
    config: await readJson(nodeFiles, join(path, "config.json")),
    adapter: await readJson(nodeFiles, join(path, "adapter_config.json")),
    entries,
    files: paths,
  };
}

/** Rejects with CheckpointError naming tensor and place where a number is infinite or NaN. Dtypes that cannot be computed with are not looked at. */
export async function checkNumbers(paths: readonly string[], output: Output): Promise<void> {
  for (const path of paths) {
    const gguf = await modelFiles.gguf(path);
    if (gguf) {
      try {
        for (const name of gguf.entries.keys()) {
          output.draw(`looking for numbers that are not finite: ${shownName(name)}`);
          await gguf.stream(name, () => undefined);
        }
      } finally {
        await gguf.close();
      }
      continue;
    }
    const file = await readSafetensors(await fileSource(path));
    try {
      for (const { name, dtype } of file.entries.values()) {
        if (!/^B?F(16|32)$/.test(dtype)) continue;
        output.draw(`looking for numbers that are not finite: ${shownName(name)}`);
        await file.digest(name);
      }
    } finally {
      await file.close();
    }
  }
  output.draw("");
}

async function entriesOf(path: string): Promise<ReadonlyMap<string, TensorEntry>> {
  const gguf = await modelFiles.gguf(path);
  if (gguf) {
    await gguf.close();
    return new Map([...gguf.entries].map(([name, { type, shape, bytes: size }]) => [name, { name, dtype: type.name, shape, bytes: size }]));
  }
  if (/\.(bin|pt|pth|ckpt|pkl)$/.test(path)) {
    throw new UsageError(`${basename(path)} is a Python pickle, which can run any code and is not read. Save it as safetensors.`);
  }
  const file = await readSafetensors(await fileSource(path));
  await file.close();
  return file.entries;
}

/** The entries of a folder with each weight in blocks as one, of its own shape, with the type of its blocks as its dtype and the bytes of all its parts. */
export async function withBlocks({ config, entries }: Contents, folder: string): Promise<Contents["entries"]> {
  const dev = await device("reference");
  try {
    if (!config || packingIn(config, join(folder, "config.json")) === null) return entries;
    const packed = await packedWeights(folder, { device: dev, files: nodeFiles });
    const parts = new Set([...packed.values()].flatMap(({ tensors }) => tensors));
    const others = [...entries].filter(([name]) => !parts.has(name));
    return new Map([
      ...others,
      ...[...packed].map(([name, { type, shape, bytes: size }]) => [name, { name, dtype: type, shape, offset: 0, bytes: size }] as const),
    ]);
  } catch (error) {
    // Of what cannot be loaded, the tensors are shown as they are.
    if (error instanceof CheckpointError) return entries;
    throw error;
  } finally {
    dev.dispose();
  }
}
