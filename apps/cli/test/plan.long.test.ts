// Slow: what is foretold is measured, in steps and whole commands.
import { execFile } from "node:child_process";
import { mkdtempSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { optim } from "@lowrank/autograd";
import { applyAdapter } from "@lowrank/lora";
import { collate, initModel, loadModel, saveGguf, saveModel, trainingStep } from "@lowrank/models";
import { device, nodeFiles } from "@lowrank/tensor";
import { describe, expect, it } from "vitest";
import { byteTokenizer, lowrank } from "./cli.js";

const folder = mkdtempSync(join(tmpdir(), "lowrank-plan-"));

const gpt2 = { model_type: "gpt2", n_layer: 3, n_embd: 192, n_head: 6, vocab_size: 2048, n_positions: 192 };
const llama = {
  model_type: "llama",
  vocab_size: 1024,
  hidden_size: 160,
  intermediate_size: 320,
  num_hidden_layers: 3,
  num_attention_heads: 5,
  max_position_embeddings: 192,
};

/** The peak of a real step with the same shapes. */
async function measured(config: Readonly<Record<string, unknown>>, method: "lora" | "full", rows: number, length: number): Promise<number> {
  const dev = await device("cpu");
  try {
    const model = await initModel(config, { device: dev });
    const adapter = method === "lora" ? applyAdapter(model, { method: "lora", rank: 8, alpha: 16, targets: "all-linear" }) : null;
    const parameters = adapter ? adapter.namedParameters() : model.namedParameters();
    const step = trainingStep({ model, parameters, optimizer: optim.adamw(parameters, { weightDecay: 0 }), maxGradNorm: 1 });
    const ids = Array.from({ length }, (_, i) => i % 512);
    const examples = Array.from({ length: rows }, (_, line) => ({ line, ids, labels: ids }));
    const batch = collate(examples, { layout: model.batchLayout, lengthLimit: length });
    for (let i = 0; i < 3; i++) await step.run([batch], 1e-3);
    return dev.counters.peakBytes;
  } finally {
    dev.dispose();
  }
}

describe("lowrank plan", () => {
  it.each([
    ["gpt2", "lora", 8, 128],
    ["gpt2", "full", 4, 192],
    ["llama", "lora", 8, 128],
    ["llama", "full", 8, 64],
  ] as const)("foretells the memory of a step of %s with %s", async (name, method, rows, length) => {
    const config = { gpt2, llama }[name];
    const path = join(folder, `${name}.json`);
    writeFileSync(path, JSON.stringify(config));
    const { code, stdout, stderr } = await lowrank([
      "plan",
      ...["--model", path, "--method", method, "--batch", String(rows), "--seq", String(length), "--json"],
      ...(method === "lora" ? ["--rank", "8"] : []),
    ]);
    expect(stderr + String(code)).toMatch(/0$/);
    const plan = JSON.parse(stdout) as { peakBytes: number; stepBytes: number };
    const real = await measured(config, method, rows, length);
    // Beside tensors the backend keeps argument words of its plans and two small blocks for its threads, a few hundred kB in all.
    expect(Math.abs(plan.peakBytes - real) - 600_000).toBeLessThan(0.01 * real);
  });

  it("foretells the memory of a run on blocks, of the device within 3 % and of the process within 10 %", async () => {
    const base = join(folder, "blocks");
    const dev = await device("cpu");
    const wide = { ...llama, vocab_size: 8192, hidden_size: 512, intermediate_size: 2048, num_attention_heads: 8 };
    const model = await initModel({ ...wide, num_hidden_layers: 6, tie_word_embeddings: true }, { device: dev });
    await saveModel(model, base, { dtype: "bf16" });
    writeFileSync(join(base, "tokenizer.json"), JSON.stringify(byteTokenizer()));
    const { model: saved, tokenizer } = await loadModel(base, { device: dev });
    await saveGguf(saved, join(base, "m.gguf"), { files: nodeFiles, type: "q4_k_m", name: "m", tokenizer });
    dev.dispose();
    const data = join(folder, "rows.jsonl");
    const text = "as long as a row may be, and a good deal longer, ".repeat(8);
    writeFileSync(data, Array.from({ length: 8 }, (_, i) => `${JSON.stringify({ text: `${i} ${text}` })}\n`).join(""));
    // The run prints what it had resident at most when it ends.
    const telling = `data:text/javascript,process.on("exit",()=>console.error("resident",1024*process.resourceUsage().maxRSS))`;
    const bin = fileURLToPath(new URL("../bin/lowrank.js", import.meta.url));
    for (const flags of [
      ["--model", base, "--quantize", "nf4"],
      ["--model", join(base, "m.gguf")],
    ]) {
      const planned = await lowrank(["plan", ...flags, "--batch", "4", "--seq", "192", "--rank", "8", "--targets", "all-linear", "--json"]);
      expect(planned.code, planned.stderr).toBe(0);
      const { peakBytes, processBytes } = JSON.parse(planned.stdout) as { peakBytes: number; processBytes: number };
      const run = ["--data", data, "--batch-size", "4", "--max-length", "192", "--steps", "1", "--rank", "8", "--targets", "all-linear"];
      const rest = ["--device", "cpu", "--out", join(folder, `run-${flags.length}`), "--json"];
      const { stdout, stderr } = await promisify(execFile)(process.execPath, [
        "--import",
        telling,
        bin,
        "train",
        ...flags,
        ...run,
        ...rest,
      ]);
      const measured = (JSON.parse(stdout) as { peakBytes: number }).peakBytes;
      const resident = Number(/resident (\d+)/.exec(stderr)?.[1]);
      expect(Math.abs(peakBytes / measured - 1), `${peakBytes} of ${measured} of the device, ${flags}`).toBeLessThan(0.03);
      expect(Math.abs(processBytes / resident - 1), `${processBytes} of ${resident} of the process, ${flags}`).toBeLessThan(0.1);
    }
  });

  it.each([[], ["--quantize", "nf4"]])("says how many rows, and how long ones, fit a memory: %j", async (...quantize) => {
    const path = join(folder, "fitting.json");
    writeFileSync(path, JSON.stringify({ ...llama, max_position_embeddings: 2048 }));
    const planned = async (rows: number, length: number) => {
      const args = ["plan", "--model", path, "--batch", String(rows), "--seq", String(length), "--device-memory", "0.1", "--json"];
      const { code, stdout, stderr } = await lowrank([...args, ...quantize]);
      expect(code, stderr).toBe(0);
      return JSON.parse(stdout) as { peakBytes: number; most: { rows: number; length: number; bytes: number } };
    };
    const { most } = await planned(4, 128);
    expect(most.bytes).toBe(1e8);
    // With so many all of the memory is used, and no more; the planner puts intermediates into it in steps.
    for (const [rows, length] of [
      [most.rows, 128],
      [4, most.length],
    ] as const) {
      const { peakBytes } = await planned(rows, length);
      expect(peakBytes / 1e8, `${rows} rows of ${length}`).toBeGreaterThan(0.9);
      expect(peakBytes / 1e8, `${rows} rows of ${length}`).toBeLessThanOrEqual(1.03);
    }
  });
});
