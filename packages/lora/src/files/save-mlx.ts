import { checkFiles, checkPath, type FileSystem, largest, type Tensor, writeWeights, zeros } from "@lowrank/tensor";
import type { Adapter } from "../adapter.js";
import { AdapterError } from "../errors.js";
import { rowNorms } from "../methods/embedding.js";
import type { LoraOptions } from "../methods/lora.js";
import { type AdaptableModel, type DenseLayer, isDense, modelType } from "../targeting/model.js";
import { mlxLayout } from "./layouts/mlx.js";
import { type PlainPair, plainPairs } from "./plain-pairs.js";

/** Every file that `saveMlxAdapter` writes. */
export const mlxFiles: readonly string[] = [mlxLayout.tensorsFile, "adapter_config.json"];

/** How an adapter is written for mlx-lm. */
export interface SaveMlxOptions {
  readonly files: FileSystem;
  /** Path or hub name of the base, which mlx-lm's own tools read. */
  readonly baseModel?: string | null;
}

/** How mlx-lm's modules begin where they do not begin as the checkpoint's, by family: mlx_lm/models/*.py. */
const beginnings: Readonly<Record<string, readonly (readonly [checkpoint: string, mlx: string])[]>> = {
  gpt2: [["transformer.", "model."]],
  gpt_neox: [
    ["gpt_neox.layers.", "model.h."],
    ["gpt_neox.", "model."],
    ["embed_out", "model.embed_out"],
  ],
  gemma3n_text: [["model.", "model.language_model."]],
};

/** A pair as mlx-lm has it, scale aside: with the module's path within its layer, or its whole path outside of all. */
interface Placed {
  readonly pair: PlainPair;
  readonly layer: number | null;
  readonly key: string;
}

/**
 * Writes adapters.safetensors and adapter_config.json as mlx_lm.lora does. Its adapters have one rank and one scale for all modules: smaller ranks
 * are filled up with zeros, and other scalings stand in B. They are on the last `num_layers` layers, on the same modules of each, so that those
 * which the adapter leaves out get zeros. Throws AdapterError for what mlx-lm cannot say; rejects as `saveAdapter` does.
 */
export async function saveMlxAdapter(adapter: Adapter, folder: string, given: SaveMlxOptions): Promise<void> {
  const { files, baseModel = adapter.origin.baseModel }: Partial<SaveMlxOptions> = given ?? {};
  checkPath(folder, "saveMlxAdapter");
  checkFiles(files, "saveMlxAdapter");
  const { model } = adapter;
  const options = adapter.options as LoraOptions;
  const placed = plainPairs(adapter, "mlx-lm's format").map((pair) => placeOf(model, pair));
  const rank = largest(placed.map(({ pair }) => pair.a.sizeAt(0)));
  const scale = commonest(placed.map(({ pair }) => pair.scaling));
  const layers = model.blocks ?? [];
  const first = placed.reduce((least, { layer }) => Math.min(least, layer ?? least), layers.length);
  const isDora = adapter.method.name === "dora";
  const named = nameIn(model);
  const tensors = new Map<string, Tensor>();
  const put = (path: string, parts: Readonly<Record<string, Tensor | null>>): void => {
    for (const [part, tensor] of Object.entries(parts)) if (tensor) tensors.set(`${named(path)}.${part}`, tensor);
  };
  for (const { pair } of placed) put(pair.path, partsOf(pair, rank, scale));
  const keys = [...new Set(placed.map(({ key }) => key))].sort();
  for (const [path, layer] of leftOut(model, placed, first)) put(path, nothing(layer, rank, isDora));
  const config = {
    fine_tune_type: isDora ? "dora" : "lora",
    lora_parameters: { dropout: options.dropout, keys: keys.map((key) => (isWhole(key, placed) ? named(key) : key)), rank, scale },
    model: baseModel,
    num_layers: layers.length - first,
  };
  const path = files.join(folder, mlxLayout.tensorsFile);
  await files.write(path, writeWeights(path, tensors, { metadata: { format: "mlx" } }));
  await files.write(files.join(folder, "adapter_config.json"), new TextEncoder().encode(`${JSON.stringify(config, null, 4)}\n`));
}

