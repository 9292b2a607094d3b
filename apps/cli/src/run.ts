import { readFileSync } from "node:fs";
import { largest } from "@lowrank/tensor";
import type { Command } from "./command.js";
import { commands } from "./commands/table.js";
import { describeFailure, UsageError } from "./failure.js";
import { editDistance, helpLines, parseFlags } from "./flags.js";
import { interruptedCode } from "./interruption.js";
import { processOutput } from "./output.js";
import { program } from "./program.js";
import { shownAround } from "./terminal/printable.js";
import { wrapped } from "./terminal/wrap.js";

/** Who runs the command line: when it is to stop, and who is told which command it is. */
export interface RunOptions {
  /** Asks a command that makes a run to stop after the step in progress; its reason is an Interruption. */
  readonly signal?: AbortSignal;
  readonly onStart?: (command: Command) => void;
}

/** Runs the command line and returns the exit code; docs/cli.md has the table. */
export async function runCli(
  args: readonly string[],
  { signal = new AbortController().signal, onStart }: RunOptions = {},
): Promise<number> {
  const [name, ...rest] = args;
  const isJson = args.includes("--json");
  try {
    if (name === undefined || name === "--help" || name === "-h" || name === "help") {
      process.stdout.write(`${rest[0] && name === "help" ? commandHelp(await commandNamed(rest[0])) : await overview()}\n`);
      return name === undefined ? 2 : 0;
    }
    if (name === "--version" || name === "-v") {
      process.stdout.write(`${version()}\n`);
      return 0;
    }
    const command = await commandNamed(name);
    if (rest.includes("--help") || rest.includes("-h")) {
      process.stdout.write(`${commandHelp(command)}\n`);
      return 0;
    }
    const parsed = parseFlags(command.flags, rest, command.name);
    if (command.positionals === "" && parsed.positionals.length > 0) {
      throw new UsageError(
        `lowrank ${command.name} takes no argument "${parsed.positionals[0]}". Write the flag that it belongs to, and quotes around values with spaces.`,
      );
    }
    onStart?.(command);
    return await command.run({ ...parsed, output: processOutput(isJson), signal, args: rest });
  } catch (error) {
    if (signal.aborted && error === signal.reason) return interruptedCode(signal); // who was stopped has said so
    const { text, exitCode, command } = describeFailure(error, process.env["LOWRANK_DEBUG"] !== undefined);
    process.stderr.write(`${shownAround(text, command)}\n`);
    return exitCode;
  }
}

function commandNamed(name: string): Promise<Command> {
  const load = Object.hasOwn(commands, name) ? commands[name] : undefined;
  if (load) return load();
  const names = Object.keys(commands);
  const nearest = [...names].sort((a, b) => editDistance(a, name) - editDistance(b, name))[0];
  const guess = nearest && editDistance(nearest, name) <= 2 ? ` Did you mean ${nearest}?` : "";
  throw new UsageError(`There is no command "${name}".${guess} The commands are ${names.join(", ")}.`);
}

async function overview(): Promise<string> {
  const all = await Promise.all(Object.values(commands).map((load) => load()));
  const width = largest(all.map(({ name }) => name.length));
  return [
    wrapped("lowrank: fine-tune GPT-style models with LoRA, on any GPU that WebGPU reaches and on a plain CPU.", helpColumns()),
    "",
    "Commands:",
    ...all.map(
      ({ name, summary }) =>
        `  ${name.padEnd(width + 2)}${wrapped(summary, Math.max(20, helpColumns() - width - 4)).replaceAll("\n", `\n${" ".repeat(width + 4)}`)}`,
    ),
    "",
    `\`${program()} COMMAND --help\` shows a command's flags. Start with \`${program()} quickstart\`.`,
  ].join("\n");
}

/** Columns of a terminal, at most 100; 80 elsewhere. */
function helpColumns(): number {
  return process.stdout.isTTY ? Math.min(process.stdout.columns ?? 80, 100) : 80;
}

function commandHelp({ name, summary, positionals, flags, examples }: Command): string {
  const columns = helpColumns();
  return [
    `lowrank ${name}${positionals === "" ? "" : ` ${positionals}`} [flags]`,
    "",
    wrapped(summary, columns),
    "",
    "Flags:",
    ...helpLines(flags, columns),
    "",
    examples.length > 1 ? "Examples:" : "Example:",
    ...examples.map((example) => `  ${example.replace(/^lowrank/, () => program())}`),
  ].join("\n");
}

function version(): string {
  const text = readFileSync(new URL("../package.json", import.meta.url), "utf8");
  return (JSON.parse(text) as { version: string }).version;
}
