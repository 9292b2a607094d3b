import { readFileSync } from "node:fs";
import { createServer, type Server } from "node:http";
import type { AddressInfo } from "node:net";
import { availableParallelism } from "node:os";
import { extname, join, normalize } from "node:path";
import { fileURLToPath } from "node:url";
import { afterAll, beforeAll, describe, expect, onTestFinished, test } from "vitest";
import { findChromium, openPage } from "../scripts/chromium.mjs";
import { skipReason } from "../test-support/index.js";

const root = fileURLToPath(new URL("..", import.meta.url));
const chromium = findChromium();
if (typeof chromium === "string") skipReason(`no browser: ${chromium}`);

/** As a bundler resolves them, with the browser's conditions. */
const imports = {
  "@lowrank/tensor": "/packages/tensor/dist/index.js",
  "@lowrank/autograd": "/packages/autograd/dist/index.js",
  "@lowrank/lora": "/packages/lora/dist/index.js",
  "@lowrank/models": "/packages/models/dist/index.js",
  zod: "/node_modules/zod/index.js",
  "zod/mini": "/node_modules/zod/mini/index.js",
  "ml-matrix": "/node_modules/ml-matrix/src/index.js",
  ...Object.fromEntries(
    ["is-any-array", "ml-array-max", "ml-array-min", "ml-array-rescale"].map((name) => [name, `/node_modules/${name}/lib/index.js`]),
  ),
};
const types: Readonly<Record<string, string>> = { ".js": "text/javascript", ".mjs": "text/javascript", ".map": "application/json" };

/** Serves the built packages, isolated as SharedArrayBuffer asks for, and hands over what a page posts. */
class Site {
  script = "";
  /** Whether files that are not there are answered with a page, and 200. */
  answersPages = false;
  /** The page's Content-Security-Policy. */
  policy = "";
  #posted: (text: string) => void = () => {};
  readonly server: Server = createServer((request, response) => {
    response.setHeader("Cross-Origin-Opener-Policy", "same-origin");
    response.setHeader("Cross-Origin-Embedder-Policy", "require-corp");
    const path = normalize(new URL(request.url ?? "/", "http://localhost").pathname);
    if (request.method === "POST") {
      let body = "";
      request.on("data", (chunk) => {
        body += chunk;
      });
      request.on("end", () => {
        response.end();
        this.#posted(body);
      });
    } else if (path === "/") {
      response.setHeader("Content-Type", "text/html");
      if (this.policy !== "") response.setHeader("Content-Security-Policy", this.policy);
      response.end(`<!doctype html><script type="importmap">${JSON.stringify({ imports })}</script><script type="module">
        const post = (value) => fetch("/", { method: "POST", body: JSON.stringify(value) });
        try { post({ result: await (async () => { ${this.script} })() }); } catch (error) { post({ error: String(error?.stack ?? error) }); }
      </script>`);
    } else {
      try {
        // Bundlers also find a module that is imported without its ending.
        const file = extname(path) === "" ? `${path}.js` : path;
        const bytes = readFileSync(join(root, file));
        response.setHeader("Content-Type", types[extname(file)] ?? "application/octet-stream");
        response.end(bytes);
      } catch {
        response.statusCode = this.answersPages ? 200 : 404;
        response.setHeader("Content-Type", "text/html");
        response.end("<!doctype html><title>An application of one page</title>");
      }
    }
  });

  /** Runs the body of an async function in a page; its result, or what it threw. */
  async run(script: string, flags: readonly string[] = []): Promise<unknown> {
    if (typeof chromium === "string") throw new Error(chromium);
    this.script = script;
    const { port } = this.server.address() as AddressInfo;
    const answer = new Promise<string>((resolve) => {
      this.#posted = resolve;
    });
    const page = openPage(chromium, `http://127.0.0.1:${port}/`, flags);
    try {
      const silence = new Promise<string>((_, reject) =>
        setTimeout(() => reject(new Error(`The page did not answer.\n${page.output()}`)), 60_000).unref(),
      );
      return JSON.parse(await Promise.race([answer, silence]));
    } finally {
      await page.close();
    }
  }
}

/** A product on the cpu device, with what the device says of itself. */
const cpuProduct = `
  const { device, tensor } = await import("@lowrank/tensor");
  const dev = await device("cpu", { budgetBytes: 2 ** 26 });
  const a = tensor([[1, 2], [3, 4]], { device: dev });
  return { description: dev.description, values: [...(await a.matmul(a).data())] };`;

