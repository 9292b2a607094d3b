import { checkFiles, checkPath, type FileSystem, writeWeights } from "@lowrank/tensor";
import type { Adapter } from "../adapter.js";
import { AdapterError } from "../errors.js";
import { excludingRest } from "../peft/targets.js";
import { ridersToPeft } from "../riders/index.js";
import type { AdaptableModel } from "../targeting/model.js";
import { quantizationKey } from "./base.js";

/** The version of PEFT whose layout is written. */
export const peftVersion = "0.21.0";

/** Every file that `saveAdapter` writes. */
export const adapterFiles: readonly string[] = ["adapter_model.safetensors", "adapter_config.json"];

/** How an adapter is written. */
export interface SaveOptions {
  /** Where `folder` lies; Node's files when absent (in Node). */
  readonly files: FileSystem;
  /**
   * Writes PiSSA and OLoRA as plain LoRA of twice the rank, [A; A0] and [B, −B0], which any reader loads on the base without a decomposition.
   * Training goes on better from the usual form. When absent, it is done where PEFT would read the usual form as another function (OLoRA on
   * GPT-2's Conv1D, pissa_niter_N). peft's path_initial_model_for_weight_conversion.
   */
  readonly asPlainLora?: boolean;
}

/** adapter_config.json as PEFT writes it: every field, keys sorted. */
export function peftConfig(adapter: Adapter, options: unknown = adapter.options): Readonly<Record<string, unknown>> {
  const { method, places, attachments, riders, origin } = adapter;
  const fields: Record<string, unknown> = {
    auto_mapping: origin.autoMapping,
    base_model_name_or_path: origin.baseModel,
    inference_mode: true,
    peft_version: peftVersion,
    revision: origin.revision,
    task_type: origin.taskType,
    ...method.toPeft(options, places, attachments),
    ...ridersToPeft(riders.options, method.peftBias ?? "lora"),
  };
  const { wholePath } = adapter.model;
  if (wholePath && "exclude_modules" in fields)
    fields["exclude_modules"] = excludingRest(fields["exclude_modules"], wholePath, rootsBeside(adapter.model, wholePath));
  // By whole names: what the rest of a larger model has under the same ones is not in the file.
  if (wholePath && riders.options.modulesToSave) {
    const named = (path: string): boolean => riders.options.modulesToSave?.some((entry) => path.endsWith(entry)) ?? false;
    fields["modules_to_save"] = [...adapter.model.namedModules().keys()].filter(named);
  }
  return Object.fromEntries(
    Object.keys(fields)
      .sort()
      .map((name) => [name, fields[name]]),
  );
}

/** The first parts of the names of modules that do not begin with a path. */
function rootsBeside(model: AdaptableModel, path: string): readonly string[] {
  const beside = [...model.namedModules().keys()].filter((name) => !`${name}.`.startsWith(path) && !path.startsWith(`${name}.`));
  return [...new Set(beside.map((name) => name.split(".", 1)[0] ?? ""))].filter((root) => root !== "");
}

/**
 * Writes adapter_model.safetensors and adapter_config.json, as PEFT does. Each file is whole or untouched; the configuration comes last,
 * so that a folder with one holds an adapter. Rejects with CheckpointError when the folder cannot be written and where a number is not
 * finite, and with AdapterError for asPlainLora where there is no pair, and before `initialize` where first values lack.
 */
export async function saveAdapter(adapter: Adapter, folder: string, given: SaveOptions): Promise<void> {
  const { files, asPlainLora }: Partial<SaveOptions> = given ?? {};
  checkPath(folder, "saveAdapter");
  checkFiles(files, "saveAdapter");
  const { method, options, places } = adapter;
  if (asPlainLora && !method.asPlain)
    throw new AdapterError(`Adapters of method "${method.name}" are no pairs of LoRA. Save without asPlainLora.`, ["asPlainLora"]);
  const isPlain = asPlainLora ?? method.needsPlain?.(options, places) ?? false;
  const config = `${JSON.stringify(peftConfig(adapter, isPlain ? method.asPlain?.(options) : options), null, 2)}\n`;
  const path = files.join(folder, "adapter_model.safetensors");
  const { quantization } = adapter.origin;
  const metadata = { format: "pt", ...(quantization !== null && { [quantizationKey]: quantization }) };
  await files.write(path, writeWeights(path, adapter.savedTensors(isPlain), { metadata }));
  await files.write(files.join(folder, "adapter_config.json"), new TextEncoder().encode(config));
}
