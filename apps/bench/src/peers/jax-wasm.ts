// jax-js on WebAssembly, SIMD and threads. Its threads are the browser's Workers made from blobs, which Node lacks: this file gives them.
import { Worker as NodeWorker } from "node:worker_threads";
import { jaxTasks, jaxVersion } from "./jax.js";
import { setNavigator } from "./navigator.js";
import { serve } from "./serve.js";

/** The browser's names inside a worker of Node. */
const prelude = `
const { parentPort } = require("node:worker_threads");
globalThis.self = globalThis;
globalThis.postMessage = (message) => parentPort.postMessage(message);
parentPort.on("message", (data) => globalThis.onmessage({ data }));
`;

const sources = new Map<string, string>();

/** A Blob whose text can be had without waiting. */
class TextBlob extends Blob {
  readonly source: string;
  constructor(parts: readonly string[], options?: { readonly type?: string }) {
    super([...parts], options);
    this.source = parts.join("");
  }
}

/** As much of a browser's Worker as jax-js uses. */
class BlobWorker {
  onmessage: ((event: { readonly data: unknown }) => void) | null = null;
  onerror: ((event: Error) => void) | null = null;
  readonly #worker: NodeWorker;

  constructor(url: string) {
    this.#worker = new NodeWorker(prelude + (sources.get(url) ?? ""), { eval: true });
    this.#worker.on("message", (data: unknown) => this.onmessage?.({ data }));
    this.#worker.on("error", (error: Error) => this.onerror?.(error));
  }

  postMessage(message: unknown): void {
    this.#worker.postMessage(message);
  }
}

function setWorkers(): void {
  Object.assign(globalThis, { Blob: TextBlob, Worker: BlobWorker });
  URL.createObjectURL = (blob) => {
    const url = `source:${sources.size}`;
    sources.set(url, (blob as TextBlob).source); // every Blob made from here on is one
    return url;
  };
  URL.revokeObjectURL = () => {};
}

await serve(async ({ threads }) => {
  setNavigator({ hardwareConcurrency: threads });
  if (threads > 1) setWorkers();
  const jax = await import("@jax-js/jax");
  await jax.init("wasm");
  jax.defaultDevice("wasm");
  return { name: "jax-wasm", version: jaxVersion(), detail: `jit, SIMD, ${threads} threads`, tasks: jaxTasks(jax) };
});
