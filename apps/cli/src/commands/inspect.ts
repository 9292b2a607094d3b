import { stat } from "node:fs/promises";
import { basename, join } from "node:path";
import { type AdaptableModel, type DenseLayer, matchLayers, targetsFor } from "@lowrank/lora";
import { isGgufPath, modelFiles, modelOutline, packedWeights, readConfig, readJson } from "@lowrank/models";
import {
  CheckpointError,
  type Device,
  device,
  fileSource,
  nodeFiles,
  readSafetensors,
  type SafetensorsEntry,
  showShape,
  zeros,
} from "@lowrank/tensor";
import { type CommandContext, defineCommand } from "../command.js";
import { UsageError } from "../failure.js";
import type { Flags } from "../flags.js";
import { anyFolder, revisionFlag } from "../hub.js";
import type { Output } from "../output.js";
import { program } from "../program.js";
import { jsonFlag } from "../session.js";
import { bytes, grouped, tableLines } from "../terminal/format.js";
import { shownName } from "../terminal/printable.js";

const flags = {
  targets: { type: "list", value: "q_proj,v_proj", help: "say what LoRA on these layers would train; all-linear for every dense layer" },
  rank: { type: "integer", min: 1, help: "rank of that LoRA", default: 8 },
  revision: revisionFlag,
  headers: { type: "switch", help: "read the files' headers only: whether all numbers are finite is then not looked at" },
  json: jsonFlag,
} as const satisfies Flags;

/** A tensor of a file; of a GGUF file the dtype is its type. */
type TensorEntry = Pick<SafetensorsEntry, "name" | "dtype" | "shape" | "bytes">;

/** What a folder or a file holds, read from its headers. */
interface Contents {
  readonly config: Readonly<Record<string, unknown>> | null;
  readonly adapter: Readonly<Record<string, unknown>> | null;
  readonly entries: ReadonlyMap<string, TensorEntry>;
  /** Where the tensors lie. */
  readonly files: readonly string[];
}

async function contentsOf(path: string): Promise<Contents> {
  const info = await stat(path).catch(() => null);
  if (!info) throw new UsageError(`${path}: there is no such file or folder. Check the path.`);
  if (info.isFile()) {
    const config = isGgufPath(path) ? await readConfig(modelFiles, path) : null;
    return { config, adapter: null, entries: await entriesOf(path), files: [path] };
  }
  const names = (await nodeFiles.list(path)) ?? [];
  // A run's folder holds its training state as well, which is no part of the model.
  const files = names.filter((name) => name.endsWith(".safetensors") && name !== "training-state.safetensors");
  if (files.length === 0) {
    const gguf = names.find(isGgufPath);
    const pickle = names.find((name) => /\.(bin|pt|pth|ckpt|pkl)$/.test(name));
    throw new UsageError(
      pickle
        ? `${path} holds its weights as ${pickle}, a Python pickle, which can run any code and is not read. Save it with save_pretrained(..., safe_serialization=True).`
        : `${path} holds no *.safetensors. Give a folder with a checkpoint or an adapter, or a file${gguf === undefined ? "" : `: ${join(path, gguf)}`}.`,
    );
  }
  const entries = new Map<string, TensorEntry>();
  for (const name of files) for (const [key, entry] of await entriesOf(join(path, name))) entries.set(key, entry);
  const paths = files.map((name) => join(path, name));
  return {
    config: await readJson(nodeFiles, join(path, "config.json")),
    adapter: await readJson(nodeFiles, join(path, "adapter_config.json")),
    entries,
    files: paths,
  };
}

/** Rejects with CheckpointError naming tensor and place where a number is infinite or NaN. Dtypes that cannot be computed with are not looked at. */
async function checkNumbers(paths: readonly string[], output: Output): Promise<void> {
  for (const path of paths) {
    const gguf = await modelFiles.gguf(path);
    if (gguf) {
      try {
        for (const name of gguf.entries.keys()) {
          output.draw(`looking for numbers that are not finite: ${shownName(name)}`);
          await gguf.stream(name, () => undefined);
        }
      } finally {
        await gguf.close();
      }
      continue;
    }
    const file = await readSafetensors(await fileSource(path));
    try {
      for (const { name, dtype } of file.entries.values()) {
        if (!/^B?F(16|32)$/.test(dtype)) continue;
        output.draw(`looking for numbers that are not finite: ${shownName(name)}`);
        await file.digest(name);
      }
    } finally {
      await file.close();
    }
  }
  output.draw("");
}

