import { Tokenizer } from "@lowrank/models";
import type { Json } from "@lowrank/tensor";
import { nodeFiles } from "@lowrank/tensor";
import { Ajv2020 } from "ajv/dist/2020.js";
import formatsOf from "ajv-formats";
import fc from "fast-check";
import { sharedDir, skipReason } from "test-support";
import { describe, expect, test } from "vitest";
import { byteTokenizer } from "../../../../apps/cli/test/cli.js";
import { smollm2Folder } from "../../../../scripts/smollm2.mjs";
import { readTokenizer } from "../../src/checkpoint/folder.js";
import { seededRandom } from "../../src/generate/sample.js";
import { SchemaConstraint } from "../../src/grammar/constraint.js";
import { SchemaError } from "../../src/grammar/error.js";
import { schemas } from "./schemas.js";

const end = 256;
const bytes = new Tokenizer(byteTokenizer() as Json, { eos_token: "</s>" });
const constrained = (schema: unknown, tokenizer = bytes, stop = end): SchemaConstraint =>
  new SchemaConstraint(tokenizer, schema, { stopTokens: [stop] });

/** Whether a text is one that the schema's answers may be. */
function takes(rules: SchemaConstraint, text: string): boolean {
  const tokens: number[] = [];
  for (const byte of new TextEncoder().encode(text)) {
    const id = bytes.tokenId(spelled(byte)) ?? -1;
    if (!isAllowed(rules.allowedTokens(0, tokens), id)) return false;
    tokens.push(id);
    if (rules.options.isEnd(0, tokens)) return tokens.length === new TextEncoder().encode(text).length;
  }
  return rules.isComplete(0, tokens);
}

const isAllowed = (mask: Uint32Array, id: number): boolean => (((mask[id >> 5] ?? 0) >>> (id & 31)) & 1) === 1;
const spelled = (byte: number): string => bytes.token(byte) ?? "";

/** How many bits of a word are set. */
function bitCount(word: number): number {
  const pairs = word - ((word >>> 1) & 0x55555555);
  const fours = (pairs & 0x33333333) + ((pairs >>> 2) & 0x33333333);
  return Math.imul((fours + (fours >>> 4)) & 0x0f0f0f0f, 0x01010101) >>> 24;
}

/** One of the tokens of a mask, all alike; null where there is none. */
function oneOf(mask: Uint32Array, share: number): number | null {
  let index = Math.floor(share * mask.reduce((sum, word) => sum + bitCount(word), 0));
  for (const [at, word] of mask.entries()) {
    const count = bitCount(word);
    if (index < count) for (let bit = 0; bit < 32; bit++) if (isAllowed(mask, 32 * at + bit) && index-- === 0) return 32 * at + bit;
    index -= count;
  }
  return null;
}

const known = new Map<Tokenizer, readonly number[]>();

/** Tokens that begin with a quotation mark. */
function quotesOf(tokenizer: Tokenizer): readonly number[] {
  const ids = Array.from({ length: known.has(tokenizer) ? 0 : tokenizer.vocabSize }, (_, id) => id);
  const quotes = known.get(tokenizer) ?? ids.filter((id) => tokenizer.tokenBytes(id)?.[0] === 0x22);
  known.set(tokenizer, quotes);
  return quotes;
}

/** An answer of random tokens: one of those that may come, all alike; null where it is not complete after so many. */
function randomAnswer(rules: SchemaConstraint, tokenizer: Tokenizer, stop: number, seed: number, most: number): string | null {
  const random = seededRandom(seed);
  const tokens: number[] = [];
  for (let count = 0; count < most; count++) {
    if (rules.options.isEnd(seed, tokens)) break;
    const mask = rules.allowedTokens(seed, tokens);
    // Few tokens of a large vocabulary end a string: those are taken more often than others.
    const quotes = random() < 0.2 ? quotesOf(tokenizer).filter((id) => isAllowed(mask, id)) : [];
    const token = (quotes.length > 0 ? quotes[Math.floor(random() * quotes.length)] : oneOf(mask, random())) ?? stop;
    // One of the texts that may end here does.
    if (token === stop || (rules.isComplete(seed, tokens) && random() < 0.2)) break;
    tokens.push(token);
  }
  return rules.isComplete(seed, tokens) ? tokenizer.decode(tokens) : null;
}

