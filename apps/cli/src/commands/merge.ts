import { basename } from "node:path";
import { type Adapter, adapterDigest, mergedParameters } from "@lowrank/lora";
import { checkpointFiles, compareOutputs, loadModel, type RecordedOutputs, recordOutputs, saveGguf, saveModel } from "@lowrank/models";
import type { QuantizedType } from "@lowrank/tensor";
import { type Base, openBase } from "../base.js";
import { cardName, licenseOf, modelCard } from "../card/model-card.js";
import { type CommandContext, defineCommand } from "../command.js";
import { UsageError } from "../failure.js";
import type { Flags } from "../flags.js";
import { revisionFlag } from "../hub.js";
import { type Check, checkLines, checkMarkdown, defaultTolerance, toleranceOf } from "../merge/agreement.js";
import { type CheckSource, checkRows } from "../merge/check-rows.js";
import { folderTypeOf, ggufTypeOf, mergedGguf, mergeTypes } from "../merge/quantized.js";
import { inputsOf } from "../out/inputs.js";
import { type OutFolder, withOutFolder } from "../out-folder.js";
import { shownPath } from "../report/path.js";
import { baseFlag, baseQuantizedTo, baseQuantizeFlag, deviceFlag, jsonFlag, openAdapter, withDevice } from "../session.js";

const flags = {
  model: baseFlag,
  revision: revisionFlag,
  adapter: {
    type: "texts",
    value: "DIR",
    path: "read",
    help: "folder of an adapter, ours or PEFT's, or its name on the hub; several add up",
    required: true,
  },
  "base-quantize": baseQuantizeFlag,
  dtype: {
    type: "choice",
    choices: ["as-stored", "f32", "bf16", "f16"],
    help: "how the merged weights are stored; sums are f32, rounded once to nearest even",
    default: "as-stored",
  },
  quantize: {
    type: "choice",
    choices: mergeTypes,
    help: "put the merged weights into 4 or 8 bits: nf4, fp4 and int8 as a folder of bitsandbytes, the others as a GGUF file (default: --dtype)",
  },
  check: {
    type: "text",
    value: "FILE",
    path: "read",
    help: "rows or text on which both are compared (default: the run's held-out rows, else prose that ships with lowrank)",
  },
  tolerance: {
    type: "number",
    min: 0,
    help: `mean KL, in nats a token, above which nothing is kept and the exit code is 3 (default: ${defaultTolerance}, with --quantize ${mergeTypes.map((type) => `${toleranceOf(type)} for ${type}`).join(", ")})`,
  },
  out: { type: "text", value: "DIR", path: "written", help: "new folder for the whole checkpoint", required: true },
  device: deviceFlag,
  json: jsonFlag,
} as const satisfies Flags;

type Context = CommandContext<typeof flags>;

/** What was written, and what the base with its adapters says of the rows. */
interface Written {
  readonly base: Base;
  /** What the base was quantized to while it was loaded. */
  readonly quantization: QuantizedType | null;
  /** Whether some of the base's files are in blocks, which what is merged is not unless it is put into blocks again. */
  readonly isInBlocks: boolean;
  readonly layerCount: number;
  readonly parameterCount: number;
  readonly source: CheckSource;
  readonly before: RecordedOutputs;
}

/** What the two sides are called. */
const sides = ["adapter beside base", "merged"] as const;

async function runMerge(context: Context): Promise<number> {
  const { values, output, signal } = context;
  const { out, quantize } = values;
  const { tolerance = toleranceOf(quantize) } = values;
  const gguf = ggufTypeOf(quantize);
  if (gguf && context.given.has("dtype"))
    throw new UsageError(
      `--quantize ${quantize} writes a GGUF file, whose other tensors have the types that llama.cpp gives them. Leave --dtype out.`,
    );
  const writes = gguf ? [mergedGguf, cardName] : [...checkpointFiles, cardName];
  const claim = { command: "merge", path: out, inputs: inputsOf(flags, values), writes, mode: "new" } as const;
  return withOutFolder(context, claim, async ({ files }) =>
    withDevice(values.device, output, async (device) => {
      const { source, before, base, quantization, isInBlocks, layerCount, parameterCount } = await write(context, device, files);
      // The one model goes before the other comes: both need not fit into memory.
      const merged = await loadModel(gguf ? files.join(out, mergedGguf) : out, { device, files });
      const check: Check = { source: source.text, ...(await compareOutputs(before, merged.model, { signal })) };
      for (const line of checkLines(check, sides, output.columns)) output.say(line);
      const isWithin = check.meanKl <= tolerance;
      output.result({ out, merged: layerCount, parameters: parameterCount, check: { ...check, tolerance, isWithin } });
      if (!isWithin) {
        output.note(
          `The merged model says something else than the adapter beside its base: the mean KL is above --tolerance ${tolerance}, and ${out} is not kept. ${advice(values)}`,
        );
        return 3;
      }
      await files.write(
        files.join(out, cardName),
        new TextEncoder().encode(await cardOf(values, { ...base, quantization, isInBlocks }, { ...check, source: source.published })),
      );
      output.say();
      const isAsStored = quantize === undefined && quantization === null && !isInBlocks && values.dtype === "as-stored";
      const what = gguf ? `the GGUF file is ${files.join(out, mergedGguf)}` : `the checkpoint is in ${out}`;
      output.say(`${layerCount} layers merged; ${what}. It needs no adapter${isAsStored ? " and costs what the base did" : ""}.`);
      return 0;
    }),
  );
}

