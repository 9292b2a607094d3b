import { mkdtempSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { ownProcessBytes } from "../src/session.js";
import { lowrank } from "./cli.js";

const folder = mkdtempSync(join(tmpdir(), "lowrank-plan-"));

const gpt2 = { model_type: "gpt2", n_layer: 3, n_embd: 192, n_head: 6, vocab_size: 2048, n_positions: 192 };
describe("lowrank plan", () => {
  it("plans a Llama of 1 B parameters without building it", async () => {
    const path = join(folder, "1b.json");
    const sizes = { hidden_size: 2048, intermediate_size: 8192, num_hidden_layers: 16, num_attention_heads: 32, num_key_value_heads: 8 };
    const rest = {
      model_type: "llama",
      vocab_size: 128256,
      tie_word_embeddings: true,
      max_position_embeddings: 8192,
      torch_dtype: "bfloat16",
    };
    writeFileSync(path, JSON.stringify({ ...sizes, ...rest }));
    const { code, stdout } = await lowrank(["plan", "--model", path, "--batch", "1", "--seq", "1024", "--json"]);
    expect(code).toBe(0);
    const plan = JSON.parse(stdout) as { parameters: { frozen: number }; weightBytes: { frozen: number }; cards: readonly unknown[] };
    expect(plan.parameters.frozen).toBe(1_235_814_400);
    expect(plan.weightBytes.frozen).toBe(2 * 1_235_814_400);
    expect(plan.cards.length).toBeGreaterThan(3);
  });

  it("plans within a given memory, by rematerialization", async () => {
    const path = join(folder, "gpt2.json");
    writeFileSync(path, JSON.stringify(gpt2));
    const peakBytes = async (...more: string[]): Promise<number> => {
      const { stdout } = await lowrank(["plan", "--model", path, "--batch", "8", "--seq", "128", "--json", ...more]);
      return (JSON.parse(stdout) as { peakBytes: number }).peakBytes;
    };
    const free = await peakBytes();
    const limit = 0.7 * free;
    // --memory is the whole process's.
    expect(await peakBytes("--memory", String((limit + ownProcessBytes()) / 1e9))).toBeLessThanOrEqual(limit);
    const { code, stderr } = await lowrank(["plan", "--model", path, "--batch", "8", "--seq", "128", "--memory", "0.001"]);
    expect([code, stderr]).toEqual([0, expect.stringContaining("does not fit 1.0 MB")]);
  });

  it("plans for a card that is not there, and says how many tokens it plans for", async () => {
    const path = join(folder, "gpt2.json");
    writeFileSync(path, JSON.stringify(gpt2));
    const { code, stdout, stderr } = await lowrank(["plan", "--model", path, "--card", "rtx 4090"]);
    expect(code, stderr).toBe(0);
    expect(stdout).toContain("a step of 8 rows of 192 tokens (the model's whole context; --seq plans for fewer)");
    expect(stdout).toContain("fits NVIDIA RTX 4090 with 24.0 GB");
    expect(stdout).not.toMatch(/\de[+-]\d/);
    const both = await lowrank(["plan", "--model", path, "--card", "4090", "--device", "cpu"]);
    expect([both.code, both.stderr]).toEqual([2, expect.stringContaining("Keep one of them")]);
  });

  it("says what is wrong with its arguments", async () => {
    const path = join(folder, "gpt2.json");
    const tooLong = await lowrank(["plan", "--model", path, "--seq", "9999"]);
    expect([tooLong.code, tooLong.stderr]).toEqual([2, expect.stringContaining("context of 192")]);
    const missing = await lowrank(["plan", "--model", join(folder, "none.json")]);
    expect([missing.code, missing.stderr]).toEqual([2, expect.stringContaining("none.json")]);
  });
});
