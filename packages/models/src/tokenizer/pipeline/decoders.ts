import type { Json } from "@lowrank/tensor";
import { byteOf } from "./byte-alphabet.js";
import { listOf, made, textOf } from "./normalizers.js";
import { matcherOf, type Pattern } from "./pattern.js";

/** Makes texts of tokens, which are put together then. */
export type Decoder = (tokens: readonly string[]) => readonly string[];

type Maker = (options: Json, path: string) => Decoder;

const encoder = new TextEncoder();
const lossy = new TextDecoder("utf-8", { ignoreBOM: true });
const strict = new TextDecoder("utf-8", { ignoreBOM: true, fatal: true });

function bytesOf(token: string): readonly number[] {
  const bytes: number[] = [];
  for (const sign of token) {
    const byte = byteOf.get(sign);
    // A token with another sign is no row of bytes.
    if (byte === undefined) return [...encoder.encode(token)];
    bytes.push(byte);
  }
  return bytes;
}

/** The byte that a token `<0x..>` stands for; null for others. */
function byteIn(token: string): number | null {
  const digits = /^<0x([0-9a-fA-F]{2}|\+[0-9a-fA-F])>$/.exec(token)?.[1];
  return digits === undefined ? null : Number.parseInt(digits.replace("+", ""), 16);
}

/** What tokens `<0x..>` one after another spell; a sign for what is no text in the place of each of them where they are none. */
const byteFallback: Decoder = (tokens) => {
  const out: string[] = [];
  let bytes: number[] = [];
  const flush = (): void => {
    if (bytes.length === 0) return;
    try {
      out.push(strict.decode(Uint8Array.from(bytes)));
    } catch {
      for (const _ of bytes) out.push("\ufffd");
    }
    bytes = [];
  };
  for (const token of tokens) {
    const byte = byteIn(token);
    if (byte !== null) bytes.push(byte);
    else {
      flush();
      out.push(token);
    }
  }
  flush();
  return out;
};

const cleanups: readonly (readonly [string, string])[] = [
  [" .", "."],
  [" ?", "?"],
  [" !", "!"],
  [" ,", ","],
  [" ' ", "'"],
  [" n't", "n't"],
  [" 'm", "'m"],
  [" do not", " don't"],
  [" 's", "'s"],
  [" 've", "'ve"],
  [" 're", "'re"],
];

/** A text without the spaces that words put before signs. */
function cleaned(text: string): string {
  return cleanups.reduce((out, [from, to]) => out.replaceAll(from, to), text);
}

function strip({ content = " ", start = 0, stop = 0 }: Json): Decoder {
  return (tokens) =>
    tokens.map((token) => {
      const signs = [...token];
      let [from, to] = [0, signs.length];
      while (from < Number(start) && from < signs.length && signs[from] === content) from++;
      while (to > from && signs.length - to < Number(stop) && signs[to - 1] === content) to--;
      return signs.slice(from, to).join("");
    });
}

const makers: Readonly<Record<string, Maker>> = {
  BPEDecoder:
    ({ suffix = "</w>" }) =>
    (tokens) =>
      tokens.map((token, i) => token.replaceAll(String(suffix), i === tokens.length - 1 ? "" : " ")),
  ByteFallback: () => byteFallback,
  ByteLevel: () => (tokens) => [lossy.decode(Uint8Array.from(tokens.flatMap(bytesOf)))],
  CTC:
    ({ pad_token: pad = "<pad>", word_delimiter_token: delimiter = "|", cleanup = true }) =>
    (tokens) =>
      tokens
        .filter((token, i) => token !== tokens[i - 1])
        .map((token) => {
          const text = token.replaceAll(String(pad), "");
          return cleanup === true ? cleaned(text).replaceAll(String(delimiter), " ") : text;
        })
        .filter((text) => text !== ""),
  Fuse: () => (tokens) => [tokens.join("")],
  Metaspace: ({ replacement = "▁", prepend_scheme: scheme, add_prefix_space: prefixes }) => {
    const isNever = (scheme ?? (prefixes === false ? "never" : "always")) === "never";
    return (tokens) => tokens.map((token, i) => token.replaceAll(String(replacement), i === 0 && !isNever ? "" : " "));
  },
  Replace: ({ pattern, content }, path) => {
    const match = matcherOf(pattern as Pattern, path);
    const by = textOf(content, "content", path);
    return (tokens) =>
      tokens.map((token) =>
        match(token)
          .map(([start, end, isMatch]) => (isMatch ? by : token.slice(start, end)))
          .join(""),
      );
  },
  Sequence: ({ decoders = [] }, path) => {
    const all = listOf(decoders, "decoders", path).map((options) => made(makers, options, "decoder", path));
    return (tokens) => all.reduce<readonly string[]>((out, decode) => decode(out), tokens);
  },
  Strip: strip,
  WordPiece:
    ({ prefix = "##", cleanup = true }) =>
    (tokens) =>
      tokens.map((token, i) => {
        const text = i === 0 ? token : token.startsWith(String(prefix)) ? token.slice(String(prefix).length) : ` ${token}`;
        return cleanup === true ? cleaned(text) : text;
      }),
};

/** The decoder that a tokenizer.json describes, or null. Throws CheckpointError where it is none that is known. */
export function decoderOf(options: Json | null | undefined, path: string): Decoder | null {
  return options ? made(makers, options, "decoder", path) : null;
}

/** Decoders that write a token in one way at the end of a text and in another before others, or leave some out. */
const joining: ReadonlySet<unknown> = new Set(["BPEDecoder", "CTC"]);

/**
 * The bytes that a token stands for behind another one, of a vocabulary of bytes or of texts with a token `<0x..>` for each byte.
 * Null where a decoder has no such bytes, since what it writes depends on the tokens around.
 */
export function tokenBytesOf(options: Json | null | undefined, path: string): ((token: string) => Uint8Array) | null {
  const parts = options?.["type"] === "Sequence" ? listOf(options["decoders"], "decoders", path) : options ? [options] : [];
  const types = parts.map((part) => (part as Json | null)?.["type"]);
  if (types.some((type) => joining.has(type))) return null;
  if (types.includes("ByteLevel")) return (token) => Uint8Array.from(bytesOf(token));
  const decode = decoderOf(options, path) ?? ((tokens: readonly string[]) => [tokens.join(" ")]);
  return (token) => {
    const byte = types.includes("ByteFallback") ? byteIn(token) : null;
    return byte !== null ? Uint8Array.of(byte) : encoder.encode(decode(["a", token]).join("").slice(1));
  };
}