function placeOf(model: AdaptableModel, pair: PlainPair): Placed {
  const module = model.namedModules().get(pair.path) as Partial<DenseLayer> | undefined;
  const sharing = [...model.namedModules()].filter(([, other]) => (other as Partial<DenseLayer>).weight === module?.weight);
  if (sharing.length > 1)
    throw new AdapterError(
      `${pair.path} shares its weight with ${sharing
        .map(([name]) => name)
        .filter((name) => name !== pair.path)
        .join(
          ", ",
        )}, which mlx-lm would adapt as well. Leave the layer out of the adapter's targets, or merge the adapter into its base (lowrank merge) and export the model.`,
      [pair.path],
    );
  if (pair.kind === "embedding" && pair.magnitude)
    throw new AdapterError(
      `${pair.path}: DoRA of an embedding has a magnitude for each dimension, and in mlx-lm for each token. Merge the adapter into its base (lowrank merge) and export the model.`,
      [pair.path],
    );
  const layer = (model.blocks ?? []).findIndex(({ name }) => pair.path.startsWith(`${name}.`));
  if (layer < 0) return { pair, layer: null, key: pair.path };
  return { pair, layer, key: pair.path.slice((model.blocks?.[layer]?.name.length ?? 0) + 1) };
}

const isWhole = (key: string, placed: readonly Placed[]): boolean => placed.some((other) => other.layer === null && other.key === key);

/** A module's path as mlx-lm has it. */
function nameIn(model: AdaptableModel): (path: string) => string {
  const known = beginnings[modelType(model) ?? ""] ?? [];
  return (path) => {
    const [from, to] = known.find(([checkpoint]) => path.startsWith(checkpoint)) ?? ["", ""];
    return to + path.slice(from.length);
  };
}

/** The value that most have, of those the first; 1 where that is 0, since others are divided by it. */
function commonest(values: readonly number[]): number {
  const counts = new Map<number, number>();
  for (const value of values) counts.set(value, (counts.get(value) ?? 0) + 1);
  const [most] = [...counts].sort(([, a], [, b]) => b - a);
  return most?.[0] || 1;
}

/** lora_a [in, rank], lora_b [rank, out], both with zeros up to the rank, and DoRA's m. */
function partsOf({ a, b, scaling, magnitude }: PlainPair, rank: number, scale: number): Readonly<Record<string, Tensor | null>> {
  const missing = rank - a.sizeAt(0);
  const filled = (matrix: Tensor): Tensor =>
    missing === 0
      ? matrix
      : matrix.pad([
          [0, missing],
          [0, 0],
        ]);
  return {
    lora_a: filled(a).t(),
    lora_b: filled(scaling === scale ? b.t() : b.t().mul(scaling / scale)),
    m: magnitude,
  };
}

/** The modules that mlx-lm adapts along with the adapter's: those of the same names in the last layers. */
function leftOut(model: AdaptableModel, placed: readonly Placed[], first: number): ReadonlyMap<string, DenseLayer> {
  const adapted = new Set(placed.map(({ pair }) => pair.path));
  const keys = new Set(placed.filter(({ layer }) => layer !== null).map(({ key }) => key));
  const modules = model.namedModules();
  const found = new Map<string, DenseLayer>();
  for (const { name } of (model.blocks ?? []).slice(first)) {
    for (const key of keys) {
      const path = `${name}.${key}`;
      const module = modules.get(path);
      if (module && isDense(module) && !adapted.has(path)) found.set(path, module);
    }
  }
  return found;
}

/** A pair that adds nothing. */
function nothing(layer: DenseLayer, rank: number, isDora: boolean): Readonly<Record<string, Tensor | null>> {
  const { inFeatures, outFeatures, weight } = layer;
  const { device } = weight;
  return {
    lora_a: zeros([inFeatures, rank], { device }),
    lora_b: zeros([rank, outFeatures], { device }),
    m: isDora ? rowNorms((layer.isTransposed ? weight.t() : weight).cast("f32")) : null,
  };
}
