import { createHash } from "node:crypto";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type FileToPush, type PushOptions, pushFiles, resolveAdapter } from "@lowrank/models";
import { CheckpointError } from "@lowrank/tensor";
import { type HubFault, TestHub } from "test-support";
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, onTestFinished, test, vi } from "vitest";

let hub: TestHub;
beforeAll(async () => {
  hub = await TestHub.start();
});
afterAll(() => hub.stop());
beforeEach(() => {
  hub.reset();
  for (const name of ["HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "HF_TOKEN", "HF_TOKEN_PATH", "HF_HUB_OFFLINE"])
    for (const each of [name, name.toLowerCase()]) vi.stubEnv(each, undefined);
  vi.stubEnv("HF_HOME", "/nowhere");
});
afterEach(() => void vi.unstubAllEnvs());

function temporary(): string {
  const folder = mkdtempSync(join(tmpdir(), "lowrank-push-"));
  onTestFinished(() => rmSync(folder, { recursive: true }));
  return folder;
}

const weights = Buffer.from(Array.from({ length: 1000 }, (_, i) => i % 251));

/** An adapter's files, of which one is large. */
function adapter(more = ""): readonly FileToPush[] {
  const folder = temporary();
  writeFileSync(join(folder, "adapter_config.json"), '{"peft_type":"LORA"}');
  writeFileSync(join(folder, "weights"), Buffer.concat([weights, Buffer.from(more)]));
  return [
    { name: "README.md", text: "# card" },
    { name: "adapter_config.json", path: join(folder, "adapter_config.json") },
    { name: "adapter_model.safetensors", path: join(folder, "weights") },
  ];
}

let count = 0;
const fresh = (): string => `user/adapter-${++count}`;
const options = (more: Partial<PushOptions> = {}): PushOptions => ({
  endpoint: hub.endpoint,
  token: hub.token,
  stallMs: 1000,
  retryMs: 1,
  message: "of a run",
  ...more,
});

async function failure(work: Promise<unknown>): Promise<string> {
  const result = await work.then(
    () => new Error("it worked"),
    (error: unknown) => error as Error,
  );
  expect(result, result.stack ?? "").toBeInstanceOf(CheckpointError);
  expect(result.message).not.toContain(hub.token);
  expect(result.message).not.toContain("X-Signature");
  return result.message;
}

/** The token that each request had, by where it went. */
const tokens = (at: string): unknown[] => [
  ...new Set(hub.asked.filter((request) => request.at === at).map(({ headers }) => headers.authorization)),
];

describe("what is pushed", () => {
  test("makes the repository, is one commit, and is what is fetched then; the store sees no token", async () => {
    const id = fresh();
    const seen: string[] = [];
    const pushed = await pushFiles(id, adapter(), options({ isPrivate: true, onUpload: (name) => seen.push(name) }));
    expect(pushed).toEqual({ url: `${hub.endpoint}/${id}`, commit: expect.stringMatching(/^[0-9a-f]{40}$/), isNew: true });
    expect(hub.uploads.made).toEqual([{ id, visibility: "private" }]);
    expect(hub.uploads.commits).toEqual([
      { id, branch: "main", summary: "of a run", large: [createHash("sha256").update(weights).digest("hex")] },
    ]);
    expect([...new Set(seen)]).toEqual(["adapter_model.safetensors"]);
    expect([tokens("hub"), tokens("store")]).toEqual([[`Bearer ${hub.token}`], [undefined]]);
    const folder = await resolveAdapter(id, { endpoint: hub.endpoint, cache: temporary(), token: hub.token });
    expect(folder).toContain(pushed.commit);
  });

  test("again: the repository stays, and what the hub has is not sent again", async () => {
    const id = fresh();
    await pushFiles(id, adapter(), options());
    hub.reset();
    expect((await pushFiles(id, adapter(), options({ message: "again" }))).isNew).toBe(false);
    expect(hub.asked.filter(({ at }) => at === "store")).toEqual([]);
    expect(hub.uploads.commits.map(({ summary }) => summary)).toEqual(["again"]);
  });

  test("goes to another branch where there is one", async () => {
    const id = fresh();
    hub.push(id, {});
    hub.push(id, {}, { branch: "tried-out" });
    expect((await pushFiles(id, adapter(), options({ revision: "tried-out" }))).url).toBe(`${hub.endpoint}/${id}/tree/tried-out`);
    expect(hub.uploads.commits.map(({ branch }) => branch)).toEqual(["tried-out"]);
  });

  test("goes in parts where the hub wants parts", async () => {
    hub.uploads.partBytes = 300;
    const second = Buffer.concat([weights, Buffer.from("x")]);
    const folder = temporary();
    writeFileSync(join(folder, "w"), second);
    await pushFiles(fresh(), [{ name: "model.safetensors", path: join(folder, "w") }], options());
    expect(hub.asked.filter(({ at }) => at === "store").map(({ path }) => path.split("/").at(-1))).toEqual(
      expect.arrayContaining(["1", "2", "3", "4"]),
    );
    expect(hub.uploads.commits[0]?.large).toEqual([createHash("sha256").update(second).digest("hex")]);
  });

  test("is sent again where the connection broke off or the hub was busy", async () => {
    let left = 2;
    hub.failWith((_, response) => {
      if (left-- <= 0) return false;
      if (left === 1) response.writeHead(503, { "retry-after": "0" }).end();
      else response.destroy();
      return true;
    });
    await pushFiles(fresh(), adapter(), options());
    expect(hub.uploads.commits).toHaveLength(1);
  });
});

describe("is refused in a sentence", () => {
  const answering =
    (path: RegExp, status: number, headers: Record<string, string> = {}): HubFault =>
    (request, response) => {
      if (request.method === "GET" || !path.test(request.path)) return false;
      response.writeHead(status, { "content-type": "application/json", ...headers }).end('{"error":"said by the hub"}');
      return true;
    };
  test.each<readonly [string, Partial<PushOptions>, HubFault | null, RegExp]>([
    ["no token", { token: "" }, null, /there is no token.*Run `hf auth login`, or set HF_TOKEN/],
    [
      "a token that the hub does not know",
      { token: "hf_wrong" },
      null,
      /does not know the token that is set \(401\) \(Invalid username or password\.\).*settings\/tokens/,
    ],
    ["a token without the right to write", {}, answering(/create/, 403), /gives no right to write there \(403\) \(said by the hub\)/],
    ["no right to write to what is there", {}, answering(/preupload/, 403), /gives no right to write there \(403\)/],
    ["a commit of somebody else", {}, answering(/commit/, 409), /somebody else has written to main meanwhile \(409\)\. Push again/],
    ["a branch that is not there", { revision: "none" }, null, /has no branch "none" of it \(404\)/],
    [
      "a repository that was renamed",
      {},
      answering(/preupload/, 307, { location: "/api/models/user/other/preupload/main" }),
      /has another name now \(307\)/,
    ],
    ["a store that refuses", {}, answering(/^\/store/, 403), /localhost:\d+ answers 403/],
    ["a hub that stays busy", {}, answering(/commit/, 503), /cannot be written to the hub: .* answers 503/],
    [
      "a hub that is none",
      {},
      (_, response) => !!response.writeHead(200, { "content-type": "text/html" }).end("<html>"),
      /answers with a web page where the hub takes files/,
    ],
    ["nobody there", { endpoint: "http://127.0.0.1:9" }, null, /the hub cannot be reached at http:\/\/127\.0\.0\.1:9/],
  ])("%s", async (name, more, fault, says) => {
    if (fault) hub.failWith(fault);
    expect(await failure(pushFiles(fresh(), adapter(name), options(more)))).toMatch(says);
    expect(hub.uploads.commits).toEqual([]);
    expect(tokens("store").filter((token) => token !== undefined)).toEqual([]);
  });

  test.each(["name", "a/b/c", "../x/y", ""])("the name %j", async (id) => {
    expect(await failure(pushFiles(id, adapter(), options()))).toMatch(
      /is no name of a repository on the hub\. Give one such as user\/name/,
    );
    expect(hub.asked).toEqual([]);
  });

  test("where the hub is switched off", async () => {
    vi.stubEnv("HF_HUB_OFFLINE", "1");
    expect(await failure(pushFiles(fresh(), adapter(), options()))).toMatch(/HF_HUB_OFFLINE is set/);
  });

  test("a signal ends it with its own reason", async () => {
    const stop = new AbortController();
    hub.failWith((request) => {
      if (!request.path.includes("preupload")) return false;
      stop.abort(new Error("stopped"));
      return true;
    });
    await expect(pushFiles(fresh(), adapter(), options({ signal: stop.signal }))).rejects.toThrow("stopped");
  });
});
