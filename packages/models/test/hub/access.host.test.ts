import { mkdirSync, mkdtempSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { createServer, request as httpRequest, type Server } from "node:http";
import { createServer as createSecureServer } from "node:https";
import { type AddressInfo, connect } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type HubOptions, resolveAdapter, resolveConfig, resolveModel } from "@lowrank/models";
import { CheckpointError } from "@lowrank/tensor";
import { TestHub } from "test-support";
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, onTestFinished, test, vi } from "vitest";
import { cacheFolder, hubOf } from "../../src/hub/node/environment.js";
import { proxiesOf } from "../../src/hub/node/proxies.js";

let hub: TestHub;
beforeAll(async () => {
  hub = await TestHub.start();
});
afterAll(() => hub.stop());
beforeEach(() => {
  hub.reset();
  for (const name of [
    "HTTP_PROXY",
    "HTTPS_PROXY",
    "ALL_PROXY",
    "NO_PROXY",
    "HF_TOKEN",
    "HF_TOKEN_PATH",
    "HF_HUB_CACHE",
    "HF_ENDPOINT",
    "HF_HUB_OFFLINE",
  ])
    for (const each of [name, name.toLowerCase()]) vi.stubEnv(each, undefined);
  vi.stubEnv("HF_HOME", "/nowhere");
});
afterEach(() => void vi.unstubAllEnvs());

const id = "org/kept";
const model = { "config.json": "{}", "tokenizer.json": "{}", "model.safetensors": "weights" };

function temporary(): string {
  const folder = mkdtempSync(join(tmpdir(), "lowrank-hub-"));
  onTestFinished(() => rmSync(folder, { recursive: true }));
  return folder;
}
const options = (more: HubOptions = {}): HubOptions => ({ endpoint: hub.endpoint, cache: temporary(), stallMs: 500, retryMs: 1, ...more });

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

describe("the token", () => {
  test.each<[string, (token: string, folder: string) => void]>([
    ["HF_TOKEN", (token) => vi.stubEnv("HF_TOKEN", `${token}\n`)],
    [
      "the file that HF_TOKEN_PATH names",
      (token, folder) => {
        writeFileSync(join(folder, "secret"), token);
        vi.stubEnv("HF_TOKEN_PATH", join(folder, "secret"));
      },
    ],
    [
      "the file of hf auth login in HF_HOME",
      (token, folder) => {
        writeFileSync(join(folder, "token"), `${token}\n`);
        vi.stubEnv("HF_HOME", folder);
      },
    ],
  ])("of %s opens a private model, and goes to no other origin", async (_, set) => {
    hub.push(id, model, { access: "private" });
    set(hub.token, temporary());
    await resolveModel(id, options());
    const authorizations = (at: string): unknown[] =>
      hub.asked.filter((request) => request.at === at).map(({ headers }) => headers.authorization);
    expect(new Set(authorizations("hub"))).toEqual(new Set([`Bearer ${hub.token}`]));
    expect(authorizations("store").length).toBe(2);
    expect(new Set(authorizations("store"))).toEqual(new Set([undefined]));
  });

  test("follows a model that was renamed, at the same origin", async () => {
    hub.push(id, model, { access: "private" });
    hub.failWith(
      ({ path }, response) =>
        path.includes("org/old/") && Boolean(response.writeHead(307, { location: path.replace("org/old", id) }).end()),
    );
    expect(await resolveConfig("org/old", options({ token: hub.token }))).toContain("models--org--old");
    expect(new Set(hub.asked.map(({ headers }) => headers.authorization))).toEqual(new Set([`Bearer ${hub.token}`]));
  });

  test("is not asked for where the cache has all", async () => {
    hub.push(id, model);
    const cache = temporary();
    await resolveModel(id, options({ cache }));
    vi.stubEnv("HF_TOKEN", "no\u00e9 token");
    await resolveModel(id, options({ cache }));
    const message = await failure(resolveModel(id, options()));
    expect(message).toMatch(/The token of the hub \(HF_TOKEN\) holds characters that no token has/);
    expect(message).not.toContain("no\u00e9");
  });

  test.each<["gated" | "private", string, RegExp]>([
    [
      "gated",
      "",
      /on the hub it is gated \(401\)\. Ask for access at http:.*\/org\/kept; then log in with `hf auth login`, or set HF_TOKEN/,
    ],
    [
      "gated",
      "another",
      /gated \(403\)\. Ask for access at .*; then the token that is set \(HF_TOKEN, or of `hf auth login`\) does not give access/,
    ],
    ["private", "", /the hub refuses it \(401\): no such model, or a private or gated one\. Check the id; .* log in with/],
    ["private", "another", /the hub refuses it \(401\)/],
  ])("a %s model with the token %j is refused with the remedy", async (access, token, says) => {
    hub.push(id, model, { access });
    expect(await failure(resolveModel(id, options({ token })))).toMatch(says);
  });

  test("a model that is not there, and a revision that it does not have", async () => {
    hub.push(id, model);
    expect(await failure(resolveModel("org/none", options({ token: hub.token })))).toMatch(
      /the hub has no model of that name at http:.*Check the path or the id/,
    );
    expect(await failure(resolveModel(id, options({ revision: "v9" })))).toMatch(
      /the hub has no revision "v9" of it\. Give a branch, a tag or a commit/,
    );
  });
});