/** Records what the base with its adapters says, and writes the merged checkpoint; its model is disposed afterwards. */
async function write(
  { values, output, signal }: Context,
  device: Parameters<typeof loadModel>[1]["device"],
  files: OutFolder["files"],
): Promise<Written> {
  const base = await openBase(values.model, values.adapter, { revision: values.revision, output, signal });
  const quantization = await baseQuantizedTo(values["base-quantize"], values.adapter, { flag: "--base-quantize", output, signal });
  const loaded = await loadModel(base.folder, { device, quantize: quantization });
  const { model, warnings } = loaded;
  for (const warning of warnings) output.note(`warning: ${warning}`);
  const isInBlocks = quantization === null && [...model.namedParameters().values()].some(({ packing }) => packing !== null);
  const adapters: Adapter[] = [];
  for (const path of values.adapter) {
    const adapter = await openAdapter(model, path, output, signal);
    if (adapter) adapters.push(adapter);
  }
  // Before anything is computed: what cannot be merged says so here.
  const tensors = mergedParameters(adapters);
  const digests: string[] = [];
  for (const adapter of adapters) digests.push(await adapterDigest(adapter));
  if (new Set(digests).size < digests.length)
    throw new UsageError("--adapter names the same adapter twice, which would count it twice. Give each once.");
  const { rows, source } = await checkRows(loaded, { file: values.check, runs: values.adapter, output, signal });
  const before = await recordOutputs(model, rows, { signal });
  const gguf = ggufTypeOf(values.quantize);
  if (gguf) {
    const { tokenizer } = loaded;
    await saveGguf(model, files.join(values.out, mergedGguf), {
      files,
      type: gguf,
      name: basename(values.out),
      tokenizer,
      tensors,
      merged: digests,
      onNote: (text) => output.note(`warning: ${text}`),
    });
  } else
    await saveModel(model, values.out, { files, tensors, merged: digests, dtype: values.dtype, quantize: folderTypeOf(values.quantize) });
  const parameterCount = [...new Map([...model.namedParameters(), ...tensors]).values()].reduce((sum, { size }) => sum + size, 0);
  const layerCount = new Set(adapters.flatMap(({ places }) => [...places.keys()])).size;
  for (const adapter of adapters) adapter.dispose();
  model.dispose();
  return { base, quantization, isInBlocks, layerCount, parameterCount, source, before };
}

function advice({ dtype, quantize }: Context["values"]): string {
  const bits =
    quantize === undefined ? (dtype === "f32" ? null : "--dtype f32") : /4/.test(quantize) ? "--quantize q8_0" : "without --quantize";
  const more = bits === null ? "" : ` write more bits (${bits}),`;
  return `Keep the adapter beside the base (--model … --adapter …),${more} or allow more with --tolerance.`;
}

async function cardOf(
  { adapter, dtype, out, quantize }: Context["values"],
  { model, folder, quantization, isInBlocks }: Base & Pick<Written, "quantization" | "isInBlocks">,
  check: Check,
): Promise<string> {
  const names = adapter.map((path) => `\`${shownPath(path)}\``).join(" and ");
  const license = await licenseOf(folder);
  const asTrained = quantization === null ? "" : `, whose weights are those of its blocks in ${quantization},`;
  return modelCard({
    title: basename(out),
    baseModel: model,
    relation: adapter.length > 1 ? "merge" : "finetune",
    libraryName: ggufTypeOf(quantize) ? "gguf" : "transformers",
    license,
    lead: `\`${shownPath(model)}\`${asTrained} with the adapter${adapter.length > 1 ? "s" : ""} ${names} merged into its weights by [Lowrank](https://www.npmjs.com/package/lowrank).`,
    sections: [
      {
        heading: "What merging changed",
        body: `${checkMarkdown(check, sides)}\n\n${storedAs(dtype, quantize, isInBlocks)}; sums are f32, rounded once.`,
      },
    ],
  });
}

function storedAs(dtype: Context["values"]["dtype"], quantize: Context["values"]["quantize"], isInBlocks: boolean): string {
  if (quantize === undefined && dtype === "as-stored" && isInBlocks)
    return "Weights that the base has in blocks are stored in bf16, the others as there";
  if (quantize === undefined) return `Weights are stored ${dtype === "as-stored" ? "as the base's are" : `in ${dtype}`}`;
  return ggufTypeOf(quantize)
    ? `Weights are in llama.cpp's mix ${quantize.toUpperCase()}`
    : `Weights of dense layers are quantized to ${quantize}, as bitsandbytes does; the others are stored ${dtype === "as-stored" ? "as the base's are" : `in ${dtype}`}`;
}

export const mergeCommand = defineCommand({
  name: "merge",
  makes: "files",
  summary: "Add adapters to their base's weights: a full checkpoint that transformers loads, compared with the adapters beside the base.",
  flags,
  examples: [
    "lowrank merge --model ./model --adapter run --out merged",
    "lowrank merge --model ./model --adapter run --check held-out.jsonl --tolerance 0.001 --out merged",
    "lowrank merge --model ./model --adapter run --quantize nf4 --out merged",
  ],
  run: runMerge,
});
