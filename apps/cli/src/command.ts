import type { Flags, Parsed } from "./flags.js";
import type { Output } from "./output.js";

/** What a command is run with. */
export interface CommandContext<T extends Flags> extends Parsed<T> {
  readonly output: Output;
  /** Aborted by the first signal where the command makes a run, which then saves and returns `interruptedCode`. */
  readonly signal: AbortSignal;
  /** The arguments as they were written, for the command that resumes. */
  readonly args: readonly string[];
}

/**
 * What a command makes: a run, which is saved and can be resumed; files; or nothing but what it says. A signal lets a run finish its step and
 * save, and ends the others at once, whose files go. A reader of its output that is gone ends what only speaks.
 */
export type Makes = "run" | "files" | "text";

/** One command of the table: what it is called, what help says, which flags it takes, and what it does. */
export interface Command {
  readonly name: string;
  readonly summary: string;
  /** Positional arguments as help shows them, empty where there are none. */
  readonly positionals: string;
  readonly flags: Flags;
  readonly examples: readonly string[];
  readonly makes: Makes;
  /** The exit code: 0 unless something is missing. */
  run(context: CommandContext<Flags>): Promise<number>;
}

/** A command whose `run` knows its own flags' types. */
export function defineCommand<const T extends Flags>(
  command: Omit<Command, "run" | "flags" | "positionals"> & {
    readonly flags: T;
    readonly positionals?: string;
    run(context: CommandContext<T>): Promise<number>;
  },
): Command {
  // The dispatcher parses with these very flags before it calls `run`.
  return { positionals: "", ...command } as unknown as Command;
}