/** Every schema's answers of random tokens are JSON that fits, for each seed; most are complete. */
function checkAnswers(schema: unknown, tokenizer: Tokenizer, stop: number, seeds: number, most: number): void {
  const ajv = new Ajv2020({ strict: false, validateSchema: false });
  formatsOf.default(ajv);
  const { $schema, $id, ...rest } = (typeof schema === "object" ? schema : { anyOf: [{}] }) as Json;
  const validate = ajv.compile(rest);
  const rules = constrained(schema, tokenizer, stop);
  let complete = 0;
  for (let seed = 0; seed < seeds; seed++) {
    const text = randomAnswer(rules, tokenizer, stop, seed, most);
    if (text === null) continue;
    complete++;
    validate(JSON.parse(text));
    expect(validate.errors, text).toBeNull();
  }
  expect(complete).toBeGreaterThan(0);
}

describe.each(schemas)("$name", ({ schema, fits, unfit }) => {
  test("takes what fits, and nothing else", () => {
    const rules = constrained(schema);
    expect(fits.filter((text) => !takes(rules, text))).toEqual([]);
    expect(unfit.filter((text) => takes(rules, text))).toEqual([]);
  });

  test("makes random tokens an answer that fits", () => checkAnswers(schema, bytes, end, 40, 1500));
});

test("takes any JSON, as it is usually written", () => {
  const rules = constrained({});
  const numbers = fc.oneof(
    fc.integer(),
    fc.double({ noNaN: true, noDefaultInfinity: true, min: -1e15, max: 1e15 }).filter((x) => !/e-\d{3}|\d{17}/.test(String(x))),
  );
  const value = fc
    .jsonValue({ noUnicodeString: false, maxDepth: 4 })
    .map((json) => JSON.parse(JSON.stringify(json, (_, x: unknown) => (typeof x === "number" ? 1 : x))) as unknown);
  fc.assert(
    fc.property(value, numbers, fc.constantFrom(undefined, 1, 2, 4, "\t"), (json, n, indent) => {
      expect(takes(rules, JSON.stringify([json, n], null, indent))).toBe(true);
    }),
    { numRuns: 60 },
  );
});

describe.each<[string, () => Promise<{ tokenizer: Tokenizer; stop: number } | null>]>([
  [
    "stories260K",
    async () => {
      const folder = sharedDir("models", "stories260K");
      const tokenizer = folder === null ? null : await readTokenizer(nodeFiles, folder);
      return tokenizer && { tokenizer, stop: 2 };
    },
  ],
  [
    "SmolLM2",
    async () => {
      const found = smollm2Folder();
      const tokenizer = "path" in found ? await readTokenizer(nodeFiles, found.path) : null;
      return tokenizer && { tokenizer, stop: 2 };
    },
  ],
])("the tokens of %s", (name, open) => {
  test("make answers that fit, and each is in a mask exactly where its bytes may come", async () => {
    const real = await open();
    if (!real) return skipReason(`the tokenizer of ${name} is absent`);
    const { tokenizer, stop } = real;
    for (const { schema } of schemas.filter((_, i) => i % 10 === 1)) checkAnswers(schema, tokenizer, stop, 3, 200);
    const rules = constrained(
      { type: "object", properties: { s: { type: "string", maxLength: 12 }, n: { type: "integer" } }, required: ["s"] },
      tokenizer,
      stop,
    );
    const begin = tokenizer.encode('{"s": "é', { addSpecialTokens: false });
    for (let length = 1; length <= begin.length; length++) {
      const before = begin.slice(0, length);
      const mask = rules.allowedTokens(0, before);
      for (let id = length; id < tokenizer.vocabSize; id += 199) {
        const own = tokenizer.tokenBytes(id);
        expect(isAllowed(mask, id), `${id}`).toBe(own !== null && own.length > 0 && stepsBy(rules, before, id));
      }
    }
  });
});

/** Whether a token can be read behind others, byte by byte. */
function stepsBy(rules: SchemaConstraint, before: readonly number[], id: number): boolean {
  try {
    rules.isComplete(1, [...before, id]);
    return true;
  } catch {
    return false;
  }
}

