import {
  type ByteSource,
  CheckpointError,
  type FileSystem,
  readSafetensors,
  type SafetensorsFile,
  sealName,
  sealOf,
  type Tensor,
  tensorDType,
  writeWeights,
} from "@lowrank/tensor";
import * as z from "zod/mini";

/** The file in a run's folder that a resumed run goes on from. */
export const stateFileName = "training-state.safetensors";

const formatVersion = 1;

/** Plain values of a run at a step; what the tensors do not say. */
export interface RunState {
  /** Steps done. */
  readonly step: number;
  /** What must be the same for a resumed run to be the same run. */
  readonly settings: Readonly<Record<string, string | number | boolean | null>>;
  /** Digests of what the run reads, by what it is: its model, its rows. Null in states of before there were any. */
  readonly hashes: Readonly<Record<string, string>> | null;
  /** What started the run, as whoever started it wrote it down so that it can be started again; JSON. Null where nobody did. */
  readonly command: Readonly<Record<string, unknown>> | null;
  readonly evalLossBefore: number | null;
  readonly evalLoss: number | null;
  /** The latest losses, for the mean at the end. */
  readonly recentLosses: readonly number[];
}

const stateSchema: z.ZodMiniType<RunState, unknown> = z
  .object({
    // No run has as many steps as the largest number here; what is larger was not written by one.
    step: z.int().check(z.minimum(0), z.maximum(1e8)),
    settings: z.record(z.string(), z.union([z.string(), z.number(), z.boolean(), z.null()])),
    hashes: z._default(z.nullable(z.record(z.string(), z.string())), null),
    command: z._default(z.nullable(z.record(z.string(), z.json())), null),
    evalLossBefore: z.nullable(z.number()),
    evalLoss: z.nullable(z.number()),
    recentLosses: z.array(z.number()),
  })
  .check(
    z.refine(({ step, settings: { steps } }) => typeof steps !== "number" || step <= steps, {
      error: "holds more steps than the run has",
      path: ["step"],
    }),
  );

/**
 * Writes the whole state of a run as one file, which replaces the one before only when it is whole: tensors (parameters, optimizer,
 * random keys) by name, plain values in the metadata, and a digest of both. Rejects with CheckpointError when it cannot be written, and with
 * NotFiniteError when an element is infinite or NaN; the old file stays.
 */
export async function saveState(files: FileSystem, folder: string, tensors: ReadonlyMap<string, Tensor>, state: RunState): Promise<void> {
  const metadata = { lowrank: JSON.stringify({ version: formatVersion, ...state }) };
  const path = files.join(folder, stateFileName);
  await files.write(path, writeWeights(path, tensors, { metadata, isSealed: true }));
}

/** The plain values of a run's state file, or null where there is none. Rejects with CheckpointError when the file is not a training state. */
export async function readState(files: FileSystem, folder: string): Promise<RunState | null> {
  const path = files.join(folder, stateFileName);
  const source = await files.open(path);
  if (!source) return null;
  const file = await opened(source);
  try {
    return stateOf(file.metadata["lowrank"], path);
  } finally {
    await file.close();
  }
}

/** The file over a source, which is closed where it is not a safetensors file. */
async function opened(source: ByteSource): Promise<SafetensorsFile> {
  try {
    return await readSafetensors(source);
  } catch (error) {
    await source.close?.();
    throw error;
  }
}

function stateOf(text: string | undefined, path: string): RunState {
  const value = text === undefined ? undefined : parsed(text);
  if (typeof value !== "object" || value === null || !("version" in value) || value.version !== formatVersion)
    throw new CheckpointError(`${path}: this is no training state of this version of Lowrank. Train into another folder.`, path);
  const result = z.safeParse(stateSchema, value);
  if (result.success) return result.data;
  const [issue] = result.error.issues;
  throw new CheckpointError(
    `${path}: the training state is damaged: "${issue?.path.join(".") ?? ""}" ${issue?.code === "custom" ? issue.message : "holds something else than a run writes there"}. Train into another folder.`,
    path,
  );
}

function parsed(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}

/**
 * Puts the state file's tensors into those given, by name. Rejects with CheckpointError when names, shapes or dtypes differ, before anything
 * is changed, when an element is not finite, and when the contents are not those that were written; unless `onChanged` is there to be told that.
 */
export async function restoreState(
  files: FileSystem,
  folder: string,
  tensors: ReadonlyMap<string, Tensor>,
  { onChanged }: { readonly onChanged?: ((what: string) => void | Promise<void>) | undefined } = {},
): Promise<RunState> {
  const path = files.join(folder, stateFileName);
  const source = await files.open(path);
  if (!source) throw new CheckpointError(`${path}: there is no training state to resume from. Start without --resume.`, path);
  const file = await opened(source);
  try {
    const state = stateOf(file.metadata["lowrank"], path);
    checkNames(file, tensors, path);
    const digests = new Map<string, string>();
    for (const [name, t] of tensors) {
      const { tensor, digest } = await file.weight(name, { device: t.device });
      digests.set(name, digest);
      t.assign(tensor);
      await t.realize();
    }
    // States of before there were seals have none.
    if (!file.entries.has(sealName)) return state;
    const seal = Array.from(await file.values(sealName), (code) => String.fromCharCode(code)).join("");
    if (seal === sealOf(digests, file.metadata)) return state;
    if (!onChanged)
      throw new CheckpointError(
        `${path}: its contents are not those that were written: the file was changed or damaged. \`lowrank train\` resumes from it with --allow-changed; else train into another folder.`,
        path,
      );
    await onChanged("the adapter or the optimizer in the training state");
    return state;
  } finally {
    await file.close();
  }
}

function checkNames(file: SafetensorsFile, tensors: ReadonlyMap<string, Tensor>, path: string): void {
  const missing = [...tensors.keys()].filter((name) => !file.entries.has(name));
  const surplus = [...file.entries.keys()].filter((name) => !tensors.has(name) && name !== sealName);
  const changed = [...tensors].filter(([name, t]) => {
    const entry = file.entries.get(name);
    return entry && (entry.shape.join() !== t.shape.join() || tensorDType(entry, path) !== t.dtype);
  });
  const names = [...missing, ...surplus, ...changed.map(([name]) => name)];
  if (names.length === 0) return;
  throw new CheckpointError(
    `${path}: the state is of another run: ${names.length} tensors differ (${names.slice(0, 3).join(", ")}${names.length > 3 ? ", …" : ""}). Resume with the model and the adapter settings that it was started with, or train into another folder.`,
    path,
  );
}
