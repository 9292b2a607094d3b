// Slow: a million rows are written, read and written again.
import { createReadStream, createWriteStream, readFileSync, rmSync } from "node:fs";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { Readable } from "node:stream";
import { pipeline } from "node:stream/promises";
import { afterAll, expect, test } from "vitest";
import { lowrank, scratchFolder } from "./cli.js";

const folder = scratchFolder();
afterAll(() => rmSync(folder, { recursive: true, force: true }));

const rowCount = 1_000_000;

test("data convert takes a million rows of 100 MB in less than 350 MB of resident memory, and gives them all in their order", async () => {
  const [from, to] = [join(folder, "many.json"), join(folder, "many.jsonl")];
  function* parts(): Generator<string> {
    yield "[";
    for (let first = 0; first < rowCount; first += 1000) {
      const rows = Array.from(
        { length: 1000 },
        (_, i) => `{"question":"How many lamps are in house number ${first + i}?","answer":"There are ${(first + i) % 7}."}`,
      );
      yield `${first > 0 ? ",\n" : ""}${rows.join(",\n")}`;
    }
    yield "]";
  }
  await pipeline(Readable.from(parts()), createWriteStream(from));
  const told = join(folder, "rss");
  const script = `import{appendFileSync}from"node:fs";process.on("exit",()=>appendFileSync(${JSON.stringify(told)},process.resourceUsage().maxRSS+"\\n"))`;
  const env = { NODE_OPTIONS: `--import data:text/javascript,${encodeURIComponent(script)}` };
  const { code, stdout, stderr } = await lowrank(["data", "convert", from, "--out", to, "--json"], { env });
  expect(code, stderr).toBe(0);
  expect(JSON.parse(stdout)).toMatchObject({ rows: rowCount });
  const kilobytes = Math.max(...readFileSync(told, "utf8").trim().split("\n").map(Number));
  expect(kilobytes * 1024).toBeLessThan(350e6);
  let row = 0;
  for await (const line of createInterface({ input: createReadStream(to) })) {
    if (row % 99_999 === 0)
      expect(JSON.parse(line)).toEqual({
        messages: [
          { role: "user", content: `How many lamps are in house number ${row}?` },
          { role: "assistant", content: `There are ${row % 7}.` },
        ],
      });
    row++;
  }
  expect(row).toBe(rowCount);
});
