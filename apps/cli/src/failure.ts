/** A mistake on the command line: facts and remedy in the message, no stack, exit code 2. */
export class UsageError extends Error {
  override readonly name = "UsageError";
}

/** Errors that say what is wrong with what the user gave, by name: several copies of a package may be installed. */
const userErrors: ReadonlySet<string> = new Set([
  "UsageError",
  "DataError",
  "CheckpointError",
  "AdapterError",
  "DeviceError",
  "TrainingError",
  "TokenizerError",
  "SchemaError",
  "ConfigError",
]);

/** An error whose message holds a command to be copied, which is printed whole. */
export function withCommand<E extends Error>(error: E, command: string): E & { readonly command: string } {
  return Object.assign(error, { command });
}

/** What to print for a failure, the command in it that stays whole, if there is one, and the exit code: 2 for a user's mistake or broken input, 1 for a mistake of ours. */
export function describeFailure(
  error: unknown,
  isVerbose: boolean,
): { readonly text: string; readonly exitCode: number; readonly command?: string } {
  const known = error instanceof Error && (userErrors.has(error.name) || isFileError(error));
  // A message of ours is one line; a line break in it is of a name from a file.
  const onOneLine = (text: string): string => (isVerbose ? text : text.replaceAll("\n", "\\n"));
  const command = known && "command" in error && typeof error.command === "string" ? { command: onOneLine(error.command) } : {};
  if (known && !isVerbose) return { text: `error: ${onOneLine(messageOf(error))}`, exitCode: 2, ...command };
  if (error instanceof Error) {
    const text = isVerbose
      ? (error.stack ?? error.message)
      : `${error.name}: ${error.message}\nThis is a mistake in Lowrank. LOWRANK_DEBUG=1 shows where; please report it.`;
    return { text: `error: ${text}`, exitCode: known ? 2 : 1, ...command };
  }
  return { text: `error: ${String(error)}`, exitCode: 1 };
}

/** What happened to a device that was lost, without what a program would do about it; null for other errors. By name, as above. */
export function deviceLoss(error: unknown): string | null {
  const isLoss = error instanceof Error && error.name === "DeviceError" && "fact" in error && typeof error.fact === "string";
  return isLoss ? (error.fact as string) : null;
}

/** Errors of the operating system about a path. */
function isFileError(error: Error): error is NodeJS.ErrnoException {
  return "code" in error && typeof error.code === "string" && "syscall" in error;
}

const fileReasons: Readonly<Record<string, string>> = {
  ENOENT: "there is no such file. Check the path",
  EACCES: "permission denied. Check the file's rights",
  EISDIR: "this is a folder where a file is needed. Give a file",
  ENOTDIR: "a part of the path is a file. Check the path",
  ENOSPC: "the disk is full. Free some space and run again",
  EROFS: "the file system is read-only. Choose another folder",
};

function messageOf(error: Error): string {
  const loss = deviceLoss(error);
  if (loss !== null) return `${loss} Run the command again; a smaller batch helps if memory ran out.`;
  if (!isFileError(error)) return error.message;
  const reason = fileReasons[error.code ?? ""];
  return reason ? `${error.path ?? "file"}: ${reason}.` : `${error.message}. Check the path.`;
}
