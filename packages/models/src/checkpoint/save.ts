import { nn } from "@lowrank/autograd";
import {
  CheckpointError,
  checkFiles,
  checkPath,
  type DType,
  type FileSystem,
  joined,
  type MadeTensor,
  openFile,
  readText,
  showValue,
  sizeOf,
  type Tensor,
  writeWeights,
} from "@lowrank/tensor";
import type { CausalLM } from "../causal-lm.js";
import { parametersIn } from "../families/family.js";
import { readFamily } from "../families/read.js";
import { checkWeightDType } from "../parameters.js";
import { configText, floatNames, namesIn } from "./config-text.js";
import { mergedField } from "./merged-field.js";
import {
  type BitsandbytesType,
  bitsandbytesConfig,
  bitsandbytesTensors,
  bitsandbytesTypes,
  type DenseWeightToWrite,
} from "./packed/bitsandbytes-write.js";
import { tyingFields, withField } from "./restated.js";

/** Files that belong to a checkpoint beside its config and weights; copied as they are. */
const companions = [
  "generation_config.json",
  "tokenizer.json",
  "tokenizer_config.json",
  "special_tokens_map.json",
  "added_tokens.json",
  "chat_template.jinja",
  "tokenizer.model",
  "vocab.json",
  "merges.txt",
] as const;

/** Every file that `saveModel` may write. */
export const checkpointFiles: readonly string[] = [...companions, "config.json", "model.safetensors"];

/** The names that config.json has for dtypes. */
const torchNames: Readonly<Record<string, string>> = { f32: "float32", f16: "float16", bf16: "bfloat16" };

/** How a checkpoint is written. */
export interface SaveModelOptions {
  readonly files: FileSystem;
  /**
   * What is written in place of the model's parameters of these names, such as `mergedParameters` of @lowrank/lora. A head of its own, where the
   * model's is its embeddings, unties both.
   */
  readonly tensors?: ReadonlyMap<string, Tensor>;
  /** Digests of adapters that `tensors` hold, which config.json says, with those that the folder named from which the model was read. */
  readonly merged?: readonly string[];
  /**
   * The weights' dtype: one for all, or "as-stored", which each had in the folder that the model was read from. Their own when absent, and bf16 for those in
   * blocks.
   */
  readonly dtype?: "f32" | "f16" | "bf16" | "as-stored";
  /**
   * What the weights of dense layers are quantized to, out of f32: the folder is then one of bitsandbytes, which transformers loads. The head, experts, and what
   * `loadModel` leaves as it is when it quantizes, stay in `dtype`.
   */
  readonly quantize?: BitsandbytesType | null;
}

/**
 * Writes a whole checkpoint that transformers loads: config.json, model.safetensors, and the tokenizer's files where the model was read
 * from a folder that has them. Weights keep their dtype, or are converted one at a time. Each file is written whole or not at all, the weights first, so that nothing is
 * written at all when they cannot be, and config.json last, so that a folder with one holds a model. Parameters of adapters are not the
 * model's and are not saved; merge them first. Rejects with CheckpointError when the disk is full and where a weight is not finite.
 */
export async function saveModel(model: CausalLM, folder: string, options: SaveModelOptions): Promise<void> {
  const { files, tensors: given = new Map(), dtype: asked, merged = [], quantize = null }: Partial<SaveModelOptions> = options ?? {};
  checkPath(folder, "saveModel");
  checkFiles(files, "saveModel");
  checkWeightDType(asked ?? "as-stored", ["as-stored", "f32", "f16", "bf16"], "saveModel");
  checkBitsandbytes(quantize);
  const own = model.namedParameters();
  const stored = model.origin?.dtypes;
  const tensors = new Map<string, Tensor | MadeTensor>();
  const dtypes = new Map<string, DType>();
  const products = quantize ? productsOf(model, given) : new Map<string, DenseWeightToWrite>();
  for (const [name, parameter] of new Map([...own, ...given])) {
    const product = products.get(name);
    if (quantize && product) {
      for (const [part, tensor] of bitsandbytesTensors(quantize, product)) tensors.set(part, tensor);
      continue;
    }
    for (const [piece, tensor] of piecesOf(name, parameter, model)) {
      tensors.set(piece, tensor);
      dtypes.set(piece, (asked === "as-stored" ? (stored?.get(name) ?? stored?.values().next().value) : asked) ?? ownDType(parameter));
    }
  }
  const isUntied = [...given.keys()].some((name) => !own.has(name));
  const dtype = torchNames[[...dtypes.values()][0] ?? "f32"] ?? "float32";
  // Weights are written whole, however the base had them.
  const {
    torch_dtype: _dtype,
    quantization_config: _blocks,
    quantization: _mlx,
    ...config
  } = isUntied ? withField(model.config, tyingFields, false) : model.config;
  const packed = quantize ? { quantization_config: bitsandbytesConfig(quantize, denseModules(model, products)) } : {};
  const origin = model.origin;
  const adapters = [...(origin?.merged ?? []), ...merged];
  const read = origin ? await openFile(origin.files, origin.files.join(origin.folder, "config.json")) : null;
  const text = read ? await readText(read) : null;
  const path = files.join(folder, "model.safetensors");
  await files.write(path, writeWeights(path, tensors, { dtypes, metadata: { format: "pt" } }));
  if (origin && !(origin.files === files && origin.folder === folder)) {
    for (const name of companions) {
      const source = await openFile(origin.files, origin.files.join(origin.folder, name));
      if (!source) continue;
      try {
        await files.write(files.join(folder, name), await source.read(0, source.byteLength));
      } finally {
        await source.close?.();
      }
    }
  }
  await files.write(
    files.join(folder, "config.json"),
    await joined([new TextEncoder().encode(savedConfig({ ...config, dtype, ...packed }, text, adapters))]),
  );
}

