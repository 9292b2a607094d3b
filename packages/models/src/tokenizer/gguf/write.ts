import { CheckpointError, type GgufValue, type Json } from "@lowrank/tensor";
import { namedTokens, tokenText } from "../declared-tokens.js";
import { translate } from "../pipeline/onig.js";
import type { Tokenizer } from "../tokenizer.js";
import { tokenTypes } from "./fields.js";
import { type PreTokenizerKind, preTokenizerKinds } from "./kinds.js";
import { scoresOfMerges } from "./merges.js";

/** What a tokenizer is written as metadata from: its files, and what the model adds. */
export interface TokenizerToWrite {
  /** tokenizer.json. */
  readonly json: Json;
  /** tokenizer_config.json. */
  readonly config: Json;
  /** Made of both: tells what they come to. */
  readonly tokenizer: Tokenizer;
  /** Rows of the embeddings; numbers that no token has are filled up. */
  readonly size: number;
  /** What GGUF calls the architecture: some have a model of tokenizers of their own. */
  readonly architecture: string;
}

/** The parts of a tokenizer.json. */
type Parts = Readonly<Record<string, Json | null | undefined>>;

/**
 * A tokenizer as metadata of a GGUF file (`tokenizer.*`), as llama.cpp's converter writes it. Integers are u32 there, lists typed as they are here. Throws
 * CheckpointError where llama.cpp has nothing for a part of it, which is named.
 * https://github.com/ggml-org/llama.cpp/blob/master/conversion/base.py
 */
export function tokenizerMetadata({ json, config, tokenizer, size, architecture }: TokenizerToWrite, path: string): Map<string, GgufValue> {
  const model = json["model"] as Json;
  const kind = model["type"] ?? "BPE";
  const parts = json as Parts;
  if (kind !== "BPE" || !Array.isArray(model["merges"]))
    throw new CheckpointError(
      `${path}: the tokenizer is a ${String(kind)}, and only BPE is written into GGUF files. Keep the folder of safetensors, or a tokenizer that llama.cpp converts.`,
      path,
    );
  const merges = model["merges"] as readonly (string | readonly [string, string])[];
  const isSpaced =
    model["byte_fallback"] === true && !stepsOf(parts["pre_tokenizer"], "pretokenizers").some(({ type }) => type === "ByteLevel");
  const metadata = new Map<string, GgufValue>();
  const { tokens, types } = tokensOf(json, tokenizer, size, isSpaced);
  if (isSpaced) {
    const hasOwnModel = /^gemma4/.test(architecture);
    metadata.set("tokenizer.ggml.model", hasOwnModel ? "gemma4" : "llama");
    metadata.set("tokenizer.ggml.pre", hasOwnModel ? "gemma4" : "default");
    metadata.set("tokenizer.ggml.tokens", tokens);
    metadata.set(
      "tokenizer.ggml.scores",
      scoresOfMerges(
        tokens.map((token, id) => (types[id] === tokenTypes.userDefined ? token.replaceAll(" ", "▁") : token)),
        merges,
      ),
    );
    metadata.set("tokenizer.ggml.token_type", types);
    if (hasOwnModel) metadata.set("tokenizer.ggml.merges", merges.map(mergeText));
    metadata.set("tokenizer.ggml.add_space_prefix", putsSpaceInFront(parts));
  } else {
    metadata.set("tokenizer.ggml.model", "gpt2");
    metadata.set("tokenizer.ggml.pre", preName(parts, model["ignore_merges"] === true, path));
    metadata.set("tokenizer.ggml.tokens", tokens);
    metadata.set("tokenizer.ggml.token_type", types);
    metadata.set("tokenizer.ggml.merges", merges.map(mergeText));
  }
  for (const [key, value] of specialTokens(config, tokenizer)) metadata.set(key, value);
  for (const [key, value] of templatesOf(tokenizer)) metadata.set(key, value);
  return metadata;
}

/** Tokens by number up to the size of the embeddings, and what each is. */
function tokensOf(
  json: Json,
  tokenizer: Tokenizer,
  size: number,
  isSpaced: boolean,
): { readonly tokens: string[]; readonly types: Int32Array } {
  const count = Math.max(size, tokenizer.vocabSize);
  const tokens: string[] = [];
  const types = new Int32Array(count);
  const unknown = (json["model"] as Json)["unk_token"];
  for (let id = 0; id < count; id++) {
    const token = tokenizer.token(id);
    const added = token === null ? null : tokenizer.addedToken(token);
    if (token === null) [tokens[id], types[id]] = [`[PAD${id}]`, tokenTypes.unused];
    else if (isSpaced && token === unknown) [tokens[id], types[id]] = [token, tokenTypes.unknown];
    else if (added) {
      const isControl = added.special || looksSpecial(token);
      // A user's are found in texts as they are.
      [tokens[id], types[id]] =
        isControl || !isSpaced
          ? [token, isControl ? tokenTypes.control : tokenTypes.userDefined]
          : [token.replaceAll("▁", " "), tokenTypes.userDefined];
    } else [tokens[id], types[id]] = [token, isSpaced && /^<0x[0-9A-F]{2}>$/.test(token) ? tokenTypes.byte : tokenTypes.normal];
  }
  return { tokens, types };
}

/** Tokens that are control tokens by their looks, although their files do not say so. llama.cpp's does_token_look_special. */
function looksSpecial(token: string): boolean {
  return /^(<pad>|<mask>|<2mass>|\[@BOS@\])$|^<\|.*\|>$|^<｜.*｜>$|^<unused.*>$/.test(token);
}

