import {
  checkFiles,
  checkPath,
  type Device,
  type FileSystem,
  type Generator,
  isAddress,
  realizeNow,
  showShape,
  type Tensor,
  urlFiles,
} from "@lowrank/tensor";
import { type Adapter, type AdapterOrigin, attachLazily } from "../adapter.js";
import { AdapterError, listed } from "../errors.js";
import { type AnyMethod, methodNamed, methods } from "../methods/table.js";
import type { LoraTrainingOptions } from "../methods/training.js";
import { PeftFields } from "../peft/fields.js";
import { ridersFromPeft } from "../riders/index.js";
import { type AdaptableModel, deviceOf } from "../targeting/model.js";
import { modelPrefix } from "./layouts/peft.js";
import { openStoredAdapter, type StoredAdapter, type StoredTensor } from "./stored.js";

/** How an adapter is read. */
export interface LoadOptions {
  /** Where `folder` lies. When absent: \`urlFiles()\` for an address, else Node's files (in Node). */
  readonly files?: FileSystem;
  /** Seed of dropout. Default 0. */
  readonly seed?: number;
  /** Dropout's random numbers, where a training run keeps its own. */
  readonly dropoutGenerator?: Generator;
  /** How to train on, which files do not say: LoRA+ and LoRA-FA. Only for adapters of methods that have these options. */
  readonly training?: LoraTrainingOptions;
  /** Told what is unusual but allowed; `console.warn` when absent. */
  readonly onWarning?: (message: string) => void;
}

/**
 * Puts a saved adapter, ours, PEFT's or mlx-lm's, on a model. Names and shapes of all tensors are checked against the model before anything is changed.
 * Rejects with AdapterError for options that are set and not supported, and for an adapter of another base, listing what does not fit; with
 * CheckpointError for damaged files. peft.PeftModel.from_pretrained.
 */
export async function loadAdapter(model: AdaptableModel, folder: string, options: LoadOptions = {}): Promise<Adapter> {
  checkPath(folder, "loadAdapter");
  const {
    files = isAddress(folder) ? urlFiles() : undefined,
    seed = 0,
    dropoutGenerator,
    training,
    onWarning: warn = console.warn,
  } = options;
  checkFiles(files, "loadAdapter");
  const stored = await openStoredAdapter(files, folder, model);
  try {
    const { method, given, origin } = readConfig(stored);
    if (training && !method.asPlain)
      throw new AdapterError(
        `The options ${Object.keys(training).join(", ")} are LoRA's; ${folder} holds an adapter of method "${method.name}". Load it without them.`,
        Object.keys(training),
      );
    checkAxes(method, given, stored);
    const { quantization: trainedOn } = stored;
    const { quantization = trainedOn } = model;
    if (trainedOn !== null && quantization !== trainedOn)
      warn(
        `${folder} was trained on a base that was quantized to ${trainedOn}, and this one ${quantization === null ? "is not" : `is to ${quantization}`}: answers will be a little worse. Load the base with quantize "${trainedOn}".`,
      );
    const settings = { seed, dropoutGenerator, origin: { ...origin, quantization }, warn, isLoaded: true };
    const adapter = attachLazily(model, method, { ...given, ...training }, settings);
    await fill(adapter, stored, model, warn);
    await adapter.initialize();
    adapter.enable();
    return adapter;
  } finally {
    await stored.close();
  }
}

/** Options that are the length of an axis of some tensor in the file. */
const axisOptions = ["rank", "initRank", "virtualTokens", "bottleneckSize", "blockSize"] as const;

/** Throws AdapterError for a size that no tensor of the file has: methods would make arrays of it before shapes are compared. */
function checkAxes(method: AnyMethod, given: object, { tensors, tensorsPath, configPath }: StoredAdapter): void {
  // LoKr keeps factors whole where the rank exceeds what they have.
  if (method.name === "lokr") return;
  const longest = [...tensors.values()].reduce((most, { shape }) => shape.reduce((a, b) => Math.max(a, b), most), 0);
  for (const name of axisOptions) {
    const size = (given as Readonly<Record<string, unknown>>)[name];
    if (typeof size === "number" && size > longest)
      throw new AdapterError(
        `${tensorsPath}: ${name} is ${size} in ${configPath}, and no axis of the tensors is longer than ${longest}. Put the configuration and the tensors of one adapter together.`,
        [name],
      );
  }
}

interface ReadConfig {
  readonly method: AnyMethod;
  readonly given: object;
  readonly origin: AdapterOrigin;
}

function readConfig({ config, configPath: file }: StoredAdapter): ReadConfig {
  const fields = new PeftFields(config, file);
  const autoMapping = fields.peek("auto_mapping") ?? null;
  fields.pass("auto_mapping", "peft_version", "inference_mode");
  const origin: AdapterOrigin = {
    baseModel: fields.takeText("base_model_name_or_path"),
    revision: fields.takeText("revision"),
    taskType: fields.takeText("task_type"),
    autoMapping,
    quantization: null,
  };
  for (const name of Object.keys(methods)) {
    const method = methodNamed(name);
    const given = method?.fromPeft(fields);
    if (!method || !given) continue;
    const riders = ridersFromPeft(fields, method.riders ?? []);
    fields.refuseRest();
    return { method, given: { ...given, ...riders }, origin };
  }
  const given = fields.peek("peft_type");
  const type = typeof given === "string" ? given : "that is no text";
  throw new AdapterError(`${file}: adapters of type ${type} are not supported. Supported are ${Object.keys(methods).join(", ")}.`, [
    "peft_type",
  ]);
}

