import { join } from "node:path";
import { type Adapter, type DenseLayer, denseLayers } from "@lowrank/lora";
import type { CausalLM } from "@lowrank/models";
import { type Device, fileSource, readSafetensors, smallest } from "@lowrank/tensor";
import type { SimilarityMap } from "./page.js";
import { type Directions, dimensions, rightDirections, subspaceSimilarity, type TrainedPair } from "./subspace.js";

/** What all layers of a kind are called: the last part of their names. */
export function kindOf(name: string): string {
  return name.slice(name.lastIndexOf(".") + 1);
}

/** The trained pairs of a LoRA adapter with the weights beside them, read off the device one layer at a time. */
export async function* trainedPairs(model: CausalLM, adapter: Adapter, scaling: number): AsyncGenerator<TrainedPair> {
  const layers = denseLayers(model);
  for (const [name, { parameters }] of adapter.attachments) {
    const { "lora_A.weight": a, "lora_B.weight": b } = parameters;
    const layer = layers.get(name) as DenseLayer; // LoRA goes on dense layers only
    if (!a || !b) continue;
    const weight = layer.isTransposed ? layer.weight.t() : layer.weight;
    yield {
      name,
      rank: a.sizeAt(0),
      inFeatures: layer.inFeatures,
      outFeatures: layer.outFeatures,
      a: (await a.data()) as Float32Array,
      b: (await b.data()) as Float32Array,
      weight: (await weight.cast("f32").data()) as Float32Array,
      scaling,
    };
  }
}

/** The right singular vectors of every A in a saved adapter, by layer. */
export async function savedDirections(folder: string, device: Device): Promise<Map<string, Directions>> {
  const file = await readSafetensors(await fileSource(join(folder, "adapter_model.safetensors")));
  const found = new Map<string, Directions>();
  try {
    for (const name of file.entries.keys()) {
      const layer = /^base_model\.model\.(.*)\.lora_A\.weight$/.exec(name)?.[1];
      if (layer === undefined) continue;
      const { tensor: a } = await file.weight(name, { device });
      found.set(layer, rightDirections((await a.data()) as Float32Array, a.sizeAt(0), a.sizeAt(1)));
      a.dispose();
    }
  } finally {
    await file.close();
  }
  return found;
}

/** φ between two runs, mean over the layers of each kind; `x` is the second run. */
export function similarityMaps(
  first: ReadonlyMap<string, Directions>,
  second: ReadonlyMap<string, Directions>,
  names: { readonly y: string; readonly x: string },
): SimilarityMap[] {
  const kinds = new Map<string, { maps: number[][][]; rows: number[]; columns: number[] }>();
  for (const [name, own] of first) {
    const other = second.get(name);
    if (!other || other.size !== own.size) continue;
    const [rows, columns] = [dimensions(own.count), dimensions(other.count)];
    const kind = kinds.get(kindOf(name)) ?? { maps: [], rows, columns };
    kind.maps.push(subspaceSimilarity(own, other, rows, columns));
    kinds.set(kindOf(name), kind);
  }
  return [...kinds].map(([heading, { maps, rows, columns }]) => ({
    heading,
    ...names,
    rows,
    columns,
    values: rows.map((_, i) => columns.map((_column, j) => maps.reduce((sum, map) => sum + (map[i]?.[j] ?? 0), 0) / maps.length)),
  }));
}

/** The mean of lists of numbers, place by place, over the lists of each kind. */
export function meansByKind(lists: readonly { readonly name: string; readonly values: readonly number[] }[]): Map<string, number[]> {
  const kinds = new Map<string, (readonly number[])[]>();
  for (const { name, values } of lists) kinds.set(kindOf(name), [...(kinds.get(kindOf(name)) ?? []), values]);
  return new Map(
    [...kinds].map(([kind, all]) => [
      kind,
      Array.from(
        { length: smallest(all.map(({ length }) => length)) },
        (_, i) => all.reduce((sum, values) => sum + (values[i] ?? 0), 0) / all.length,
      ),
    ]),
  );
}
