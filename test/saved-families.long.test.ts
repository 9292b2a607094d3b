// Slow: Python loads PyTorch, and a model of each family.
// transformers in Python loads what we save of each family, with the logits that it gave for the original.
import { execFileSync } from "node:child_process";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { loadModel, saveModel } from "@lowrank/models";
import { type Device, device } from "@lowrank/tensor";
import { pythonWithPeft } from "test-support";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { familyCases } from "./family.js";

const python = pythonWithPeft();
const scratch = mkdtempSync(join(tmpdir(), "lowrank-saved-"));
afterAll(() => rmSync(scratch, { recursive: true, force: true }));

interface Answer {
  readonly name: string;
  readonly error: number | null;
  readonly wrong: readonly string[];
}

describe.skipIf(python === null)("transformers loads what is saved of", () => {
  const answers = new Map<string, Answer>();

  beforeAll(async () => {
    const dev: Device = await device("cpu");
    const jobs: [string, string, string][] = [];
    for (const { name, folder } of familyCases) {
      const saved = join(scratch, name);
      const { model } = await loadModel(join(folder, "model"), { device: dev });
      await saveModel(model, saved);
      model.dispose();
      jobs.push([name, saved, join(folder, "io.safetensors")]);
    }
    dev.dispose();
    const list = join(scratch, "jobs.json");
    writeFileSync(list, JSON.stringify(jobs));
    const script = fileURLToPath(new URL("./saved_families.py", import.meta.url));
    const lines = execFileSync(python ?? "", [script, list], { encoding: "utf8", stdio: ["ignore", "pipe", "ignore"] });
    for (const line of lines.trim().split("\n")) {
      const answer = JSON.parse(line) as Answer;
      answers.set(answer.name, answer);
    }
  }, 600_000);

  test.each(familyCases.map(({ name }) => name))("%s", (name) => {
    const { error = null, wrong = ["Python did not answer"] } = answers.get(name) ?? {};
    expect(wrong).toEqual([]);
    expect(error).toBeLessThan(1e-4);
  });
});
