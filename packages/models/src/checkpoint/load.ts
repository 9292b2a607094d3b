import {
  checkDevice,
  checkFiles,
  checkPath,
  type Device,
  type DType,
  digestOf,
  type FileSystem,
  isAddress,
  type QuantizedType,
  urlFiles,
} from "@lowrank/tensor";
import * as z from "zod/mini";
import type { CausalLM } from "../causal-lm.js";
import { endTokens, type ModelConfig } from "../config.js";
import { decoderOf } from "../families/family.js";
import { checkWeightDType } from "../parameters.js";
import { checkQuantizedType } from "../quantization.js";
import { checked, tokenIds } from "../schema.js";
import type { Tokenizer } from "../tokenizer/tokenizer.js";
import { isGgufPath, listed, readJson, readTokenizer } from "./folder.js";
import { withGguf } from "./gguf-files.js";
import { openCheckpoint } from "./read.js";

/** Where a checkpoint is read from and what becomes of its weights. */
export interface LoadOptions {
  readonly device: Device;
  /**
   * How weights are stored on the device. "auto", the default, keeps the file's dtype, and the blocks of quantised weights: half-precision weights take
   * half the memory and are widened when a kernel reads them. "f32" is what training the weights themselves needs.
   */
  readonly dtype?: DType | "auto";
  /**
   * What the weights of dense layers and experts are quantized to while they are read, never whole in f32: bitsandbytes' "nf4", "fp4" (blocks of 64, scales
   * quantized in turn) and "int8", or GGUF's "q8_0", "q4_k", … Norms, biases, embeddings, convolutions, routers and the head stay. Rows that are no whole blocks
   * take llama.cpp's other type, or stay, with a warning. A checkpoint that is quantized already is refused.
   */
  readonly quantize?: QuantizedType | null;
  /** The file system. When absent: `urlFiles()` for an address, else Node's. */
  readonly files?: FileSystem;
}

/** What a Hugging Face folder holds. */
export interface LoadedModel {
  readonly model: CausalLM;
  /** Null where none ships. */
  readonly tokenizer: Tokenizer | null;
  /** config.json, checked, with defaults filled in. */
  readonly config: ModelConfig;
  /** Digests of what the folder holds, by which a later load can be told from this one: of weights and configuration, and of the tokenizer. */
  readonly hashes: { readonly model: string; readonly tokenizer: string | null };
  /** What the model may lack, a sentence each: fields of config.json that nobody reads, and parts of the checkpoint that are no text model. */
  readonly warnings: readonly string[];
}

/** What is read of a generation_config.json. */
const generationSchema = z.object({ eos_token_id: tokenIds() });

/** What config.json says that changes nothing of what the model computes. */
const remarks: ReadonlySet<string> = new Set(["architectures", "transformers_version", "_name_or_path", "dtype", "torch_dtype"]);

function configDigest(config: ModelConfig): string {
  const entries = Object.entries(config).filter(([name]) => !remarks.has(name));
  return digestOf(JSON.stringify(entries.sort(([a], [b]) => (a < b ? -1 : 1))));
}

function unknownFields(path: string, names: readonly string[]): string[] {
  if (names.length === 0) return [];
  const fields = listed(names.map((name) => `"${name}"`));
  return [`${path}: ${fields}: unknown to this family and not read. Compare a few answers with transformers' before you rely on them.`];
}

function foreignTensors(folder: string, names: readonly string[]): string[] {
  if (names.length === 0) return [];
  const parts = listed([...new Set(names.map((name) => /^(?:model\.)?(layers\.\d+|[^.]+)/.exec(name)?.[1] ?? name))]);
  return [`${folder}: ${parts} (${names.length} tensors) belong to no text model and are not read. What is saved is the text model alone.`];
}

/**
 * Reads a checkpoint in the Hugging Face layout: config.json, model.safetensors (or shards with their index), tokenizer.json; or a GGUF file (the
 * first of several), whose blocks stay as they are, and whose metadata stands for the other files.
 * Rejects with CheckpointError naming what is wrong: a missing file, a wrong field, an unsupported architecture, tensors that are
 * missing, unexpected or of another shape, `files` or a `dtype` that are none; with DeviceError without a device. transformers'
 * AutoModelForCausalLM.from_pretrained.
 */
export async function loadModel(folder: string, options: LoadOptions): Promise<LoadedModel> {
  checkPath(folder, "loadModel");
  // Nothing of what the types say is sure from JavaScript.
  const {
    device,
    dtype = "auto",
    quantize = null,
    files: given = isAddress(folder) ? urlFiles() : undefined,
  }: Partial<LoadOptions> = options ?? {};
  checkDevice(device, "loadModel");
  checkWeightDType(dtype, ["auto", "f32", "f16", "bf16"], "loadModel");
  checkQuantizedType(quantize, "loadModel");
  checkFiles(given, "loadModel");
  const files = withGguf(given);
  const checkpoint = await openCheckpoint(files, folder);
  const tokenizer = await readTokenizer(files, folder);
  const generationPath = files.join(folder, "generation_config.json");
  const generation = checked(generationSchema, (await readJson(files, generationPath)) ?? {}, generationPath);
  const { read, warnings: told, tensors, digest, dtypes, foreign } = await checkpoint.weights({ device, dtype, quantize });
  const { config } = read;
  const model = decoderOf(read, tensors);
  model.origin = { files, folder, dtypes, merged: checkpoint.merged };
  model.quantization = quantize;
  if (quantize !== null) model.reread = (name) => checkpoint.numbers(read, device, name);
  const ends = [...endTokens(generation.eos_token_id), ...endTokens(config.eos_token_id)];
  tokenizer?.useEndTokens(ends);
  const own = tokenizer?.eosTokenId ?? null;
  model.stopTokens = [...new Set(own === null ? ends : [own, ...ends])];
  const hashes = {
    model: digestOf(digest + configDigest(config)),
    get tokenizer() {
      return tokenizer?.digest ?? null;
    },
  };
  const unread = isGgufPath(folder) ? await files.unread(folder) : [];
  const unknown = unknownFields(files.join(folder, "config.json"), [...read.unknown, ...unread]);
  const warnings = [...told, ...unknown, ...foreignTensors(folder, foreign)];
  return { model, tokenizer, config, hashes, warnings };
}
