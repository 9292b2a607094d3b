// Every reader of files: how its mutants are made, and what is done with one. Whatever it throws beside the errors that name what is wrong
// with the file is a fault, and so is a value that it lets through and that cannot be.
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { adapterOutline, loadAdapter } from "@lowrank/lora";
import { loadModel, metricsFile, modelOutline, readExamples, readState, readTokenizer, restoreState, Tokenizer } from "@lowrank/models";
import { bytesSource, memoryFiles, planningDevice, readGguf, readSafetensors, tensor } from "@lowrank/tensor";
import { corpus, dev, tokenizerFiles } from "./corpus.mjs";
import { mutateGguf } from "./gguf.mjs";
import { mutateBytes, mutateJsonFile, mutateLines, mutateSafetensors, mutateTemplate } from "./mutate.mjs";
import { randomOf } from "./random.mjs";

/** @typedef {import("./corpus.mjs").Files} Files */
/** @typedef {import("./random.mjs").Random} Random */
/**
 * @typedef {{ mutate: (path: string, bytes: Uint8Array, random: Random, other: Uint8Array) => Uint8Array, read: (files: Files) => Promise<void>, spareBytes?: number }} Reader
 *   spareBytes: how much more than the files' own size reading them may take, at any moment
 */

/** What reading a GGUF file may take beside its own bytes. */
const ggufSpare = 64 * 2 ** 20;

const encoder = new TextEncoder();
const decoder = new TextDecoder();

/** A value that a reader let through although it cannot be. */
export class Invalid extends Error {}

/** @param {boolean} isRight @param {string} what */
function check(isRight, what) {
  if (!isRight) throw new Invalid(what);
}

/** One token: a mutant may leave no room for more. */
const ids = tensor([[1]], { device: dev, dtype: "i32" });
/** @param {Files} files */
const inMemory = (files) => memoryFiles(Object.fromEntries(files));
/** @param {string} path */
const isJson = (path) => path.endsWith(".json");

const samples = await corpus();
const modelFiles = inMemory(/** @type {Files} */ (samples["model"]?.[0]?.files));
const { model: base } = await loadModel("m", { device: dev, files: modelFiles });
const tokenizer = await readTokenizer(inMemory(tokenizerFiles), "m");
if (!tokenizer) throw new Error("The corpus holds a tokenizer.");

const scratch = mkdtempSync(join(tmpdir(), "lowrank-fuzz-"));
process.on("exit", () => rmSync(scratch, { recursive: true, force: true }));

const conversations = [
  [{ role: "user", content: "Hi" }],
  [
    { role: "system", content: "Be brief." },
    { role: "user", content: "2 + 2?\nQuick!" },
    { role: "assistant", content: "4" },
  ],
];

/** @param {Uint8Array | undefined} bytes @returns {Readonly<Record<string, unknown>> | null} */
function objectOf(bytes) {
  try {
    const value = JSON.parse(decoder.decode(bytes));
    return typeof value === "object" && value !== null && !Array.isArray(value) ? value : null;
  } catch {
    return null;
  }
}

/** Graphs are built, not run: what a file can make too large shows in its nodes. @param {{ forward: (ids: import("@lowrank/tensor").Tensor) => import("@lowrank/tensor").Tensor }} model */
function buildForward(model) {
  model.forward(ids);
}

/** @param {Tokenizer} made */
function checkEncoding(made) {
  for (const text of ["he ab, ll", "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa!", "Zürich 東京\u0000 🦙 \ud800", "", " \n "]) {
    const tokens = made.encode(text);
    const wrong = tokens.find((id) => !Number.isSafeInteger(id) || id < 0 || id >= made.vocabSize);
    check(wrong === undefined, `a token is ${wrong}`);
    check(typeof made.decode(tokens) === "string", "a decoded text is no string");
  }
}

