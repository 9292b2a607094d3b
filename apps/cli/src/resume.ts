import { existsSync } from "node:fs";
import { resolve } from "node:path";
import { type RunState, readState, TrainingError } from "@lowrank/models";
import { DeviceError, nodeFiles } from "@lowrank/tensor";
import { z } from "zod";
import type { CommandContext } from "./command.js";
import { deviceLoss, UsageError, withCommand } from "./failure.js";
import { type Flags, missingFlag, parseFlags, type Values, withoutFlags } from "./flags.js";
import { program } from "./program.js";
import { shellWord } from "./terminal/shell-word.js";

/** The command that started a run, as its state keeps it: its arguments, and the folder from which paths among them go out. */
const startSchema = z.object({ args: z.array(z.string()), folder: z.string() });

/** Flags that are about one call, not about the run. */
const passing: ReadonlySet<string> = new Set(["out", "resume", "allow-changed", "overwrite", "profile", "json"]);

/** Flags of which a run has one: a given one replaces the other. */
const alternatives: readonly (readonly string[])[] = [["steps", "epochs"]];

/** A command's arguments for the state of the run that it starts or resumes. */
export function startCommand(flags: Flags, args: readonly string[]): RunState["command"] {
  return { args: withoutFlags(flags, args, passing), folder: process.cwd() };
}

/** Flags whose values are paths, or names on the hub. */
const paths: ReadonlySet<string> = new Set(["model", "data", "eval-data"]);

/** Arguments in which paths that go out from `folder` lead to the same places from here. */
function relocated(args: readonly string[], folder: string): string[] {
  const located = (path: string): string => {
    const there = resolve(folder, path);
    return folder !== process.cwd() && existsSync(there) ? there : path;
  };
  return args.map((arg, i) => {
    const before = args[i - 1] ?? "";
    if (before.startsWith("--") && paths.has(before.slice(2))) return located(arg);
    const [, name = "", path = ""] = /^--([^=]+)=(.*)$/s.exec(arg) ?? [];
    return paths.has(name) ? `--${name}=${located(path)}` : arg;
  });
}

/** The arguments in a run's state. Throws UsageError where this command does not take them. */
function startArgsOf(flags: Flags, state: RunState | null, command: string, out: string): readonly string[] | null {
  const start = startSchema.safeParse(state?.command).data;
  if (!start) return null;
  const args = relocated(start.args, start.folder);
  try {
    parseFlags(flags, [...args, "--out", out], command);
  } catch (error) {
    throw new UsageError(
      `${out}: the flags that the run was started with cannot be read: ${error instanceof Error ? error.message : String(error)} Start another run in another folder.`,
    );
  }
  return args;
}

/** Values of flags of which some are sure to be there. */
export type WithNeeded<T extends Flags, Needed extends keyof T> = Values<T> & { readonly [Name in Needed]: NonNullable<Values<T>[Name]> };

/**
 * The flags of a command that may resume: those that were given, and with --resume, for what was not, those that the run in --out was started
 * with. `args`: all of them as arguments. Rejects with UsageError where one of `needed` is neither given nor known, as where there is no run.
 */
export async function resumedFlags<T extends Flags, Needed extends keyof T & string>(
  command: string,
  flags: T,
  needed: readonly Needed[],
  context: Pick<CommandContext<T>, "values" | "given" | "args">,
  { out, resume }: { readonly out: string; readonly resume: boolean },
): Promise<{ readonly values: WithNeeded<T, Needed>; readonly given: ReadonlySet<string>; readonly args: readonly string[] }> {
  const state = resume ? await readState(nodeFiles, out) : null;
  const start = startArgsOf(flags, state, command, out);
  const others = alternatives.filter((names) => names.some((name) => context.given.has(name))).flat();
  // A flag that is given several times is given anew, not added to.
  const lists = Object.keys(flags).filter((name) => flags[name]?.type === "texts" && context.given.has(name));
  const args = [...withoutFlags(flags, start ?? [], new Set([...others, ...lists])), ...context.args];
  const { values, given } = parseFlags(flags, args, command);
  for (const name of needed) {
    const flag = Object.hasOwn(flags, name) ? flags[name] : undefined;
    if (!flag || values[name] !== undefined) continue;
    if (resume && !state)
      throw new UsageError(
        `${out}: there is no run to resume here. Check --out, or start one with --model, --data and --out, without --resume.`,
      );
    if (!state || start) throw missingFlag(name, flag, command);
    throw new UsageError(
      `--${name} is missing, and the run in ${out} is of a version that did not keep the flags it was started with. Give them once more.`,
    );
  }
  return { values: values as WithNeeded<T, Needed>, given, args };
}

/**
 * Runs `lowrank train` into a folder; where its device is lost or its numbers become infinite, the error holds the
 * command that resumes from the checkpoint.
 */
export async function withResumeAdvice<R>(out: string, train: () => Promise<R>): Promise<R> {
  const resume = (...more: readonly string[]): string => [program(), "train", "--resume", ...more, "--out", shellWord(out)].join(" ");
  try {
    return await train();
  } catch (error) {
    if (error instanceof TrainingError && error.lowerRate !== null) {
      const { message, step, lowerRate, checkpointAt } = error;
      const command = resume("--allow-changed", "--lr", String(lowerRate));
      const advice = checkpointAt === null ? `Start again with --overwrite --lr ${lowerRate}.` : `Resume with: ${command}`;
      throw withCommand(new TrainingError(`${message} ${advice}`, step, lowerRate, checkpointAt), command);
    }
    const loss = deviceLoss(error);
    if (loss === null) throw error;
    const state = await readState(nodeFiles, out).catch(() => null);
    const command = resume();
    const advice = state
      ? `The checkpoint of step ${state.step} is kept. Resume with: ${command}`
      : "No checkpoint was written yet. Run the command again";
    throw withCommand(new DeviceError(`${loss} ${advice} (with --memory, in GB, if memory ran out).`, "lost"), command);
  }
}
