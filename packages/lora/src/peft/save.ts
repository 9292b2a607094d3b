import { type FileSystem, writeSafetensors } from "@lowrank/tensor";
import type { Adapter } from "../adapter.js";
import { ridersToPeft } from "../riders/index.js";

/** The version of PEFT whose layout is written. */
export const peftVersion = "0.21.0";

/** How an adapter is written. */
export interface SaveOptions {
  /** Where `folder` lies; Node's files when absent (in Node). */
  readonly files: FileSystem;
}

/** adapter_config.json as PEFT writes it: every field, keys sorted. */
export function peftConfig(adapter: Adapter): Readonly<Record<string, unknown>> {
  const { method, options, places, attachments, riders, origin } = adapter;
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
  return Object.fromEntries(
    Object.keys(fields)
      .sort()
      .map((name) => [name, fields[name]]),
  );
}

/**
 * Writes adapter_model.safetensors and adapter_config.json, as PEFT does. Each file is whole or untouched; the configuration comes last,
 * so that a folder with one holds an adapter. Rejects with CheckpointError when the folder cannot be written.
 */
export async function saveAdapter(adapter: Adapter, folder: string, { files }: SaveOptions): Promise<void> {
  const config = `${JSON.stringify(peftConfig(adapter), null, 2)}\n`;
  await files.write(files.join(folder, "adapter_model.safetensors"), writeSafetensors(adapter.savedTensors(), { format: "pt" }));
  await files.write(files.join(folder, "adapter_config.json"), new TextEncoder().encode(config));
}
