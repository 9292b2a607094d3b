import { CheckpointError, type Json, largest } from "@lowrank/tensor";
import type { AddedToken } from "./pipeline/added-tokens.js";
import { addedToken, type Known } from "./pipeline/pipeline.js";

/** Special tokens that a tokenizer_config.json may name. */
export const namedTokens = ["bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token"] as const;

/** A special token is a string, or an object with `content`. */
export function tokenText(value: unknown): string | null {
  if (typeof value === "string") return value;
  const content = typeof value === "object" && value !== null ? (value as Json)["content"] : null;
  return typeof content === "string" ? content : null;
}

/** A tokenizer_config.json with the tokens of an added_tokens.json, which counts where the other has none. */
export function withAddedTokens(config: Json, added: Json | null): Json {
  if (added === null || config["added_tokens_decoder"]) return config;
  const special = new Set([...namedTokens.map((name) => config[name]), ...extraTokens(config)].map(tokenText));
  const entries = Object.entries(added).map(([content, id]) => [
    String(id),
    { content, special: special.has(content), normalized: !special.has(content) },
  ]);
  return { ...config, added_tokens_decoder: Object.fromEntries(entries) };
}

function extraTokens(config: Json): readonly unknown[] {
  const { additional_special_tokens: additional, extra_special_tokens: extra } = config;
  const listed = (value: unknown): readonly unknown[] => (Array.isArray(value) ? (value as readonly unknown[]) : []);
  // The older name counts where the newer one says nothing.
  const isExtra = typeof extra === "object" && extra !== null && Object.keys(extra).length > 0;
  return [...(isExtra ? listed(extra) : listed(additional)), ...modelTokens(config).values()];
}

/** Special tokens under names of a model's own, such as `image_token`: fields of that ending, and those of a mapping in `extra_special_tokens`. */
function modelTokens(config: Json): ReadonlyMap<string, unknown> {
  const { extra_special_tokens: extra } = config;
  const isOwn = ([name, value]: readonly [string, unknown]): boolean =>
    name.endsWith("_token") && typeof value === "string" && !(namedTokens as readonly string[]).includes(name);
  const mapping = typeof extra === "object" && extra !== null && !Array.isArray(extra) ? Object.entries(extra) : [];
  return new Map([...Object.entries(config).filter(isOwn), ...mapping]);
}

/** The texts of special tokens by the names under which a chat template sees them. */
export function templateTokens(config: Json): Readonly<Record<string, string>> {
  const named = namedTokens.map((name) => [name, config[name]] as const);
  return Object.fromEntries(
    [...named, ...modelTokens(config)].flatMap(([name, value]) => {
      const text = tokenText(value);
      return text === null ? [] : [[name, text] as const];
    }),
  );
}

/**
 * Tokens that tokenizer_config.json adds to those of tokenizer.json, or describes otherwise, as transformers takes them: `added_tokens_decoder` by
 * number, special tokens that are named but not added yet, and further special ones, which come after all others where they are new.
 * Throws CheckpointError where an added token has the number of another, and where the vocabulary lacks `eos_token`.
 */
export function declaredTokens(config: Json, path: string): (known: Known) => readonly AddedToken[] {
  return ({ tokens, idOf, nextId }) => {
    const declared = new Map<string, AddedToken>();
    const numbered = (content: string): number | undefined => declared.get(content)?.id ?? idOf(content);
    const decoder = Object.entries((config["added_tokens_decoder"] ?? {}) as Readonly<Record<string, Json>>);
    for (const [number, token] of decoder.sort(([a], [b]) => Number(a) - Number(b))) {
      const content = String(token["content"]);
      declared.set(content, addedToken(token, numbered(content) ?? Number(number)));
    }
    const named = namedTokens.map((name) => config[name]);
    let next = largest(
      [...declared.values()].map(({ id }) => id + 1),
      nextId(),
    );
    for (const value of [...named, ...extraTokens(config)]) {
      const content = tokenText(value);
      if (content === null || content === "" || declared.has(content) || tokens.has(content)) continue;
      const id = numbered(content);
      // A name without a token is one that nothing was trained with; those that are listed as tokens are new ones.
      if (id === undefined && named.includes(value)) continue;
      const given = typeof value === "object" ? (value as Json) : { content };
      declared.set(content, addedToken({ normalized: false, ...given, special: true }, id ?? next++));
    }
    const end = tokenText(config["eos_token"]);
    if (end !== null && numbered(end) === undefined)
      throw new CheckpointError(
        `${path}: "eos_token" is ${JSON.stringify(end)}, which the vocabulary lacks. Correct the name, or add the token to "added_tokens_decoder".`,
        path,
      );
    return [...declared.values()];
  };
}
