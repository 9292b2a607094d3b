import { UsageError } from "../failure.js";
import type { ExportFormat } from "./format.js";
import { gguf } from "./gguf.js";
import { mlx } from "./mlx.js";
import { ollama } from "./ollama.js";
import { peft } from "./peft.js";
import { safetensors } from "./safetensors.js";

/** Every way out, by its name; one line each. */
export const exportFormats: Readonly<Record<string, ExportFormat>> = { peft, safetensors, gguf, ollama, mlx };

/** Ways that are asked for and not there, with the one that works. */
const elsewhere: Readonly<Record<string, string>> = {
  onnx: "Write --format safetensors and convert that with optimum (optimum-cli export onnx --model DIR OUT).",
};

/** A format by its name. Throws UsageError for one that there is not. */
export function exportFormat(name: string): ExportFormat {
  const format = Object.hasOwn(exportFormats, name) ? exportFormats[name] : undefined;
  if (format) return format;
  const way = elsewhere[name] ?? `Choose ${Object.keys(exportFormats).join(", ")}.`;
  throw new UsageError(`--format is "${name}", which is not written. ${way}`);
}
