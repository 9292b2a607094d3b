import { createServer, type Server } from "node:http";
import type { AddressInfo } from "node:net";
import { initModel, loadModel, modelOutline, saveModel } from "@lowrank/models";
import {
  CheckpointError,
  DeviceError,
  device,
  joined,
  memoryFiles,
  type Tensor,
  tensor,
  urlFiles,
  writeSafetensors,
} from "@lowrank/tensor";
import { afterAll, beforeAll, describe, expect, test } from "vitest";

const dev = await device("cpu", { threads: 1 });
const config = { model_type: "gpt2", vocab_size: 11, n_embd: 8, n_layer: 2, n_head: 2, n_positions: 16 };
const made = await initModel(config, { device: dev, seed: 1 });
const ids = tensor([[1, 2, 3, 4]], { device: dev, dtype: "i32" });
const logits = [...(await made.forward(ids).data())];

const bytesOf = (tensors: ReadonlyMap<string, Tensor>): Promise<Uint8Array> => joined(writeSafetensors(tensors, { format: "pt" }));
const json = (value: unknown): Uint8Array => new TextEncoder().encode(JSON.stringify(value));
const weights = made.namedParameters();
const names = [...weights.keys()];
const half = (parity: number): Map<string, Tensor> => new Map([...weights].filter(([name]) => names.indexOf(name) % 2 === parity));

const single = { "config.json": json(config), "model.safetensors": await bytesOf(weights) };
const sharded = {
  "config.json": json(config),
  "a.safetensors": await bytesOf(half(0)),
  "b.safetensors": await bytesOf(half(1)),
  "model.safetensors.index.json": json({
    weight_map: Object.fromEntries(names.map((name, i) => [name, i % 2 ? "b.safetensors" : "a.safetensors"])),
  }),
};

const page = "<!DOCTYPE html>\n<html><body>An application of one page.</body></html>";

/** How a host answers for what it has, and for what it has not. */
interface Host {
  readonly knowsRanges: boolean;
  readonly missing: { readonly status: number; readonly type: string; readonly body: string };
}

const notFound: Host["missing"] = { status: 404, type: "text/plain", body: "no such file" };
const hosts: Readonly<Record<string, Host>> = {
  "404 for what it lacks": { knowsRanges: true, missing: notFound },
  "403 for what it lacks, as a store of objects": {
    knowsRanges: true,
    missing: { status: 403, type: "application/xml", body: "<Error/>" },
  },
  "no ranges": { knowsRanges: false, missing: notFound },
  "index.html and 200 for what it lacks": { knowsRanges: true, missing: { status: 200, type: "text/html; charset=utf-8", body: page } },
  "index.html without a doctype": { knowsRanges: false, missing: { status: 200, type: "text/html", body: "<script>app()</script>" } },
  "index.html, called an octet-stream": { knowsRanges: true, missing: { status: 200, type: "application/octet-stream", body: page } },
};

let folder: Readonly<Record<string, Uint8Array>> = single;
let host: Host = { knowsRanges: true, missing: notFound };
const server: Server = createServer((request, response) => {
  const name = new URL(request.url ?? "/", "http://localhost").pathname.replace("/models/m/", "");
  const bytes = folder[name];
  const range = host.knowsRanges ? /^bytes=(\d+)-(\d+)$/.exec(request.headers.range ?? "") : null;
  if (!bytes) {
    response.writeHead(host.missing.status, { "content-type": host.missing.type }).end(host.missing.body);
  } else if (range) {
    const [start, end] = [Number(range[1]), Math.min(Number(range[2]) + 1, bytes.length)];
    response.writeHead(206, { "content-range": `bytes ${start}-${end - 1}/${bytes.length}` }).end(bytes.subarray(start, end));
  } else response.writeHead(200).end(bytes);
});
let address = "";
beforeAll(async () => {
  await new Promise<void>((resolve) => void server.listen(0, "127.0.0.1", () => resolve()));
  address = `http://127.0.0.1:${(server.address() as AddressInfo).port}/models/m`;
});
afterAll(() => void server.close());

