import { existsSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { commandLine, embeddedModel, exampleRows, root, shared } from "../repository.js";
import { runCommand } from "../steps/command.js";
import { longRun } from "../steps/toy.js";
import { quantile } from "../timing.js";
import type { Bar, Outcome } from "./bar.js";

/** A folder of its own for what a command writes, removed afterwards. */
export async function inFolder<T>(work: (folder: string) => Promise<T>): Promise<T> {
  const folder = mkdtempSync(join(tmpdir(), "lowrank-bench-"));
  try {
    return await work(folder);
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

/** The run of 300 steps on real data, by the command line and by PEFT, each from its start to its end. */
async function wholeRun(isQuick: boolean, say: (line: string) => void): Promise<Outcome> {
  const [model, data] = [shared("models", "stories260K"), shared("data", "e2e")];
  if (!model || !data) return { skipped: "models/stories260K and data/e2e are not beside the clone (LOWRANK_SHARED names their folder)" };
  const python = process.env["LOWRANK_PYTHON"];
  const script = join(root, "apps", "bench", "python", "e2e.py");
  const settings = {
    model,
    data: join(data, "train.jsonl"),
    "eval-data": join(data, "test.jsonl"),
    rank: "8",
    alpha: "16",
    targets: "q_proj,v_proj",
    steps: "300",
    "batch-size": "8",
    lr: "5e-3",
  };
  const args = Object.entries(settings).flatMap(([name, value]) => [`--${name}`, value]);
  return inFolder(async (folder) => {
    const [ours, theirs]: [number[], number[]] = [[], []];
    for (let round = 0; round < (isQuick ? 1 : 3); round++) {
      say(`round ${round + 1}: lowrank train`);
      const out = join(folder, `ours-${round}`);
      ours.push((await runCommand(process.execPath, [commandLine, "train", ...args, "--device", "cpu", "--out", out])).seconds);
      if (python === undefined || !existsSync(script)) continue;
      say(`round ${round + 1}: PEFT`);
      theirs.push((await runCommand(python, [script, ...args, "--out", join(folder, `peft-${round}`)])).seconds);
    }
    const [mine, other] = [quantile(ours, 0.5), quantile(theirs, 0.5)];
    if (theirs.length === 0) return { skipped: `LOWRANK_PYTHON names no interpreter (ours: ${mine.toFixed(1)} s)` };
    return { values: [other / mine], detail: `${mine.toFixed(1)} s against ${other.toFixed(1)} s` };
  });
}

export const runBars: readonly Bar[] = [
  {
    name: "stories260K on e2e, 300 steps, whole command, PEFT",
    brief: "e2e run, whole command: PEFT",
    limits: [{ atLeast: 2, unit: "x" }],
    isTimed: true,
    measure: ({ isQuick, say }) => wholeRun(isQuick, say),
  },
];

export const lifeBars: readonly Bar[] = [
  {
    name: "start of the CLI to first step, embedded model, cpu",
    brief: "CLI start to first step (s)",
    limits: [{ atMost: 1, unit: "s" }],
    isTimed: true,
    measure: ({ isQuick }) =>
      inFolder(async (folder) => {
        const data = join(folder, "orders.jsonl");
        const rows = await exampleRows(64);
        writeFileSync(data, rows.map((row) => `${JSON.stringify(row)}\n`).join(""));
        const args = [commandLine, "train", "--model", embeddedModel, "--data", data, "--steps", "1", "--device", "cpu", "--overwrite"];
        const times: number[] = [];
        for (let round = 0; round < (isQuick ? 1 : 5); round++) {
          const { firstSeconds } = await runCommand(process.execPath, [...args, "--out", join(folder, "run")], /step 1\/1/);
          times.push(firstSeconds ?? Number.POSITIVE_INFINITY);
        }
        return { values: [quantile(times, 0.5)], detail: `median of ${times.length} starts of \`lowrank train\`, batch 8` };
      }),
  },
  {
    name: "50,000 steps of a toy: new buffers / heap growth",
    brief: "50,000 steps: buffers, heap MB",
    limits: [{ atMost: 0 }, { below: 5, unit: "MB" }],
    isTimed: false,
    measure: (context) =>
      context.with("cpu", async (dev) => {
        const [steps, settled] = context.isQuick ? [3_000, 1_000] : [50_000, 1_000];
        const { buffers, deviceBytes, heapBytes, lastLoss, seconds } = await longRun(dev, steps, settled);
        return {
          values: [buffers, heapBytes / 1e6],
          detail: `${steps} steps in ${seconds.toFixed(1)} s; device ${deviceBytes >= 0 ? "+" : ""}${deviceBytes} bytes, loss ${lastLoss.toFixed(4)}`,
        };
      }),
  },
];
