import { CheckpointError, type FileSystem, readSafetensors, type Tensor, writeSafetensors } from "@lowrank/tensor";

/** The file in a run's folder that a resumed run goes on from. */
export const stateFileName = "training-state.safetensors";

/** Plain values of a run at a step; what the tensors do not say. */
export interface RunState {
  /** Steps done. */
  readonly step: number;
  /** What must be the same for a resumed run to be the same run. */
  readonly settings: Readonly<Record<string, string | number | boolean | null>>;
  readonly evalLossBefore: number | null;
  readonly evalLoss: number | null;
  /** The latest losses, for the mean at the end. */
  readonly recentLosses: readonly number[];
}

const formatVersion = 1;

/**
 * Writes the whole state of a run as one file, which replaces the one before only when it is whole: tensors (parameters, optimizer,
 * random keys) by name, plain values in the metadata. Rejects with CheckpointError when it cannot be written; the old file stays.
 */
export async function saveState(files: FileSystem, folder: string, tensors: ReadonlyMap<string, Tensor>, state: RunState): Promise<void> {
  const metadata = { lowrank: JSON.stringify({ version: formatVersion, ...state }) };
  await files.write(files.join(folder, stateFileName), writeSafetensors(tensors, metadata));
}

/** The plain values of a run's state file, or null where there is none. Rejects with CheckpointError when the file is none of ours. */
export async function readState(files: FileSystem, folder: string): Promise<RunState | null> {
  const path = files.join(folder, stateFileName);
  const source = await files.open(path);
  if (!source) return null;
  const file = await readSafetensors(source);
  try {
    return stateOf(file.metadata["lowrank"], path);
  } finally {
    await file.close();
  }
}

function stateOf(text: string | undefined, path: string): RunState {
  const value: unknown = text === undefined ? null : JSON.parse(text);
  if (typeof value === "object" && value !== null && "version" in value && value.version === formatVersion && "step" in value) {
    return value as unknown as RunState;
  }
  throw new CheckpointError(`${path}: this is no training state of this version of Lowrank. Train into another folder.`, path);
}

/** Puts the state file's tensors into those given, by name. Rejects with CheckpointError when names or shapes differ; nothing is changed then. */
export async function restoreState(files: FileSystem, folder: string, tensors: ReadonlyMap<string, Tensor>): Promise<RunState> {
  const path = files.join(folder, stateFileName);
  const source = await files.open(path);
  if (!source) throw new CheckpointError(`${path}: there is no training state to resume from. Start without --resume.`, path);
  const file = await readSafetensors(source);
  try {
    const state = stateOf(file.metadata["lowrank"], path);
    const missing = [...tensors.keys()].filter((name) => !file.entries.has(name));
    const surplus = [...file.entries.keys()].filter((name) => !tensors.has(name));
    const reshaped = [...tensors].filter(([name, t]) => {
      const entry = file.entries.get(name);
      return entry && entry.shape.join() !== t.shape.join();
    });
    if (missing.length + surplus.length + reshaped.length > 0) {
      const names = [...missing, ...surplus, ...reshaped.map(([name]) => name)];
      throw new CheckpointError(
        `${path}: the state is of another run: ${names.length} tensors differ (${names.slice(0, 3).join(", ")}${names.length > 3 ? ", …" : ""}). Resume with the model and the adapter settings that it was started with, or train into another folder.`,
        path,
      );
    }
    for (const [name, t] of tensors) {
      t.assign(await file.tensor(name, { device: t.device }));
      await t.realize();
    }
    return state;
  } finally {
    await file.close();
  }
}