describe("what else is wanted of the hub", () => {
  test("an adapter is its config and its weights", async () => {
    hub.push("user/adapter", {
      "adapter_config.json": "{}",
      "adapter_model.safetensors": "a",
      "optimizer.pt": "o",
      "tokenizer.json": "{}",
    });
    const folder = await resolveAdapter("user/adapter", options());
    expect(folder).toMatch(/models--user--adapter\/snapshots\/[0-9a-f]{40}$/);
    expect(hub.asked.flatMap(({ at, file }) => (at === "hub" && file ? [file] : [])).sort()).toEqual([
      "adapter_config.json",
      "adapter_model.safetensors",
    ]);
    expect(await failure(resolveModel("user/adapter", options()))).toMatch(/no config\.json.*It is an adapter: give it as --adapter/);
    hub.push(id, model);
    expect(await failure(resolveAdapter(id, options()))).toMatch(/no adapter_config\.json.*It is a model: give it as --model/);
  });

  test("an adapter of mlx-lm is its config and its own weights", async () => {
    hub.push("user/mlx", { "adapter_config.json": "{}", "adapters.safetensors": "a", "0000100_adapters.safetensors": "b" });
    const cache = temporary();
    const folder = await resolveAdapter("user/mlx", options({ cache }));
    expect(readdirSync(folder).sort()).toEqual(["adapter_config.json", "adapters.safetensors"]);
    const asked = hub.asked.length;
    expect(await resolveAdapter("user/mlx", options({ cache }))).toBe(folder);
    expect(hub.asked).toHaveLength(asked);
  });

  test("a config alone", async () => {
    hub.push(id, model);
    const cache = temporary();
    await resolveConfig(id, options({ cache }));
    expect(hub.asked.flatMap(({ file }) => file ?? [])).toEqual(["config.json"]);
    // It does not count as the model.
    await resolveModel(id, options({ cache }));
    expect(hub.asked.flatMap(({ at, file }) => (at === "store" ? [file] : [])).sort()).toEqual(["model.safetensors", "tokenizer.json"]);
  });

  test("no safetensors", async () => {
    hub.push("org/pickle", { "config.json": "{}", "pytorch_model.bin": "p" });
    expect(await failure(resolveModel("org/pickle", options()))).toMatch(
      /no model\.safetensors for it\. Choose a checkpoint that ships safetensors/,
    );
  });
});

describe("offline", () => {
  test.each(["HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"])("with %s nothing is asked, and what lacks is named", async (name) => {
    const index = { weight_map: { a: "one.safetensors", b: "two.safetensors" } };
    const commit = hub.push(id, {
      "config.json": "{}",
      "model.safetensors.index.json": JSON.stringify(index),
      "one.safetensors": "1",
      "two.safetensors": "2",
    });
    const cache = temporary();
    vi.stubEnv(name, "1");
    expect(await failure(resolveModel(id, options({ cache })))).toMatch(
      /it is not in the cache .* while HF_HUB_OFFLINE is set\. Unset it or give a folder/,
    );
    vi.stubEnv(name, "0");
    const folder = await resolveModel(id, options({ cache }));
    hub.reset();
    vi.stubEnv(name, "YES");
    expect(await resolveModel(id, options({ cache }))).toBe(folder);
    expect(await resolveModel(id, options({ cache, revision: commit }))).toBe(folder);
    rmSync(join(folder, "two.safetensors"));
    expect(await failure(resolveModel(id, options({ cache })))).toMatch(
      /has it in part only, without two\.safetensors while HF_HUB_OFFLINE is set/,
    );
    expect(await failure(resolveModel(id, options({ cache, revision: "v2" })))).toMatch(/not in the cache .*\(revision v2\)/);
    expect(hub.asked).toEqual([]);
  });

  test("a cache without what a commit may not have opens, online where the hub is away too", async () => {
    const commit = hub.push(id, model);
    const cache = temporary();
    const folder = join(cache, "models--org--kept", "snapshots", commit);
    mkdirSync(folder, { recursive: true });
    mkdirSync(join(cache, "models--org--kept", "refs"));
    writeFileSync(join(cache, "models--org--kept", "refs", "main"), commit);
    for (const [name, content] of Object.entries(model)) writeFileSync(join(folder, name), content);
    vi.stubEnv("HF_HUB_OFFLINE", "1");
    expect(await resolveModel(id, options({ cache }))).toBe(folder);
    vi.stubEnv("HF_HUB_OFFLINE", "");
    const notes: string[] = [];
    expect(await resolveModel(id, { cache, endpoint: "http://127.0.0.1:1", onNote: (note) => notes.push(note) })).toBe(folder);
    expect(notes[0]).toMatch(/taken from the cache as it is, since it could not be asked whether the model has more files/);
  });
});