/** @type {Readonly<Record<string, Reader>>} */
export const readers = {
  safetensors: {
    mutate: (_path, bytes, random, other) => mutateSafetensors(bytes, random, other),
    async read(files) {
      const [path, bytes] = /** @type {[string, Uint8Array]} */ ([...files][0]);
      const file = await readSafetensors(bytesSource(bytes, path));
      let total = 0;
      for (const [name, { bytes: size }] of file.entries) {
        total += size;
        await file.tensor(name, { device: dev });
      }
      check(total <= bytes.length, `its tensors have ${total} bytes`);
    },
  },
  gguf: {
    spareBytes: ggufSpare,
    mutate: (_path, bytes, random, other) => mutateGguf(bytes, random, other),
    async read(files) {
      const [path, bytes] = /** @type {[string, Uint8Array]} */ ([...files][0]);
      const file = await readGguf(bytesSource(bytes, path));
      let total = 0;
      for (const name of file.entries.keys()) total += (await file.bytes(name)).length;
      check(total <= bytes.length, `its tensors have ${total} bytes`);
    },
  },
  "gguf-model": {
    spareBytes: ggufSpare,
    mutate: (_path, bytes, random, other) => mutateGguf(bytes, random, other),
    async read(files) {
      const { model, tokenizer: made } = await loadModel("m/model.gguf", { device: dev, files: inMemory(files) });
      try {
        check(
          model.stopTokens.every((id) => Number.isSafeInteger(id) && id >= 0),
          `its stop tokens are ${model.stopTokens}`,
        );
        if (made) checkEncoding(made);
        buildForward(model);
      } finally {
        model.dispose();
      }
    },
  },
  config: {
    mutate: (_path, bytes, random, other) => mutateJsonFile(bytes, random, other),
    async read(files) {
      const config = objectOf(files.get("m/config.json"));
      if (config) {
        try {
          modelOutline(config, { device: planningDevice(dev).device });
        } catch (error) {
          if (!isTyped(error)) throw error;
        }
      }
      const { model } = await loadModel("m", { device: dev, files: inMemory(files) });
      check(
        model.stopTokens.every((id) => Number.isSafeInteger(id) && id >= 0),
        `its stop tokens are ${model.stopTokens}`,
      );
      buildForward(model);
    },
  },
  index: {
    mutate: (path, bytes, random, other) => (isJson(path) ? mutateJsonFile(bytes, random, other) : mutateSafetensors(bytes, random, other)),
    async read(files) {
      buildForward((await loadModel("m", { device: dev, files: inMemory(files) })).model);
    },
  },
  tokenizer: {
    mutate: (_path, bytes, random, other) => mutateJsonFile(bytes, random, other),
    async read(files) {
      const made = await readTokenizer(inMemory(files), "m");
      if (!made) return;
      checkEncoding(made);
    },
  },
  template: {
    mutate: (_path, bytes, random, other) => encoder.encode(mutateTemplate(decoder.decode(bytes), random, decoder.decode(other))),
    async read(files) {
      const json = JSON.parse(decoder.decode(tokenizerFiles.get("m/tokenizer.json")));
      const made = new Tokenizer(json, { bos_token: "<s>", eos_token: "</s>" }, decoder.decode(files.get("m/chat_template.jinja")));
      /** @type {unknown} */
      let failure = null;
      for (const conversation of conversations) {
        try {
          check(typeof made.applyChatTemplate(conversation, { addGenerationPrompt: true }) === "string", "a rendered text is no string");
        } catch (error) {
          if (!isTyped(error)) throw error;
          failure = error;
        }
      }
      if (failure !== null) throw failure;
    },
  },
  adapter: {
    mutate: (path, bytes, random, other) => (isJson(path) ? mutateJsonFile(bytes, random, other) : mutateSafetensors(bytes, random, other)),
    async read(files) {
      await adapterOutline(["m"], { files: inMemory(files), device: dev }).catch((error) => {
        if (!isTyped(error)) throw error;
      });
      const adapter = await loadAdapter(base, "m", { files: inMemory(files), onWarning: () => {} });
      try {
        buildForward(base);
      } finally {
        adapter.disable();
      }
    },
  },
  rows: {
    mutate: (_path, bytes, random, other) => mutateLines(bytes, random, other),
    async read(files) {
      const bytes = /** @type {Uint8Array} */ (files.get("m/rows.jsonl"));
      const { examples } = await readExamples(bytes, "rows.jsonl", tokenizer, { context: 64, vocabSize: 40, maxLength: 64 });
      check(examples.length > 0, "it has no example");
    },
  },
  state: {
    mutate: (_path, bytes, random, other) => mutateSafetensors(bytes, random, other, "lowrank"),
    async read(files) {
      const state = await readState(inMemory(files), "m");
      check(state !== null, "it is absent");
      if (state) {
        check(Number.isSafeInteger(state.step) && state.step >= 0 && state.step <= 1e8, `its step is ${state.step}`);
        check(Array.isArray(state.recentLosses) && state.recentLosses.every(Number.isFinite), "its losses are no numbers");
        check(
          typeof state.settings === "object" && state.settings !== null && !Array.isArray(state.settings),
          "its settings are no object",
        );
      }
      await restoreState(
        inMemory(files),
        "m",
        new Map([
          ["a", tensor([0, 0, 0], { device: dev })],
          ["b", tensor([[0], [0]], { device: dev })],
        ]),
      );
    },
  },
  metrics: {
    mutate: (_path, bytes, random, other) => mutateLines(bytes, random, other),
    async read(files) {
      const path = join(scratch, "metrics.jsonl");
      writeFileSync(path, /** @type {Uint8Array} */ (files.get("m/metrics.jsonl")));
      await metricsFile(path, 3);
      for (const line of readFileSync(path, "utf8").split("\n").slice(0, -1)) {
        const { step } = JSON.parse(line);
        check(Number.isSafeInteger(step) && step >= 0 && step <= 3, `a line of step ${step} was kept`);
      }
    },
  },
};

/** Errors that say what is wrong with what was given. */
const typed = new Set(["CheckpointError", "AdapterError", "DataError", "TokenizerError", "DeviceError", "TrainingError"]);

/** @param {unknown} error */
export function isTyped(error) {
  return error instanceof Error && typed.has(error.name);
}

/** Which reader a mutant is for, without making it. @param {number} seed @param {number} number @param {readonly string[]} names */
export function readerOf(seed, number, names) {
  return randomOf(seed, number).pick(names);
}

/**
 * The mutant of a seed and a number: always the same one.
 * @param {number} seed
 * @param {number} number
 * @param {readonly string[]} names
 */
export function mutantOf(seed, number, names) {
  const random = randomOf(seed, number);
  const reader = random.pick(names);
  const all = /** @type {readonly import("./corpus.mjs").Sample[]} */ (samples[reader]);
  const { name, files } = random.pick(all);
  const path = random.pick([...files.keys()].filter((file) => isMutated(reader, file)));
  const others = [...random.pick(all).files.values()];
  const bytes = /** @type {Uint8Array} */ (files.get(path));
  const { mutate } = /** @type {Reader} */ (readers[reader]);
  /** @type {Uint8Array} */
  let changed;
  try {
    changed = mutate(path, bytes, random, random.pick(others));
  } catch {
    // Not every structure can be written down again (a value may be nested too deeply for JSON.stringify).
    changed = mutateBytes(bytes, random);
  }
  return { reader, sample: name, path, files: new Map([...files, [path, changed]]) };
}

/** Weights that only stand beside the file in question stay as they are. @param {string} reader @param {string} path */
function isMutated(reader, path) {
  return reader !== "config" || isJson(path);
}
