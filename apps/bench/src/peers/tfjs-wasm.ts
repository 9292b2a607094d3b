// TensorFlow.js on WebAssembly with SIMD and threads. Its threaded build is kept from Node (tensorflow/tfjs#3830) because it starts its
// workers from blobs; here the blobs are files.
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { createRequire, syncBuiltinESMExports } from "node:module";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { serve } from "./serve.js";

/** What the bundle's text takes for granted where it runs a second time, as a worker's script. */
const prelude = `
URL.createObjectURL = (blob) => blob.path;
Object.assign(globalThis, { __dirname, __filename, commonjsGlobal: globalThis, _scriptDir: undefined });
for (const [index, name] of Object.entries({ 0: "fs", 1: "path", 3: "perf_hooks", 4: "os" })) globalThis["require$$" + index] = require(name);
`;

/** Returns what removes the files again, once every worker has read its own. */
function setThreads(threads: number): () => void {
  const folder = mkdtempSync(join(tmpdir(), "lowrank-bench-"));
  let count = 0;
  /** A blob that is a file: a worker gets it as an object with its path. */
  class FileBlob {
    readonly path: string = join(folder, `${count++}.cjs`);
    constructor(parts: readonly string[], options: { readonly type?: string } = {}) {
      const isWorker = options.type === "application/javascript";
      writeFileSync(this.path, (isWorker ? prelude : "") + parts.join(""));
    }
  }
  Object.assign(globalThis, { Blob: FileBlob });
  URL.createObjectURL = (blob) => (blob as unknown as FileBlob).path; // every Blob made from here on is one
  // The backend uses no more threads than half of the processors.
  const os = createRequire(import.meta.url)("node:os") as { cpus: () => unknown };
  os.cpus = () => Array.from({ length: 2 * threads }, () => ({}));
  syncBuiltinESMExports();
  return () => rmSync(folder, { recursive: true, force: true });
}

await serve(async ({ threads }) => {
  const removeFiles = threads > 1 ? setThreads(threads) : () => {};
  const tf = await import("@tensorflow/tfjs-core");
  const wasm = await import("@tensorflow/tfjs-backend-wasm");
  wasm.setThreadsCount(threads);
  tf.env().set("WASM_HAS_MULTITHREAD_SUPPORT", threads > 1);
  if (!(await tf.setBackend("wasm"))) return { skipped: "TensorFlow.js does not start its wasm backend" };
  await tf.ready();
  removeFiles();
  const { tfjsTasks } = await import("./tfjs.js");
  return {
    name: "tfjs-wasm",
    version: wasm.version_wasm,
    detail: `SIMD, ${wasm.getThreadsCount()} threads`,
    tasks: tfjsTasks({ hasPlainProductsOnly: true }),
  };
});
