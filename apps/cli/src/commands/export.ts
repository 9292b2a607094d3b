import { basename, dirname } from "node:path";
import { type GgufFileType, ggufFileTypes } from "@lowrank/models";
import { nodeFiles } from "@lowrank/tensor";
import { type CommandContext, defineCommand } from "../command.js";
import type { ExportFormat, Exporting } from "../export/format.js";
import { loadSource, openSource } from "../export/source.js";
import { exportFormat, exportFormats } from "../export/table.js";
import { UsageError } from "../failure.js";
import type { Flags } from "../flags.js";
import { revisionFlag } from "../hub.js";
import { checkFile } from "../out/file.js";
import { inputsOf } from "../out/inputs.js";
import { withOutFolder } from "../out-folder.js";
import { program } from "../program.js";
import { baseFlag, baseQuantizeFlag, deviceFlag, jsonFlag, withDevice } from "../session.js";

const flags = {
  format: {
    type: "text",
    value: Object.keys(exportFormats).join("|"),
    help: Object.entries(exportFormats)
      .map(([name, { summary }]) => `${name}: ${summary}`)
      .join("; "),
    required: true,
  },
  model: { ...baseFlag, help: "an adapter's base (default: what the adapter says)" },
  revision: revisionFlag,
  "base-quantize": baseQuantizeFlag,
  type: {
    type: "choice",
    choices: Object.keys(ggufFileTypes) as GgufFileType[],
    help: "how a GGUF model's matrices are stored, with llama.cpp's mix of types",
    default: "bf16",
  },
  merge: { type: "switch", help: "gguf, ollama: merge the adapter into its base, and write one model" },
  template: { type: "switch", help: "ollama: write a TEMPLATE into the Modelfile, for an Ollama that takes none from the GGUF file" },
  out: { type: "text", value: "DIR|FILE.gguf", path: "written", help: "new folder, or with gguf a new file", required: true },
  device: { ...deviceFlag, default: "cpu" },
  json: jsonFlag,
} as const satisfies Flags;

type Context = CommandContext<typeof flags>;

async function runExport(context: Context): Promise<number> {
  const { values, positionals } = context;
  const [path, ...surplus] = positionals;
  if (path === undefined || surplus.length > 0)
    throw new UsageError(
      `lowrank export takes one run, adapter or model, and got ${positionals.length}. Write: ${program()} export DIR --format gguf --out DIR.`,
    );
  const format = exportFormat(values.format);
  const inputs = inputsOf(flags, values, positionals);
  const { out } = values;
  if (values.format === "gguf" && out.endsWith(".gguf")) {
    await checkFile({ name: "--out", path: out, isOurs: async () => false }, { inputs, folder: "", writes: [] });
    return write(context, path, format, { folder: dirname(out), files: nodeFiles, fileName: basename(out) });
  }
  const claim = { command: "export", path: out, inputs, writes: format.writes, mode: "new" } as const;
  return withOutFolder(context, claim, ({ files }) => write(context, path, format, { folder: out, files, fileName: null }));
}

async function write(
  { values, output, signal }: Context,
  path: string,
  format: ExportFormat,
  target: Pick<Exporting, "folder" | "files" | "fileName">,
): Promise<number> {
  const { model, revision, type, merge: isAsked, template: hasTemplate, out } = values;
  if (hasTemplate && values.format !== "ollama") throw new UsageError("--template is for --format ollama. Leave it out.");
  const source = await openSource(path, { model, revision, output, signal });
  if (format.takes === "adapter" && source.kind === "model")
    throw new UsageError(
      `${path} is a model, and --format ${values.format} is for adapters. ${values.format === "mlx" ? "mlx-lm reads the folder as it is." : "Write --format safetensors or gguf."}`,
    );
  if (isAsked && (source.kind === "model" || format.takes === "adapter"))
    throw new UsageError("--merge is for adapters that become part of a GGUF model. Leave it out.");
  return withDevice(values.device, output, async (device) => {
    const { loaded, adapter } = await loadSource(source, { device, quantize: values["base-quantize"], output, signal });
    const isMerged = isAsked || format.takes === "model";
    const commands = await format.write({ ...target, source, loaded, adapter, isMerged, type, hasTemplate, output });
    const what = adapter ? (isMerged ? "The model with the adapter merged" : "The adapter") : "The model";
    output.say(`${what} is in ${out}.${commands.length > 0 ? " It runs by:" : ""}`, ...commands);
    output.result({ out, format: values.format, kind: adapter && !isMerged ? "adapter" : "model", base: source.base });
    return 0;
  });
}

export const exportCommand = defineCommand({
  name: "export",
  makes: "files",
  summary: "Write an adapter or a model for other runners: PEFT, transformers, llama.cpp, Ollama, LM Studio, mlx-lm.",
  positionals: "RUN|ADAPTER|MODEL",
  flags,
  examples: [
    "lowrank export run --format gguf --out run.gguf",
    "lowrank export run --format ollama --merge --type q4_k_m --out ollama",
    "lowrank export run --format mlx --out mlx",
  ],
  run: runExport,
});
