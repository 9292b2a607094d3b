import { CheckpointError, type FileSystem, isAddress, openFile, pageError, readSafetensors, type SafetensorsFile } from "@lowrank/tensor";
import { shardsOf, weightFiles } from "./files.js";
import { listed, readJson } from "./folder.js";

/** Opens the files with a folder's weights. Rejects with CheckpointError where there is none, or one lacks what its index says. */
export async function openFiles(files: FileSystem, folder: string): Promise<SafetensorsFile[]> {
  const single = await openFile(files, files.join(folder, "model.safetensors"));
  if (single) return [await readSafetensors(single)];
  // A host lists no folders; there the usual index is asked for.
  const names = (await files.list(folder)) ?? [];
  const found = weightFiles(names.filter((name) => name !== "model.safetensors"));
  const indexPath = found?.kind === "files" ? null : files.join(folder, found?.name ?? "model.safetensors.index.json");
  const index = indexPath === null ? null : await readJson(files, indexPath);
  if (indexPath !== null && !index) throw await withoutWeights(files, folder);
  const shards = found?.kind === "files" ? new Map(found.names.map((name) => [name, []] as const)) : shardsOf(index, indexPath ?? folder);
  const opened: SafetensorsFile[] = [];
  try {
    for (const [shard, tensors] of shards) {
      const path = files.join(folder, shard);
      const source = await openFile(files, path);
      if (!source)
        throw (
          (await pageError(files, path)) ?? new CheckpointError(`${path} is missing, but ${indexPath} names it. Fetch the shard.`, path)
        );
      const file = await readSafetensors(source);
      opened.push(file);
      const absent = tensors.filter((name) => !file.entries.has(name));
      if (absent.length > 0)
        throw new CheckpointError(`${path}: ${indexPath} says that it holds ${listed(absent)}, but it does not. Fetch both again.`, path);
    }
  } catch (error) {
    for (const file of opened) await file.close();
    throw error;
  }
  return opened;
}

async function withoutWeights(files: FileSystem, folder: string): Promise<CheckpointError> {
  const page = await pageError(files, files.join(folder, "model.safetensors"));
  if (page) return page;
  if (isAddress(folder))
    return new CheckpointError(
      `${folder}: the host has no model.safetensors and no model.safetensors.index.json. Check the address, or put the weights there.`,
      folder,
    );
  const names = (await files.list(folder)) ?? [];
  const pickles = names.filter((name) => /\.(bin|pt|pth|ckpt)$/.test(name));
  const remedy =
    pickles.length > 0
      ? `${listed(pickles)} can run code when unpickled and is not read; convert it in Python with save_pretrained(..., safe_serialization=True).`
      : `The folder holds ${names.length > 0 ? listed(names) : "nothing"}; fetch the weights.`;
  return new CheckpointError(`${folder}: there is no model.safetensors and no model.safetensors.index.json. ${remedy}`, folder);
}
