import { type ByteSource, type FileSystem, isAddress, openFile } from "@lowrank/tensor";
import { AdapterError } from "../errors.js";

/** The adapter_config.json of an adapter's folder. Rejects with AdapterError where there is none, or no such folder. */
export async function openConfig(files: FileSystem, folder: string): Promise<ByteSource> {
  const source = await openFile(files, files.join(folder, "adapter_config.json"));
  if (source) return source;
  const isMissing = !isAddress(folder) && (await files.list(folder)) === null; // a host lists nothing
  const fact = isMissing ? `${folder}: there is no such folder.` : `${folder} holds no adapter_config.json.`;
  throw new AdapterError(`${fact} Give the folder that saveAdapter or PEFT's save_pretrained wrote.`);
}
