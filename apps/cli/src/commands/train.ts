import { join } from "node:path";
import { optim } from "@lowrank/autograd";
import { saveAdapter } from "@lowrank/lora";
import {
  metricsFile,
  type RunState,
  readState,
  type StepMetrics,
  saveModel,
  type TrainOptions,
  type TrainResult,
  train,
} from "@lowrank/models";
import { allowedChanges } from "../changes.js";
import { type CommandContext, defineCommand } from "../command.js";
import { sayRow } from "../data/preview.js";
import { UsageError } from "../failure.js";
import { interruptedCode } from "../interruption.js";
import { fullMethod, methodOf } from "../method.js";
import { inputsOf } from "../out/inputs.js";
import { adapterRunFiles, fullRunFiles, metricsName, templateName } from "../out/mark.js";
import { type OutClaim, type OutFolder, withOutFolder } from "../out-folder.js";
import type { Output } from "../output.js";
import { withLeastMemory } from "../plan/least.js";
import { Progress } from "../progress.js";
import { resumedFlags, startCommand, withResumeAdvice } from "../resume.js";
import { deviceBytes, withDevice } from "../session.js";
import { grouped, reportLines } from "../terminal/format.js";
import { isTrace, TraceRecorder } from "../trace.js";
import { type LossPoint, sayEnd } from "../train/closing.js";
import { type TrainValues, trainFlags } from "../train/flags.js";
import { type Setup, setUp } from "../train/setup.js";
import { startNote } from "../training-notes.js";

/** Throws UsageError for flags that contradict each other. */
function checkTogether(values: TrainValues): void {
  if (values.steps !== undefined && values.epochs !== undefined)
    throw new UsageError("--steps and --epochs are both given. Keep one of them.");
  if (values.resume && values.overwrite) throw new UsageError("--resume and --overwrite contradict each other. Keep one of them.");
  if (values["allow-changed"] && !values.resume) throw new UsageError("--allow-changed needs --resume. Give both, or leave it out.");
}

/** The command, as it was started: `args` with what a resumed run was started with. */
interface Started {
  readonly values: TrainValues;
  readonly args: readonly string[];
  readonly output: Output;
  readonly trace: TraceRecorder | null;
}

/** What of the state in the folder is not as now; where the run begins is said. Rejects with UsageError where it must be the same. */
function compareWith(state: RunState | null, setup: Setup, { values, output }: Started): readonly string[] {
  const { out } = values;
  const changes = state ? allowedChanges(out, state, setup, values["allow-changed"], output) : [];
  if (values.resume)
    output.note(state ? `resuming at step ${state.step} of ${setup.steps}` : `${out} holds no checkpoint yet: starting from the beginning`);
  return changes;
}

function sayBeginning(
  { report, steps, rowsPerStep, data, firstRow, peak, options }: Setup,
  { values, output }: Started,
  isNew: boolean,
): void {
  for (const line of reportLines(report, output.tableColumns)) output.say(line);
  output.say(
    `${grouped(steps)} steps of ${rowsPerStep} rows (${((steps * rowsPerStep) / data.examples.length).toFixed(1)} epochs), learning rate ${peak}, ${values.schedule}`,
  );
  if (isNew && firstRow !== null) sayRow(firstRow, output);
  const note = isNew ? startNote(methodOf(values.method), options, "--init ") : null;
  if (note !== null) output.note(note);
}

/** Where the trainer keeps the run, and what it writes there. */
function runFolder(
  { path, files }: OutFolder,
  { model, adapter, chatTemplate, settings, hashes }: Setup,
  { values, args, output }: Started,
  noteChange: (what: string) => Promise<void>,
): NonNullable<TrainOptions["folder"]> {
  const asPlainLora = values["as-plain-lora"];
  return {
    files,
    path,
    every: values["save-every"],
    settings,
    hashes,
    command: startCommand(trainFlags, args),
    ...(values["allow-changed"] && {
      async onChanged(what: string) {
        output.note(`warning: since the run was interrupted, ${what} changed; continuing with --allow-changed`);
        await noteChange(`${what} changed`);
      },
    }),
    async save() {
      if (!adapter) return saveModel(model, path, { files, dtype: values.dtype });
      await saveAdapter(adapter, path, { files, ...(asPlainLora && { asPlainLora }) });
      if (chatTemplate !== null) await files.write(join(path, templateName), new TextEncoder().encode(chatTemplate));
    },
  };
}

