import { longestLength, modelFiles, readTokenizer } from "@lowrank/models";
import { type PlannedFor, planningDevice } from "@lowrank/tensor";
import type { CommandContext } from "../command.js";
import type { DataValues } from "../data/flags.js";
import { openData, readingOf } from "../data/open.js";
import { UsageError } from "../failure.js";
import type { Values } from "../flags.js";
import { modelFolder } from "../hub.js";
import type { methodFlags } from "../method.js";
import { deviceBytes, ownProcessBytes, type QuantizeChoice } from "../session.js";
import { plannedModel } from "./model.js";
import { outlinedStep, type outlineFlags } from "./outline.js";

/** What says which steps a run makes. */
export type StepFlags = Values<typeof methodFlags> &
  DataValues & {
    readonly model: string;
    readonly revision: string | undefined;
    readonly method: string;
    readonly "batch-size": number;
    readonly memory: number | undefined;
    readonly quantize: QuantizeChoice;
  };

/** Beside what is planned, a backend keeps small blocks of its own. */
const slackBytes = 1e6;
const slackShare = 1.02;

/** Runs `use`; where --memory turns out too small, rejects with UsageError that names the least that works, in the flag's unit. */
export async function withLeastMemory<R>(
  like: PlannedFor,
  flags: StepFlags,
  context: Pick<CommandContext<typeof outlineFlags>, "given" | "output" | "signal" | "args">,
  use: () => Promise<R>,
): Promise<R> {
  try {
    return await use();
  } catch (error) {
    if (flags.memory === undefined || !isOutOfMemory(error)) throw error;
    context.output.note("--memory is too small for these rows; looking for the least that works…");
    const planned = await leastBytes(like, flags, context).catch(() => null); // what went wrong first is what is told
    if (planned === null) throw error;
    // A run that planning thought would fit asks for a little more than it was given.
    const least = inGigabytes(memoryFor(Math.max(planned.bytes, 1.1 * deviceBytes(flags.memory, like.name)), like));
    const less = planned.isLeast ? "" : " Nothing is rematerialized then; a little less may do.";
    throw new UsageError(
      `--memory ${flags.memory} is too small for these rows: ${error.fact}. Give --memory ${least} or more (GB), or lower --batch-size or --max-length.${less}`,
    );
  }
}

/** Bytes that --memory has to say for a device to get so many. */
const memoryFor = (bytes: number, { name }: PlannedFor): number => bytes + (name === "cpu" ? ownProcessBytes() : 0);

/** By name, because several copies of a package may be installed. */
function isOutOfMemory(error: unknown): error is Error & { readonly fact: string } {
  return error instanceof Error && error.name === "DeviceError" && "missingBytes" in error && "fact" in error;
}

/** Rounded up to three digits. */
function inGigabytes(bytes: number): number {
  const unit = 10 ** (Math.floor(Math.log10(bytes / 1e9)) - 2);
  return Number((Math.ceil(bytes / 1e9 / unit) * unit).toPrecision(3));
}

/** Where a plan takes longer, one in which all is rematerialized that can be takes half a minute or more. */
const thresholdMs = 5000;
/** Plans that are made to see whether what is named is enough. */
const maxChecks = 2;

/**
 * Bytes that a step of the longest rows takes where all is rematerialized that helps; where planning that would take long, those that it takes
 * where nothing is.
 */
async function leastBytes(
  like: PlannedFor,
  flags: StepFlags,
  context: Pick<CommandContext<typeof outlineFlags>, "given" | "output" | "signal" | "args">,
): Promise<{ readonly bytes: number; readonly isLeast: boolean } | null> {
  const folder = await modelFolder(flags.model, { revision: flags.revision, signal: context.signal });
  const tokenizer = await readTokenizer(modelFiles, folder);
  if (!tokenizer) return null;
  const planned = await plannedModel(folder, { signal: context.signal });
  const model = await planned.outline(planningDevice(like).device, { dtype: undefined, quantize: null });
  const data = await openData(flags.data, { model, tokenizer, config: model.config }, null, { reading: readingOf(flags) });
  const silent = { ...context.output, note: () => {}, say: () => {} };
  const peak = async (bytes: number | undefined): Promise<number> => {
    const step = { batch: flags["batch-size"], seq: Math.max(2, longestLength(data.examples)), dtype: undefined, json: false };
    const values = { ...flags, ...step, memory: bytes === undefined ? undefined : memoryFor(bytes, like) / 1e9 };
    return (await outlinedStep(like, planned, { ...context, output: silent, positionals: [], values })).peakBytes;
  };
  const start = performance.now();
  const free = await peak(undefined);
  const isSlow = performance.now() - start > thresholdMs;
  let bytes = isSlow ? free : await peak(1);
  // The planner stops rematerializing as soon as all fits, so that a budget may need a little more than the least of a smaller one.
  for (let i = 0; i < maxChecks && !isSlow; i++) {
    const needed = await peak(bytes);
    if (needed <= bytes) break;
    bytes = Math.max(needed, 1.02 * bytes);
  }
  return { bytes: slackShare * bytes + slackBytes, isLeast: !isSlow };
}
