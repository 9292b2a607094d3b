import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { loadModel, TextGenerator } from "@lowrank/models";
import { commandLine, pythonScript, shared, smollm2 } from "../repository.js";
import { type CommandRun, runCommand } from "../steps/command.js";
import { quantile } from "../timing.js";
import type { Bar, BarContext, Outcome } from "./bar.js";
import { inFolder } from "./life.js";

const prompt = "Once upon a time, in a small village by the sea, there lived";

/** One command of a pair, and the milliseconds of its steps. */
interface Run extends CommandRun {
  readonly steps: readonly { readonly stepMs: number; readonly isWarmUp?: boolean }[];
}

/** The same LoRA run by `lowrank train` and by PEFT, each from the start of its process to its end. */
interface Pair {
  readonly ours: Run;
  readonly theirs: Run;
}

/** Rows of E2E in a text of more than 512 tokens. */
const rowsOfText = 40;

/** Rows of E2E as lines: as they are, or as many one behind the other as make a text of more than 512 tokens. */
function rowsOf(data: string, kind: "rows" | "texts", count: number): string {
  const lines = readFileSync(data, "utf8").split("\n", kind === "rows" ? count : rowsOfText * count);
  if (kind === "rows") return lines.map((line) => `${line}\n`).join("");
  const rows = lines.map((line) => JSON.parse(line) as { readonly prompt: string; readonly completion: string });
  const texts = Array.from({ length: count }, (_, i) => rows.slice(rowsOfText * i, rowsOfText * (i + 1)));
  return texts.map((own) => `${JSON.stringify({ text: own.map((row) => `${row.prompt} ${row.completion}`).join("\n") })}\n`).join("");
}

/** Trains on all linear layers, rank 8: `steps` steps of `batchSize` rows. Longer rows are cut to 512 tokens. */
function trained(
  context: BarContext,
  kind: "rows" | "texts",
  steps: number,
  batchSize: number,
): Promise<Pair | { readonly skipped: string }> {
  return context.once(`smollm2 ${kind}`, async () => {
    const [model, data, peft] = [await smollm2(), shared("data", "e2e"), pythonScript("e2e.py")];
    if ("skipped" in model) return model;
    if (!data) return { skipped: "data/e2e is not beside the clone (LOWRANK_SHARED names its folder)" };
    if ("skipped" in peft) return peft;
    return inFolder(async (folder) => {
      const rows = join(folder, "rows.jsonl");
      writeFileSync(rows, rowsOf(join(data, "train.jsonl"), kind, steps * batchSize));
      const settings = {
        model: model.path,
        data: rows,
        rank: 8,
        alpha: 16,
        targets: "all-linear",
        steps,
        "batch-size": batchSize,
        lr: 1e-3,
        "max-length": 512,
      };
      const args = Object.entries(settings).flatMap(([name, value]) => [`--${name}`, String(value)]);
      const run = async (name: string, command: readonly [string, string], more: readonly string[]): Promise<Run> => {
        context.say(`${steps} steps by ${name}`);
        const [program, script] = command;
        const out = join(folder, name);
        const ended = await runCommand(program, [script, ...more, ...args, "--out", out]);
        const lines = readFileSync(join(out, "metrics.jsonl"), "utf8").trim().split("\n");
        return { ...ended, steps: lines.map((line) => JSON.parse(line) as Run["steps"][number]) };
      };
      const ours = await run("lowrank", [process.execPath, commandLine], ["train", "--device", "cpu"]);
      return { ours, theirs: await run("peft", peft, []) };
    });
  });
}

/** The median of steps that planned nothing, the first aside. */
function steady({ steps }: Run): number {
  return quantile(
    steps.flatMap(({ stepMs, isWarmUp }, i) => (i === 0 || isWarmUp ? [] : [stepMs])),
    0.5,
  );
}

const seconds = (value: number): string => `${value.toFixed(1)} s`;

/** A bar out of a pair of runs. */
function pairBar(
  names: Pick<Bar, "name" | "brief" | "limits">,
  [kind, steps, batchSize]: readonly ["rows" | "texts", number, number],
  measure: (pair: Pair) => Outcome,
): Bar {
  return {
    ...names,
    isTimed: true,
    async measure(context) {
      const pair = await trained(context, kind, context.isQuick ? 4 : steps, batchSize);
      return "skipped" in pair ? pair : measure(pair);
    },
  };
}

const packed = ["texts", 22, 1] as const;

