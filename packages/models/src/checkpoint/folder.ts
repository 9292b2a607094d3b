import {
  type ByteSource,
  CheckpointError,
  eventLoopTurn,
  type FileSystem,
  isAddress,
  type Json,
  jsonObject,
  openFile,
  pageError,
  readText,
} from "@lowrank/tensor";
import type { ChatTemplates } from "../tokenizer/chat.js";
import { withAddedTokens } from "../tokenizer/declared-tokens.js";
import { Tokenizer } from "../tokenizer/tokenizer.js";

/** Whether a path is that of a GGUF file, which stands for the folder of a model. */
export function isGgufPath(path: string): boolean {
  return /\.gguf(?:[?#].*)?$/i.test(path);
}

/** Bytes of a JSON file; the largest tokenizers have some tens of millions. */
const mostBytes = 2 ** 28;

/** Reads a JSON object; null where the file is absent, or a host gives a page in its place. Rejects with CheckpointError when it is no JSON object. `written` may change the text first. */
export async function readJson(files: FileSystem, path: string, written: (text: string) => string = (text) => text): Promise<Json | null> {
  const source = await openFile(files, path);
  if (!source) return null;
  if (source.json) return source.json;
  const found =
    source.byteLength > mostBytes ? `${source.byteLength} bytes long, more than ${mostBytes}` : jsonObject(written(await readText(source)));
  if (typeof found === "string") throw new CheckpointError(`${path}: this is ${found}. Correct the file or fetch it again.`, path);
  return found;
}

/** The config.json of a folder. Rejects with CheckpointError when it is missing or no JSON object. */
export async function readConfig(files: FileSystem, folder: string): Promise<Json> {
  const path = files.join(folder, "config.json");
  const json = await readJson(files, path, withoutInfinities);
  if (json) return json;
  const page = await pageError(files, path);
  if (page) throw page;
  if (isAddress(folder))
    throw new CheckpointError(
      `${path}: the host does not have this file, or gives a web page in its place. Give the address of a folder that holds a Hugging Face checkpoint.`,
      path,
    );
  if (isGgufPath(folder)) throw new CheckpointError(`${folder}: there is no such file. Check the path.`, folder);
  const names = await files.list(folder);
  const found =
    names === null ? "There is no such folder" : names.length === 0 ? "The folder is empty" : `The folder holds ${listed(names)}`;
  const gguf = names?.find(isGgufPath);
  const remedy =
    gguf === undefined ? "give the folder of a Hugging Face checkpoint" : `give a GGUF file by its own path: ${files.join(folder, gguf)}`;
  throw new CheckpointError(`${path} is missing. ${found}; ${remedy}.`, path);
}

/** JSON of what Python writes: its bare Infinity, -Infinity and NaN become what transformers 5 writes in their place. */
function withoutInfinities(text: string): string {
  if (!/Infinity|NaN/.test(text)) return text;
  return text.replace(/"(?:[^"\\]|\\.)*"|-?Infinity|NaN/g, (token) => (token.startsWith('"') ? token : `{"__float__":"${token}"}`));
}

/** The tokenizer of a folder, or null where none ships. Rejects with CheckpointError when its files are damaged. */
export async function readTokenizer(files: FileSystem, folder: string): Promise<Tokenizer | null> {
  const read = await readTokenizerFiles(files, folder);
  if (!read) return null;
  const templates = await readTemplates(files, folder);
  // Parsing took a while.
  await eventLoopTurn();
  return Tokenizer.open(read.json, read.config, templates, files.join(folder, "tokenizer.json"));
}

/** tokenizer.json, and tokenizer_config.json with what older files beside it say; null where there is none. */
export async function readTokenizerFiles(
  files: FileSystem,
  folder: string,
): Promise<{ readonly json: Json; readonly config: Json } | null> {
  const json = await readJson(files, files.join(folder, "tokenizer.json"));
  if (!json) return null;
  const config = (await readJson(files, files.join(folder, "tokenizer_config.json"))) ?? {};
  const special = (await readJson(files, files.join(folder, "special_tokens_map.json"))) ?? {};
  const added = await readJson(files, files.join(folder, "added_tokens.json"));
  // As transformers has it: without tokens by number, the older file is what counts.
  const said = config["added_tokens_decoder"] ? { ...special, ...config } : { ...config, ...special };
  return { json, config: withAddedTokens(said, added) };
}

/** Chat templates that lie beside tokenizer_config.json: chat_template.jinja, and named ones in a folder; or null. */
async function readTemplates(files: FileSystem, folder: string): Promise<string | ChatTemplates | null> {
  const read = async (path: string): Promise<string | null> => {
    const source: ByteSource | null = await openFile(files, path);
    return source ? await readText(source) : null;
  };
  const standard = await read(files.join(folder, "chat_template.jinja"));
  const further = files.join(folder, "additional_chat_templates");
  // A host on the net tells no names; these are the ones that transformers chooses or documents.
  const names = isAddress(folder) ? (standard === null ? [] : ["tool_use.jinja", "rag.jinja"]) : ((await files.list(further)) ?? []);
  const named: Record<string, string> = standard === null ? {} : { default: standard };
  for (const name of names.filter((item) => item.endsWith(".jinja"))) {
    const text = await read(files.join(further, name));
    if (text !== null) named[name.slice(0, -".jinja".length)] = text;
  }
  const found = Object.keys(named);
  return found.length === 0 ? null : found.length === 1 && standard !== null ? standard : named;
}

/** A few names, and how many more. */
export function listed(names: readonly string[], most = 8): string {
  return names.length <= most ? names.join(", ") : `${names.slice(0, most).join(", ")} and ${names.length - most} more`;
}