const failure = async (work: () => unknown): Promise<Error> => {
  try {
    await work();
  } catch (error) {
    return error as Error;
  }
  return new Error("it worked");
};

describe("loadModel by address", () => {
  test.each(Object.keys(hosts))("from a host with %s", async (name) => {
    host = hosts[name] as Host; // a key of it
    for (const files of [single, sharded]) {
      folder = files;
      for (const path of [address, `${address}/`]) {
        const { model, tokenizer } = await loadModel(path, { device: dev });
        expect([...(await model.forward(ids).data())]).toEqual(logits);
        expect(tokenizer).toBeNull();
      }
    }
  });

  const { "config.json": _config, ...withoutConfig } = single;
  const { "b.safetensors": _shard, ...withoutShard } = sharded;
  test.each<[string, Readonly<Record<string, Uint8Array>>, string, string, RegExp]>([
    ["no config.json", withoutConfig, "404 for what it lacks", "/config.json", /does not have this file.*Give the address/],
    ["a page for config.json", withoutConfig, "index.html and 200 for what it lacks", "/config.json", /or gives a web page in its place/],
    ["a page called bytes for config.json", withoutConfig, "index.html, called an octet-stream", "/config.json", /or gives a web page/],
    ["no weights", { "config.json": json(config) }, "404 for what it lacks", "", /has no model\.safetensors.*Check the address/],
    ["a page for the weights", { "config.json": json(config) }, "index.html, called an octet-stream", "", /has no model\.safetensors/],
    ["no shard", withoutShard, "index.html and 200 for what it lacks", "/b.safetensors", /is missing, but/],
    ["a server's error", single, "500", "/config.json", /answers 500\. Check the address, or try again later/],
  ])("names the address of %s", async (_, files, name, path, message) => {
    folder = name === "500" ? {} : files;
    host = hosts[name] ?? { knowsRanges: true, missing: { status: 500, type: "text/plain", body: "" } };
    const error = await failure(() => loadModel(address, { device: dev }));
    expect(error).toBeInstanceOf(CheckpointError);
    expect(error.message).toContain(`${address}${path}`);
    expect(error.message).toMatch(message);
  });

  test("says that a host cannot be reached, and that an address is not written to", async () => {
    const unreachable = await failure(() => loadModel("http://127.0.0.1:1/m", { device: dev }));
    expect(unreachable).toBeInstanceOf(CheckpointError);
    expect(unreachable.message).toMatch(/^http:\/\/127\.0\.0\.1:1\/m\/config\.json: the host cannot be reached \(.+\)\. Check the address/);
    const written = await failure(() => saveModel(made, address, { files: urlFiles() }));
    expect(written.message).toMatch(/an address cannot be written to/);
  });

  test("a file system of one's own that gives pages for what it lacks", async () => {
    const files = memoryFiles(Object.fromEntries(Object.entries(sharded).map(([name, bytes]) => [`m/${name}`, bytes])));
    const withPages = { ...files, open: async (path: string) => (await files.open(path)) ?? memoryFiles({ [path]: page }).open(path) };
    const { model } = await loadModel("m", { device: dev, files: withPages });
    expect([...(await model.forward(ids).data())]).toEqual(logits);
    await saveModel(model, "copy", { files });
    expect(await files.list("copy")).toEqual(["config.json", "model.safetensors"]);
  });

  test.each([
    ["config.json", {}],
    ["model.safetensors", { "m/config.json": single["config.json"] }],
    ["b.safetensors", Object.fromEntries(Object.entries(withoutShard).map(([name, bytes]) => [`m/${name}`, bytes]))],
  ])("names %s where a page was saved in its place", async (name, others) => {
    const files = memoryFiles({ ...others, [`m/${name}`]: `\n  ${page}` });
    const error = await failure(() => loadModel("m", { device: dev, files }));
    expect(error).toBeInstanceOf(CheckpointError);
    expect(error.message).toMatch(
      new RegExp(`^m/${name}: this is a web page \\(HTML\\), not the file.*check the address, or fetch the file again`),
    );
  });

  test("keeps a query behind the path, asks for what is needed with the headers given", async () => {
    const asked: string[] = [];
    const files = urlFiles({
      headers: { authorization: "Bearer x" },
      fetch: async (at, { headers }) => {
        asked.push(`${at} ${JSON.stringify(headers)}`);
        return new Response("abc", { status: 206, headers: { "content-range": "bytes 0-2/3" } });
      },
    });
    const source = await files.open(files.join("https://host/a b/?token=1", "c#d.json"));
    expect([source?.byteLength, ...((await source?.read(1, 2)) ?? [])]).toEqual([3, 98, 99]);
    expect(asked).toEqual(['https://host/a%20b/c%23d.json?token=1 {"authorization":"Bearer x","range":"bytes=0-1023"}']);
  });
});

