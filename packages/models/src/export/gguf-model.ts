import {
  CheckpointError,
  checkFiles,
  type FileSystem,
  type GgufTensorToWrite,
  type GgufValue,
  type GgufValueToWrite,
  ggufEncode,
  type Shape,
  sizeOf,
  type Tensor,
  writeGguf,
} from "@lowrank/tensor";
import type { CausalLM } from "../causal-lm.js";
import { readTokenizerFiles } from "../checkpoint/folder.js";
import { mergedKey } from "../checkpoint/merged-field.js";
import { type GgufLink, toFile } from "../families/gguf/change.js";
import { loadableName } from "../families/gguf/name.js";
import { ggufUnreadWindow } from "../families/gguf/windows.js";
import { ggufFactors, ggufMetadata, ggufNotes, repeatedHead } from "../families/gguf-model.js";
import { tokenizerMetadata } from "../tokenizer/gguf/write.js";
import type { Tokenizer } from "../tokenizer/tokenizer.js";
import { filedModel } from "./gguf-links.js";
import { type GgufFileType, ggufFileTypes, ggufMix } from "./gguf-mix.js";

/** How a model is written as a GGUF file. */
export interface SaveGgufOptions {
  readonly files: FileSystem;
  /** Which types its tensors have. */
  readonly type: GgufFileType;
  /** `general.name`. */
  readonly name: string;
  /** The model's tokenizer, whose files lie where the model was read; the file says that it has none when absent. */
  readonly tokenizer?: Tokenizer | null;
  /** A tokenizer's metadata in place of that. */
  readonly vocabulary?: ReadonlyMap<string, GgufValueToWrite>;
  /** Parameters in place of the model's own, by name: those of adapters that are merged. */
  readonly tensors?: ReadonlyMap<string, Tensor>;
  /** Digests of adapters that `tensors` hold, which the metadata says, with those that the model's own checkpoint names. */
  readonly merged?: readonly string[];
  /** Further `general.*`: the base, its licence. */
  readonly general?: ReadonlyMap<string, GgufValueToWrite>;
  /** Receives what llama.cpp computes otherwise than the model, a sentence each. */
  readonly onNote?: (text: string) => void;
  /** Receives the name of each tensor before it is written, and how many of all are. */
  readonly onTensor?: (name: string, done: number, count: number) => void;
}

/** ggml's layout of blocks. */
const quantizationVersion = 2;

/**
 * Writes a model as one GGUF file that llama.cpp and what stands on it load: metadata, names and changes as llama.cpp's converter has them, types by its
 * mix. Tensors are made one at a time; the file is whole or what was there stays. Adapters are not the model's: merge them first. Rejects with
 * CheckpointError where llama.cpp does not have the family, or computes something else than the config says; with NotFiniteError for weights that the
 * type cannot hold.
 */
export async function saveGguf(model: CausalLM, path: string, options: SaveGgufOptions): Promise<void> {
  const {
    files,
    type,
    name,
    tokenizer = null,
    tensors: changed = new Map(),
    merged = [],
    general = new Map(),
    onTensor,
    onNote,
  }: SaveGgufOptions = options;
  checkFiles(files, "saveGguf");
  if (!Object.hasOwn(ggufFileTypes, type))
    throw new CheckpointError(`${path}: there is no kind of file "${type}". Choose among ${Object.keys(ggufFileTypes).join(", ")}.`, path);
  const { read, links: own, parameters } = filedModel(model, path, changed);
  const links = [...own, ...repeatedHead(read, own)];
  const fields = ggufMetadata(read, path);
  const architecture = String(fields.get("general.architecture")?.value);
  const window = ggufUnreadWindow(fields);
  if (window !== null && window < model.contextLength)
    onNote?.(
      `The model's tokens see ${window} tokens back, and in llama.cpp all: texts that are longer get other answers there. Keep to ${window} tokens (llama-cli -c ${window}).`,
    );
  for (const note of ggufNotes(read, path)) onNote?.(note);
  const embedding = links.flatMap(({ tensors }) => tensors).find(({ name: tensor }) => tensor === "token_embd.weight");
  const size = embedding?.shape[0] ?? model.vocabSize;
  const vocabulary = options.vocabulary ?? (tokenizer && (await vocabularyOf(model, tokenizer, { size, architecture }, path)));
  const metadata = new Map<string, GgufValueToWrite>([
    ["general.architecture", { type: "string", value: architecture }],
    ["general.type", { type: "string", value: "model" }],
    ["general.name", { type: "string", value: loadableName(name, vocabulary?.get("tokenizer.ggml.tokens")?.value) }],
    ...general,
    ["general.file_type", { type: "u32", value: ggufFileTypes[type].number }],
    ["general.quantization_version", { type: "u32", value: quantizationVersion }],
    ...fields,
    ...(vocabulary ?? noTokenizer(architecture, size)),
  ]);
  const held = [...(model.origin?.merged ?? []), ...merged];
  if (held.length > 0) metadata.set(mergedKey, { type: "string[]", value: held });
  const experts = fields.get(`${architecture}.expert_count`)?.value;
  const types = ggufMix(
    links.flatMap(({ tensors }) => tensors),
    type,
    { architecture, layers: model.blocks.length, experts: typeof experts === "number" ? experts : 1 },
  );
  const count = links.reduce((sum, { tensors }) => sum + tensors.length, 0);
  let done = 0;
  const tensors = links.flatMap((link) =>
    tensorsOf(link, { path, parameters, types, onTensor: (tensor) => onTensor?.(tensor, ++done, count) }),
  );
  const factors = [...ggufFactors(read, path)].map(([factor, values]) => plainTensor(factor, values, path));
  await files.write(path, writeGguf(path, { metadata, tensors: [...factors, ...tensors] }));
}