async function entriesOf(path: string): Promise<ReadonlyMap<string, TensorEntry>> {
  const gguf = await modelFiles.gguf(path);
  if (gguf) {
    await gguf.close();
    return new Map([...gguf.entries].map(([name, { type, shape, bytes: size }]) => [name, { name, dtype: type.name, shape, bytes: size }]));
  }
  if (/\.(bin|pt|pth|ckpt|pkl)$/.test(path)) {
    throw new UsageError(`${basename(path)} is a Python pickle, which can run any code and is not read. Save it as safetensors.`);
  }
  const file = await readSafetensors(await fileSource(path));
  await file.close();
  return file.entries;
}

/** Whether a config.json says that weights are packed. */
const isPacked = (config: Contents["config"]): boolean => Boolean(config?.["quantization_config"] ?? config?.["quantization"]);

/** The entries of a folder with each weight in blocks as one, of its own shape, with the type of its blocks as its dtype and the bytes of all its parts. */
async function withBlocks({ config, entries }: Contents, folder: string): Promise<Contents["entries"]> {
  if (!isPacked(config)) return entries;
  const dev = await device("reference");
  try {
    const packed = await packedWeights(folder, { device: dev, files: nodeFiles });
    const parts = new Set([...packed.values()].flatMap(({ tensors }) => tensors));
    const others = [...entries].filter(([name]) => !parts.has(name));
    return new Map([
      ...others,
      ...[...packed].map(([name, { type, shape, bytes: size }]) => [name, { name, dtype: type, shape, offset: 0, bytes: size }] as const),
    ]);
  } catch (error) {
    // Of what cannot be loaded, the tensors are shown as they are.
    if (error instanceof CheckpointError) return entries;
    throw error;
  } finally {
    dev.dispose();
  }
}

/** A field of a file that is shown, whatever it is. */
const text = (value: unknown): string => (typeof value === "string" ? value : (JSON.stringify(value) ?? "absent"));

const countOf = ({ shape }: TensorEntry): number => shape.reduce((product, size) => product * size, 1);

/** Parameters of one module, repeated blocks taken together: `model.layers.*.self_attn.q_proj.weight`. */
interface Line {
  readonly name: string;
  readonly shape: readonly number[];
  readonly dtype: string;
  readonly count: number;
  readonly parameters: number;
}

function linesOf(entries: ReadonlyMap<string, TensorEntry>): Line[] {
  const lines = new Map<string, Line>();
  for (const [name, entry] of [...entries].sort(([a], [b]) => a.localeCompare(b, "en", { numeric: true }))) {
    const pattern = name.replace(/\.\d+(?=\.)/g, ".*");
    const key = `${pattern} ${entry.dtype} ${entry.shape.join()}`;
    const line = lines.get(key);
    lines.set(key, {
      name: pattern,
      shape: entry.shape,
      dtype: entry.dtype,
      count: (line?.count ?? 0) + 1,
      parameters: (line?.parameters ?? 0) + countOf(entry),
    });
  }
  return [...lines.values()];
}

/** The model of a config.json that one of the families reads, without weights; null for others. */
function outlineOfFamily(config: Contents["config"], dev: Device): AdaptableModel | null {
  try {
    return config && modelOutline(config, { device: dev });
  } catch (error) {
    if (error instanceof CheckpointError) return null;
    throw error;
  }
}

/** A model that has names and shapes only, enough for choosing layers. */
function outline(entries: ReadonlyMap<string, TensorEntry>, config: Contents["config"], dev: Device): AdaptableModel {
  const layers = new Map<string, DenseLayer>();
  for (const [name, { shape }] of entries) {
    const [outFeatures, inFeatures] = shape;
    if (shape.length !== 2 || !name.endsWith(".weight") || /(^|\.)(embed_tokens|wte|wpe)\.weight$/.test(name)) continue;
    if (outFeatures === undefined || inFeatures === undefined) continue;
    layers.set(name.slice(0, -".weight".length), {
      weight: zeros(shape, { device: dev }),
      bias: null,
      inFeatures,
      outFeatures,
      isTransposed: false,
      isTraining: false,
      use: () => () => {},
      replace: () => () => {},
    });
  }
  const model = {
    config: { model_type: config?.["model_type"] },
    namedModules: () => layers,
    namedParameters: () => new Map([...layers].map(([name, { weight }]) => [name, weight])),
  };
  return model;
}

