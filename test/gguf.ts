// A model as a GGUF file and back, by the families' maps alone: numbers in f32, no tokenizer.
import type { LoadedModel } from "@lowrank/models";
import { bytesSource, CheckpointError, type Device, type GgufFile, readGguf, type Tensor, tensor } from "@lowrank/tensor";
import { decoderOf, parametersIn } from "../packages/models/src/families/family.js";
import { linkBytes, linkValues, movesWholeBlocks } from "../packages/models/src/families/gguf/apply.js";
import { toFile } from "../packages/models/src/families/gguf/change.js";
import type { GgufField } from "../packages/models/src/families/gguf/description.js";
import { ggufFacts } from "../packages/models/src/families/gguf/facts.js";
import { ggufConfig, ggufFactors, ggufLinks, ggufMetadata } from "../packages/models/src/families/gguf-model.js";
import { type FamilyConfig, readFamily } from "../packages/models/src/families/read.js";
import { ggufBytes } from "../scripts/fuzz/gguf.mjs";

type Model = LoadedModel["model"];

/** What a file would hold of a model: metadata, and each tensor's shape and numbers. */
export interface GgufContent {
  readonly metadata: ReadonlyMap<string, GgufField>;
  readonly tensors: ReadonlyMap<string, { readonly shape: readonly number[]; readonly values: Float32Array }>;
}

/** A model as llama.cpp's converter would file it; without metadata where these are refused, and `takesRefused`. */
export async function contentOf(model: Model, read = configOf(model), takesRefused = false): Promise<GgufContent> {
  const folder = "model";
  const parameters = model.namedParameters();
  const tensors = new Map<string, { shape: readonly number[]; values: Float32Array }>();
  for (const [name, values] of ggufFactors(read, folder)) tensors.set(name, { shape: [values.length], values });
  for (const link of ggufLinks(read, parameters, folder)) {
    const values = toFile(link, joined(await Promise.all(link.parameters.map(({ name }) => numbersOf(parameters.get(name) as Tensor)))));
    let at = 0;
    for (const { name, shape } of link.tensors) {
      const size = shape.reduce((product, length) => product * length, 1);
      tensors.set(name, { shape, values: values.slice(at, at + size) });
      at += size;
    }
  }
  return { metadata: metadataOf(read, folder, takesRefused), tensors };
}

function metadataOf(read: FamilyConfig, path: string, takesRefused: boolean): ReadonlyMap<string, GgufField> {
  try {
    return ggufMetadata(read, path);
  } catch (error) {
    if (takesRefused && error instanceof CheckpointError && /no GGUF file can say/.test(error.message)) return new Map();
    throw error;
  }
}

/** A model's config, changed, with the names that the model has. */
export function configOf(model: Model, changes: Readonly<Record<string, unknown>> = {}): FamilyConfig {
  const config = { ...model.config, ...changes };
  const head = [...model.namedParameters().keys()].find((name) => name.endsWith("embed_tokens.weight"));
  const outer = outerTypes[config.model_type];
  const isInside = outer !== undefined && head?.startsWith("model.language_model.");
  return readFamily(isInside ? { model_type: outer, text_config: config } : config, "config.json");
}

const outerTypes: Readonly<Record<string, string>> = {
  gemma3_text: "gemma3",
  gemma3n_text: "gemma3n",
  gemma4_text: "gemma4",
  mistral: "mistral3",
  ministral3: "mistral3",
  qwen3_5_text: "qwen3_5",
};

export async function fileOf({ metadata, tensors }: GgufContent): Promise<GgufFile> {
  const kinds = { u32: "u32", f32: "f32", bool: "bool", string: "text" } as const;
  const bytes = ggufBytes({
    metadata: [...metadata].map(([key, { type, value }]) => {
      const of = { "i32[]": "i32", "f32[]": "f32", "bool[]": "bool" } as const;
      return type in of
        ? [key, { kind: "list", of: of[type as keyof typeof of], value }]
        : [key, { kind: kinds[type as keyof typeof kinds], value }];
    }),
    tensors: [...tensors].map(([name, { shape, values }]) => ({
      name,
      type: 0,
      shape,
      bytes: new Uint8Array(values.buffer, values.byteOffset, values.byteLength),
    })),
  });
  return readGguf(bytesSource(bytes, "model.gguf"));
}

/** The model of a GGUF file. */
export async function modelOfGguf(
  file: GgufFile,
  device: Device,
): Promise<{
  readonly read: FamilyConfig;
  readonly unread: readonly string[];
  readonly unused: readonly string[];
  readonly tensors: ReadonlyMap<string, Tensor>;
  readonly model: Model;
}> {
  const facts = await ggufFacts(file);
  const { json, unread } = ggufConfig(facts);
  const read = readFamily(json, file.name);
  const specs = parametersIn(read, device);
  const used = new Set<string>(facts.factors.keys());
  const tensors = new Map<string, Tensor>();
  for (const link of ggufLinks(read, specs, file.name, file.entries)) {
    for (const { name, shape } of link.tensors) {
      used.add(name);
      const found = file.entries.get(name)?.shape.join(" ");
      if (found !== shape.join(" "))
        throw new Error(`${name} is ${found}, not ${shape.join(" ")}, for ${link.parameters.map((one) => one.name).join(", ")}`);
    }
    const entries = link.tensors.map(({ name }) => file.entries.get(name));
    const [first] = entries;
    const bytes = await Promise.all(link.tensors.map(({ name }) => file.bytes(name)));
    const moved = first && movesWholeBlocks(link, first.type) ? linkBytes(link, new Uint8Array(Buffer.concat(bytes)), first.type) : null;
    const values = moved
      ? tensor(new Float32Array(moved.slice().buffer), { device })
      : linkValues(
          link,
          bytes.map((each) => tensor(new Float32Array(each.slice().buffer), { device })),
        );
    let at = 0;
    for (const { name, shape } of link.parameters) {
      const size = shape.reduce((product, length) => product * length, 1);
      tensors.set(name, values.narrow(0, at, size).reshape(shape));
      at += size;
    }
  }
  const unused = [...file.entries.keys()].filter((name) => !used.has(name));
  return { read, unread, unused, tensors, model: decoderOf(read, tensors) };
}

async function numbersOf(values: Tensor): Promise<Float32Array> {
  return Float32Array.from(await values.cast("f32").data());
}

function joined(parts: readonly Float32Array[]): Float32Array {
  const made = new Float32Array(parts.reduce((sum, { length }) => sum + length, 0));
  let at = 0;
  for (const part of parts) {
    made.set(part, at);
    at += part.length;
  }
  return made;
}
