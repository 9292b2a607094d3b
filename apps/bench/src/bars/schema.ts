import { SchemaConstraint, Tokenizer } from "@lowrank/models";
import { processorMs, quantile } from "../timing.js";
import type { Bar } from "./bar.js";

/** As many tokens as Qwen 3's. */
const vocabulary = 151_936;
const signs = `abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789 .,:;-_"'{}[]()/`;

/** Tokens of up to eight signs, by chance, behind one for each sign; Ġ is the byte of a space. */
function tokenizer(random: () => number): Tokenizer {
  const tokens = new Set(signs.replaceAll(" ", "Ġ"));
  while (tokens.size < vocabulary) {
    const length = 1 + Math.floor(8 * random());
    tokens.add(
      Array.from({ length }, () => signs[Math.floor(random() * signs.length)])
        .join("")
        .replaceAll(" ", "Ġ"),
    );
  }
  const vocab = Object.fromEntries([...tokens].map((token, id) => [token, id]));
  const byteLevel = { type: "ByteLevel", add_prefix_space: false, trim_offsets: true, use_regex: true };
  return new Tokenizer({ model: { type: "BPE", vocab, merges: [] }, pre_tokenizer: byteLevel, decoder: byteLevel });
}

const schema = {
  type: "object",
  properties: {
    name: { type: "string", maxLength: 40 },
    count: { type: "integer", minimum: 0, maximum: 999 },
    tags: { type: "array", items: { enum: ["new", "old", "broken"] }, maxItems: 4 },
    note: { anyOf: [{ type: "string" }, { type: "null" }] },
  },
  required: ["name", "count", "tags", "note"],
  additionalProperties: false,
};

/** One of the tokens of a mask, by chance. */
function drawn(mask: Uint32Array, random: () => number): number {
  const allowed: number[] = [];
  for (let token = 0; token < vocabulary; token++) if (((mask[token >> 5] ?? 0) >>> (token & 31)) & 1) allowed.push(token);
  return allowed[Math.floor(random() * allowed.length)] ?? 0;
}

export const schemaBars: readonly Bar[] = [
  {
    name: "JavaScript that says which of 151,936 tokens may come next in JSON of a schema: mean / most, processor time",
    brief: "mask of 151936: mean, most",
    limits: [
      { atMost: 5, unit: "ms" },
      { atMost: 500, unit: "ms" },
    ],
    isTimed: true,
    async measure({ isQuick }) {
      let state = 7;
      const random = (): number => {
        state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
        return state / 2 ** 32;
      };
      const constraint = new SchemaConstraint(tokenizer(random), schema, { stopTokens: [] });
      const times: number[] = [];
      let complete = 0;
      for (let row = 0; row < (isQuick ? 3 : 12); row++) {
        const tokens: number[] = [];
        while (tokens.length < 200 && !constraint.options.isEnd(row, tokens)) {
          let mask: Uint32Array = new Uint32Array();
          times.push(
            processorMs(() => {
              mask = constraint.allowedTokens(row, tokens);
            }),
          );
          tokens.push(drawn(mask, random));
        }
        if (constraint.isComplete(row, tokens)) complete++;
      }
      const mean = times.reduce((sum, time) => sum + time, 0) / times.length;
      return {
        values: [mean, quantile(times, 1)],
        detail: `${times.length} tokens of ${isQuick ? 3 : 12} texts, ${complete} of them complete; nine of ten within ${quantile(times, 0.9).toFixed(2)} ms`,
      };
    },
  },
];
