import {
  modelFiles,
  modelOutline,
  type Preview,
  previewData,
  type Row,
  readConfig,
  readRows,
  readTokenizer,
  stringifyLossless,
} from "@lowrank/models";
import { nodeFiles, planningDevice } from "@lowrank/tensor";
import { type CommandContext, defineCommand } from "../command.js";
import { columnsOf } from "../data/columns.js";
import { dataFlags } from "../data/flags.js";
import { limitsOf, readingOf } from "../data/open.js";
import { previewPage } from "../data/page.js";
import { dataPaths } from "../data/paths.js";
import { countLines, rowLines } from "../data/preview.js";
import { fromSource, withSource } from "../data/source.js";
import { UsageError } from "../failure.js";
import type { Flags } from "../flags.js";
import { modelFolder, revisionFlag } from "../hub.js";
import { checkFile, type OutFile } from "../out/file.js";
import { inputsOf } from "../out/inputs.js";
import { program } from "../program.js";
import { jsonFlag, modelFlag, withDevice } from "../session.js";
import { grouped } from "../terminal/format.js";

const flags = {
  model: { ...modelFlag, required: false, help: "preview: the model whose tokenizer and chat template are used" },
  revision: revisionFlag,
  "eval-data": { type: "texts", value: "FILE", path: "read", help: "preview: held-out rows, which are looked for among the others" },
  rows: { type: "integer", min: 0, help: "preview: rows that are shown", default: 3 },
  html: { type: "text", value: "FILE.html", path: "written", help: "preview: write a page" },
  out: { type: "text", value: "OUT.jsonl", path: "written", help: "convert: the file to write" },
  map: dataFlags.map,
  format: dataFlags.format,
  "train-on": dataFlags["train-on"],
  "max-length": dataFlags["max-length"],
  "long-texts": dataFlags["long-texts"],
  json: jsonFlag,
} as const satisfies Flags;

type Context = CommandContext<typeof flags>;

/** Characters of rows that are written at a time. */
const blockCharacters = 2 ** 18;

async function preview(names: readonly string[], { values, output, signal }: Context): Promise<number> {
  const { model: name, html } = values;
  if (name === undefined)
    throw new UsageError("lowrank data preview needs --model: its tokenizer says what the tokens are. Add --model DIR.");
  if (html !== undefined) await checkFile(outFile("--html", html), { inputs: inputsOf(flags, values, names), folder: "", writes: [] });
  const folder = await modelFolder(name, { revision: values.revision, output, signal });
  const tokenizer = await readTokenizer(modelFiles, folder);
  if (!tokenizer)
    throw new UsageError(`${name} has no tokenizer.json, so text cannot be read. Put the model's tokenizer.json beside its config.json.`);
  const config = await readConfig(modelFiles, folder);
  const limits = await withDevice("cpu", null, async (like) => {
    const model = modelOutline(config, { device: planningDevice(like).device });
    return limitsOf({ model, config: model.config });
  });
  const look = async (paths: readonly string[]): Promise<Preview[]> => {
    const found: Preview[] = [];
    for (const { path } of await dataPaths(paths, { output, signal }))
      found.push(
        await withSource(path, (source) =>
          previewData(source, path, tokenizer, {
            ...limits,
            ...readingOf(values),
            shownCount: values.rows,
            signal,
            onRows: (rows) => output.draw(`${path}: ${grouped(rows)} rows read …`),
          }),
        ),
      );
    return found;
  };
  const previews = await look(names);
  const heldOut = await look(values["eval-data"] ?? []);
  const overlap = heldOut.map((held) => ({
    path: held.path,
    count: [...held.keys].filter((key) => previews.some(({ keys }) => keys.has(key))).length,
  }));
  const all = [...previews, ...heldOut];
  for (const each of all) {
    for (const line of rowLines(each, output.isTerminal)) output.styled(line);
    for (const line of countLines(each, output.columns, values["max-length"])) output.say(line);
    output.say();
  }
  const notes = overlap.map(({ path, count }) => `${path}: ${grouped(count)} rows say what a row of the others says`);
  for (const note of notes) output.say(note);
  if (html !== undefined) {
    await nodeFiles.write(html, new TextEncoder().encode(previewPage(all, { model: name, maxLength: values["max-length"], notes })));
    output.say(`page: ${html}`);
  }
  output.result({
    files: all.map(({ keys: _, errors, layouts, rows: __, ...counts }) => ({
      ...counts,
      layouts: Object.fromEntries(layouts),
      errors: errors.map(({ line, message }) => ({ line, message })),
    })),
    overlap,
  });
  return all.some(({ errors }) => errors.length > 0) ? 2 : 0;
}

