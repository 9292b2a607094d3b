import type { TrainResult } from "@lowrank/models";
import type { Output } from "../output.js";
import { program } from "../program.js";
import { duration, grouped } from "../terminal/format.js";
import { plotLines } from "../terminal/plot.js";
import { shellWord } from "../terminal/shell-word.js";
import { riseNote } from "../training-notes.js";
import type { TrainValues } from "./flags.js";
import type { Setup } from "./setup.js";

/** A step's loss, as it is plotted. */
export interface LossPoint {
  readonly x: number;
  readonly y: number;
}

/** Switches that are no part of the command that resumes. */
const onceOnly: ReadonlySet<string> = new Set(["--overwrite", "--resume", "--allow-changed"]);

/** How a run that was stopped is resumed. `args`: the command's own. */
function sayStopped({ steps: done }: TrainResult, { steps }: Setup, out: string, args: readonly string[], output: Output): void {
  const command = ["train", ...args.filter((arg) => !onceOnly.has(arg)), "--resume"];
  output.note(
    `Stopped at step ${done} of ${steps}; the checkpoint is in ${out}. Resume with:`,
    `${program()} ${command.map(shellWord).join(" ")}`,
  );
}

/** What came out of a run, whether it helped, and how it is tried. */
function sayFinished(
  result: TrainResult,
  { adapter, peak }: Setup,
  values: TrainValues,
  losses: readonly LossPoint[],
  output: Output,
): void {
  const { steps, newSteps, trainLoss, evalLossBefore: before, evalLossAfter: after } = result;
  const { out } = values;
  output.say(
    `${grouped(newSteps)} ${newSteps < steps ? `more steps, ${grouped(steps)} in all,` : "steps"} in ${duration(result.trainSeconds)}, ${grouped(result.tokensPerSecond)} tokens/s; training loss ${trainLoss.toFixed(4)}`,
  );
  const heldOut = before === null || after === null ? null : { before, after };
  const training = losses[0]?.x === 1 ? { first: losses[0].y, last: trainLoss } : null;
  const note = riseNote({ heldOut, training }, { flag: "--lr ", rate: peak });
  if (note !== null) output.note(`warning: ${note}`);
  if (heldOut) output.say(`held-out loss ${heldOut.before.toFixed(4)} → ${heldOut.after.toFixed(4)}`);
  const tuned = adapter
    ? ["--model", values.model, ...(values.revision === undefined ? [] : ["--revision", values.revision]), "--adapter", out]
    : ["--model", out];
  output.say(`${adapter ? "adapter" : "model"} in ${out}. Try:`, `${program()} generate ${tuned.map(shellWord).join(" ")} --prompt "…"`);
}

/** Says how a run ended. `args`: the command's own. */
export function sayEnd(
  result: TrainResult,
  setup: Setup,
  values: TrainValues,
  { args, losses, output }: { readonly args: readonly string[]; readonly losses: readonly LossPoint[]; readonly output: Output },
): void {
  output.draw("");
  if (!result.isFinished) sayStopped(result, setup, values.out, args, output);
  if (output.isTerminal) for (const line of plotLines(losses, { columns: output.columns })) output.say(line);
  if (result.isFinished) sayFinished(result, setup, values, losses, output);
  const { steps, trainLoss, evalLossBefore, evalLossAfter, tokensPerSecond, peakBytes } = result;
  const { trainable, frozen } = setup.report;
  output.result({ steps, trainLoss, evalLossBefore, evalLossAfter, trainable, frozen, tokensPerSecond, peakBytes, out: values.out });
}