async function runInspect({ values, positionals, output, signal }: CommandContext<typeof flags>): Promise<number> {
  const [path, ...surplus] = positionals;
  if (path === undefined || surplus.length > 0)
    throw new UsageError(
      `lowrank inspect takes one folder or file, and got ${positionals.length}. Write: ${program()} inspect DIR|FILE|NAME.`,
    );
  const folder = await anyFolder(path, { revision: values.revision, output, signal });
  const contents = await contentsOf(folder);
  const { config, adapter, files } = contents;
  const entries = await withBlocks(contents, folder);
  const lines = linesOf(entries);
  const parameters = lines.reduce((sum, line) => sum + line.parameters, 0);
  const size = [...entries.values()].reduce((sum, entry) => sum + entry.bytes, 0);
  const type = adapter ? `adapter ${text(adapter["peft_type"])}` : text(config?.["model_type"] ?? "tensors");

  output.say(`${path}: ${shownName(type)}, ${grouped(parameters)} parameters in ${entries.size} tensors, ${bytes(size)}`);
  if (adapter) {
    output.say(
      `rank ${shownName(text(adapter["r"]))}, alpha ${shownName(text(adapter["lora_alpha"]))}, targets ${[adapter["target_modules"]]
        .flat()
        .map((target) => shownName(text(target)))
        .join(", ")}, base ${shownName(text(adapter["base_model_name_or_path"]))}`,
    );
  }
  const rows = lines.map(({ name, shape, dtype, count, parameters: own }) => [
    name,
    count > 1 ? `${count} x` : "",
    showShape(shape),
    dtype,
    grouped(own),
  ]);
  for (const line of tableLines([["parameter", "", "shape", "dtype", "parameters"], ...rows], {
    arePaths: true,
    width: output.tableColumns,
  }))
    output.say(line);

  let wouldTrain: { trainable: number; frozen: number; percent: number; layers: readonly string[] } | null = null;
  if (values.targets || (config && !adapter)) {
    const dev = await device("reference");
    try {
      const [first] = values.targets ?? [];
      const targets = values.targets?.length === 1 && first === "all-linear" ? "all-linear" : values.targets;
      const model = outlineOfFamily(config, dev) ?? outline(entries, config, dev);
      const chosen = matchLayers(model, targets === undefined ? {} : { targets });
      const trainable = [...chosen.values()].reduce(
        (sum, { inFeatures, outFeatures }) => sum + values.rank * (inFeatures + outFeatures),
        0,
      );
      const percent = (100 * trainable) / (trainable + parameters);
      wouldTrain = { trainable, frozen: parameters, percent, layers: [...chosen.keys()] };
      output.say(
        `LoRA of rank ${values.rank} on ${chosen.size} layers (${values.targets?.join(", ") ?? `the family's default targets, ${targetsFor(model).join(", ")}`}) would train ${grouped(trainable)} parameters, ${percent.toFixed(2)} %`,
      );
    } catch (error) {
      // Without --targets this is an extra; a family without default targets has none.
      if (values.targets) throw error;
    } finally {
      dev.dispose();
    }
  }
  if (!values.headers) await checkNumbers(files, output);
  output.result({
    path,
    type,
    parameters,
    bytes: size,
    tensors: [...entries.values()].map(({ name, shape, dtype }) => ({ name, shape, dtype })),
    ...(wouldTrain ? { wouldTrain } : {}),
  });
  return 0;
}

export const inspectCommand = defineCommand({
  name: "inspect",
  makes: "text",
  summary: "What a checkpoint or an adapter holds: parameters by module, shapes, dtypes, and what LoRA would train.",
  positionals: "DIR|FILE|NAME",
  flags,
  examples: ["lowrank inspect ./model --targets q_proj,v_proj --rank 8"],
  run: runInspect,
});