function checkBitsandbytes(type: unknown): asserts type is BitsandbytesType | null {
  if (type === null || (bitsandbytesTypes as readonly unknown[]).includes(type)) return;
  throw new CheckpointError(
    `saveModel: a folder cannot hold weights in ${showValue(type)}. Choose among ${bitsandbytesTypes.join(", ")}, or write a GGUF file with saveGguf.`,
    "saveModel",
  );
}

/** The dense layers of a model by their names, without its head. */
const layersOf = (model: CausalLM): (readonly [name: string, layer: nn.Linear])[] =>
  [...model.namedModules()].flatMap(([name, module]) =>
    module instanceof nn.Linear && module !== model.head ? [[name, module] as const] : [],
  );

/** The weights that are quantized, by their names: those of dense layers, no routers, that files hold whole. `given` stand in place of the model's own. */
function productsOf(model: CausalLM, given: ReadonlyMap<string, Tensor>): Map<string, DenseWeightToWrite> {
  const specs = parametersIn(readFamily(model.config, "config"), model.device);
  return new Map(
    layersOf(model).flatMap(([module, layer]) => {
      const name = `${module}.weight`;
      const { name: saved, pieces } = model.savedAs(name);
      const isProduct = (specs.get(name) ?? specs.get(saved))?.isProduct ?? false;
      if (pieces.length > 0 || !isProduct) return [];
      const weight = given.get(name) ?? layer.weight;
      return [[name, { module: saved.replace(/\.weight$/, ""), weight, isTransposed: layer.isTransposed }] as const];
    }),
  );
}

/** The dense layers that stay as they are, by their names in files: all but those that transformers leaves by itself; none where there are no others. */
function denseModules(model: CausalLM, products: ReadonlyMap<string, DenseWeightToWrite>): readonly string[] {
  const others = layersOf(model).flatMap(([module]) => (products.has(`${module}.weight`) ? [] : [model.savedAs(module).name]));
  return others.length > 0 ? [...others, "lm_head"] : [];
}

/** The dtype that a parameter is written in where nobody says another; blocks are written as numbers. */
function ownDType({ packing, dtype }: Tensor): DType {
  return packing ? "bf16" : dtype;
}

/** A parameter as checkpoints of the family have it: under another name, or in pieces. */
function piecesOf(name: string, parameter: Tensor, model: CausalLM): readonly (readonly [name: string, tensor: Tensor])[] {
  const { name: saved, pieces } = model.savedAs(name);
  if (pieces.length === 0) return [[saved, parameter]];
  const flat = parameter.reshape([parameter.size]);
  let end = 0;
  return pieces.map(({ name: piece, shape }) => {
    const size = sizeOf(shape);
    end += size;
    return [piece, flat.narrow(0, end - size, size).reshape(shape)] as const;
  });
}

/** Fields that every config.json is saved with. */
const always: ReadonlySet<string> = new Set([
  "architectures",
  "model_type",
  "dtype",
  "vocab_size",
  "tie_word_embeddings",
  "eos_token_id",
  "quantization_config",
]);

/** The text of a config.json: the fields of the one that was read, without the defaults that were filled in, or all where none was. */
function savedConfig(config: Readonly<Record<string, unknown>>, read: string | null, merged: readonly string[]): string {
  const known = read === null ? null : namesIn(read);
  const own = Object.entries(config).filter(([name]) => !known || known.has(name) || always.has(name));
  if (merged.length > 0) own.push([mergedField, merged]);
  return configText(Object.fromEntries(own), read === null ? readFamily(config, "config").family.floats : floatNames(read));
}
