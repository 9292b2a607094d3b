import type { Adapter } from "@lowrank/lora";
import type { GgufFileType, LoadedModel } from "@lowrank/models";
import type { FileSystem } from "@lowrank/tensor";
import type { Output } from "../output.js";
import type { ExportSource } from "./source.js";

/** One export as a format sees it. */
export interface Exporting {
  readonly source: ExportSource;
  readonly loaded: LoadedModel;
  /** On the model; null where a model is exported. */
  readonly adapter: Adapter | null;
  /** True where the adapter is to become part of the model. */
  readonly isMerged: boolean;
  readonly folder: string;
  readonly files: FileSystem;
  /** The name of the one file where --out names a file. */
  readonly fileName: string | null;
  /** Types of a GGUF file's tensors. */
  readonly type: GgufFileType;
  /** Whether a Modelfile is to have a TEMPLATE. */
  readonly hasTemplate: boolean;
  readonly output: Output;
}

/** A way out. */
export interface ExportFormat {
  /** What help says. */
  readonly summary: string;
  /** What it takes: adapters alone, models alone (an adapter is merged first), or both. */
  readonly takes: "adapter" | "model" | "either";
  /** Every name that it may write in the folder. */
  readonly writes: readonly string[];
  /** Writes, and gives the commands that run what was written. */
  readonly write: (exporting: Exporting) => Promise<readonly string[]>;
}

/** A path as a command is shown with. */
export function within({ folder, files }: Pick<Exporting, "folder" | "files">, name: string): string {
  return files.join(folder, name);
}
