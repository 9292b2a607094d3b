import type { Json, SafetensorsEntry } from "@lowrank/tensor";
import * as z from "zod/mini";
import { AdapterError, listed } from "../../errors.js";
import { type AdaptableModule, isDense, isEmbedding } from "../../targeting/model.js";
import type { AdapterLayout, LayoutFiles, NamedTensor } from "./layout.js";
import { ownPaths } from "./own-paths.js";
import { modelPrefix } from "./peft.js";

/** What is read of mlx-lm's adapter_config.json; the rest says how it was trained. */
const schema = z.object({
  fine_tune_type: z.nullish(z.string()),
  use_dora: z.nullish(z.boolean()),
  model: z.nullish(z.string()),
  num_layers: z.nullish(z.int()),
  lora_parameters: z.object({
    rank: z.int().check(z.positive()),
    scale: z.number(),
    dropout: z.nullish(z.number()),
    keys: z.nullish(z.array(z.string())),
  }),
});
type MlxConfig = z.infer<typeof schema>;

/** The last part of a tensor's name: the pair, and DoRA's magnitude. */
const parameters: ReadonlySet<string> = new Set(["lora_a", "lora_b", "m"]);

/** What embeddings are called, where there is no model to ask. */
const embeddingNames: ReadonlySet<string> = new Set(["embed_tokens", "wte", "wpe", "embed_in", "tok_embeddings", "word_embeddings"]);

/** A module's tensors by the last part of their names. */
type Parts = Map<string, SafetensorsEntry>;

/**
 * mlx-lm's adapters (`mlx_lm.lora`): `<module>.lora_a` [in, r] and `.lora_b` [r, out], DoRA's `.m` [out], w' = w + scale · (A B)ᵀ, and of
 * embeddings [vocab, r] and [r, width], w' = w + scale · A B. PEFT's A and B are the transposes, and its alpha is scale · r. An embedding
 * that is the output layer too is adapted in both, as mlx-lm's LoRAEmbedding.as_linear does.
 */
export const mlxLayout: AdapterLayout = {
  tensorsFile: "adapters.safetensors",
  isOf: (config) => !("peft_type" in config) && ("lora_parameters" in config || "fine_tune_type" in config),
  read: (files) => {
    const config = readConfig(files);
    const modules = modulesIn(files, config);
    const paths = [...modules.keys()];
    checkLayers(files, config, paths);
    const own = (files.modules && ownPaths(paths, new Set(files.modules.keys()))) ?? ((path: string) => path);
    const tensors: NamedTensor[] = [];
    const ranks = new Map<string, number>();
    for (const [path, parts] of modules) {
      const [a, b] = [parts.get("lora_a"), parts.get("lora_b")];
      if (a?.shape.length !== 2 || b?.shape.length !== 2)
        throw new AdapterError(
          `${files.tensorsPath}: ${path} has ${a && b ? "matrices for each of several experts" : "only one half of its pair"}, which is not read. Merge the adapter in mlx-lm (mlx_lm.fuse) and load the model that this gives.`,
          [path],
        );
      for (const place of placesOf(own(path), files)) {
        ranks.set(place.path, a.shape[1] ?? 0);
        for (const tensor of pairAt(place, { a, b, m: parts.get("m"), file: files.tensorsPath })) tensors.push(tensor);
      }
    }
    return { config: peftFields(config, ranks), tensors };
  },
};

function readConfig({ config, configPath }: LayoutFiles): MlxConfig {
  if (config["fine_tune_type"] === "full")
    throw new AdapterError(
      `${configPath}: mlx-lm trained whole weights here (fine_tune_type "full"), which are no adapter. Merge them in mlx-lm (mlx_lm.fuse) and load the model that this gives.`,
      ["fine_tune_type"],
    );
  const { success, data, error } = z.safeParse(schema, config);
  if (success) return data;
  const [issue] = error.issues;
  throw new AdapterError(
    `${configPath}: ${issue?.path.join(".") || "it"} is not what mlx-lm writes there (${issue?.message}). Save the adapter again.`,
    issue?.path.map(String) ?? [],
  );
}

/** Throws AdapterError for tensors that are no part of a pair, and for those that mlx-lm itself would not look at. */
function modulesIn({ entries, tensorsPath, configPath }: LayoutFiles, { lora_parameters: { keys } }: MlxConfig): Map<string, Parts> {
  const modules = new Map<string, Parts>();
  const others: string[] = [];
  for (const [name, entry] of entries) {
    const dot = name.lastIndexOf(".");
    const [path, last] = [name.slice(0, Math.max(dot, 0)), name.slice(dot + 1)];
    if (path === "" || !parameters.has(last)) {
      others.push(name);
      continue;
    }
    const parts: Parts = modules.get(path) ?? new Map();
    modules.set(path, parts.set(last, entry));
  }
  if (others.length > 0 || modules.size === 0)
    throw new AdapterError(
      `${tensorsPath} holds ${others.length > 0 ? `more than pairs lora_a and lora_b: ${listed(others, 6)}` : "no tensors"}. Give an adapter that was trained without these, or merge it in mlx-lm (mlx_lm.fuse).`,
      others,
    );
  const unnamed = keys ? [...modules.keys()].filter((path) => !keys.some((key) => path === key || path.endsWith(`.${key}`))) : [];
  if (unnamed.length > 0)
    throw new AdapterError(
      `${tensorsPath}: ${listed(unnamed, 6)} are not among the keys of ${configPath}, so mlx-lm would not apply them. Put the configuration and the tensors of one adapter together.`,
      unnamed,
    );
  return modules;
}

