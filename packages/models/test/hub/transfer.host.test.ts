import { existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, readlinkSync, rmSync, statSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { gzipSync } from "node:zlib";
import { type HubOptions, resolveModel } from "@lowrank/models";
import { CheckpointError } from "@lowrank/tensor";
import { gitBlob, type HubFault, sha256, TestHub } from "test-support";
import { afterAll, beforeAll, beforeEach, describe, expect, onTestFinished, test } from "vitest";
import { askedWaitMs } from "../../src/hub/node/retry.js";

let hub: TestHub;
beforeAll(async () => {
  hub = await TestHub.start();
});
afterAll(() => hub.stop());
beforeEach(() => hub.reset());

const id = "org/tiny";
/** Bytes that repeat nowhere. */
const noise = (length: number, seed = 1): Buffer => {
  const bytes = Buffer.alloc(length);
  for (let i = 0, x = seed; i < length; i++) {
    x = (Math.imul(x, 1664525) + 1013904223) >>> 0;
    bytes[i] = x >>> 24;
  }
  return bytes;
};
const weights = noise(300_000);
const model = {
  "config.json": "{}",
  "tokenizer.json": `{"a":"${"b".repeat(5000)}"}`,
  "model.safetensors": weights,
  "README.md": "read me",
  "pytorch_model.bin": "pickle",
};

function temporary(): string {
  const folder = mkdtempSync(join(tmpdir(), "lowrank-hub-"));
  onTestFinished(() => rmSync(folder, { recursive: true }));
  return folder;
}

const options = (cache: string, more: HubOptions = {}): HubOptions => ({
  endpoint: hub.endpoint,
  cache,
  stallMs: 150,
  retryMs: 5,
  token: "",
  ...more,
});
const repository = (cache: string): string => join(cache, "models--org--tiny");

async function failure(cache: string, more: HubOptions = {}, name = id): Promise<Error> {
  const result = await resolveModel(name, options(cache, more)).then(
    () => new Error("it was fetched"),
    (error: unknown) => error as Error,
  );
  expect(result, result.stack ?? "").toBeInstanceOf(CheckpointError);
  return result;
}

/** All that lies below a folder but locks. */
const allIn = (folder: string): string[] =>
  (readdirSync(folder, { recursive: true, encoding: "utf8" }) as string[]).filter((name) => !name.startsWith(".locks")).sort();

/** A fault for some requests, until it has happened `times` times. */
function fault(file: string | null, times: number, act: HubFault): HubFault {
  let left = times;
  return (request, response, content) =>
    request.file === file && (file === null || request.at === "store" || !/safetensors|tokenizer\.json/.test(file)) && left-- > 0
      ? act(request, response, content)
      : false;
}

/** Sends a part of what was asked for, and cuts the connection. */
const cutAfter =
  (bytes: number): HubFault =>
  ({ headers }, response, content) => {
    const whole = content ?? Buffer.alloc(0);
    const start = Number(/bytes=(\d+)-/.exec(headers.range ?? "")?.[1] ?? 0);
    response.writeHead(start > 0 ? 206 : 200, {
      etag: '"an etag of the store"'.replaceAll(" ", "-"),
      "content-length": whole.length - start,
      ...(start > 0 && { "content-range": `bytes ${start}-${whole.length - 1}/${whole.length}` }),
    });
    response.write(whole.subarray(start, start + bytes), () => setTimeout(() => response.destroy(), 20));
    return true;
  };

describe("a model of the hub", () => {
  test("comes in the layout of Python's cache: blobs by digest, relative links, the branch's commit, and what it does not have", async () => {
    const commit = hub.push(id, model);
    const cache = temporary();
    const folder = await resolveModel(id, options(cache));
    expect(folder).toBe(join(repository(cache), "snapshots", commit));
    const [config, tokenizer, large] = [gitBlob(Buffer.from("{}")), sha256(Buffer.from(model["tokenizer.json"])), sha256(weights)];
    expect(allIn(repository(cache))).toEqual(
      [
        ".no_exist",
        `.no_exist/${commit}`,
        ...["added_tokens.json", "chat_template.jinja", "generation_config.json", "special_tokens_map.json", "tokenizer_config.json"].map(
          (name) => `.no_exist/${commit}/${name}`,
        ),
        "blobs",
        ...[config, tokenizer, large].map((digest) => `blobs/${digest}`),
        "refs",
        "refs/main",
        "snapshots",
        `snapshots/${commit}`,
        ...["config.json", "model.safetensors", "tokenizer.json"].map((name) => `snapshots/${commit}/${name}`),
      ].sort(),
    );
    expect(readlinkSync(join(folder, "model.safetensors"))).toBe(`../../blobs/${large}`);
    expect(readFileSync(join(folder, "model.safetensors")).equals(weights)).toBe(true);
    expect(readFileSync(join(repository(cache), "refs", "main"), "utf8")).toBe(commit);
    expect(readdirSync(cache, { recursive: true }).filter((name) => String(name).endsWith(".lock"))).toEqual([]);
  });

  test("is resolved to its commit first, and everything after names the commit", async () => {
    const commit = hub.push(id, model);
    await resolveModel(id, options(temporary()));
    const [first, ...others] = hub.asked.filter(({ at }) => at === "hub").map(({ path }) => path);
    expect(first).toBe(`/api/models/${id}/revision/main`);
    expect(others.length).toBe(4);
    for (const path of others) expect(path).toContain(`/${commit}`);
    for (const { headers } of hub.asked) expect(headers["accept-encoding"] ?? "identity").toBe("identity");
  });

  test("is fetched once: what is cached whole is not asked for again", async () => {
    hub.push(id, model);
    const cache = temporary();
    const folder = await resolveModel(id, options(cache));
    hub.reset();
    expect(await resolveModel(id, options(cache))).toBe(folder);
    expect(hub.asked).toEqual([]);
  });

  test("nothing that is not needed is fetched", async () => {
    hub.push(id, model);
    await resolveModel(id, options(temporary()));
    expect(
      hub.asked
        .filter(({ at, file }) => at === "hub" && file !== null)
        .map(({ file }) => file)
        .sort(),
    ).toEqual(["config.json", "model.safetensors", "tokenizer.json"]);
  });

  test("files of one commit only, though the branch moves while they come", async () => {
    const old = hub.push(id, model);
    const cache = temporary();
    hub.failWith(({ file }) => {
      if (file === "config.json") hub.push(id, { ...model, "config.json": '{"new": 1}', "model.safetensors": noise(1000, 2) });
      return false;
    });
    const folder = await resolveModel(id, options(cache));
    expect(folder.endsWith(old)).toBe(true);
    expect(readFileSync(join(folder, "model.safetensors")).equals(weights)).toBe(true);
  });

  test("further chat templates come from their folder, and nothing else of folders does", async () => {
    const templates = { "additional_chat_templates/tool use.jinja": "{{ tools }}", "additional_chat_templates/notes.txt": "notes" };
    hub.push(id, { ...model, ...templates, "onnx/model.safetensors": "other weights" });
    const folder = await resolveModel(id, options(temporary()));
    expect(allIn(folder)).toEqual([
      "additional_chat_templates",
      "additional_chat_templates/tool use.jinja",
      "config.json",
      "model.safetensors",
      "tokenizer.json",
    ]);
    expect(readFileSync(join(folder, "additional_chat_templates", "tool use.jinja"), "utf8")).toBe("{{ tools }}");
    expect(readlinkSync(join(folder, "additional_chat_templates", "tool use.jinja"))).toMatch(/^\.\.\/\.\.\/\.\.\/blobs\/[0-9a-f]{40}$/);
  });

  test("a list of several pages is read to its end", async () => {
    const commit = hub.push(id, model);
    const page = (names: readonly string[]): unknown[] =>
      names.map((path) => {
        const content = Buffer.from(model[path as keyof typeof model]);
        const lfs = { oid: sha256(content), size: content.length, pointerSize: 134 };
        return { type: "file", path, size: content.length, oid: gitBlob(content), ...(path !== "config.json" && { lfs }) };
      });
    hub.failWith(({ path, query }, response) => {
      if (!path.includes("/tree/")) return false;
      const next = `<${hub.endpoint}/api/models/${id}/tree/${commit}?cursor=2>; rel="next"`;
      if (query.get("cursor") === null) response.setHeader("link", next);
      return hub.json(
        response,
        page(query.get("cursor") === null ? ["config.json", "README.md"] : ["model.safetensors", "tokenizer.json"]),
      );
    });
    expect(readdirSync(await resolveModel(id, options(temporary()))).sort()).toEqual([
      "config.json",
      "model.safetensors",
      "tokenizer.json",
    ]);
  });

  test("shards come by the index, several at a time, and no others", async () => {
    const shards = Object.fromEntries(["a", "b", "c", "d", "e"].map((name, i) => [`model-${name}.safetensors`, noise(2000, i)]));
    const index = {
      weight_map: { x: "model-a.safetensors", y: "model-b.safetensors", z: "model-c.safetensors", u: "model-d.safetensors" },
    };
    hub.push(id, { "config.json": "{}", "model.safetensors.index.json": JSON.stringify(index), ...shards });
    // Nobody is answered before two have asked.
    const waiting: (() => void)[] = [];
    hub.failWith(({ at }, response, content) => {
      if (at !== "store" || !content) return false;
      waiting.push(() => hub.send({ headers: {}, method: "GET" }, response, content, { etag: '"x"' }));
      if (waiting.length === 2) for (const answer of waiting) answer();
      else if (waiting.length > 2) waiting.at(-1)?.();
      return true;
    });
    const steps: number[] = [];
    const folder = await resolveModel(
      id,
      options(temporary(), { onProgress: ({ doneBytes, totalBytes }) => steps.push(doneBytes / totalBytes) }),
    );
    expect(readdirSync(folder).sort()).toEqual([
      "config.json",
      ...["a", "b", "c", "d"].map((name) => `model-${name}.safetensors`),
      "model.safetensors.index.json",
    ]);
    expect(steps.at(-1)).toBe(1);
  });
});

describe("a transfer that is disturbed", () => {
  test("goes on inside a file after a cut, with a range and the file's ETag", async () => {
    hub.push(id, model);
    hub.failWith(fault("model.safetensors", 2, cutAfter(100_000)));
    const folder = await resolveModel(id, options(temporary()));
    expect(readFileSync(join(folder, "model.safetensors")).equals(weights)).toBe(true);
    const ranges = hub.asked
      .filter(({ at, file }) => at === "store" && file === "model.safetensors")
      .map(({ headers }) => [headers.range, headers["if-range"]]);
    expect(ranges[0]).toEqual([undefined, undefined]);
    expect(ranges[1]).toEqual([expect.stringMatching(/^bytes=\d{4,}-$/), '"an-etag-of-the-store"']);
    expect(ranges.length).toBe(3);
    // Other files are not asked for again.
    expect(hub.asked.filter(({ file }) => file === "config.json").length).toBe(1);
  });

  test("is continued by the next call where one gave up", async () => {
    hub.push(id, model);
    const cache = temporary();
    hub.failWith(fault("model.safetensors", 1, cutAfter(200_000)));
    const first = new AbortController();
    const stopped = resolveModel(id, options(cache, { retryMs: 10_000, signal: first.signal }));
    const blobs = join(repository(cache), "blobs");
    const hasPart = (): boolean =>
      existsSync(blobs) &&
      readdirSync(blobs).some(
        (name) => name.startsWith(`.${sha256(weights)}.`) && (statSync(join(blobs, name), { throwIfNoEntry: false })?.size ?? 0) > 9999,
      );
    const watch = setInterval(() => {
      if (hasPart()) first.abort(new Error("stop"));
    }, 20);
    await expect(stopped).rejects.toThrow("stop");
    clearInterval(watch);
    hub.reset();
    const folder = await resolveModel(id, options(cache));
    expect(hub.asked.find(({ at, file }) => at === "store" && file === "model.safetensors")?.headers.range).toMatch(/^bytes=\d{4,}-$/);
    expect(readFileSync(join(folder, "model.safetensors")).equals(weights)).toBe(true);
    expect(readdirSync(blobs).filter((name) => name.startsWith("."))).toEqual([]);
  });

  test("begins again where the host has another file meanwhile, and where what was left is not its beginning", async () => {
    hub.push(id, model);
    const cache = temporary();
    const blobs = join(repository(cache), "blobs");
    mkdirSync(blobs, { recursive: true });
    writeFileSync(join(blobs, `.${sha256(weights)}.${Buffer.from('"old"').toString("base64url")}.lowrank`), noise(1000, 7));
    writeFileSync(join(blobs, `.${sha256(Buffer.from(model["tokenizer.json"]))}..lowrank`), noise(1000, 7));
    const folder = await resolveModel(id, options(cache));
    for (const name of ["model.safetensors", "tokenizer.json"] as const)
      expect(readFileSync(join(folder, name)).equals(Buffer.from(model[name])), name).toBe(true);
    expect(readdirSync(blobs).filter((name) => name.startsWith("."))).toEqual([]);
  });

  test.each([408, 429, 500, 502, 503, 504])("%d is tried again", async (status) => {
    hub.push(id, model);
    hub.failWith(
      ({ path }, response) => hub.asked.filter((other) => other.path === path).length === 1 && Boolean(response.writeHead(status).end()),
    );
    expect(existsSync(await resolveModel(id, options(temporary())))).toBe(true);
  });

  test("waits as the hub asks", async () => {
    hub.push(id, model);
    hub.failWith(fault("config.json", 1, (_, response) => Boolean(response.writeHead(429, { "retry-after": "1" }).end())));
    const before = performance.now();
    await resolveModel(id, options(temporary()));
    expect(performance.now() - before).toBeGreaterThanOrEqual(995);
  });

  test.each([
    [{ "retry-after": "12" }, 12_000],
    [{ "retry-after": "Thu, 01 Jan 1970 00:01:00 GMT" }, 59_000],
    [{ ratelimit: '"api";r=0;t=55' }, 56_000],
    [{ ratelimit: '"api";r=3;t=55' }, null],
    [{}, null],
  ])("%j asks to wait %s ms", (headers, ms) => {
    expect(askedWaitMs(headers, 1000)).toBe(ms);
  });

  test.each<[string, HubFault, RegExp]>([
    [
      "a hub that stays busy",
      (_, response) => Boolean(response.writeHead(503).end()),
      /config\.json cannot be fetched: .* answers 503\. Try again later/,
    ],
    ["a wait of an hour", (_, response) => Boolean(response.writeHead(429, { "retry-after": "3600" }).end()), /asks to wait 60 minutes/],
    ["an answer that does not come", () => true, /sent nothing for 0\.15 s/],
    [
      "a stall inside a file",
      (_, response) => {
        response.writeHead(200).write("{");
        return true;
      },
      /sent nothing for 0\.15 s/,
    ],
    [
      "a trickle",
      (_, response) => {
        response.writeHead(200);
        const timer = setInterval(() => response.write("{"), 30);
        response.once("close", () => clearInterval(timer));
        return true;
      },
      /sent \d+ bytes in .*, too few to wait for/,
    ],
    [
      "a file that ends early each time",
      (_, response) => Boolean(response.writeHead(200).end("{")),
      /ended the answer after 1 of 4000 bytes/,
    ],
    [
      "a host that knows no ranges and always breaks off at the same place",
      (_, response) =>
        Boolean(
          response
            .writeHead(200, { "content-length": "70000" })
            .write(Buffer.alloc(69_999, 32), () => setTimeout(() => response.destroy(), 5)),
        ) || true,
      /broke off/,
    ],
    ["a connection that is always cut", (_, response) => Boolean(response.destroy()), /the connection to .* broke off/],
  ])("%s ends with what happened, in time", async (name, act, says) => {
    hub.push(id, { ...model, "config.json": " ".repeat(name.startsWith("a host") ? 70_000 : 4000) });
    hub.failWith(fault("config.json", 1000, act));
    const cache = temporary();
    expect((await failure(cache)).message).toMatch(says);
    expect(existsSync(join(repository(cache), "refs"))).toBe(false);
  });

  test("a disk without room is told before anything is fetched", async () => {
    hub.push(id, model);
    hub.failWith(({ path }, response) => {
      if (!path.includes("/tree/")) return false;
      hub.json(response, [
        { type: "file", path: "config.json", size: 2, oid: gitBlob(Buffer.from("{}")) },
        { type: "file", path: "model.safetensors", size: 1, oid: "0".repeat(40), lfs: { oid: "0".repeat(64), size: 2 ** 52 } },
      ]);
      return true;
    });
    expect((await failure(temporary())).message).toMatch(
      /4503599\.63 GB are still to be fetched, and .* has room for .* GB\. Free some space, or set HF_HUB_CACHE/,
    );
    expect(hub.asked.filter(({ file }) => file !== null)).toEqual([]);
  });

  test("two calls at once fetch it once", async () => {
    hub.push(id, model);
    const cache = temporary();
    const notes: string[] = [];
    const onNote = (message: string): void => void notes.push(message);
    const folders = await Promise.all([1, 2, 3].map(() => resolveModel(id, options(cache, { onNote }))));
    expect(new Set(folders).size).toBe(1);
    expect(hub.asked.filter(({ at, file }) => at === "store" && file === "model.safetensors").length).toBe(1);
    expect(notes[0]).toMatch(/another lowrank fetches org\/tiny into .*; waiting for it/);
  });

  test("the lock of a process that is gone holds nobody up", async () => {
    hub.push(id, model);
    const cache = temporary();
    const locks = join(cache, ".locks", "models--org--tiny");
    mkdirSync(locks, { recursive: true });
    let machine = "";
    hub.failWith(({ path }) => {
      if (path.includes("/tree/")) machine = JSON.parse(readFileSync(join(locks, ".lowrank.lock"), "utf8")).machine;
      return false;
    });
    await resolveModel(id, options(cache));
    rmSync(repository(cache), { recursive: true });
    writeFileSync(join(locks, ".lowrank.lock"), JSON.stringify({ machine, pid: 2 ** 22 + 1, token: "gone" }));
    expect(existsSync(await resolveModel(id, options(cache)))).toBe(true);
    expect(readdirSync(locks)).toEqual([]);
  });
});

describe("what is not what it should be", () => {
  const spoilt = Buffer.from(weights);
  spoilt[1000] = (spoilt[1000] ?? 0) ^ 1;
  const sent =
    (content: Buffer | string, headers: Readonly<Record<string, string>> = {}): HubFault =>
    (_, response) =>
      Boolean(response.writeHead(200, headers).end(content));
  const endless: HubFault = (_, response) => {
    response.writeHead(200);
    const more = (): void => {
      while (!response.destroyed && response.write(Buffer.alloc(65536, 32)));
      if (!response.destroyed) response.once("drain", more);
    };
    more();
    return true;
  };
  test.each<[string, string, HubFault, RegExp]>([
    [
      "weights of the right length with a bit turned",
      "model.safetensors",
      sent(spoilt),
      /as model\.safetensors is not the file that its list describes: its SHA-256 is [0-9a-f]{64} and not/,
    ],
    ["a small file of the right length", "config.json", sent("[]"), /its git digest is [0-9a-f]{40} and not/],
    [
      "a file cut short by its own length",
      "model.safetensors",
      sent(weights.subarray(0, 1000), { "content-length": "1000" }),
      /something of 1000 bytes in place of 300000/,
    ],
    [
      "a web page",
      "config.json",
      sent("<!doctype html><p>Log in", { "content-type": "text/html", "content-length": "24" }),
      /a web page \(HTML\) of 24 bytes in place of 2/,
    ],
    ["a tokenizer without end", "tokenizer.json", endless, /it does not end after 5008 bytes/],
    [
      "a bomb of zeros",
      "tokenizer.json",
      sent(gzipSync(Buffer.alloc(50_000_000)), { "content-encoding": "gzip" }),
      /it does not end after 5008 bytes/,
    ],
    [
      "a range that was not asked for",
      "config.json",
      (_, response) => Boolean(response.writeHead(206, { "content-range": "bytes 1-1/2" }).end("}")),
      /bytes from 0 on were asked for, and the answer says "bytes 1-1\/2"/,
    ],
  ])("%s is refused, and nothing of it stays", async (_, file, act, says) => {
    hub.push(id, model);
    hub.failWith(fault(file, 1000, act));
    const cache = temporary();
    expect((await failure(cache)).message).toMatch(says);
    const digest = file === "config.json" ? gitBlob(Buffer.from("{}")) : sha256(Buffer.from(model[file as keyof typeof model]));
    expect(allIn(repository(cache)).filter((name) => name.includes(digest) || name.includes(file))).toEqual([]);
    expect(existsSync(join(repository(cache), "refs"))).toBe(false);
    hub.reset();
    expect(readFileSync(join(await resolveModel(id, options(cache)), "model.safetensors")).equals(weights)).toBe(true);
  });

  test("a file that a proxy compressed on the way is taken as it was", async () => {
    hub.push(id, model);
    hub.failWith(fault("config.json", 1, sent(gzipSync("{}"), { "content-encoding": "gzip" })));
    expect(readFileSync(join(await resolveModel(id, options(temporary())), "config.json"), "utf8")).toBe("{}");
  });

  test.each<[string, HubFault, RegExp]>([
    [
      "a commit that leads out of the cache",
      ({ path }, response) => path.includes("/revision/") && hub.json(response, { id, sha: "../../../x" }),
      /names "\.\.\/\.\.\/\.\.\/x" as the commit of "main", which is none/,
    ],
    [
      "a header with such a commit",
      ({ file }, response) => file === "config.json" && Boolean(response.writeHead(200, { "x-repo-commit": "../../x" }).end("{}")),
      /gives config\.json of another commit \("\.\.\/\.\.\/x"\)/,
    ],
    [
      "a list of something else",
      ({ path }, response) => path.includes("/tree/") && hub.json(response, [{ type: "file", path: "config.json", size: -1 }]),
      /list of files holds .*which describes no file/,
    ],
    [
      "a web page for the model",
      ({ path }, response) =>
        path.includes("/revision/") && Boolean(response.writeHead(200, { "content-type": "text/html" }).end("<html>")),
      /answers with a web page where the hub describes a model/,
    ],
    [
      "a list of pages without end",
      ({ path }, response) => {
        if (!path.includes("/tree/")) return false;
        response.setHeader("link", `<${hub.endpoint}${path}>; rel="next"`);
        return hub.json(response, []);
      },
      /list of files has more than 500 pages/,
    ],
    ["an index that leads out of the cache", ({ path }) => path === "never", /does not map tensor names to file names/],
  ])("%s is refused, and nothing is written outside", async (name, act, says) => {
    const index = JSON.stringify({ weight_map: { x: "../../../../x.safetensors" } });
    hub.push(id, name.startsWith("an index") ? { "config.json": "{}", "model.safetensors.index.json": index } : model);
    hub.failWith(act);
    const folder = temporary();
    const cache = join(folder, "a", "b", "cache");
    expect((await failure(cache)).message).toMatch(says);
    expect(allIn(folder).filter((path) => !path.startsWith(join("a", "b", "cache")))).toEqual(["a", "a/b"]);
  });

  test.each(["../../x", "a/../../x", "/etc/x", "..", "a b", "a\\b", ".hidden", "x.lock", "a//b", "", "x@{1}"])(
    "the revision %j is refused before anything is asked",
    async (revision) => {
      hub.push(id, model);
      expect((await failure(temporary(), { revision })).message).toMatch(/is not the name of a branch, a tag or a commit/);
      expect(hub.asked).toEqual([]);
    },
  );

  test("a branch with a slash, a tag and a commit are as good as main", async () => {
    const cache = temporary();
    const commit = hub.push(id, model, { branch: "refs/pr/1" });
    expect(await resolveModel(id, options(cache, { revision: "refs/pr/1" }))).toContain(commit);
    expect(readFileSync(join(repository(cache), "refs", "refs", "pr", "1"), "utf8")).toBe(commit);
    hub.reset();
    expect(await resolveModel(id, options(cache, { revision: commit }))).toContain(commit);
    expect(hub.asked).toEqual([]);
  });
});

describe("a cache that another client filled", () => {
  test("in part is completed, and only what lacks is fetched", async () => {
    const commit = hub.push(id, model);
    const cache = temporary();
    const snapshot = join(repository(cache), "snapshots", commit);
    mkdirSync(snapshot, { recursive: true });
    mkdirSync(join(repository(cache), "refs"));
    writeFileSync(join(repository(cache), "refs", "main"), commit);
    writeFileSync(join(snapshot, "config.json"), "{}");
    writeFileSync(join(snapshot, "model.safetensors"), weights.subarray(0, 5000)); // broken off, as an earlier client left it
    writeFileSync(join(snapshot, ".model.safetensors.4194305-0123456789ab.tmp"), "of a killed process");
    expect(statSync(await resolveModel(id, options(cache))).isDirectory()).toBe(true);
    expect(readdirSync(snapshot).sort()).toEqual(["config.json", "model.safetensors", "tokenizer.json"]);
    expect(readFileSync(join(snapshot, "model.safetensors")).equals(weights)).toBe(true);
    expect(
      hub.asked
        .filter(({ at, file }) => at === "hub" && file)
        .map(({ file }) => file)
        .sort(),
    ).toEqual(["model.safetensors", "tokenizer.json"]);
  });

  test("with partial files of its own keeps them", async () => {
    hub.push(id, model);
    const cache = temporary();
    const theirs = join(repository(cache), "blobs", `${sha256(weights)}.1234abcd.incomplete`);
    mkdirSync(join(repository(cache), "blobs"), { recursive: true });
    writeFileSync(theirs, "theirs");
    await resolveModel(id, options(cache));
    expect(readFileSync(theirs, "utf8")).toBe("theirs");
  });
});
