import { type AdaptableModel, type DenseLayer, matchLayers, targetsFor } from "@lowrank/lora";
import { modelOutline } from "@lowrank/models";
import { CheckpointError, type Device, device, quantizedTypes, showShape, zeros } from "@lowrank/tensor";
import { type CommandContext, defineCommand } from "../command.js";
import { UsageError } from "../failure.js";
import type { Flags } from "../flags.js";
import { anyFolder, revisionFlag } from "../hub.js";
import { type Contents, checkNumbers, contentsOf, type TensorEntry, withBlocks } from "../inspect/contents.js";
import { quantizedTypesOf, storedTypes, typesLine } from "../inspect/types.js";
import { program } from "../program.js";
import { jsonFlag } from "../session.js";
import { bytes, grouped, tableLines } from "../terminal/format.js";
import { shownName } from "../terminal/printable.js";

const flags = {
  targets: { type: "list", value: "q_proj,v_proj", help: "say what LoRA on these layers would train; all-linear for every dense layer" },
  rank: { type: "integer", min: 1, help: "rank of that LoRA", default: 8 },
  revision: revisionFlag,
  quantize: { type: "choice", choices: quantizedTypes, help: "say what the model would be if it were quantized while it is loaded" },
  headers: { type: "switch", help: "read the files' headers only: whether all numbers are finite is then not looked at" },
  json: jsonFlag,
} as const satisfies Flags;

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
  const types = storedTypes([...entries.values()].map((entry) => ({ type: entry.dtype, parameters: countOf(entry), bytes: entry.bytes })));
  output.say(`stored as ${typesLine(types)}`);
  const quantized = values.quantize === undefined ? null : await quantizedTypesOf(folder, values.quantize);
  for (const warning of quantized?.warnings ?? []) output.note(`warning: ${warning}`);
  if (quantized) output.say(`with --quantize ${values.quantize} it would be ${typesLine(quantized.types)}`);
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
    types,
    ...(quantized && { quantized: quantized.types }),
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
  examples: ["lowrank inspect ./model --targets q_proj,v_proj --rank 8", "lowrank inspect ./model --quantize nf4"],
  run: runInspect,
});