/** The number of a layer in a path. */
const layerOf = (path: string): number | null => {
  const number = /\.(\d+)\./.exec(path)?.[1];
  return number === undefined ? null : Number(number);
};

function checkLayers({ tensorsPath, configPath }: LayoutFiles, { num_layers: count }: MlxConfig, paths: readonly string[]): void {
  const layers = new Set(paths.map(layerOf).filter((layer) => layer !== null));
  if (typeof count !== "number" || count <= 0 || layers.size <= count) return;
  throw new AdapterError(
    `${tensorsPath} has tensors of ${layers.size} layers, and num_layers in ${configPath} is ${count}: mlx-lm would apply the last ${count} alone. Put the configuration and the tensors of one adapter together.`,
    ["num_layers"],
  );
}

/** A module that a pair goes on, and as what. */
interface Place {
  readonly path: string;
  /** `head`: an output layer that is the embedding which the pair is on. */
  readonly kind: "dense" | "embedding" | "head";
}

function placesOf(path: string, { modules }: LayoutFiles): readonly Place[] {
  const module = modules?.get(path);
  const isTable = module ? isEmbedding(module) : embeddingNames.has(path.slice(path.lastIndexOf(".") + 1));
  if (!isTable) return [{ path, kind: "dense" }];
  const weight = (module as Partial<AdaptableModule & { readonly weight: unknown }> | undefined)?.weight;
  const heads = [...(modules ?? [])].filter(([, other]) => isDense(other) && other.weight === weight);
  return [{ path, kind: "embedding" }, ...heads.map(([head]) => ({ path: head, kind: "head" as const }))];
}

interface Pair {
  readonly a: SafetensorsEntry;
  readonly b: SafetensorsEntry;
  readonly m: SafetensorsEntry | undefined;
  readonly file: string;
}

function pairAt({ path, kind }: Place, { a, b, m, file }: Pair): readonly NamedTensor[] {
  const tensor = ({ name, shape }: SafetensorsEntry, parameter: string, isTransposed: boolean): NamedTensor => ({
    key: name,
    shape: isTransposed ? [...shape].reverse() : shape,
    isTransposed,
    names: [`${modelPrefix}${path}.${parameter}`],
  });
  if (kind !== "dense" && m)
    throw new AdapterError(
      `${file}: ${m.name} is DoRA's magnitude of an embedding, which mlx-lm has for each token and PEFT for each dimension. Merge the adapter in mlx-lm (mlx_lm.fuse) and load the model that this gives.`,
      [m.name],
    );
  // The head is E + scale A B with A [vocab, r]: as a dense layer's pair, both as they are stored.
  if (kind === "head") return [tensor(b, "lora_A.weight", false), tensor(a, "lora_B.weight", false)];
  if (kind === "embedding") return [tensor(a, "lora_embedding_A", true), tensor(b, "lora_embedding_B", true)];
  return [tensor(a, "lora_A.weight", true), tensor(b, "lora_B.weight", true), ...(m ? [tensor(m, "lora_magnitude_vector", false)] : [])];
}

/** The same in PEFT's fields. mlx-lm's scale is for all ranks, PEFT's alpha for one. */
function peftFields(
  { fine_tune_type: type, use_dora: isDora, model, lora_parameters: { rank, scale, dropout } }: MlxConfig,
  ranks: ReadonlyMap<string, number>,
): Json {
  const others = [...ranks].filter(([, own]) => own !== rank);
  return {
    peft_type: "LORA",
    use_dora: type === "dora" || isDora === true,
    base_model_name_or_path: model ?? null,
    task_type: "CAUSAL_LM",
    r: rank,
    lora_alpha: scale * rank,
    lora_dropout: dropout ?? 0,
    target_modules: [...ranks.keys()],
    rank_pattern: Object.fromEntries(others.map(([path, own]) => [exactly(path), own])),
    alpha_pattern: Object.fromEntries(others.map(([path, own]) => [exactly(path), scale * own])),
  };
}

/** A pattern that fits a path alone. */
const exactly = (path: string): string => path.replace(/[.*+?^${}()|[\]\\]/g, "\\$&");