describe("the environment", () => {
  test.each<[Record<string, string>, string]>([
    [{ HF_HUB_CACHE: "/a", HF_HOME: "/b" }, "/a"],
    [{ HF_HOME: "/b" }, "/b/hub"],
    [{ HF_HUB_CACHE: "$BASE/models", BASE: "/base" }, "/base/models"],
    [{ XDG_CACHE_HOME: "/c" }, "/c/huggingface/hub"],
  ])("%j: the cache is %s", (env, folder) => {
    expect(cacheFolder(env)).toBe(folder);
  });

  test.each([
    ["", "https://huggingface.co"],
    ["https://hf-mirror.example/", "https://hf-mirror.example"],
    ["http://localhost:8080/hf//", "http://localhost:8080/hf"],
  ])("HF_ENDPOINT %j is %s", (value, endpoint) => {
    expect(hubOf({}, id, { HF_ENDPOINT: value }).endpoint).toBe(endpoint);
  });

  test("HF_ENDPOINT and HF_HUB_CACHE are what the hub is asked at and where it goes", async () => {
    hub.push(id, model);
    const cache = temporary();
    vi.stubEnv("HF_ENDPOINT", hub.endpoint);
    vi.stubEnv("HF_HUB_CACHE", cache);
    expect((await resolveModel(id)).startsWith(cache)).toBe(true);
  });

  test.each<[Record<string, string>, string, string | null]>([
    [{}, "https://hub/x", null],
    [{ HTTPS_PROXY: "http://p:1" }, "https://hub/x", "http://p:1/"],
    [{ HTTPS_PROXY: "http://p:1" }, "http://hub/x", null],
    [{ HTTP_PROXY: "p:1" }, "http://hub/x", "http://p:1/"],
    [{ HTTP_PROXY: "http://p:1", http_proxy: "http://q:1" }, "http://hub/x", "http://q:1/"],
    [{ ALL_PROXY: "http://p:1" }, "https://hub/x", "http://p:1/"],
    [{ ALL_PROXY: "http://p:1", NO_PROXY: "*" }, "https://hub/x", null],
    [{ ALL_PROXY: "http://p:1", NO_PROXY: "other, hub" }, "https://hub/x", null],
    [{ ALL_PROXY: "http://p:1", NO_PROXY: ".hub.co" }, "https://cdn.hub.co/x", null],
    [{ ALL_PROXY: "http://p:1", NO_PROXY: "hub.co" }, "https://myhub.co/x", "http://p:1/"],
    [{ ALL_PROXY: "http://p:1", NO_PROXY: "hub:8080" }, "https://hub/x", "http://p:1/"],
  ])("%j: %s is reached through %s", (env, address, proxy) => {
    expect(proxiesOf(env)(new URL(address))?.href ?? null).toBe(proxy);
  });
});

const key = `-----BEGIN PRIVATE KEY-----
MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQg3z7V4cLwVlWBRnzs
oPfLHZVICS77sBkNtg4oOJTEV2WhRANCAATKUDypBsS7lcZ377vSRec52gqUf2Aq
3X6RQa1Tv2b2T/3bLk7cyd8k8Lazc8sxIQnSN7cN8ZtEsEfYsH7NAoM8
-----END PRIVATE KEY-----
`;
const cert = `-----BEGIN CERTIFICATE-----
MIIBmzCCAUGgAwIBAgIUBdcTCKEIlToJJNwoqigoTjzzwhYwCgYIKoZIzj0EAwIw
FDESMBAGA1UEAwwJbG9jYWxob3N0MCAXDTI2MTEzMDAyMzgzMVoYDzIxMjYxMTA2
MDIzODMxWjAUMRIwEAYDVQQDDAlsb2NhbGhvc3QwWTATBgcqhkjOPQIBBggqhkjO
PQMBBwNCAATKUDypBsS7lcZ377vSRec52gqUf2Aq3X6RQa1Tv2b2T/3bLk7cyd8k
8Lazc8sxIQnSN7cN8ZtEsEfYsH7NAoM8o28wbTAdBgNVHQ4EFgQUCIE+T3oUoplT
JPa+nBTV92sS9PAwHwYDVR0jBBgwFoAUCIE+T3oUoplTJPa+nBTV92sS9PAwDwYD
VR0TAQH/BAUwAwEB/zAaBgNVHREEEzARgglsb2NhbGhvc3SHBH8AAAEwCgYIKoZI
zj0EAwIDSAAwRQIgHN4Lvw1CUVXrDNhnsdZ6eN7eRi04f2FVZkPrYCO0hPACIQCr
O9X5rXzLO5vlU3At0driUOi4n/CmYGGT+3+xZl9KJw==
-----END CERTIFICATE-----
`;

