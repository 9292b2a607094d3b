import { readJson } from "@lowrank/models";
import { type Json, nodeFiles } from "@lowrank/tensor";
import { UsageError } from "./failure.js";
import { adapterFolder, type Fetching, isOnHub, modelFolder } from "./hub.js";

/** The model that adapters are for. */
export interface Base {
  /** As --model or the adapter has it: a path, or a name on the hub. */
  readonly model: string;
  readonly folder: string;
}

/** What an adapter_config.json, PEFT's or mlx-lm's, says of the adapter's base. */
export interface NamedBase {
  readonly model: string;
  readonly revision: string | undefined;
}

const text = (value: unknown): string | undefined => (typeof value === "string" && value !== "" ? value : undefined);

/** What an adapter_config.json says of its base; null where it says nothing. */
export function namedBase(config: Json): NamedBase | null {
  const model = text(config["base_model_name_or_path"] ?? config["model"]);
  return model === undefined ? null : { model, revision: text(config["revision"]) };
}

/**
 * The folder of --model, or where it is not given of the base that the adapters name, which is told. Rejects with UsageError where nobody names one, where
 * adapters name several, and for a named one that cannot be opened. `revision`: --revision, else what the adapter says of a base on the hub.
 */
export async function openBase(model: string | undefined, adapters: readonly string[], fetching: Fetching): Promise<Base> {
  if (model !== undefined) return { model, folder: await modelFolder(model, fetching) };
  const { revision, ...elsewhere } = fetching;
  const named = new Map<string, { readonly adapter: string; readonly revision: string | undefined }>();
  for (const adapter of new Set(adapters)) {
    const base = await baseNamedBy(adapter, elsewhere);
    if (!named.has(base.model)) named.set(base.model, { adapter, revision: base.revision });
  }
  const [found, ...others] = named;
  if (!found) throw new UsageError("--model is missing. Add --model DIR, or --adapter with an adapter that names its base.");
  if (others.length > 0)
    throw new UsageError(`The adapters name several bases: ${[...named.keys()].join(", ")}. Add --model with the one that is meant.`);
  const [base, { adapter, revision: said }] = found;
  fetching.output?.note(`the base is ${base}, as ${adapter} says (--model names another)`);
  const wanted = revision ?? ((await isOnHub(base)) ? said : undefined);
  const folder = await modelFolder(base, { ...elsewhere, revision: wanted }).catch((error: unknown) => {
    fetching.signal?.throwIfAborted();
    const fact = error instanceof Error ? error.message : String(error);
    throw new UsageError(`${adapter} is an adapter for "${base}", which cannot be opened: ${fact} Add --model with its base.`);
  });
  return { model: base, folder };
}

async function baseNamedBy(adapter: string, fetching: Fetching): Promise<NamedBase> {
  const folder = await adapterFolder(adapter, fetching);
  const config = await readJson(nodeFiles, nodeFiles.join(folder, "adapter_config.json"));
  if (!config)
    throw new UsageError(
      `${adapter}: there is no adapter_config.json, which would say which model the adapter is for. Give the folder of an adapter, or add --model with its base.`,
    );
  const base = namedBase(config);
  if (base) return base;
  throw new UsageError(`${adapter}: the adapter does not say which model it is for. Add --model with its base.`);
}
