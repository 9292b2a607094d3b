import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { adapterFiles } from "@lowrank/lora";
import { checkpointFiles, stateFileName } from "@lowrank/models";
import { nodeFiles, readSafetensors, writeFileAtomic } from "@lowrank/tensor";
import { z } from "zod";
import { UsageError } from "../failure.js";
import { fullMethod } from "../method.js";

/** The file in a folder that says which command made what is in it. */
export const markName = ".lowrank.json";

/** Names of files, not paths: what is in a folder is removed by them. */
const fileName = z
  .string()
  .max(255)
  .regex(/^[^/\\]+$/)
  .refine((name) => name !== "." && name !== "..");
const markSchema = z.object({
  version: z.literal(1),
  command: z.string().max(100),
  files: z.array(fileName).max(1000),
  isUnfinished: z.boolean().default(false),
});

/** Which command made a folder, and the names of what it writes there itself. */
export interface Mark {
  readonly command: string;
  readonly files: readonly string[];
  /** True while a command writes what is nothing unless it is whole; the mark goes when it is. False when absent. */
  readonly isUnfinished?: boolean;
}

/** What a run of training writes. */
export const metricsName = "metrics.jsonl";
/** The chat template that an adapter was trained with, as PEFT's users keep it. */
export const templateName = "chat_template.jinja";
export const adapterRunFiles: readonly string[] = [stateFileName, metricsName, templateName, ...adapterFiles];
export const fullRunFiles: readonly string[] = [stateFileName, metricsName, ...checkpointFiles];

/** A folder's mark; null where it has none. Rejects with UsageError when the file is not a mark of this version. */
export async function readMark(folder: string): Promise<Mark | null> {
  const path = join(folder, markName);
  const text = await readText(path);
  if (text === null) return null;
  const parsed = markSchema.safeParse(jsonIn(text));
  if (parsed.success) return parsed.data;
  throw new UsageError(`${path} does not say what made the folder: it is damaged, or of a later version. Give another --out.`);
}

export async function writeMark(folder: string, { command, files, isUnfinished }: Mark): Promise<void> {
  await writeFileAtomic(
    join(folder, markName),
    `${JSON.stringify({ version: 1, command, files, ...(isUnfinished && { isUnfinished }) })}\n`,
  );
}

/** The mark that a run of training would have that was made before there were marks; null where the folder holds none. */
export async function earlierRun(folder: string): Promise<Mark | null> {
  const source = await nodeFiles.open(join(folder, stateFileName));
  if (source) {
    const file = await readSafetensors(source).catch(() => null); // what cannot be read is not ours
    await (file ?? source).close?.();
    const state = jsonIn(file?.metadata["lowrank"] ?? "");
    const known = z.object({ settings: z.object({ method: z.string().optional() }) }).safeParse(state);
    if (!known.success) return null;
    return { command: "train", files: known.data.settings.method === fullMethod ? fullRunFiles : adapterRunFiles };
  }
  // Killed before its first checkpoint.
  const metrics = await readText(join(folder, metricsName));
  const line = z
    .object({ step: z.number() })
    .and(z.union([z.object({ loss: z.number(), gradNorm: z.number() }), z.object({ evalLoss: z.number() })]));
  const isOurs = metrics !== null && (metrics === "" || line.safeParse(jsonIn(metrics.split("\n", 1)[0] ?? "")).success);
  return isOurs ? { command: "train", files: [metricsName] } : null;
}

/** As `earlierRun`, for folders of several runs: those of `compare` and `rank-study`. */
export async function earlierRuns(folder: string): Promise<boolean> {
  const known = z.object({ model: z.string(), data: z.string(), steps: z.number(), "batch-size": z.number(), seed: z.number() });
  return known.safeParse(jsonIn((await readText(join(folder, "settings.json"))) ?? "")).success;
}

function jsonIn(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}

async function readText(path: string): Promise<string | null> {
  return readFile(path, "utf8").catch((error: unknown) => {
    if ((error as NodeJS.ErrnoException).code === "ENOENT") return null;
    throw error;
  });
}
