import { existsSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { defineConfig } from "vitest/config";
import { BaseSequencer, type TestSpecification } from "vitest/node";

/** Tests see the TypeScript sources of every package, so that a unit test needs no build. */
function source(name: string): string {
  const folder = fileURLToPath(new URL(`./packages/${name}/src/`, import.meta.url));
  return existsSync(`${folder}node.ts`) ? `${folder}node.ts` : `${folder}index.ts`;
}

const alias = [
  ...["tensor", "autograd", "lora", "models"].map((name) => ({ find: new RegExp(`^@lowrank/${name}$`), replacement: source(name) })),
  { find: /^test-support$/, replacement: fileURLToPath(new URL("./test-support/index.ts", import.meta.url)) },
];

const everywhere = ["packages/*/test/**", "apps/*/test/**", "test/**"];
const files = (ending: string): string[] => everywhere.map((folder) => `${folder}/*${ending}`);
const backends = ["cpu", "swiftshader", "lavapipe", "gpu"] as const;
/** LOWRANK_TEST_BACKEND=cpu,lavapipe narrows the device tests down; unset means `cpu` alone, which every machine has. */
const chosen = (process.env["LOWRANK_TEST_BACKEND"] ?? "cpu").split(",").map((name) => name.trim());
for (const name of chosen) {
  if (!(backends as readonly string[]).includes(name)) {
    throw new Error(`LOWRANK_TEST_BACKEND=${name}: unknown backend. Choose among ${backends.join(", ")}.`);
  }
}

/** LOWRANK_TEST_EXCLUDE=PATTERN,PATTERN leaves out further device tests; projects do not hear `--exclude`. */
const excluded = (process.env["LOWRANK_TEST_EXCLUDE"] ?? "").split(",").filter((pattern) => pattern !== "");

const onDevice = {
  include: files(".test.ts"),
  exclude: ["**/node_modules/**", ...excluded, ...[".host.test.ts", ".alone.test.ts", ".life.test.ts", ".long.test.ts"].flatMap(files)],
};

/** Tests of single kernels, which keep lavapipe's own width of vectors: all other files ask for a narrow one (test-support/device.ts), and a process has one. */
const ownWidth = ["packages/tensor/test/webgpu-*.test.ts"];

/** The longest files, longest first: they start first, so that no worker waits for one that the other began last. */
const longest = [
  ...[
    "webgpu-attention",
    "webgpu-matmul",
    "webgpu-loop",
    "methods/lora",
    "test/goldens",
    "test/families",
    "prompt-goldens",
    "methods/tuners",
    "methods/prompts",
  ],
  ...["cpu-attention", "cpu-matmul", "cpu-threads", "cpu-loop", "test/peft", "compare", "inits", "test/pack", "workflow", "quickstart"],
];

class LongestFirst extends BaseSequencer {
  override async sort(specifications: TestSpecification[]): Promise<TestSpecification[]> {
    const rank = ({ moduleId }: TestSpecification): number => {
      const at = longest.findIndex((name) => moduleId.includes(name));
      return at < 0 ? longest.length : at;
    };
    return (await super.sort(specifications)).sort((a, b) => rank(a) - rank(b));
  }
}

export default defineConfig({
  resolve: { alias },
  oxc: { target: "node20" },
  test: {
    pool: "forks",
    // Every stage has the same files in a process of its own: they are transformed once for all of them.
    experimental: { fsModuleCache: true, fsModuleCachePath: "node_modules/.cache/lowrank/modules" },
    maxWorkers: 2,
    // The files of a worker share its process: packages are imported, plans and shaders made, once for all of them. A test leaves nothing
    // behind in what is global.
    isolate: false,
    sequence: { sequencer: LongestFirst },
    // Shared machines are slow at times; a test that hangs is still ended.
    testTimeout: 180_000,
    hookTimeout: 120_000,
    // Dawn keeps threads alive; a worker that does not come down by itself is ended.
    teardownTimeout: 5_000,
    projects: [
      { extends: true, test: { name: "host", include: files(".host.test.ts") } },
      // What counts on finalizers: in a process that ran many other files none ran any more, twice in some fifty runs.
      { extends: true, test: { name: "alone", include: files(".alone.test.ts"), isolate: true } },
      // The device tests on `cpu` once more, with right operands packed for good whenever they may be.
      { extends: true, test: { name: "panels", ...onDevice, env: { LOWRANK_TEST_BACKEND: "cpu", LOWRANK_TEST_PANELS: "1" } } },
      ...backends
        .filter((name) => chosen.includes(name))
        .map((name) => ({
          extends: true as const,
          test: {
            name,
            ...onDevice,
            exclude: [...onDevice.exclude, ...(name === "lavapipe" ? ownWidth : [])],
            env: { LOWRANK_TEST_BACKEND: name },
            // A software adapter compiles a shader in a tenth of a second, and a training step has a hundred of them.
            ...(name === "cpu" ? {} : { testTimeout: 240_000 }),
          },
        })),
      ...(chosen.includes("lavapipe")
        ? [
            {
              extends: true as const,
              test: { name: "lavapipe-width", ...onDevice, include: ownWidth, env: { LOWRANK_TEST_BACKEND: "lavapipe" } },
            },
          ]
        : []),
      { extends: true, test: { name: "life", include: files(".life.test.ts"), testTimeout: 600_000 } },
      { extends: true, test: { name: "long", include: files(".long.test.ts"), testTimeout: 600_000 } },
    ],
  },
});