/** What a file says that has no tokenizer: llama.cpp takes and gives numbers of tokens alone then. */
function noTokenizer(architecture: string, size: number): ReadonlyMap<string, GgufValueToWrite> {
  return new Map<string, GgufValueToWrite>([
    [`${architecture}.vocab_size`, { type: "u32", value: size }],
    ["tokenizer.ggml.model", { type: "string", value: "no_vocab" }],
  ]);
}

/** A tokenizer's metadata with the types that llama.cpp's converter gives it; null where the model's folder has no tokenizer. */
async function vocabularyOf(
  { origin }: CausalLM,
  tokenizer: Tokenizer,
  sizes: { readonly size: number; readonly architecture: string },
  path: string,
): Promise<ReadonlyMap<string, GgufValueToWrite> | null> {
  const read = origin && (await readTokenizerFiles(origin.files, origin.folder));
  if (!read) return null;
  return new Map([...tokenizerMetadata({ ...read, tokenizer, ...sizes }, path)].map(([key, value]) => [key, typed(value)]));
}

function typed(value: GgufValue): GgufValueToWrite {
  if (typeof value === "number") return { type: "u32", value };
  if (typeof value === "boolean") return { type: "bool", value };
  if (typeof value === "string") return { type: "string", value };
  if (value instanceof Float32Array) return { type: "f32[]", value };
  if (value instanceof Int32Array) return { type: "i32[]", value };
  return { type: "string[]", value: value as readonly string[] }; // a tokenizer has nothing else
}

interface Writing {
  readonly path: string;
  readonly parameters: ReadonlyMap<string, Tensor>;
  readonly types: ReadonlyMap<string, string>;
  readonly onTensor: (name: string) => void;
}

/** The tensors of a link, whose numbers are made when the first is written and go with the last. */
function tensorsOf(link: GgufLink, { path, parameters, types, onTensor }: Writing): readonly GgufTensorToWrite[] {
  let made: Float32Array | null = null;
  let at = 0;
  return link.tensors.map(({ name, shape }, index) => {
    const type = types.get(name) ?? "F32";
    const start = at;
    at += sizeOf(shape);
    return {
      name,
      type,
      shape,
      async *chunks() {
        onTensor(name);
        made ??= toFile(link, await numbersOf(parameters, link));
        const values = made.subarray(start, start + sizeOf(shape));
        if (index === link.tensors.length - 1) made = null;
        yield* encoded(values, { path, name, shape, type });
      },
    };
  });
}

/** The numbers of a link's parameters one after another. */
async function numbersOf(parameters: ReadonlyMap<string, Tensor>, link: GgufLink): Promise<Float32Array> {
  const all = new Float32Array(link.parameters.reduce((sum, { shape }) => sum + sizeOf(shape), 0));
  let at = 0;
  for (const { name, shape } of link.parameters) {
    const parameter = parameters.get(name);
    if (parameter) all.set(await parameter.cast("f32").data(), at); // links are made of them
    at += sizeOf(shape);
  }
  return all;
}

/** Numbers that are put into blocks at a time: other work may be done in between. */
const partNumbers = 1 << 22;

function* encoded(
  values: Float32Array,
  { path, name, shape, type }: { readonly path: string; readonly name: string; readonly shape: Shape; readonly type: string },
): Generator<Uint8Array> {
  const columns = shape.at(-1) ?? 1;
  const isPlain = /^B?F/.test(type);
  const step = isPlain ? values.length : Math.max(1, Math.floor(partNumbers / columns)) * columns;
  for (let at = 0; at < values.length; at += step) yield ggufEncode(type, values.subarray(at, at + step), { path, name, shape });
}

function plainTensor(name: string, values: Float32Array, path: string): GgufTensorToWrite {
  const shape = [values.length];
  return { name, type: "F32", shape, chunks: () => [ggufEncode("F32", values, { path, name, shape })] };
}
