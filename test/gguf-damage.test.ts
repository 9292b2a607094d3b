// Metadata of GGUF files that is missing or damaged, key by key, in every family: a model of a bounded size, or an error that names the file.
import { join } from "node:path";
import { loadModel } from "@lowrank/models";
import { CheckpointError, type GgufEntry, type GgufValue } from "@lowrank/tensor";
import { testDevice } from "test-support";
import { expect, test } from "vitest";
import { type GgufFacts, ggufFacts } from "../packages/models/src/families/gguf/facts.js";
import { ggufConfig, ggufLinks } from "../packages/models/src/families/gguf-model.js";
import { boundedParameters, readFamily } from "../packages/models/src/families/read.js";
import { familyCases } from "./family.js";
import { configOf, contentOf, fileOf } from "./gguf.js";

/** What a key may hold instead: undefined for nothing. */
const values: readonly (GgufValue | undefined)[] = [
  undefined,
  -1,
  0,
  2 ** 24,
  2 ** 32 - 1,
  2n ** 63n,
  Number.NaN,
  "text",
  [],
  new Float32Array([1e30, -1, 0]),
];

const device = await testDevice();

/** The whole way to the tensors' places, as a loader goes it: sizes are bounded before anything is made of them. */
function readWhole(facts: GgufFacts): void {
  const read = readFamily(ggufConfig(facts).json, facts.name);
  const specs = boundedParameters(read, facts.name, device);
  const shapes = new Map([...facts.entries].map(([name, { shape }]) => [name, shape.reduce((size, axis) => size * axis, 1)]));
  const wanted = [...specs.values()].reduce((sum, { shape }) => sum + shape.reduce((size, axis) => size * axis, 1), 0);
  if (wanted > 2 * [...shapes.values()].reduce((sum, size) => sum + size, 0)) return;
  ggufLinks(read, specs, facts.name, facts.entries);
}

const seen = new Set<string>();
const firsts = familyCases.filter(({ name, family }) => name.startsWith("own/") && !seen.has(family) && seen.add(family));

test.each(firsts)("$name", async ({ folder }) => {
  const { model } = await loadModel(join(folder, "model"), { device });
  const content = await contentOf(model, configOf(model), true).catch(() => null);
  model.dispose();
  // Families that llama.cpp does not have, and cases of which no file can say something.
  if (!content || content.metadata.size === 0) return;
  const facts = await ggufFacts(await fileOf(content));
  const outcomes = { read: 0, refused: 0 };
  const attempt = (changed: Partial<GgufFacts>): void => {
    try {
      readWhole({ ...facts, ...changed });
      outcomes.read++;
    } catch (error) {
      if (!(error instanceof CheckpointError)) throw error;
      expect(error.message).toContain("model.gguf");
      outcomes.refused++;
    }
  };
  for (const key of facts.metadata.keys())
    for (const value of values) {
      const metadata = new Map(facts.metadata);
      if (value === undefined) metadata.delete(key);
      else metadata.set(key, value);
      attempt({ metadata });
    }
  for (const name of facts.entries.keys()) {
    const entries = new Map<string, GgufEntry>(facts.entries);
    entries.delete(name);
    attempt({ entries });
  }
  expect(outcomes.read).toBeGreaterThan(0);
  expect(outcomes.refused).toBeGreaterThan(20);
});