describe("what JavaScript may leave out or get wrong", () => {
  const files = memoryFiles({ "m/config.json": single["config.json"], "m/model.safetensors": single["model.safetensors"] });
  /** Calls as JavaScript makes them, without types. */
  const load = loadModel as (...given: readonly unknown[]) => Promise<unknown>;
  const save = saveModel as (...given: readonly unknown[]) => Promise<unknown>;
  const init = initModel as (...given: readonly unknown[]) => Promise<unknown>;
  const outline = modelOutline as (...given: readonly unknown[]) => unknown;
  test.each<[string, () => unknown, new (...given: never[]) => Error, RegExp]>([
    ["loadModel without options", () => load("m"), DeviceError, /`device` is missing\. Pass what device\(\) gives/],
    ["loadModel without a device", () => load("m", { files }), DeviceError, /`device` is missing/],
    ["loadModel with a device's name", () => load("m", { files, device: "cpu" }), DeviceError, /`device` is "cpu", not a device/],
    [
      "loadModel with a promise",
      () => load("m", { files, device: device("reference") }),
      DeviceError,
      /`device` is a Promise.*await device\(\)/,
    ],
    [
      "loadModel with odd files",
      () => load("m", { device: dev, files: {} }),
      CheckpointError,
      /`files` is an Object, not an object with open/,
    ],
    ["loadModel without a path", () => load(undefined, { device: dev }), CheckpointError, /the folder is undefined, not a path/],
    [
      "loadModel with u8",
      () => load("m", { device: dev, files, dtype: "u8" }),
      CheckpointError,
      /stored as "u8"\. Choose a `dtype` among auto, f32, f16, bf16/,
    ],
    ["loadModel with toString", () => load("m", { device: dev, files, dtype: "toString" }), CheckpointError, /among auto, f32, f16, bf16/],
    ["initModel without a device", () => init(config), DeviceError, /initModel: `device` is missing/],
    ["modelOutline with i32", () => outline(config, { device: dev, dtype: "i32" }), CheckpointError, /among f32, f16, bf16/],
    ["saveModel without a folder", () => save(made), CheckpointError, /saveModel: the folder is undefined/],
  ])("%s", async (_, call, kind, message) => {
    const error = await failure(call);
    expect(error).toBeInstanceOf(kind);
    expect(error.message).toMatch(message);
  });

  test("the browser's entry without files", async () => {
    const browser = await import("../../src/checkpoint/load.js");
    const error = await failure(() => (browser.loadModel as typeof load)("m", { device: dev }));
    expect(error).toBeInstanceOf(CheckpointError);
    expect(error.message).toMatch(/`files` is missing\. Give an address \(https:\/\/…\), or pass `files`: urlFiles\(\)/);
  });
});
