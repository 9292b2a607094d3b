import { type Columns, formatColumns } from "@lowrank/models";
import { UsageError } from "../failure.js";
import type { DataValues } from "./flags.js";

/** Fields of rows that --map may name. */
const fields = [
  "prompt",
  "completion",
  "text",
  "messages",
  "conversations",
  "instruction",
  "input",
  "output",
  "system",
  "history",
  "question",
  "answer",
  "tools",
  "documents",
  "chat_template_kwargs",
];

/** What --map and --format say. Throws UsageError where a field is not one of a row, or a format names no column. */
export function columnsOf({ map: pairs, format }: Pick<DataValues, "map" | "format">): Columns {
  const map: Record<string, string> = {};
  for (const pair of (pairs ?? []).flatMap((some) => some.split(","))) {
    const [field = "", column = ""] = pair.split(/=(.*)/s).map((part) => part.trim());
    if (!fields.includes(field) || column === "")
      throw new UsageError(`--map has "${pair}". Write FIELD=COLUMN; the fields are ${fields.join(", ")}.`);
    if (Object.hasOwn(map, field)) throw new UsageError(`--map names "${field}" twice. Keep one column for it.`);
    map[field] = column;
  }
  if (format !== undefined && !formatColumns(format).some((column) => column !== ""))
    throw new UsageError('--format names no column. Write one in braces, which are single: "{title}\\n{body}".');
  return {
    ...(pairs && { map }),
    // A shell passes \n as it stands.
    ...(format === undefined ? {} : { format: format.replaceAll("\\n", "\n").replaceAll("\\t", "\t") }),
  };
}
