import { join } from "node:path";
import { optim } from "@lowrank/autograd";
import { parameterReport, saveAdapter } from "@lowrank/lora";
import { longestLength, metricsFile, type RunState, readState, type StepMetrics, saveModel, train } from "@lowrank/models";
import type { Device } from "@lowrank/tensor";
import { allowedChanges, contentsOf } from "../changes.js";
import { type CommandContext, defineCommand } from "../command.js";
import { defaultEpochs, defaultLearningRate, defaultWarmup } from "../defaults.js";
import { UsageError } from "../failure.js";
import type { Flags } from "../flags.js";
import { interruptedCode } from "../interruption.js";
import {
  applyMethod,
  fullMethod,
  hasPlainForm,
  methodFlags,
  methodNames,
  methodOf,
  methodOptions,
  optionSettings,
  refuseMethodFlags,
} from "../method.js";
import { inputsOf } from "../out/inputs.js";
import { adapterRunFiles, fullRunFiles, metricsName } from "../out/mark.js";
import { type OutFolder, withOutFolder } from "../out-folder.js";
import { withLeastMemory } from "../plan/least.js";
import { program } from "../program.js";
import { resumedFlags, startCommand, type WithNeeded, withResumeAdvice } from "../resume.js";
import { contextOf, initializeAdapter } from "../runs.js";
import { deviceFlag, jsonFlag, memoryFlag, modelFlag, openData, openModel, withDevice } from "../session.js";
import { duration, grouped, reportLines, shellWord } from "../terminal/format.js";
import { plotLines } from "../terminal/plot.js";
import { Progress } from "../terminal/progress.js";
import { isTrace, TraceRecorder } from "../trace.js";
import { riseNote, startNote } from "../training-notes.js";

const flags = {
  model: { ...modelFlag, required: false },
  data: { type: "text", value: "FILE.jsonl", path: "read", help: 'rows {"prompt","completion"}, {"text"} or {"messages"}' },
  "eval-data": { type: "text", value: "FILE.jsonl", path: "read", help: "held-out rows: the loss before and after" },
  method: { type: "choice", choices: methodNames, help: "what is trained", default: "lora" },
  ...methodFlags,
  steps: { type: "integer", min: 1, help: "optimizer steps" },
  epochs: { type: "number", above: 0, help: "passes over the data, instead of --steps (default: by rows and model, 1 to 12)" },
  "batch-size": { type: "integer", min: 1, help: "rows a batch", default: 8 },
  accumulate: { type: "integer", min: 1, help: "batches a step", default: 1 },
  "max-length": { type: "integer", min: 2, help: "cut longer rows to N tokens (default: refuse rows longer than the context)" },
  lr: { type: "number", above: 0, help: "peak learning rate (default: by method and width of the model)" },
  schedule: { type: "choice", choices: ["cosine", "linear", "constant"], help: "how the learning rate falls", default: "cosine" },
  warmup: { type: "integer", min: 0, help: "steps of linear rise (default: a twentieth of the steps, at most 20)" },
  "weight-decay": { type: "number", min: 0, help: "AdamW's decoupled decay", default: 0 },
  "max-grad-norm": { type: "number", min: 0, help: "clip gradients to this norm; 0 never clips", default: 1 },
  seed: { type: "integer", min: 0, help: "order of rows, first values, dropout", default: 0 },
  device: deviceFlag,
  memory: memoryFlag,
  out: {
    type: "text",
    value: "DIR",
    path: "written",
    help: "the run's folder: adapter (or checkpoint), metrics.jsonl, state",
    required: true,
  },
  resume: { type: "switch", help: "resume the run in --out; its flags need not be given again" },
  "allow-changed": { type: "switch", help: "with --resume: continue although flags, weights, rows or the tokenizer changed" },
  overwrite: { type: "switch", help: "replace the run in --out" },
  "as-plain-lora": { type: "switch", help: "write an adapter that began as pissa or olora as plain LoRA of twice the rank" },
  "eval-every": { type: "integer", min: 0, help: "steps between evaluations; 0: before and after only", default: 0 },
  "eval-rows": { type: "integer", min: 1, help: "held-out rows used, evenly spread over the file", default: 500 },
  "save-every": { type: "integer", min: 0, help: "steps between checkpoints; 0: at the end only", default: 100 },
  "log-every": { type: "integer", min: 1, help: "steps between lines of metrics.jsonl", default: 1 },
  profile: {
    type: "text",
    value: "FILE.json",
    path: "written",
    help: "write when each kernel ran, in Chrome's trace format (opens in Perfetto); slows the run",
  },
  json: jsonFlag,
} as const satisfies Flags;

type TrainValues = WithNeeded<typeof flags, "model" | "data">;

