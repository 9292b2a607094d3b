import { readdir, stat } from "node:fs/promises";
import { basename, join, resolve } from "node:path";
import { type FileToPush, isHubId, pushFiles, readJson } from "@lowrank/models";
import { nodeFiles, temporaryOf } from "@lowrank/tensor";
import { namedBase } from "../base.js";
import { cardName, licenseOf } from "../card/model-card.js";
import { type CommandContext, defineCommand } from "../command.js";
import { cardText, peftUse, transformersUse } from "../export/card.js";
import { runIn } from "../export/source.js";
import { UsageError } from "../failure.js";
import type { Flags } from "../flags.js";
import { isLockName } from "../out/lock.js";
import { adapterRunFiles, fullRunFiles, markName, metricsName } from "../out/mark.js";
import { program } from "../program.js";
import { jsonFlag } from "../session.js";
import { bytes } from "../terminal/format.js";

const flags = {
  to: { type: "text", value: "USER/NAME", help: "the repository on the hub; it is made where there is none", required: true },
  private: { type: "switch", help: "make a new repository visible to its owner alone" },
  revision: { type: "text", value: "NAME", help: "the branch, which has to be there (default: main)" },
  message: { type: "text", value: "TEXT", help: "the commit's message", default: "Upload by lowrank" },
  json: jsonFlag,
} as const satisfies Flags;

/** What a run needs to be resumed, which nobody else needs. */
const ownFiles: ReadonlySet<string> = new Set([metricsName, markName, "training-state.safetensors"]);

async function runPush({ values, positionals, output, signal }: CommandContext<typeof flags>): Promise<number> {
  const [path, ...surplus] = positionals;
  if (path === undefined || surplus.length > 0)
    throw new UsageError(`lowrank push takes one folder, and got ${positionals.length}. Write: ${program()} push DIR --to user/name.`);
  const { to, revision, message } = values;
  const files = await filesOf(path, to, output.note);
  let total = 0;
  for (const file of files) total += "path" in file ? (await stat(file.path)).size : file.text.length;
  output.note(`${files.length} files, ${bytes(total)}, to ${to}: ${files.map(({ name }) => name).join(", ")}`);
  const pushed = await pushFiles(to, files, {
    message,
    isPrivate: values.private,
    signal,
    ...(revision !== undefined && { revision }),
    onNote: (text) => output.note(text),
    onUpload: (name, part) => output.draw(`${name} ${Math.floor(100 * part)} %`),
  });
  output.draw("");
  output.say(`${pushed.isNew ? "Made and written" : "Written"}: ${pushed.url}`);
  output.result({ ...pushed, files: files.map(({ name }) => name) });
  return 0;
}

/** What of a folder goes to the hub, with a card where it has none. Rejects with UsageError where there is nothing that anybody could load. */
async function filesOf(path: string, to: string, note: (line: string) => void): Promise<readonly FileToPush[]> {
  const entries = await readdir(path, { withFileTypes: true }).catch(() => null);
  if (!entries) throw new UsageError(`${path}: there is no such folder. Give a run, or what lowrank export or merge wrote.`);
  const names = entries
    .filter((entry) => !entry.isDirectory())
    .map(({ name }) => name)
    .filter((name) => !name.startsWith(".") && !isLockName(name) && temporaryOf(name) === null && !ownFiles.has(name));
  const run = await runIn(path);
  const made = new Set([...(names.includes("adapter_config.json") ? adapterRunFiles : fullRunFiles), cardName]);
  const chosen = (run ? names.filter((name) => made.has(name)) : names).sort();
  if (!chosen.some((name) => /\.(safetensors|gguf)$/.test(name)))
    throw new UsageError(`${path} holds no weights (*.safetensors, *.gguf). Give a run, or what lowrank export or merge wrote.`);
  const files = chosen.map((name) => ({ name, path: resolve(path, name) }));
  if (chosen.includes(cardName)) return files;
  const card = await cardOf(path, run, to, note);
  if (card === null) return files;
  return [{ name: cardName, text: card }, ...files];
}

/** The card of a folder that has none; null where nothing says what is in it. */
async function cardOf(
  path: string,
  run: Awaited<ReturnType<typeof runIn>>,
  to: string,
  note: (line: string) => void,
): Promise<string | null> {
  const adapter = await readJson(nodeFiles, join(path, "adapter_config.json"));
  const config = adapter ?? (await readJson(nodeFiles, join(path, "config.json")));
  if (!config) return null;
  const named = adapter ? namedBase(adapter)?.model : run?.settings["model"];
  const base = typeof named === "string" ? named : path;
  if (adapter && !isHubId(base))
    note(
      `warning: the adapter names its base by a path of this machine (${basename(base)}), which nobody else has; train or export it with --model user/name`,
    );
  const source = { base, license: await licenseOf(base), name: basename(to), path, run };
  return adapter
    ? cardText({ source, method: String(run?.settings["method"] ?? "lora") }, peftUse(base, to))
    : cardText({ source, method: null }, transformersUse(to));
}

export const pushCommand = defineCommand({
  name: "push",
  makes: "files",
  summary: "Upload a run, or what export or merge wrote, to the Hugging Face hub, with a model card.",
  positionals: "RUN|DIR",
  flags,
  examples: ["lowrank push run --to user/orders --private"],
  run: runPush,
});