/** Trains in a folder. Resolves to how it went and each step's loss. */
async function trainIn(folder: OutFolder, setup: Setup, started: Started): Promise<{ result: TrainResult; losses: readonly LossPoint[] }> {
  const { values, output, trace } = started;
  const { model, adapter, heldOut, steps, peak, warmup } = setup;
  const { out, schedule } = values;
  const state = values.resume ? await readState(folder.files, out) : null;
  const changes = compareWith(state, setup, started);
  await folder.begin();
  sayBeginning(setup, started, state === null);

  const first = state?.step ?? 0;
  const writeMetrics = await metricsFile(join(out, metricsName), first);
  const noteChanges = (changed: readonly string[]): Promise<void> => writeMetrics({ step: first, changed });
  if (changes.length > 0) await noteChanges(changes);
  const progress = new Progress(output, steps, first);
  const losses: LossPoint[] = [];
  const result = await train({
    model,
    parameters: setup.parameters,
    ...(adapter ? { rules: adapter.training } : {}),
    examples: setup.data.examples,
    lengthLimit: setup.lengthLimit,
    steps,
    batchSize: values["batch-size"],
    accumulate: values.accumulate,
    seed: values.seed,
    schedule: optim[schedule]({ peak, warmup, steps }),
    weightDecay: values["weight-decay"],
    maxGradNorm: values["max-grad-norm"],
    generators: adapter ? [adapter.dropoutGenerator] : [],
    ...(heldOut ? { evaluation: { examples: heldOut.examples, every: values["eval-every"] } } : {}),
    folder: runFolder(folder, setup, started, (what) => noteChanges([what])),
    resume: state !== null,
    signal: folder.signal,
    async onStep(metrics: StepMetrics) {
      losses.push({ x: metrics.step, y: metrics.loss });
      if (metrics.step % values["log-every"] === 0 || metrics.step === steps) await writeMetrics(metrics);
      trace?.step(metrics.step, metrics.loss);
      progress.step(metrics);
    },
    async onEvaluation(step, loss) {
      await writeMetrics({ step, evalLoss: loss });
      output.say(`held-out loss ${loss.toFixed(4)} ${step === 0 ? "before training" : `at step ${step}`}`);
    },
  });
  return { result, losses };
}

function claimOf(values: TrainValues): OutClaim {
  return {
    command: "train",
    path: values.out,
    inputs: inputsOf(trainFlags, values),
    writes: methodOf(values.method) === fullMethod ? fullRunFiles : adapterRunFiles,
    mode: values.resume ? "resume" : values.overwrite ? "replace" : "start",
    files: values.profile === undefined ? [] : [{ name: "--profile", path: values.profile, isOurs: isTrace }],
  };
}

async function runTrain(context: CommandContext<typeof trainFlags>): Promise<number> {
  const { output } = context;
  const { values, given, args } = await resumedFlags("train", trainFlags, ["model", "data"], context, context.values);
  checkTogether(values);
  const trace = values.profile === undefined ? null : new TraceRecorder();
  const { memory } = values;
  const deviceOptions = {
    ...(memory !== undefined && { budgetBytes: (name: string) => deviceBytes(memory, name) }),
    ...(trace && { onKernel: trace.onKernel }),
  };
  const onDevice = <R>(use: Parameters<typeof withDevice<R>>[2]): Promise<R> => withDevice(values.device, output, use, deviceOptions);
  return withOutFolder(context, claimOf(values), (folder) =>
    withResumeAdvice(values.out, () =>
      onDevice((device) =>
        withLeastMemory(device, values, { ...context, given }, async () => {
          const setup = await setUp(values, { device, given, output, signal: folder.signal });
          const { result, losses } = await trainIn(folder, setup, { values, args, output, trace });
          sayEnd(result, setup, values, { args: context.args, losses, output });
          if (trace && values.profile !== undefined) {
            const { written, lost } = await trace.write(values.profile);
            output.note(
              `trace: ${grouped(written)} events in ${values.profile}${lost > 0 ? `, ${grouped(lost)} later ones left out` : ""}`,
            );
          }
          return result.isFinished ? 0 : interruptedCode(folder.signal);
        }),
      ),
    ),
  );
}

export const trainCommand = defineCommand({
  name: "train",
  makes: "run",
  summary: "Fine-tune a model: low-rank pairs beside its frozen weights, or all of its weights.",
  flags: trainFlags,
  examples: [
    "lowrank train --model ./model --data train.jsonl --eval-data test.jsonl --rank 8 --alpha 16 --steps 300 --out run",
    "lowrank train --model ./model --data train.jsonl --method full --epochs 3 --lr 1e-4 --out run-full",
  ],
  run: runTrain,
});
