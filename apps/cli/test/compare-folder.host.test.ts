import { cpSync, existsSync, mkdirSync, readFileSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { join, relative } from "node:path";
import { stateFileName } from "@lowrank/models";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { finished } from "../src/compare/folder.js";
import type { MethodResult } from "../src/compare/measure.js";
import { baseSchema, methodSchema } from "../src/compare/results.js";
import { stepsIn } from "../src/compare/training.js";
import { lowrankHere, scratchFolder, tinyProject } from "./cli.js";

const folder = scratchFolder();
const { model, train } = await tinyProject(folder, { layers: 1 });
afterAll(() => rmSync(folder, { recursive: true, force: true }));

const data = join(folder, "rows.jsonl");
const rows = readFileSync(train, "utf8");
interface Places {
  readonly model?: string;
  readonly data?: string;
}
const common = (places: Places, name: string): string[] => [
  ...["--model", places.model ?? model, "--data", places.data ?? data, "--steps", "2", "--eval-rows", "4", "--device", "cpu"],
  ...["--out", join(folder, name)],
];

/** The commands that keep a folder of many runs: their arguments, what they print when the first run has begun, and what that is called. */
const many = [
  {
    name: "rank-study",
    args: (places: Places = {}) => ["rank-study", "--ranks", "1", "--targets-sets", "q", ...common(places, "rank-study")],
    begun: "1 of 2",
    run: "q-r1-s0",
  },
  {
    name: "compare",
    args: (places: Places = {}) => ["compare", "--methods", "lora", "--latency-seconds", "0.01", ...common(places, "compare")],
    begun: "1 of 1",
    run: "lora",
  },
] as const;

beforeAll(async () => {
  writeFileSync(data, rows);
  for (const { args, begun } of many) {
    const { code, stderr } = await lowrankHere(args(), { stopAt: begun });
    expect(code, stderr).toBe(130);
  }
});

/** Contents of a file while `use` runs. */
async function having(path: string, text: string, use: () => Promise<void>): Promise<void> {
  const before = readFileSync(path, "utf8");
  try {
    writeFileSync(path, text);
    await use();
  } finally {
    writeFileSync(path, before);
  }
}

describe.each(many)("a folder of $name is resumed", ({ name, args, begun, run }) => {
  const out = join(folder, name);
  const settings = join(out, "settings.json");
  /** What it says: it is refused, or goes on and is stopped before it trains what is left. */
  const resumed = async (places: Places = {}): Promise<{ readonly refused: string | null; readonly said: string }> => {
    const { code, stderr, stdout } = await lowrankHere(args(places), { stopAt: begun });
    expect([2, 130], stdout + stderr).toContain(code);
    return { refused: code === 2 ? stderr : null, said: stdout + stderr };
  };

  test("from another path to the same places", async () => {
    expect((await resumed({ model: relative(process.cwd(), model), data: relative(process.cwd(), data) })).refused).toBeNull();
    const link = join(folder, `link-${name}`);
    symlinkSync(model, link);
    const { refused, said } = await resumed({ model: link });
    expect(refused).toBeNull();
    expect(said).not.toContain("cannot be compared");
  });

  test("not on other rows in the same place", async () => {
    const other = `${rows.trim().split("\n").reverse().join("\n")}\n`;
    await having(data, other, async () => expect((await resumed()).refused).toContain("the rows of --data changed"));
  });

  test("when its settings are from before contents were compared, which is said", async () => {
    const before = JSON.stringify((JSON.parse(readFileSync(settings, "utf8")) as { settings: object }).settings);
    await having(settings, before, async () => {
      const { refused, said } = await resumed();
      expect(refused).toBeNull();
      expect(said).toContain(`warning: ${out} was made before the contents of model, tokenizer and rows were noted`);
    });
  });

  test("from a copy of the model and the rows, with the runs that are finished there and those that are not", async () => {
    const copy = { model: join(folder, `model-${name}`), data: join(folder, `rows-${name}.jsonl`) };
    cpSync(model, copy.model, { recursive: true });
    cpSync(data, copy.data);
    const stopped = await lowrankHere(args(), { stopAt: "step 1" });
    expect(stopped.code, stopped.stderr).toBe(130);
    expect(existsSync(join(out, run, stateFileName))).toBe(true);
    // With base.json and the checkpoint, then with all results.
    for (const _ of [1, 2]) {
      const { code, stderr } = await lowrankHere(args(copy));
      expect(code, stderr).toBe(0);
    }
    const { settings: made } = JSON.parse(readFileSync(join(out, `${run}.json`), "utf8")) as { settings: object };
    expect(made).toMatchObject({ model, data });
  });

  test("not with a file that is not a result", async () => {
    const { settings: made } = JSON.parse(readFileSync(join(out, "base.json"), "utf8")) as { settings: object };
    for (const [part, wrong] of [
      ["base", "null"],
      [run, JSON.stringify({ settings: made })],
    ] as const)
      await having(join(out, `${part}.json`), wrong, async () => {
        const { code, stderr } = await lowrankHere(args());
        expect(stderr).toContain(`${join(out, part)}.json does not hold the result of a run. Remove it to have it made again.`);
        expect(code).toBe(2);
      });
  });
});

test("a folder of runs is not resumed when its settings are damaged", async () => {
  const [{ args, begun }] = many;
  for (const wrong of ["[]", "3", '{"settings":{"a":{}}}', '{"settings":3,"hashes":{}}', '{"toString":{}}'])
    await having(join(folder, "rank-study", "settings.json"), wrong, async () => {
      const { code, stderr } = await lowrankHere(args(), { stopAt: begun });
      expect(stderr).toContain("does not hold the settings of runs");
      expect(code).toBe(2);
    });
});

describe.each([
  ["base", baseSchema],
  ["lora", methodSchema],
] as const)("the result in %s.json of a comparison", (part, schema) => {
  const path = join(folder, "compare", `${part}.json`);
  const known = (): MethodResult => JSON.parse(readFileSync(path, "utf8")) as MethodResult;
  let settings: MethodResult["settings"] = {};
  beforeAll(() => {
    ({ settings } = known());
  });
  const read = () =>
    finished<Pick<MethodResult, "settings" | "evalLoss">>(
      { path, schema, settings, signal: new AbortController().signal },
      async () => null,
    );

  test("is read as it was written", async () => {
    expect(JSON.parse(JSON.stringify(await read()))).toEqual(known());
  });
  test("has a number that is not one where that was measured", async () => {
    await having(path, JSON.stringify({ ...known(), evalLoss: null }), async () => expect((await read())?.evalLoss).toBeNaN());
  });
  test.each([
    ["a list", () => []],
    ["a number", () => 3],
    ["nothing", () => ({})],
    ["without settings", () => ({ ...known(), settings: undefined })],
    ["with settings that are none", () => ({ ...known(), settings: { a: {} } })],
    ["with a loss that is text", () => ({ ...known(), evalLoss: "1" })],
    ["without a loss", () => ({ ...known(), generalLoss: undefined })],
    ["with answers that are none", () => ({ ...known(), samples: [null] })],
  ])("is refused when it is %s", async (_, wrong) => {
    await having(path, JSON.stringify(wrong()), async () => {
      await expect(read()).rejects.toThrow(`${path} does not hold the result of a run. Remove it to have it made again.`);
    });
  });
  test("is refused when it is cut", async () => {
    await having(path, "{", async () => expect(read()).rejects.toThrow(`${path} is not JSON`));
  });
});

describe("the steps of a run, in its metrics.jsonl,", () => {
  test("are none where there is no file, and an error where it cannot be read", async () => {
    const run = join(folder, "steps");
    expect(await stepsIn(run)).toEqual([]);
    mkdirSync(join(run, "metrics.jsonl"), { recursive: true });
    await expect(stepsIn(run)).rejects.toThrow("EISDIR");
  });
});