describe.skipIf(typeof chromium === "string")("in a browser", () => {
  const site = new Site();
  beforeAll(() => new Promise<void>((resolve) => void site.server.listen(0, "127.0.0.1", () => resolve())));
  afterAll(() => void site.server.close());

  test.each(["tensor", "autograd", "lora", "models"])("@lowrank/%s loads", async (name) => {
    expect(await site.run(`return Object.keys(await import("@lowrank/${name}")).length > 0;`)).toEqual({ result: true });
  });

  test("a model by address, from a host that answers index.html for what it lacks, and rows of a file that was dropped on the page", async () => {
    site.answersPages = true;
    onTestFinished(() => {
      site.answersPages = false;
    });
    const script = `
      const { device } = await import("@lowrank/tensor");
      const { generate, loadModel, readExamples } = await import("@lowrank/models");
      const dev = await device("cpu", { budgetBytes: 2 ** 28 });
      const { model, tokenizer } = await loadModel(location.origin + "/examples/base-model/model", { device: dev });
      const tokens = await generate(model, tokenizer.encode("The"), { maxNewTokens: 3, temperature: 0 });
      const dropped = new File(['{"text":"The one."}\\n{"prompt":"The","completion":"other."}'], "rows.jsonl");
      const { examples, rowCount } = await readExamples(dropped, dropped.name, tokenizer, { context: model.contextLength });
      const missing = await loadModel(location.origin + "/no/such/model", { device: dev }).catch((error) => error.message);
      return { count: tokens.length, rowCount, lines: Array.from(examples, ({ line }) => line), missing };`;
    const { result, error } = (await site.run(script)) as { result?: Readonly<Record<string, unknown>>; error?: string };
    expect(error).toBeUndefined();
    expect(result).toMatchObject({ count: 3, rowCount: 2, lines: [1, 2] });
    expect(result?.["missing"]).toMatch(/\/no\/such\/model\/config\.json: the host does not have this file, or gives a web page/);
  });

  test.each([
    ["forbids workers", "worker-src 'none'", /1 thread, .*; no worker starts: .*worker-src blob: allows it/],
    ["allows scripts of its own only", "script-src 'self' 'unsafe-inline' 'wasm-unsafe-eval'", /1 thread, .*; no worker starts/],
  ])("a page whose policy %s computes on one thread, which waits for nobody", async (_, policy, description) => {
    site.policy = policy;
    onTestFinished(() => {
      site.policy = "";
    });
    const { result, error } = (await site.run(cpuProduct)) as { result?: { description: string; values: number[] }; error?: string };
    expect(error).toBeUndefined();
    expect(result?.description).toMatch(description);
    expect(result?.values).toEqual([7, 10, 15, 22]);
  });

  test("a page whose policy forbids WebAssembly is told so", async () => {
    site.policy = "script-src 'self' 'unsafe-inline'";
    onTestFinished(() => {
      site.policy = "";
    });
    const { error } = (await site.run(cpuProduct)) as { error?: string };
    expect(error).toMatch(/DeviceError: cpu: WebAssembly cannot be compiled here .*Allow 'wasm-unsafe-eval'/);
  });

  test("a page that reports more cores than there are uses as many threads as run at a time", async () => {
    const lie = `Object.defineProperty(navigator, "hardwareConcurrency", { value: ${2 * availableParallelism()} });`;
    const { result, error } = (await site.run(lie + cpuProduct)) as { result?: { description: string; values: number[] }; error?: string };
    expect(error).toBeUndefined();
    const threadCount = Number(/, (\d+) threads?,/.exec(result?.description ?? "")?.[1]);
    expect(threadCount).toBeGreaterThanOrEqual(1);
    expect(threadCount).toBeLessThanOrEqual(availableParallelism());
    expect(result?.values).toEqual([7, 10, 15, 22]);
  });

  test("kernel variants that were measured are remembered for the next device", async () => {
    const script = `
      const { device, planningDevice, tensor, tune } = await import("@lowrank/tensor");
      const found = [];
      const measure = async () => {
        const dev = await device("webgpu");
        const { device: outline, plans } = planningDevice(dev);
        const ones = tensor(new Float32Array(64).fill(1), { device: outline, shape: [8, 8] });
        await ones.matmul(ones).realize();
        const { adapter } = await tune(dev, plans, ({ name }) => found.push(name));
        dev.dispose();
        return adapter;
      };
      return { adapters: [await measure(), await measure()], found };`;
    const flags = ["--enable-unsafe-webgpu", "--use-webgpu-adapter=swiftshader"];
    const { result, error } = (await site.run(script, flags)) as {
      result?: { adapters: readonly string[]; found: readonly string[] };
      error?: string;
    };
    expect(error).toBeUndefined();
    expect(result?.found).toEqual(["8x8 f32 · 8x8 f32"]);
    expect(result?.adapters[0]).toMatch(/swiftshader/i);
    expect(result?.adapters[1]).toBe(result?.adapters[0]);
  });

  test.each([
    ["cpu", [], 400],
    ["webgpu", ["--enable-unsafe-webgpu", "--use-webgpu-adapter=swiftshader"], 200],
  ] as const)("a loop on %s that drops what it read does not run out of memory, nor one that keeps it", async (name, flags, count) => {
    // Nobody can ask a browser to collect garbage.
    const script = `
      const { compile, device, realize, tensor } = await import("@lowrank/tensor");
      const dev = await device("${name}", { budgetBytes: 2 ** 23, threads: 2 });
      const result = (i) => tensor([i], { device: dev }).expand([65536]).add(0.5);
      const wrong = [];
      const check = async (i, t) => {
        const values = await t.data();
        if (values.length !== 65536 || values[0] !== i + 0.5 || values.at(-1) !== i + 0.5) wrong.push(i);
      };
      for (let i = 0; i < ${count}; i++) await check(i, result(i));
      const kept = Array.from({ length: 60 }, (_, i) => result(i));
      for (const [i, t] of kept.entries()) await check(i, t);
      const evicted = kept.filter((t) => !t.storage.hasBuffer).length;
      for (const [i, t] of kept.entries()) await check(i, t.mul(1));
      kept.length = 0;
      for (let i = 0; i < ${count}; i++) await realize(result(i));
      return { wrong, evicted };`;
    const { result, error } = (await site.run(script, flags)) as { result?: { wrong: number[]; evicted: number }; error?: string };
    expect(error).toBeUndefined();
    expect(result?.wrong).toEqual([]);
    expect(result?.evicted).toBeGreaterThan(0);
  });
});
