import { existsSync, mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type HubOptions, parseDataReference, resolveData } from "@lowrank/models";
import { CheckpointError } from "@lowrank/tensor";
import { TestHub } from "test-support";
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, onTestFinished, test, vi } from "vitest";
import { splitsOf } from "../../src/hub/node/splits.js";

let hub: TestHub;
beforeAll(async () => {
  hub = await TestHub.start();
});
afterAll(() => hub.stop());
beforeEach(() => {
  hub.reset();
  for (const name of ["HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "HF_TOKEN", "HF_HUB_OFFLINE"])
    for (const each of [name, name.toLowerCase()]) vi.stubEnv(each, undefined);
  vi.stubEnv("HF_HOME", "/nowhere");
});
afterEach(() => void vi.unstubAllEnvs());

function options(): HubOptions {
  const cache = mkdtempSync(join(tmpdir(), "lowrank-data-"));
  onTestFinished(() => rmSync(cache, { recursive: true }));
  return { endpoint: hub.endpoint, cache, stallMs: 500, retryMs: 1 };
}
const texts = (paths: readonly string[]): string[] => paths.map((path) => readFileSync(path, "utf8"));
const find = async (name: string, given: HubOptions): Promise<string[]> => texts(await resolveData(parseDataReference(name), given));
const converted = "refs/convert/parquet";

describe("names of data sets", () => {
  test.each([
    ["hub:user/name", { name: "user/name", config: null, split: null, revision: null }],
    ["hub:user/name/en", { name: "user/name", config: "en", split: null, revision: null }],
    ["hub:user/name/en/test@v1.0", { name: "user/name", config: "en", split: "test", revision: "v1.0" }],
    ["hub:user/name@refs/pr/3", { name: "user/name", config: null, split: null, revision: "refs/pr/3" }],
  ])("%s", (text, reference) => expect(parseDataReference(text)).toEqual(reference));

  test.each(["hub:", "hub:name", "hub:user/", "hub:user/name/", "hub:a/b/c/d/e", "hub:a/b@"])("%j is refused", (text) =>
    expect(() => parseDataReference(text)).toThrow(/names no data set/),
  );

  test.each(["hub:../../etc", "hub:a/..", "hub:a b/c"])("%j leads nowhere", async (text) => {
    await expect(find(text, options())).rejects.toThrow(CheckpointError);
    expect(hub.asked).toEqual([]);
  });
});

describe("splits by the names of files", () => {
  const found = (names: readonly string[], isConverted = false): object =>
    Object.fromEntries([...splitsOf(names, isConverted)].map(([config, splits]) => [config, Object.fromEntries(splits)]));
  test.each<[string, readonly string[], object]>([
    ["one file", ["rows.jsonl", "README.md"], { default: { train: ["rows.jsonl"] } }],
    [
      "shards in data/",
      ["data/train-00001-of-00002.parquet", "data/train-00000-of-00002.parquet", "data/test-00000-of-00001.parquet"],
      {
        default: {
          train: ["data/train-00000-of-00002.parquet", "data/train-00001-of-00002.parquet"],
          test: ["data/test-00000-of-00001.parquet"],
        },
      },
    ],
    [
      "folders of configurations",
      ["en/train.csv", "en/dev.csv", "de/train.csv"],
      { de: { train: ["de/train.csv"] }, en: { validation: ["en/dev.csv"], train: ["en/train.csv"] } },
    ],
    [
      "folders of splits",
      ["train/a.json", "train/b.json", "valid/a.json"],
      { default: { train: ["train/a.json", "train/b.json"], validation: ["valid/a.json"] } },
    ],
    ["words inside of others are no splits", ["contest.jsonl"], { default: { train: ["contest.jsonl"] } }],
    ["packed files, and none that are hidden", ["x.jsonl.zst", ".cache/y.jsonl"], { default: { train: ["x.jsonl.zst"] } }],
  ])("%s", (_, names, splits) => expect(found(names)).toEqual(splits));

  test("of the hub's conversion: folders of configuration and split, partial ones too", () =>
    expect(found(["default/train/0000.parquet", "default/train/0001.parquet", "en/partial-test/0000.parquet"], true)).toEqual({
      default: { train: ["default/train/0000.parquet", "default/train/0001.parquet"] },
      en: { test: ["en/partial-test/0000.parquet"] },
    }));
});

describe("a data set of the hub", () => {
  test("is read from its conversion to Parquet, once, and then without a request", async () => {
    hub.push("datasets/org/chats", { "train.jsonl": "own", "README.md": "#" });
    hub.push(
      "datasets/org/chats",
      { "default/train/0000.parquet": "PAR1 a", "default/train/0001.parquet": "PAR1 b", "default/test/0000.parquet": "PAR1 c" },
      { branch: converted },
    );
    const given = options();
    const steps: number[] = [];
    expect(
      texts(
        await resolveData(parseDataReference("hub:org/chats"), { ...given, onProgress: ({ totalBytes }) => void steps.push(totalBytes) }),
      ),
    ).toEqual(["PAR1 a", "PAR1 b"]);
    expect(steps.at(-1)).toBe(12);
    expect(existsSync(join(given.cache ?? "", "datasets--org--chats", "refs", "refs", "convert", "parquet"))).toBe(true);
    const files = hub.asked.flatMap(({ file, at }) => (file && at === "store" ? [file] : []));
    expect(files.sort()).toEqual(["default/train/0000.parquet", "default/train/0001.parquet"]);
    hub.reset();
    expect(await find("hub:org/chats", given)).toEqual(["PAR1 a", "PAR1 b"]);
    expect(hub.asked).toEqual([]);
    vi.stubEnv("HF_HUB_OFFLINE", "1");
    expect(await find("hub:org/chats", given)).toEqual(["PAR1 a", "PAR1 b"]);
    await expect(find("hub:org/chats/default/test", given)).rejects.toThrow(/not in the cache/);
    vi.stubEnv("HF_HUB_OFFLINE", undefined);
    expect(await find("hub:org/chats/default/test", given)).toEqual(["PAR1 c"]);
  });

  test("without a conversion, and of a revision, is read from its own files", async () => {
    hub.push("datasets/org/plain", { "data/train.jsonl": "one", "data/test.jsonl": "two" }, { branch: "v1" });
    hub.push("datasets/org/plain", { "data/train.jsonl": "three" });
    const given = options();
    expect(await find("hub:org/plain", given)).toEqual(["three"]);
    expect(await find("hub:org/plain/default/test@v1", given)).toEqual(["two"]);
    expect(await find("hub:org/plain@v1", given)).toEqual(["one"]);
  });

  test.each<[string, RegExp]>([
    ["hub:org/several", /several configurations: de, en\. Write hub:org\/several\/CONFIG\/SPLIT/],
    ["hub:org/several/fr", /there is no configuration "fr": de, en/],
    ["hub:org/several/en/dev", /there is no split "dev": test, train/],
    ["hub:org/none", /no data set of that name|no such data set/],
    ["hub:org/empty", /no file of a kind that is read/],
    ["hub:org/several@gone", /no revision "gone"/],
  ])("%s is refused with what there is", async (name, message) => {
    hub.push("datasets/org/several", { "en/train.csv": "a", "en/test.csv": "b", "de/train.csv": "c" });
    hub.push("datasets/org/empty", { "README.md": "#" });
    await expect(find(name, options())).rejects.toThrow(message);
  });

  test("that is private opens with the token; a file that is not what the list says is refused", async () => {
    hub.push("datasets/org/own", { "train.jsonl": "secret" }, { access: "private" });
    await expect(find("hub:org/own", options())).rejects.toThrow(/refuses it \(401\): no such data set/);
    expect(await find("hub:org/own", { ...options(), token: hub.token })).toEqual(["secret"]);
    hub.failWith(({ file }, response) => file === "train.jsonl" && Boolean(response.writeHead(200).end("secreT")));
    await expect(find("hub:org/own", { ...options(), token: hub.token })).rejects.toThrow(/is not the file that its list describes/);
  });
});
