import { fileURLToPath } from "node:url";
import { readTokenizer, TextStream, type Tokenizer } from "@lowrank/models";
import { nodeFiles } from "@lowrank/tensor";
import fc from "fast-check";
import { sharedDir, skipReason } from "test-support";
import { describe, expect, test } from "vitest";

const shipped = fileURLToPath(new URL("../../../../examples/base-model/model", import.meta.url));
const stories = sharedDir("models/stories260K");
if (stories === null) skipReason("shared/models/stories260K is absent");
/** Byte-level BPE, and SentencePiece with a byte for what it has no piece for. */
const folders: readonly (readonly [string, string])[] = [
  ["bytes as letters", shipped],
  ...(stories === null ? [] : ([["pieces and bytes", stories]] as const)),
];

const texts = ["name: Ann\ncity: Leeds", "naïve café, ÿ", "日本語のテキスト", "👍🏽 and 👩‍👩‍👧", " leading", "two  spaces"];

/** What `decode` says of the tokens after a prompt. */
function continued(tokenizer: Tokenizer, prompt: readonly number[], tokens: readonly number[]): string {
  return tokenizer.decode([...prompt, ...tokens]).slice(tokenizer.decode([...prompt]).length);
}

describe.each(folders)("text token by token: %s", (_, folder) => {
  const streamed = async (prompt: readonly number[], tokens: readonly number[]) => {
    const tokenizer = (await readTokenizer(nodeFiles, folder)) as Tokenizer; // both folders have one
    const stream = new TextStream(tokenizer, prompt);
    return { tokenizer, parts: [...tokens.map((token) => stream.push(token)), stream.finish()] };
  };

  test.each(texts)("%j comes in whole characters", async (text) => {
    const tokenizer = (await readTokenizer(nodeFiles, folder)) as Tokenizer; // both folders have one
    const prompt = tokenizer.encode("Say:");
    const tokens = tokenizer.encode(text, { addSpecialTokens: false });
    const { parts } = await streamed(prompt, tokens);
    expect(parts.join("")).toBe(continued(tokenizer, prompt, tokens));
    for (const part of parts) expect(part).not.toContain("\ufffd");
    // A word is not kept back until the next one begins.
    expect(parts.filter((part) => part !== "").length).toBeGreaterThan(1);
  });

  test("any tokens add up to what decode says, cut where they may", async () => {
    const tokenizer = (await readTokenizer(nodeFiles, folder)) as Tokenizer; // both folders have one
    const id = fc.integer({ min: 3, max: Math.min(tokenizer.vocabSize, 512) - 1 });
    await fc.assert(
      fc.asyncProperty(fc.array(id, { maxLength: 4 }), fc.array(id, { maxLength: 20 }), async (prompt, tokens) => {
        // Of bytes in a row that are no text together Rust makes as many signs, those that were whole before included.
        const whole = [prompt, tokens, [...prompt, ...tokens]].map((ids) => tokenizer.decode(ids)).join("");
        fc.pre(folder !== stories || !whole.includes("\ufffd"));
        const stream = new TextStream(tokenizer, prompt);
        const text = tokens.map((token) => stream.push(token)).join("") + stream.finish();
        expect(text).toBe(continued(tokenizer, prompt, tokens));
      }),
      { numRuns: 300, seed: 7 },
    );
  });
});