const mergeText = (merge: string | readonly [string, string]): string =>
  // Between the parts stands a space; one of a part's own is written as a byte-level vocabulary writes it.
  typeof merge === "string" ? merge : merge.map((part) => part.replaceAll(" ", "Ġ")).join(" ");

/** The parts of a Sequence, or the one that there is. */
function stepsOf(part: Json | null | undefined, list: string): readonly Json[] {
  if (!part) return [];
  return part["type"] === "Sequence" ? ((part[list] ?? []) as readonly Json[]).flatMap((step) => stepsOf(step, list)) : [part];
}

function putsSpaceInFront(parts: Parts): boolean {
  const prepends = stepsOf(parts["normalizer"], "normalizers").some(({ type }) => type === "Prepend");
  const metaspace = stepsOf(parts["pre_tokenizer"], "pretokenizers").find(({ type }) => type === "Metaspace");
  return (
    prepends ||
    (metaspace !== undefined && (metaspace["prepend_scheme"] ?? (metaspace["add_prefix_space"] === false ? "never" : "always")) !== "never")
  );
}

/** What llama.cpp calls the way in which texts are split; where several names fit, the one with the same rule on whole words. */
function preName(parts: Parts, ignoresMerges: boolean, path: string): string {
  const signature = signatureOf(parts["normalizer"], stepsOf(parts["pre_tokenizer"], "pretokenizers"));
  const fits = (kind: PreTokenizerKind, normalizer: Json | null | undefined): boolean => signatureOf(normalizer, kind.splits) === signature;
  // Nothing of llama.cpp's makes texts NFC: it counts where a name says it, and is left out where none does.
  const all = preTokenizerKinds.filter((kind) => fits(kind, kind.normalizer));
  const found = all.length > 0 ? all : preTokenizerKinds.filter((kind) => kind.normalizer === null && fits(kind, { type: "NFC" }));
  const [name] = (found.find((kind) => kind.ignoresMerges === ignoresMerges) ?? found[0])?.names ?? [];
  if (name !== undefined) return name;
  throw new CheckpointError(
    `${path}: llama.cpp has no pre-tokenizer that splits texts as this tokenizer does. Keep the folder of safetensors, or write only the weights.`,
    path,
  );
}

/** How texts are changed and split, in a form in which equal ways are equal. */
function signatureOf(normalizer: Json | null | undefined, splits: readonly Json[]): string {
  const changes = stepsOf(normalizer, "normalizers").map((step) => (step["type"] === "NFC" ? "NFC" : JSON.stringify(step)));
  return [...changes, ...splits.map(splitSignature)].join("\n");
}

function splitSignature(step: Json): string {
  const { type, pattern, behavior, invert } = step;
  const regex = typeof pattern === "object" && pattern !== null && "Regex" in pattern ? String(pattern.Regex) : null;
  const isWhole = (behavior === "Isolated" && invert !== true) || (behavior === "Removed" && invert === true);
  if (type === "Split" && regex !== null && isWhole) return regex === "\\p{N}" ? "digits" : translate(regex).source;
  if (type === "Digits") return step["individual_digits"] === true ? "digits" : "numbers";
  if (type === "ByteLevel") return `bytes ${step["use_regex"] !== false} ${step["add_prefix_space"] !== false}`;
  return JSON.stringify(step);
}

/** What GGUF calls the tokens that tokenizer_config.json names. */
const names: Readonly<Record<(typeof namedTokens)[number], string>> = {
  bos_token: "bos",
  eos_token: "eos",
  unk_token: "unknown",
  sep_token: "seperator",
  pad_token: "padding",
  cls_token: "cls",
  mask_token: "mask",
};

function specialTokens(config: Json, tokenizer: Tokenizer): [string, GgufValue][] {
  const ids = namedTokens.flatMap((name): [string, GgufValue][] => {
    const id = tokenizer.tokenId(tokenText(config[name]) ?? "");
    return id === null ? [] : [[`tokenizer.ggml.${names[name]}_token_id`, id]];
  });
  const eos = tokenizer.eosTokenId;
  const further = tokenizer.endTokens.map((token) => tokenizer.tokenId(token)).find((id) => id !== null && id !== eos);
  if (!ids.some(([key]) => key === "tokenizer.ggml.eos_token_id") && eos !== null) ids.push(["tokenizer.ggml.eos_token_id", eos]);
  if (further !== null && further !== undefined) ids.push(["tokenizer.ggml.eot_token_id", further]);
  const { before, after } = tokenizer.around;
  ids.push(["tokenizer.ggml.add_bos_token", tokenizer.bosTokenId !== null && before.includes(tokenizer.bosTokenId)]);
  ids.push(["tokenizer.ggml.add_eos_token", eos !== null && after.includes(eos)]);
  return ids;
}

function templatesOf(tokenizer: Tokenizer): [string, GgufValue][] {
  const { default: standard, ...further } = tokenizer.chatTemplates;
  const list = Object.keys(further);
  return [
    ...(standard === undefined ? [] : [["tokenizer.chat_template", standard] as [string, GgufValue]]),
    ...list.map((name): [string, GgufValue] => [`tokenizer.chat_template.${name}`, further[name] as string]),
    ...(list.length === 0 ? [] : [["tokenizer.chat_templates", list] as [string, GgufValue]]),
  ];
}
