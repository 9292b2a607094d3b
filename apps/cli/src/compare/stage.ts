import type { Output } from "../output.js";

/** Says what is being measured; with `detail`, how far that has come. */
export type Stage = (what: string, detail?: string) => void;

/** Details are this far apart, where lines are printed. */
const pauseMs = 30_000;

/** Stages of a long measurement: on one line that is drawn over on a terminal; elsewhere a line a stage, and one now and then within it. */
export function stagesOf(output: Pick<Output, "isTerminal" | "draw" | "say">, subject: string): Stage {
  let last = Number.NEGATIVE_INFINITY;
  return (what, detail) => {
    const line = `${subject}: ${what}${detail === undefined ? "" : `, ${detail}`}`;
    if (output.isTerminal) return output.draw(`${line} …`);
    if (detail !== undefined && performance.now() - last < pauseMs) return;
    last = performance.now();
    output.say(line);
  };
}