/** What a person does with a real model: SmolLM2-135M-Instruct, beside PyTorch, transformers and PEFT. */
export const smollm2Bars: readonly Bar[] = [
  pairBar(
    {
      name: "SmolLM2-135M: LoRA step, 1 × 512, all-linear r 8, PyTorch + PEFT in f32",
      brief: "SmolLM2 LoRA step: PEFT",
      limits: [{ atLeast: 0.72, unit: "x" }],
    },
    packed,
    ({ ours, theirs }) => {
      const [mine, other] = [steady(ours) / 1000, steady(theirs) / 1000];
      const first = (ours.steps[0]?.stepMs ?? Number.NaN) / 1000;
      return { values: [other / mine], detail: `${seconds(mine)} against ${seconds(other)}; the first step ${seconds(first)}` };
    },
  ),
  pairBar(
    {
      name: "SmolLM2-135M: 22 such steps, whole command, PEFT",
      brief: "SmolLM2 22 steps, command: PEFT",
      limits: [{ atLeast: 0.75, unit: "x" }],
    },
    packed,
    ({ ours, theirs }) => ({
      values: [theirs.seconds / ours.seconds],
      detail: `${seconds(ours.seconds)} against ${seconds(theirs.seconds)}`,
    }),
  ),
  pairBar(
    {
      name: "SmolLM2-135M: most resident memory of that command, of PEFT's",
      brief: "SmolLM2 memory: of PEFT's",
      limits: [{ atMost: 0.43, unit: "x" }],
    },
    packed,
    ({ ours: { peakBytes: mine }, theirs: { peakBytes: other } }) =>
      mine === null || other === null
        ? { skipped: "this system does not say how much memory a process had" }
        : { values: [mine / other], detail: `${(mine / 1e6).toFixed(0)} of ${(other / 1e6).toFixed(0)} MB` },
  ),
  pairBar(
    {
      name: "SmolLM2-135M: first 20 steps of 8 E2E rows, lengths as they come, PEFT",
      brief: "SmolLM2 8 rows, 20 steps: PEFT",
      limits: [{ atLeast: 0.7, unit: "x" }],
    },
    ["rows", 20, 8],
    ({ ours, theirs }) => {
      const all = ({ steps }: Run): number => steps.reduce((sum, { stepMs }) => sum + stepMs, 0) / 1000;
      const planned = ours.steps.filter(({ isWarmUp }) => isWarmUp).length;
      return {
        values: [all(theirs) / all(ours)],
        detail: `${seconds(all(ours))} against ${seconds(all(theirs))}; ${planned} steps planned`,
      };
    },
  ),
  {
    name: "SmolLM2-135M: greedy decode of the bf16 folder, B 1, transformers in bf16",
    brief: "SmolLM2 decode: transformers",
    limits: [{ atLeast: 1.2, unit: "x" }],
    isTimed: true,
    measure: (context) => decoded(context),
  },
  {
    name: "SmolLM2-135M: start of `lowrank generate` to the first token",
    brief: "SmolLM2 first token (s)",
    limits: [{ atMost: 2, unit: "s" }],
    isTimed: true,
    async measure({ isQuick }) {
      const model = await smollm2();
      if ("skipped" in model) return model;
      const args = [commandLine, "generate", "--model", model.path, "--prompt", prompt, "--max-new-tokens", "2", "--device", "cpu"];
      const times: number[] = [];
      for (let round = 0; round < (isQuick ? 2 : 5); round++) {
        const { firstSeconds } = await runCommand(process.execPath, args, /lived\s+\S/);
        times.push(firstSeconds ?? Number.POSITIVE_INFINITY);
      }
      return { values: [quantile(times, 0.5)], detail: `median of ${times.length} starts` };
    },
  },
];

/** Median seconds of a token after the first few, round by round, ours and then theirs. */
async function decoded(context: BarContext): Promise<Outcome> {
  const [model, transformers] = [await smollm2(), pythonScript("decode.py")];
  if ("skipped" in model) return model;
  if ("skipped" in transformers) return transformers;
  const count = context.isQuick ? 24 : 64;
  const own = async (): Promise<number[]> =>
    context.with("cpu", async (device) => {
      const loaded = await loadModel(model.path, { device });
      const generator = new TextGenerator(loaded.model);
      const ids = loaded.tokenizer?.encode(prompt) ?? [];
      const at: number[] = [];
      await generator.generate([ids], {
        maxNewTokens: count,
        temperature: 0,
        stopTokens: [],
        onToken: () => void at.push(performance.now()),
      });
      generator.dispose();
      return at.slice(1).map((time, i) => (time - (at[i] ?? time)) / 1000);
    });
  const [python, script] = transformers;
  const other = async (): Promise<number[]> => {
    const { output } = await runCommand(python, [script, "--model", model.path, "--prompt", prompt, "--tokens", String(count)]);
    return (JSON.parse(output.trim().split("\n").at(-1) ?? "") as { readonly seconds: number[] }).seconds;
  };
  const [ours, theirs]: [number[], number[]] = [[], []];
  for (let round = 0; round < (context.isQuick ? 1 : 3); round++) {
    context.say(`round ${round + 1}`);
    // The first token after the prompt plans its kernels.
    ours.push(quantile((await own()).slice(2), 0.5));
    theirs.push(quantile((await other()).slice(2), 0.5));
  }
  const [mine, rival] = [quantile(ours, 0.5), quantile(theirs, 0.5)];
  return { values: [rival / mine], detail: `${(1 / mine).toFixed(1)} tokens/s against ${(1 / rival).toFixed(1)}` };
}
