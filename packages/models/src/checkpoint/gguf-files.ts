import {
  type ByteSource,
  bytesSource,
  CheckpointError,
  type FileSystem,
  type GgufFile,
  type Json,
  jsonSource,
  openFile,
  readGguf,
} from "@lowrank/tensor";
import { ggufFacts } from "../families/gguf/facts.js";
import { ggufConfig } from "../families/gguf-model.js";
import { readFamily } from "../families/read.js";
import { ggufTokenizer } from "../tokenizer/gguf/read.js";
import { configText } from "./config-text.js";
import { isGgufPath } from "./folder.js";
import { mergedField, mergedKey } from "./merged-field.js";

/** The files of a tokenizer, which may lie beside a GGUF file in the place of what is in it. */
const tokenizerFiles: ReadonlySet<string> = new Set([
  "tokenizer.json",
  "tokenizer_config.json",
  "special_tokens_map.json",
  "added_tokens.json",
  "chat_template.jinja",
]);

/** What a GGUF file says of its model, as the files of a Hugging Face folder. */
interface Description {
  readonly byteLength: number;
  readonly contents: ReadonlyMap<string, Json | string>;
  /** Keys of the metadata that nothing reads. */
  readonly unread: readonly string[];
  /** Why the tokenizer is another's: the metadata's cannot be read. */
  readonly otherTokenizer: CheckpointError | null;
}

/**
 * A file system in which a GGUF file is a folder too: it holds config.json, tokenizer.json and what else a Hugging Face folder has beside the weights,
 * made of the metadata. Where the tokenizer of the metadata cannot be read, the one that lies beside the file is in its place.
 */
export class GgufFiles implements FileSystem {
  readonly #files: FileSystem;
  /** The last one: a command reads several files of one model. */
  #known: { readonly path: string; readonly description: WeakRef<Description> } | null = null;

  constructor(files: FileSystem) {
    this.#files = files;
  }

  async open(path: string): Promise<ByteSource | null> {
    const parts = partsOf(path);
    if (!parts) return this.#files.open(path);
    const description = await this.#describe(parts.file);
    if (!description) return this.#files.open(path);
    const content = description.contents.get(parts.name);
    if (content !== undefined)
      return typeof content === "string" ? bytesSource(new TextEncoder().encode(content), path) : jsonSource(content, path);
    if (!description.otherTokenizer || !tokenizerFiles.has(parts.name)) return null;
    const beside = await openFile(this.#files, besideFile(parts.file, parts.name));
    if (!beside && parts.name === "tokenizer.json") throw description.otherTokenizer;
    return beside;
  }

  async list(folder: string): Promise<readonly string[] | null> {
    const description = isGgufPath(folder) ? await this.#describe(folder) : null;
    return description ? [...description.contents.keys()].sort() : this.#files.list(folder);
  }

  write: FileSystem["write"] = (path, bytes) => this.#files.write(path, bytes);
  join: FileSystem["join"] = (folder, name) => this.#files.join(folder, name);

  /** The file itself with its tensors; null where there is none of that path. Rejects with CheckpointError for what is no GGUF file. */
  async gguf(path: string): Promise<GgufFile | null> {
    if (!isGgufPath(path)) return null;
    const source = await openFile(this.#files, path);
    if (!source) return null;
    try {
      return await readGguf(source, (name) => openFile(this.#files, besideFile(path, name)));
    } catch (error) {
      await source.close?.();
      throw error;
    }
  }

  /** Keys of a file's metadata that nothing reads. */
  async unread(path: string): Promise<readonly string[]> {
    return (await this.#describe(path))?.unread ?? [];
  }

  async #describe(path: string): Promise<Description | null> {
    const known = this.#known?.path === path ? this.#known.description.deref() : undefined;
    const source = await this.#files.open(path);
    if (!source) return null;
    const { byteLength } = source;
    await source.close?.();
    if (known?.byteLength === byteLength) return known;
    const file = await this.gguf(path);
    if (!file) return null;
    try {
      const description = await describe(file, byteLength);
      this.#known = { path, description: new WeakRef(description) };
      return description;
    } finally {
      await file.close();
    }
  }
}

/** A layer has a tensor at least: more layers than tensors cannot be, and nothing is made for each of them. */
function checkLayers({ name, metadata, entries }: GgufFile): void {
  const layers = metadata.get(`${String(metadata.get("general.architecture"))}.block_count`);
  if (typeof layers !== "number" || layers <= entries.size) return;
  throw new CheckpointError(
    `${name}: its metadata says that there are ${layers} layers, and there are ${entries.size} tensors. Fetch the file again.`,
    name,
  );
}

async function describe(file: GgufFile, byteLength: number): Promise<Description> {
  checkLayers(file);
  const { json, unread } = ggufConfig(await ggufFacts(file));
  const merged = file.metadata.get(mergedKey);
  const config = merged === undefined ? json : { ...json, [mergedField]: merged };
  // Where Python has floats, a file has them too.
  const text = configText(config, readFamily(config, file.name).family.floats);
  const contents = new Map<string, Json | string>([["config.json", text]]);
  let otherTokenizer: CheckpointError | null = null;
  try {
    const tokenizer = ggufTokenizer(file.metadata, file.name);
    if (tokenizer) {
      const length = config["max_position_embeddings"];
      contents.set("tokenizer.json", tokenizer.json);
      contents.set("tokenizer_config.json", { ...tokenizer.config, ...(typeof length === "number" && { model_max_length: length }) });
      if (tokenizer.template !== null) contents.set("chat_template.jinja", tokenizer.template);
      if (tokenizer.ends.length > 0) contents.set("generation_config.json", { eos_token_id: tokenizer.ends });
    }
  } catch (error) {
    if (!(error instanceof CheckpointError)) throw error;
    otherTokenizer = error;
  }
  return { byteLength, contents, unread, otherTokenizer };
}

/** A path below a GGUF file, as this file's and a name; null for others. */
function partsOf(path: string): { readonly file: string; readonly name: string } | null {
  const [, file, name] = /^(.*\.gguf(?:[?#][^/\\]*)?)[/\\]([^/\\]+)$/i.exec(path) ?? [];
  return file === undefined || name === undefined ? null : { file, name };
}

/** The path of a file that lies beside another. */
function besideFile(path: string, name: string): string {
  const bare = path.replace(/[?#].*$/, "");
  return bare.slice(0, bare.search(/[^/\\]*$/)) + name;
}

const known = new WeakMap<FileSystem, GgufFiles>();

/** A file system in which GGUF files are folders of models too: one for each file system. */
export function withGguf(files: FileSystem): GgufFiles {
  if (files instanceof GgufFiles) return files;
  const made = known.get(files) ?? new GgufFiles(files);
  known.set(files, made);
  return made;
}