test("what the tokens of a byte each may write is the same whatever is remembered of other texts", () => {
  const schema = { type: "array", items: { type: "string", maxLength: 3 }, maxItems: 40 };
  const used = constrained(schema);
  for (let seed = 0; seed < 20; seed++) randomAnswer(used, bytes, end, seed, 300);
  const tokens = Array.from(new TextEncoder().encode('["ab","'), (byte) => bytes.tokenId(spelled(byte)) ?? 0);
  expect(used.allowedTokens(99, tokens)).toEqual(constrained(schema).allowedTokens(0, tokens));
});

test.each<[string, unknown, RegExp]>([
  ["a pattern", { type: "object", properties: { a: { type: "string", pattern: "x" } } }, /#\/properties\/a has "pattern"/],
  ["several at once", { uniqueItems: true, multipleOf: 2 }, /"uniqueItems", "multipleOf"/],
  ["a word that is none", { typ: "string" }, /"typ"/],
  ["a format", { type: "string", format: "email" }, /"email" as "format"/],
  ["a type that is none", { type: "str" }, /"str" as "type"/],
  ["no types", { type: [] }, /\[\] as "type"/],
  ["a text for a schema", { properties: { a: "string" } }, /#\/properties\/a is "string"/],
  ["a list for a schema", [], /is \[\], not an object/],
  ["null", null, /is null/],
  ["no values", { enum: [] }, /\[\] as "enum"/],
  ["a bound that is no number", { type: "integer", minimum: "1" }, /"1" as "minimum"/],
  ["an exclusive bound of draft 4", { type: "integer", minimum: 1, exclusiveMinimum: true }, /true as "exclusiveMinimum"/],
  ["a bound with decimals", { type: "number", minimum: 0.5 }, /0.5 as a bound/],
  ["a length below 0", { type: "string", minLength: -1 }, /-1 as "minLength"/],
  ["a reference to nowhere", { $ref: "#/$defs/a" }, /nothing of this schema/],
  ["a reference to the net", { $ref: "https://example.com/s" }, /nothing of this schema/],
  ["a reference beside others", { $ref: "#", type: "object" }, /"type" beside "\$ref"/],
  ["two at once", { anyOf: [true], oneOf: [true] }, /"oneOf" beside "anyOf"/],
  ["all of two", { allOf: [{ type: "string" }, { maxLength: 3 }] }, /"allOf" of 2/],
  ["alternatives that overlap", { oneOf: [{ type: "integer" }, { type: "number" }] }, /number 1 and number 2/],
  ["a list of items", { items: [{ type: "string" }] }, /a list as "items"/],
  ["required that is no list", { properties: {}, required: "a" }, /"a" as "required"/],
  ["nothing", false, /no value at all/],
  ["a contradiction", { type: "string", minLength: 3, maxLength: 2 }, /no value at all/],
  ["a range of nothing", { type: "integer", minimum: 2, maximum: 1 }, /no value at all/],
  ["what holds itself without end", { type: "object", properties: { a: { $ref: "#" } }, required: ["a"] }, /no value at all/],
  ["a reference to itself", { $ref: "#" }, /no value at all/],
  ["300 levels", JSON.parse(`${'{"items":'.repeat(300)}{}${"}".repeat(300)}`), /200 levels/],
])("refuses %s by name", (_, schema, message) => {
  expect(() => constrained(schema)).toThrow(SchemaError);
  expect(() => constrained(schema)).toThrow(message);
});

test("thousands of values are as quick as their beginnings", () => {
  const values = Array.from({ length: 20_000 }, (_, i) => `value number ${i}`);
  const rules = constrained({ enum: [...values, 17, 170, null] });
  expect(['"value number 6796"', "17", "170", "null"].map((text) => takes(rules, text))).toEqual([true, true, true, true]);
  expect(['"value number 20000"', "1", "1700"].map((text) => takes(rules, text))).toEqual([false, false, false]);
}, 10_000);

test("takes what refers to itself as one of several", () => {
  const rules = constrained({ anyOf: [{ $ref: "#" }, { const: 0 }] });
  expect([takes(rules, "0"), takes(rules, "1")]).toEqual([true, false]);
});

test("refuses a tokenizer whose tokens are no texts", () => {
  const json = { ...byteTokenizer(), decoder: { type: "BPEDecoder", suffix: "</w>" } };
  expect(() => constrained({}, new Tokenizer(json as Json, {}))).toThrow(/in other ways in other places/);
});