/** Throws AdapterError where the file repeats a weight of the base with other values: the adapter then belongs to another base. */
async function checkRepeated(
  repeated: ReadonlyMap<string, StoredTensor>,
  saved: ReadonlyMap<string, Tensor>,
  device: Device,
  file: string,
): Promise<void> {
  for (const [name, { key, values: read }] of repeated) {
    const own = saved.get(name);
    using tensor = await read(device);
    const stored = await tensor.data();
    const values = own && (await own.data());
    let [difference, largest] = [0, 0];
    for (const [i, value] of stored.entries()) {
      difference = Math.max(difference, Math.abs(value - (values?.[i] ?? Number.NaN)));
      largest = Math.max(largest, Math.abs(value));
    }
    // Either side may have been rounded to bfloat16, by a relative 2^-8.
    if (values?.length === stored.length && difference <= largest / 128) continue;
    throw new AdapterError(
      `${file}: ${key} holds other values than the model. The adapter was trained on a changed base, for instance with another vocabulary; load it on that, or merge it in Python.`,
      [key],
    );
  }
}

/**
 * The part of a larger model that a tensor is of, a vision tower's for instance, where the model is the text model of such a one; null for its own.
 * Behind `wholePath` are the text model's parts, and the head stands beside the whole.
 */
function partBeside(name: string, { wholePath }: AdaptableModel): string | null {
  if (!wholePath) return null;
  const path = name.slice(modelPrefix.length);
  const outer = wholePath.split(".").slice(0, -2).join(".");
  return name.startsWith(modelPrefix) && path.startsWith(`${outer}.`) && !path.startsWith(wholePath)
    ? (path.slice(outer.length + 1).split(".", 1)[0] ?? null)
    : null;
}

/** Checks everything, then reads the file's tensors into the adapter's parameters. */
async function fill(
  adapter: Adapter,
  { tensors, tensorsPath }: StoredAdapter,
  model: AdaptableModel,
  warn: (message: string) => void,
): Promise<void> {
  const wanted = adapter.namedTensors();
  const saved = adapter.savedTensors();
  const stored = new Map<string, StoredTensor>();
  const beside = new Map<string, number>();
  for (const tensor of tensors.values()) {
    const name = tensor.names.find((spelling) => !stored.has(spelling) && (wanted.has(spelling) || saved.has(spelling)));
    const part = name === undefined ? partBeside(tensor.names.at(-1) ?? tensor.key, model) : null;
    if (part === null) stored.set(name ?? tensor.key, tensor);
    else beside.set(part, (beside.get(part) ?? 0) + 1);
  }
  if (beside.size > 0)
    warn(
      `${tensorsPath}: ${[...beside].map(([part, count]) => `${count} tensors of ${part}`).join(", ")} belong to no text model and are not read. What is saved of the adapter is the text model's part.`,
    );
  const missing = [...wanted.keys()].filter((name) => !stored.has(name));
  // What is saved and not read back, for instance an embedding that the base has anyway, is none of the surplus.
  const unexpected = [...stored.keys()].filter((name) => !wanted.has(name) && !saved.has(name));
  const misshapen: string[] = [];
  for (const [name, parameter] of wanted) {
    const shape = stored.get(name)?.shape;
    if (shape && showShape(shape) !== showShape(parameter.shape))
      misshapen.push(`${name} is ${showShape(shape)} in the file, ${showShape(parameter.shape)} here`);
  }
  const problems = [
    ...(missing.length > 0 ? [`${missing.length} tensors are missing: ${listed(missing, 6)}`] : []),
    ...(unexpected.length > 0 ? [`${unexpected.length} tensors have no place in the model: ${listed(unexpected, 6)}`] : []),
    ...(misshapen.length > 0 ? [`${misshapen.length} tensors differ in shape: ${listed(misshapen, 6)}`] : []),
  ];
  if (problems.length > 0) {
    const base = adapter.origin.baseModel;
    throw new AdapterError(
      `${tensorsPath}: the adapter does not fit this model. ${problems.join("; ")}. Load it on the base that it was trained on${base ? ` ("${base}")` : ""}.`,
      [...missing, ...unexpected, ...misshapen],
    );
  }
  realizeNow([...wanted.values()]);
  const device = deviceOf(model);
  await checkRepeated(new Map([...stored].filter(([name]) => !wanted.has(name))), saved, device, tensorsPath);
  const values = new Map<Tensor, Tensor>();
  for (const [name, parameter] of wanted) {
    const value = await stored.get(name)?.values(device);
    if (value) values.set(parameter, value);
  }
  for (const [parameter, value] of values) parameter.assign(value);
  realizeNow([...wanted.values()]);
}