async function convert(names: readonly string[], { values, output, signal }: Context): Promise<number> {
  const { out } = values;
  if (out === undefined) throw new UsageError("lowrank data convert needs --out: where the rows are written. Add --out OUT.jsonl.");
  await checkFile(outFile("--out", out), { inputs: inputsOf(flags, values, names), folder: "", writes: [] });
  const files = await dataPaths(names, { output, signal });
  let count = 0;
  async function* lines(): AsyncGenerator<Uint8Array> {
    const encoder = new TextEncoder();
    const columns = columnsOf(values);
    // Rows are written as they are read: a file of any size takes no more memory than these.
    let text = "";
    for (const { path } of files)
      for await (const row of fromSource(path, (source) => readRows(source, path, { ...columns, asMessages: true }))) {
        signal.throwIfAborted();
        count++;
        text += `${stringifyLossless(written(row))}\n`;
        if (text.length < blockCharacters) continue;
        yield encoder.encode(text);
        text = "";
        output.draw(`${grouped(count)} rows …`);
      }
    yield encoder.encode(text);
    output.draw("");
  }
  await nodeFiles.write(out, lines());
  output.say(`${grouped(count)} rows in ${out}`);
  output.result({ rows: count, out });
  return 0;
}

/** A row as `train` reads it. */
function written(row: Row): object {
  switch (row.kind) {
    case "text":
      return { text: row.text };
    case "completion":
      return { prompt: row.prompt, completion: row.completion };
    case "messages": {
      const { messages, isSupervised, tools, documents, variables } = row;
      return {
        messages: messages.map((message, i) =>
          isSupervised?.[i] === false && message.role === "assistant" ? { ...message, weight: 0 } : message,
        ),
        ...(tools && { tools }),
        ...(documents && { documents }),
        ...(variables && { chat_template_kwargs: variables }),
      };
    }
  }
}

/** A file that may be written anew: a page or rows, which are told by their beginning. */
function outFile(name: string, path: string): OutFile {
  return {
    name,
    path,
    async isOurs(there) {
      const source = await nodeFiles.open(there);
      if (!source) return false;
      try {
        const begin = new TextDecoder().decode(await source.read(0, Math.min(64, source.byteLength)));
        return name === "--html" ? begin.startsWith("<!doctype html>") : /^(\{"(messages|prompt|text)"|$)/.test(begin);
      } finally {
        await source.close?.();
      }
    },
  };
}

async function runData(context: Context): Promise<number> {
  const [verb, ...names] = context.positionals;
  if (verb !== "preview" && verb !== "convert")
    throw new UsageError(
      `lowrank data ${verb === undefined ? "needs a verb" : `has no "${verb}"`}. Write ${program()} data preview FILE --model DIR, or ${program()} data convert FILE --out OUT.jsonl.`,
    );
  if (names.length === 0) throw new UsageError(`lowrank data ${verb} needs a file. Write ${program()} data ${verb} FILE.`);
  return verb === "preview" ? preview(names, context) : convert(names, context);
}

export const dataCommand = defineCommand({
  name: "data",
  makes: "files",
  summary:
    "Look at data before it is learned: rows as the model sees them, what is in the loss, lengths, what is odd; or convert it to rows of Lowrank.",
  positionals: "preview|convert FILE …",
  flags,
  examples: ["lowrank data preview chats.json --model ./model --html chats.html", "lowrank data convert chats.parquet --out chats.jsonl"],
  run: runData,
});
