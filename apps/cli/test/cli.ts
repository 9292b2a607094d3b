import { spawn } from "node:child_process";
import { mkdtempSync, realpathSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { initModel, saveModel } from "@lowrank/models";
import { device } from "@lowrank/tensor";
import { vi } from "vitest";
import { runCli } from "../src/run.js";

const program = fileURLToPath(new URL("../bin/lowrank.js", import.meta.url));

/** What a command left behind. */
export interface Outcome {
  readonly code: number | null;
  readonly stdout: string;
  readonly stderr: string;
}

/** Runs the built command line; `killAfterMs` ends it with SIGKILL, `interruptAt` and `killAt` send SIGINT and SIGKILL once its output holds the text. */
export function lowrank(
  args: readonly string[],
  options: {
    readonly killAfterMs?: number;
    readonly interruptAt?: string;
    readonly killAt?: string;
    /** Looked at again and again; SIGKILL follows once it is true. */
    readonly killWhen?: () => boolean;
    readonly env?: NodeJS.ProcessEnv;
    /** What standard input has; nothing, and no end, when absent. */
    readonly input?: string;
  } = {},
): Promise<Outcome> {
  const signalAt = options.interruptAt ?? options.killAt;
  return new Promise((resolve) => {
    const child = spawn(process.execPath, [program, ...args], { env: { ...process.env, LOWRANK_DEBUG: undefined, ...options.env } });
    if (options.input !== undefined) child.stdin.end(options.input);
    let [stdout, stderr] = ["", ""];
    const timer = options.killAfterMs === undefined ? null : setTimeout(() => child.kill("SIGKILL"), options.killAfterMs);
    const { killWhen } = options;
    const watch = killWhen && setInterval(() => killWhen() && child.kill("SIGKILL"), 20);
    let isInterrupted = false;
    const look = (): void => {
      if (signalAt === undefined || isInterrupted || !`${stdout}${stderr}`.includes(signalAt)) return;
      isInterrupted = true;
      child.kill(options.interruptAt === undefined ? "SIGKILL" : "SIGINT");
    };
    child.stdout.on("data", (chunk: Buffer) => {
      stdout += chunk;
      look();
    });
    child.stderr.on("data", (chunk: Buffer) => {
      stderr += chunk;
      look();
    });
    child.on("close", (code) => {
      if (timer) clearTimeout(timer);
      clearInterval(watch);
      resolve({ code, stdout, stderr });
    });
  });
}

/**
 * Runs the command line in this process, from the sources: a command costs milliseconds. What it prints is caught; once it holds `stopAt`,
 * the command is asked to stop, as by Ctrl-C.
 */
export async function lowrankHere(args: readonly string[], { stopAt }: { readonly stopAt?: string } = {}): Promise<Outcome> {
  const caught = { stdout: "", stderr: "" };
  const stop = new AbortController();
  const spies = (["stdout", "stderr"] as const).map((name) =>
    vi.spyOn(process[name], "write").mockImplementation((text) => {
      caught[name] += String(text);
      if (stopAt !== undefined && caught[name].includes(stopAt)) stop.abort();
      return true;
    }),
  );
  try {
    const code = await runCli(args, { signal: stop.signal });
    return { code, ...caught };
  } finally {
    for (const spy of spies) spy.mockRestore();
  }
}

/** What a command printed with --json, but log-probabilities: these have the rounding of the kernels that made them, whatever the tokens are. */
export function printed<T>(stdout: string): T {
  return JSON.parse(stdout, (name, value: unknown) => (name === "logProbabilities" ? undefined : value)) as T;
}

/** A folder for one test file. */
export function scratchFolder(): string {
  return realpathSync(mkdtempSync(join(tmpdir(), "lowrank-cli-")));
}

const words = ["red", "green", "blue", "small", "large", "old", "new", "box", "lamp", "book", "chair"];

/** A tokenizer without merges: a token a byte, spelled as GPT-2 spells bytes, and an end token. `merges` are made of single letters. */
export function byteTokenizer(merges: readonly (readonly [string, string])[] = []): Readonly<Record<string, unknown>> {
  const isPrintable = (byte: number): boolean => (byte > 32 && byte < 127) || (byte > 160 && byte !== 173);
  let spare = 256;
  const spelled = Array.from({ length: 256 }, (_, byte) => String.fromCodePoint(isPrintable(byte) ? byte : spare++));
  const byteLevel = { type: "ByteLevel", add_prefix_space: false, trim_offsets: true, use_regex: true };
  const joint = merges.map((pair, i) => [pair.join(""), 257 + i] as const);
  const end = { id: 256, content: "</s>", single_word: false, lstrip: false, rstrip: false, normalized: false, special: true };
  return {
    version: "1.0",
    added_tokens: [end],
    normalizer: null,
    pre_tokenizer: byteLevel,
    post_processor: null,
    decoder: byteLevel,
    model: {
      type: "BPE",
      unk_token: null,
      vocab: Object.fromEntries([...spelled.map((text, byte) => [text, byte] as const), ...joint]),
      merges,
    },
  };
}

/** A random Llama of two layers, or as many as asked for, with a tokenizer of its own, and rows to train it on: word pairs exchanged. */
export async function tinyProject(
  folder: string,
  { layers = 2 } = {},
): Promise<{ readonly model: string; readonly train: string; readonly test: string }> {
  const path = join(folder, "model");
  const dev = await device("cpu", { threads: 1 });
  const config = {
    model_type: "llama",
    vocab_size: 257,
    hidden_size: 32,
    intermediate_size: 64,
    num_hidden_layers: layers,
    num_attention_heads: 4,
    max_position_embeddings: 64,
    tie_word_embeddings: true,
    eos_token_id: 256,
  };
  await saveModel(await initModel(config, { device: dev, seed: 3 }), path);
  dev.dispose();
  writeFileSync(join(path, "tokenizer.json"), JSON.stringify(byteTokenizer()));
  writeFileSync(join(path, "tokenizer_config.json"), JSON.stringify({ tokenizer_class: "PreTrainedTokenizerFast", eos_token: "</s>" }));
  const rows = words.flatMap((a) => words.map((b) => ({ prompt: `${a} ${b}:`, completion: ` ${b} ${a}` })));
  const [train, test] = [join(folder, "train.jsonl"), join(folder, "test.jsonl")];
  const lines = rows.map((row) => JSON.stringify(row));
  writeFileSync(train, `${lines.filter((_, i) => i % 5 !== 0).join("\n")}\n`);
  writeFileSync(test, `${lines.filter((_, i) => i % 5 === 0).join("\n")}\n`);
  return { model: path, train, test };
}
