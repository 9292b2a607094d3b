import type { Json, SafetensorsEntry } from "@lowrank/tensor";
import type { AdaptableModule } from "../../targeting/model.js";

/** A tensor of an adapter's file by the names that PEFT gives it. */
export interface NamedTensor {
  /** What the file calls it. */
  readonly key: string;
  /** As PEFT has it. */
  readonly shape: readonly number[];
  /** True where the file holds the transpose. */
  readonly isTransposed: boolean;
  /** What an adapter may call it; the last is PEFT's full name, `base_model.model.<module>.<parameter>`, and one of a kind in its file. */
  readonly names: readonly string[];
}

/** What a layout is read from. */
export interface LayoutFiles {
  readonly config: Json;
  /** The tensors by the file's own names. */
  readonly entries: ReadonlyMap<string, SafetensorsEntry>;
  /** Paths, for errors. */
  readonly configPath: string;
  readonly tensorsPath: string;
  /** The model's modules, where the adapter is read for one. */
  readonly modules: ReadonlyMap<string, AdaptableModule> | null;
}

/** How a tool keeps an adapter in a folder, told by its adapter_config.json. */
export interface AdapterLayout {
  readonly tensorsFile: string;
  readonly isOf: (config: Json) => boolean;
  /** The configuration in PEFT's fields, and the tensors by PEFT's names. Throws AdapterError for what PEFT's fields and names cannot say. */
  readonly read: (files: LayoutFiles) => { readonly config: Json; readonly tensors: readonly NamedTensor[] };
}
