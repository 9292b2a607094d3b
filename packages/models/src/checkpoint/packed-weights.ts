import { checkFiles, type Device, type FileSystem, type Shape } from "@lowrank/tensor";
import { parametersIn } from "../families/family.js";
import { readFamily } from "../families/read.js";
import { readConfig } from "./folder.js";
import { folderSource } from "./folder-source.js";
import { splitPacking } from "./packing-field.js";
import { entryOf } from "./stored/stored.js";

/** A weight in blocks as the headers of a folder say it. */
export interface PackedWeightInfo {
  /** The type of the blocks: nf4, gptq 4 bits, … */
  readonly type: string;
  readonly shape: Shape;
  /** The tensors that it is made of, by their names in the files, and the bytes that they take there. */
  readonly tensors: readonly string[];
  readonly bytes: number;
}

/**
 * The weights of a folder that are packed, by their names, from config.json and the headers of its files; none where all are dense. Rejects with
 * CheckpointError as `loadModel` does for a family, a method and parts that are not read. `device`: any, of which nothing is allocated.
 */
export async function packedWeights(
  folder: string,
  { device, files }: { readonly device: Device; readonly files: FileSystem },
): Promise<ReadonlyMap<string, PackedWeightInfo>> {
  checkFiles(files, "packedWeights");
  const path = files.join(folder, "config.json");
  const { json, packing } = splitPacking(await readConfig(files, folder), path);
  const read = readFamily(json, path);
  const source = await folderSource(files, folder, read, packing);
  try {
    const specs = read.options.layers.count > source.count ? new Map() : parametersIn(read, device);
    const { weights, parts } = await source.stored(new Set(specs.keys()));
    return new Map(
      [...weights].flatMap(([name, { layout, shape }]) => {
        const places = parts?.get(name) ?? [];
        const bytes = places.reduce((sum, place) => sum + entryOf(place).bytes, 0);
        return layout ? [[name, { type: layout.type, shape, tensors: places.map((place) => place.name), bytes }] as const] : [];
      }),
    );
  } finally {
    await source.close();
  }
}
