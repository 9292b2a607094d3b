import { totalmem } from "node:os";
import { type CachedModel, cachedModels, removeCached } from "@lowrank/models";
import { type CommandContext, defineCommand } from "../command.js";
import { UsageError } from "../failure.js";
import type { Flags } from "../flags.js";
import { program } from "../program.js";
import { jsonFlag } from "../session.js";
import { bytes, tableLines } from "../terminal/format.js";

const flags = { json: jsonFlag } as const satisfies Flags;

/** What a process takes beside the weights, and a share of them for what is computed. */
const ownBytes = 0.3e9;
const share = 1.1;

/** Memory that this process may have: the machine's, or less where a container limits it. */
function memoryBytes(): number {
  const limit = process.constrainedMemory();
  return limit > 0 && limit < totalmem() ? limit : totalmem();
}

/** Whether a model's weights have room here: null where it has none. */
function fits({ kind, weightBytes }: CachedModel, memory: number): boolean | null {
  return kind === "model" && weightBytes > 0 ? share * weightBytes + ownBytes <= memory : null;
}

/** What is to be said of a model in one or two words. */
function stateOf(model: CachedModel, memory: number): string {
  if (model.missing.length > 0) return "in part";
  if (!model.isSupported) return "not read";
  const isHere = fits(model, memory);
  return isHere === null ? "" : isHere ? "fits" : "too large";
}

async function list({ output }: CommandContext<typeof flags>): Promise<number> {
  const memory = memoryBytes();
  const models = await cachedModels();
  const rows = models.map((model) => {
    return [
      model.id,
      model.kind === "adapter" ? `adapter ${model.family ?? ""}`.trim() : (model.family ?? "?"),
      bytes(model.sizeBytes),
      model.dtype ?? "",
      stateOf(model, memory),
      model.revisions.join(", "),
    ];
  });
  if (rows.length === 0) output.say("The hub's cache holds no model. `--model` with a name of the hub fetches one.");
  else
    for (const line of tableLines([["model", "family", "on disk", "dtype", `in ${bytes(memory)}`, "revisions"], ...rows], {
      arePaths: true,
      width: output.tableColumns,
    }))
      output.say(line);
  output.result({ models: models.map((model) => ({ ...model, fits: fits(model, memory) })), memoryBytes: memory });
  return 0;
}

async function remove(ids: readonly string[], { output, signal }: CommandContext<typeof flags>): Promise<number> {
  if (ids.length === 0) throw new UsageError(`lowrank models rm needs names. Write: ${program()} models rm org/name.`);
  const removed: { readonly id: string; readonly bytes: number }[] = [];
  for (const id of ids) {
    const freed = await removeCached(id, { signal, onNote: (message) => output.note(message) });
    output.say(`${id} removed from the cache: ${bytes(freed)} free`);
    removed.push({ id, bytes: freed });
  }
  output.result({ removed });
  return 0;
}

async function runModels(context: CommandContext<typeof flags>): Promise<number> {
  const [verb, ...ids] = context.positionals;
  if (verb === undefined) return list(context);
  if (verb === "rm") return remove(ids, context);
  throw new UsageError(`lowrank models has no "${verb}". Write ${program()} models to list, or ${program()} models rm org/name.`);
}

export const modelsCommand = defineCommand({
  name: "models",
  makes: "text",
  summary: "What the hub's cache holds: family, size, dtype, and whether it fits this machine's memory; or remove some of it.",
  positionals: "[rm NAME …]",
  flags,
  examples: ["lowrank models", "lowrank models rm Qwen/Qwen3-0.6B"],
  run: runModels,
});