/** What a resumed run must have in common with the run it resumes. */
function settingsOf(
  values: TrainValues,
  options: Readonly<Record<string, unknown>>,
  { peak, warmup, steps }: { readonly peak: number; readonly warmup: number; readonly steps: number },
): RunState["settings"] {
  const { model, data, method, seed, schedule } = values;
  return {
    model,
    data,
    method,
    ...optionSettings(options),
    seed,
    steps,
    lr: peak,
    schedule,
    warmup,
    "batch-size": values["batch-size"],
    accumulate: values.accumulate,
    "max-length": values["max-length"] ?? null,
    "weight-decay": values["weight-decay"],
    "max-grad-norm": values["max-grad-norm"],
  };
}

/** Switches that are no part of the command that resumes. */
const onceOnly: ReadonlySet<string> = new Set(["--overwrite", "--resume", "--allow-changed"]);

async function runTrain(context: CommandContext<typeof flags>): Promise<number> {
  const { output } = context;
  const { values, given, args } = await resumedFlags("train", flags, ["model", "data"], context, context.values);
  const { method, out } = values;
  if (values.steps !== undefined && values.epochs !== undefined)
    throw new UsageError("--steps and --epochs are both given. Keep one of them.");
  if (values.resume && values.overwrite) throw new UsageError("--resume and --overwrite contradict each other. Keep one of them.");
  if (values["allow-changed"] && !values.resume) throw new UsageError("--allow-changed needs --resume. Give both, or leave it out.");
  const trace = values.profile === undefined ? null : new TraceRecorder();
  const isFull = methodOf(method) === fullMethod;
  const run = async (dev: Device, { files, signal, begin }: OutFolder): Promise<number> => {
    if (isFull) refuseMethodFlags(given);
    const asPlainLora = values["as-plain-lora"];
    if (asPlainLora && !hasPlainForm(method))
      throw new UsageError(`--as-plain-lora is for methods with pairs of LoRA, and ${method} has none. Leave it out.`);
    const loaded = await openModel(values.model, dev, isFull ? { dtype: "f32" } : {});
    const { model } = loaded;
    const warn = (message: string): void => output.note(`warning: ${message}`);
    const options = isFull ? {} : methodOptions(method, model, values, given, { steps: values.steps, warn });
    const adapter = isFull ? null : applyMethod(model, method, options, { seed: values.seed, baseModel: values.model, onWarning: warn });
    const maxLength = values["max-length"];
    const data = await openData(values.data, loaded, output, { maxLength, signal });
    const evalPath = values["eval-data"];
    const heldOut =
      evalPath === undefined ? null : await openData(evalPath, loaded, output, { maxLength, rowLimit: values["eval-rows"], signal });

    const longest = Math.max(longestLength(data.examples), heldOut ? longestLength(heldOut.examples) : 0);
    const lengthLimit = Math.min(contextOf(model), Math.max(longest, 2));
    const batches = { batchSize: values["batch-size"], seed: values.seed, lengthLimit };
    if (adapter) await initializeAdapter(adapter, model, data.examples, batches, output);
    const parameters = adapter ? adapter.namedParameters() : model.namedParameters();
    const report = parameterReport(model, adapter ?? "full");
    const rowsPerStep = values["batch-size"] * values.accumulate;
    const steps =
      values.steps ??
      Math.max(1, Math.ceil(((values.epochs ?? defaultEpochs(data.examples.length, model)) * data.examples.length) / rowsPerStep));
    const peak = values.lr ?? defaultLearningRate(method, model);
    const warmup = values.warmup ?? defaultWarmup(steps);
    if (warmup >= steps && values.schedule !== "constant")
      throw new UsageError(`--warmup ${warmup} leaves nothing of ${steps} steps. Warm up for fewer.`);
    const settings = settingsOf(values, options, { peak, warmup, steps });
    const state = values.resume ? await readState(files, out) : null;
    const hashes = contentsOf(loaded, data, heldOut);
    const changes = state ? allowedChanges(out, state, { settings, hashes }, values["allow-changed"], output) : [];
    if (values.resume)
      output.note(state ? `resuming at step ${state.step} of ${steps}` : `${out} holds no checkpoint yet: starting from the beginning`);
    await begin();

    for (const line of reportLines(report, output.tableColumns)) output.say(line);
    output.say(
      `${grouped(steps)} steps of ${rowsPerStep} rows (${((steps * rowsPerStep) / data.examples.length).toFixed(1)} epochs), learning rate ${peak}, ${values.schedule}`,
    );

    const beginning = state ? null : startNote(methodOf(method), options, "--init ");
    if (beginning !== null) output.note(beginning);

    const writeMetrics = await metricsFile(join(out, metricsName), state?.step ?? 0);
    if (state && changes.length > 0) await writeMetrics({ step: state.step, changed: changes });
    const progress = new Progress(output, steps, state?.step ?? 0);
    const losses: { x: number; y: number }[] = [];
    const result = await train({
      model,
      parameters,
      ...(adapter ? { rules: adapter.training } : {}),
      examples: data.examples,
      lengthLimit,
      steps,
      batchSize: values["batch-size"],
      accumulate: values.accumulate,
      seed: values.seed,
      schedule: optim[values.schedule]({ peak, warmup, steps }),
      weightDecay: values["weight-decay"],
      maxGradNorm: values["max-grad-norm"],
      generators: adapter ? [adapter.dropoutGenerator] : [],
      ...(heldOut ? { evaluation: { examples: heldOut.examples, every: values["eval-every"] } } : {}),
      folder: {
        files,
        path: out,
        every: values["save-every"],
        settings,
        hashes,
        command: startCommand(flags, args),
        ...(values["allow-changed"] && {
          async onChanged(what: string) {
            warn(`since the run was interrupted, ${what} changed; continuing with --allow-changed`);
            await writeMetrics({ step: state?.step ?? 0, changed: [`${what} changed`] });
          },
        }),
        save: () =>
          adapter ? saveAdapter(adapter, out, { files, ...(asPlainLora && { asPlainLora }) }) : saveModel(model, out, { files }),
      },
      resume: state !== null,
      signal,
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
    output.draw("");
    if (!result.isFinished) {
      const command = ["train", ...context.args.filter((arg) => !onceOnly.has(arg)), "--resume"];
      output.note(
        `Stopped at step ${result.steps} of ${steps}; the checkpoint is in ${out}. Resume with:`,
        `${program()} ${command.map(shellWord).join(" ")}`,
      );
    }
    const { trainLoss, evalLossBefore, evalLossAfter, tokensPerSecond, peakBytes } = result;
    if (output.isTerminal) for (const line of plotLines(losses, { columns: output.columns })) output.say(line);
    if (result.isFinished) {
      output.say(
        `${grouped(result.newSteps)} ${result.newSteps < result.steps ? `more steps, ${grouped(result.steps)} in all,` : "steps"} in ${duration(result.trainSeconds)}, ${grouped(tokensPerSecond)} tokens/s; training loss ${trainLoss.toFixed(4)}`,
      );
      const note = riseNote(
        {
          heldOut: evalLossBefore === null || evalLossAfter === null ? null : { before: evalLossBefore, after: evalLossAfter },
          training: losses[0]?.x === 1 ? { first: losses[0].y, last: trainLoss } : null,
        },
        { flag: "--lr ", rate: peak },
      );
      if (note !== null) warn(note);
      if (evalLossBefore !== null && evalLossAfter !== null)
        output.say(`held-out loss ${evalLossBefore.toFixed(4)} → ${evalLossAfter.toFixed(4)}`);
      const tuned = adapter ? ["--model", values.model, "--adapter", out] : ["--model", out];
      output.say(
        `${adapter ? "adapter" : "model"} in ${out}. Try:`,
        `${program()} generate ${tuned.map(shellWord).join(" ")} --prompt "…"`,
      );
    }
    output.result({
      steps: result.steps,
      trainLoss,
      evalLossBefore,
      evalLossAfter,
      trainable: report.trainable,
      frozen: report.frozen,
      tokensPerSecond,
      peakBytes,
      out,
    });
    if (trace && values.profile !== undefined) {
      const { written, lost } = await trace.write(values.profile);
      output.note(`trace: ${grouped(written)} events in ${values.profile}${lost > 0 ? `, ${grouped(lost)} later ones left out` : ""}`);
    }
    return result.isFinished ? 0 : interruptedCode(signal);
  };
  const claim = {
    command: "train",
    path: out,
    inputs: inputsOf(flags, values),
    writes: isFull ? fullRunFiles : adapterRunFiles,
    mode: values.resume ? "resume" : values.overwrite ? "replace" : "start",
    files: values.profile === undefined ? [] : [{ name: "--profile", path: values.profile, isOurs: isTrace }],
  } as const;
  const deviceOptions = {
    ...(values.memory !== undefined && { budgetBytes: values.memory * 1e9 }),
    ...(trace && { onKernel: trace.onKernel }),
  };
  return withOutFolder(context, claim, (folder) =>
    withResumeAdvice(out, () =>
      withDevice(
        values.device,
        output,
        (dev) => withLeastMemory(dev, values, { ...context, given }, () => run(dev, folder)),
        deviceOptions,
      ),
    ),
  );
}

export const trainCommand = defineCommand({
  name: "train",
  makes: "run",
  summary: "Fine-tune a model: low-rank pairs beside its frozen weights, or all of its weights.",
  flags,
  examples: [
    "lowrank train --model ./model --data train.jsonl --eval-data test.jsonl --rank 8 --alpha 16 --steps 300 --out run",
    "lowrank train --model ./model --data train.jsonl --method full --epochs 3 --lr 1e-4 --out run-full",
  ],
  run: runTrain,
});