/** A proxy on this machine that takes a login; what it was asked. */
async function proxy(): Promise<{ readonly address: string; readonly asked: string[] }> {
  const asked: string[] = [];
  const server = createServer((request, response) => {
    asked.push(`${request.method} ${request.url} ${request.headers["proxy-authorization"]}`);
    const to = new URL(request.url ?? "");
    const { "proxy-authorization": _login, ...headers } = request.headers;
    request.pipe(
      httpRequest(to, { method: request.method ?? "GET", headers }, (answer) => {
        response.writeHead(answer.statusCode ?? 500, answer.headers);
        answer.pipe(response);
      }),
    );
  });
  server.on("connect", (request, socket, head) => {
    asked.push(`CONNECT ${request.url} ${request.headers["proxy-authorization"]} ${request.headers.authorization}`);
    const [host = "", port = ""] = (request.url ?? "").split(":");
    const onward = connect(Number(port), host, () => {
      socket.write("HTTP/1.1 200 OK\r\n\r\n");
      onward.write(head);
      onward.pipe(socket).pipe(onward);
    });
    for (const each of [onward, socket]) each.on("error", () => void [onward, socket].map((one) => one.destroy()));
  });
  return { address: await listening(server, "me:pass%20word@"), asked };
}

async function listening(server: Server, login = ""): Promise<string> {
  await new Promise<void>((resolve) => void server.listen(0, "127.0.0.1", resolve));
  onTestFinished(() => {
    server.closeAllConnections();
    server.close();
  });
  return `http://${login}127.0.0.1:${(server.address() as AddressInfo).port}`; // of a server that listens on a port
}

describe("a proxy", () => {
  const login = `Basic ${Buffer.from("me:pass word").toString("base64")}`;

  test("is asked for http by the whole address, with its own login", async () => {
    hub.push(id, model, { access: "private" });
    const { address, asked } = await proxy();
    vi.stubEnv("http_proxy", address);
    await resolveModel(id, options({ token: hub.token }));
    expect(asked.length).toBe(hub.asked.length);
    expect(asked[0]).toMatch(new RegExp(`^GET ${hub.endpoint}/api/models/org/kept/revision/main\\S* ${login}$`));
  });

  test("tunnels https, and sees neither address nor token; a redirect from there to http is not followed", async () => {
    hub.push(id, model, { access: "private" });
    const secure = createSecureServer({ key, cert }, (request, response) => {
      const onward = httpRequest(`${hub.endpoint}${request.url}`, { headers: request.headers }, (answer) => {
        response.writeHead(answer.statusCode ?? 500, answer.headers);
        answer.pipe(response);
      });
      onward.end();
    });
    const endpoint = (await listening(secure)).replace("http:", "https:");
    const { address, asked } = await proxy();
    vi.stubEnv("HTTPS_PROXY", address);
    vi.stubEnv("NODE_TLS_REJECT_UNAUTHORIZED", "0"); // the certificate is its own
    const folder = await resolveConfig(id, options({ endpoint, token: hub.token }));
    expect(folder).toContain("models--org--kept");
    const { host } = new URL(endpoint);
    expect(new Set(asked)).toEqual(new Set([`CONNECT ${host} ${login} undefined`]));
    expect(await failure(resolveModel(id, options({ endpoint, token: hub.token })))).toMatch(
      /redirects from https:\/\/ to http:\/\/, which is not followed/,
    );
  });

  test("that refuses is named without its password", async () => {
    const server = createServer((_, response) => void response.writeHead(407).end());
    server.on("connect", (_, socket) => void socket.end("HTTP/1.1 407 Proxy Authentication Required\r\n\r\n"));
    vi.stubEnv("HTTPS_PROXY", await listening(server, "me:secret@"));
    const message = await failure(resolveModel(id, options({ endpoint: "https://hub.invalid" })));
    expect(message).toMatch(/the hub cannot be reached at https:\/\/hub\.invalid \(the proxy 127\.0\.0\.1:\d+ answers 407\)/);
    expect(message).not.toContain("secret");
  });
});
