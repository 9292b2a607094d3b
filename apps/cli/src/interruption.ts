/** The signals that ask a command to stop, and the exit code that says so: 128 and the signal's number. */
export const signalCodes = { SIGHUP: 129, SIGINT: 130, SIGTERM: 143 } as const satisfies Readonly<Record<string, number>>;

export type EndSignal = keyof typeof signalCodes;

/** Why a command was asked to stop: the reason of its abort signal. */
export class Interruption extends Error {
  override readonly name = "Interruption";
  constructor(readonly by: EndSignal) {
    super(`${by} asked the command to stop.`);
  }
}

/** The exit code of a command that its abort signal has stopped. */
export function interruptedCode({ reason }: AbortSignal): number {
  return signalCodes[reason instanceof Interruption ? reason.by : "SIGINT"];
}
