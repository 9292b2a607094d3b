import { CheckpointError } from "@lowrank/tensor";
import type { ModelConfig } from "../config.js";
import { shown } from "../schema.js";
import type { Family, FamilyGguf } from "./family.js";
import { inert } from "./fields.js";

/** What stands around a text model. */
interface Towers {
  /** The families that the text model may be of, by the `model_type` under `text_config`; the first where the file does not say. */
  readonly texts: Readonly<Record<string, Family>>;
  /** Fields of the text model that mean something else in the larger one where neither part of the file says them. */
  readonly absent?: Readonly<Record<string, unknown>>;
  /** Fields of the text model that the larger one does not read, with the values that say so. */
  readonly unread?: Readonly<Record<string, unknown>>;
  /** Fields of the outer config.json that say nothing of the text model. */
  readonly remarks?: readonly string[];
}

/** What names of the text model begin with inside of the larger one, as transformers 5 has them in memory and PEFT in its files. */
const inside = "model.language_model.";
/** Tensors of what is no text model. */
const towers = /^(model\.)?(vision_tower|vision_model|visual|audio_tower|multi_modal_projector|embed_vision|embed_audio|mtp)\./;
const usual = [
  "text_config",
  "vision_config",
  "audio_config",
  "initializer_range",
  "image_token_id",
  "image_token_index",
  "video_token_id",
];

/**
 * A model that sees or hears as well, of which the text model is read: another family's, under `text_config`. Adapters have the names that
 * PEFT gives them on the whole; a checkpoint that is saved is the text model alone, as its own class loads it.
 */
export function textOf({ texts, absent = {}, unread = {}, remarks = [] }: Towers): Family {
  const [usualType = ""] = Object.keys(texts);
  const known = new Set([...inert, ...usual, ...remarks, "tie_word_embeddings", "eos_token_id"]);
  return {
    className: Object.values(texts)
      .map(({ className }) => className)
      .join(" or "),
    ignored: /\.rotary_emb\./,
    foreign: towers,
    prefixes: [
      ["language_model.model.", inside],
      ["language_model.lm_head.", "lm_head."],
      ["language_model.", inside],
    ],
    gguf: ofText(texts),
    floats: new Set(Object.values(texts).flatMap((family) => [...family.floats])),
    read: (json, path, type) => {
      const text = json["text_config"];
      if (typeof text !== "object" || text === null || Array.isArray(text))
        throw new CheckpointError(
          `${path}: "text_config" is ${shown(text)}, not an object with the text model's fields. Fetch the file again.`,
          path,
        );
      const own = text as Readonly<Record<string, unknown>>;
      const textType = own["model_type"] ?? usualType;
      const family = typeof textType === "string" && Object.hasOwn(texts, textType) ? texts[textType] : undefined;
      if (!family)
        throw new CheckpointError(
          `${path}: the text model of "${type}" is ${shown(textType)}, which is not supported. Use one whose text model is ${Object.keys(texts).join(" or ")}.`,
          path,
        );
      // The outer file has the last word on the head and on end tokens.
      const outer = ["tie_word_embeddings", "eos_token_id"].filter((name) => json[name] != null).map((name) => [name, json[name]]);
      const read = family.read({ ...absent, ...own, ...unread, ...Object.fromEntries(outer) }, path, String(textType));
      return {
        config: { ...read.config, architectures: [family.className] },
        options: { ...within(read.options), savedNames: [inside, "model."], wholePath: inside },
        unknown: [...Object.keys(json).filter((name) => !known.has(name)), ...read.unknown],
      };
    },
  };
}

/** Files of the text model alone: what is read of one is that model, without the names of a larger one. */
function ofText(texts: Towers["texts"]): FamilyGguf {
  const own = ({ model_type: type }: ModelConfig, path: string): FamilyGguf => {
    const found = texts[type]?.gguf;
    if (found) return found;
    throw new CheckpointError(
      `${path}: llama.cpp has no architecture for ${type}, so there is no GGUF file of it. Save it as safetensors.`,
      path,
    );
  };
  return {
    architectures: [],
    isOurs: () => false,
    ignored: null,
    hasOwnHead: false,
    folded: null,
    unread: (config, path) => own(config, path).unread(config, path),
    unpaired: (config, path) => own(config, path).unpaired(config, path),
    read: () => ({}),
    write: (config, path) => own(config, path).write(config, path),
    targets: (config, path) => own(config, path).targets(config, path),
    factors: (config, path) => own(config, path).factors(config, path),
    notes: (config, path) => own(config, path).notes(config, path),
  };
}

/** The same parts under the names that they have inside of the larger model. */
function within<T>(options: T): T {
  const renamed = (value: unknown): unknown => {
    if (typeof value === "string") return value.startsWith("model.") ? inside + value.slice("model.".length) : value;
    if (typeof value !== "object" || value === null || Array.isArray(value)) return value;
    return Object.fromEntries(Object.entries(value).map(([name, item]) => [name, renamed(item)]));
  };
  return renamed(options) as T;
}
