// A LoRA step (rank 8 on q_proj and v_proj, AdamW, clipping) of a Llama, in ms; beside PyTorch's where LOWRANK_PYTHON names an interpreter
// with transformers and PEFT. Both sides take turns in one run, and the ratio is that of the medians.
//
//   LOWRANK_PYTHON=python node scripts/bench-step.mjs [MODEL] [BATCH] [LENGTH]
import { spawn } from "node:child_process";
import { existsSync } from "node:fs";
import { availableParallelism } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { pathToFileURL } from "node:url";
import { root } from "./prepare.mjs";

const shared = join(root, "..", "shared", "models", "stories260K");
const model = process.argv[2] ?? (existsSync(shared) ? shared : join(root, "examples", "base-model", "model"));
const [batch, length] = [Number(process.argv[3] ?? 8), Number(process.argv[4] ?? 128)];
const rounds = 7;
const stepsARound = 8;

/** @param {string} name */
const entry = (name) =>
  import(pathToFileURL(join(root, "packages", name, "dist", "node.js")).href).catch(
    () => import(pathToFileURL(join(root, "packages", name, "dist", "index.js")).href),
  );

/** @returns {Promise<{ run: (count: number) => Promise<number>, end: () => void }>} */
async function ours() {
  const [{ device, tensor, compile }, { grad, optim }, { applyAdapter }, { loadModel }] = await Promise.all(
    ["tensor", "autograd", "lora", "models"].map(entry),
  );
  const dev = await device("cpu");
  const { model: loaded } = await loadModel(model, { device: dev });
  const adapter = applyAdapter(loaded, { method: "lora", rank: 8, alpha: 16, targets: ["q_proj", "v_proj"] });
  const parameters = adapter.parameters();
  const optimizer = optim.adamw(parameters, { learningRate: 1e-3, weightDecay: 0 });
  const step = compile((/** @type {unknown} */ ids) => {
    const loss = loaded.loss(ids, ids);
    optimizer.update(optim.clipByGlobalNorm(grad(loss, parameters), 1));
    return loss;
  });
  const values = Int32Array.from({ length: batch * length }, (_, i) => 3 + ((i * 7919) % (loaded.vocabSize - 3)));
  const ids = tensor(values, { dtype: "i32", shape: [batch, length], device: dev });
  return {
    async run(count) {
      const start = performance.now();
      for (let i = 0; i < count; i++) await step(ids).item();
      return (performance.now() - start) / 1000;
    },
    end: () => dev.dispose(),
  };
}

/** @param {string} python */
function pytorch(python) {
  const child = spawn(
    python,
    [join(root, "scripts", "bench-step.py"), model, String(batch), String(length), String(availableParallelism())],
    {
      stdio: ["pipe", "pipe", "ignore"],
    },
  );
  const lines = createInterface({ input: child.stdout })[Symbol.asyncIterator]();
  return {
    /** @param {number} count */
    async run(count) {
      child.stdin.write(`${count}\n`);
      const { value, done } = await lines.next();
      if (done) throw new Error(`${python} ended: LOWRANK_PYTHON must have torch, transformers and peft.`);
      return Number(value);
    },
    end: () => child.kill(),
  };
}

/** @param {number[]} values */
const median = (values) => [...values].sort((a, b) => a - b)[values.length >> 1] ?? Number.NaN;

const python = process.env["LOWRANK_PYTHON"];
const sides = { Lowrank: await ours(), ...(python ? { PyTorch: pytorch(python) } : {}) };
/** @type {Record<string, number[]>} */
const times = Object.fromEntries(Object.keys(sides).map((name) => [name, []]));
for (const side of Object.values(sides)) await side.run(4);
for (let round = 0; round < rounds; round++) {
  for (const [name, side] of Object.entries(sides)) times[name]?.push((1000 * (await side.run(stepsARound))) / stepsARound);
}
console.log(`LoRA step, batch ${batch} x ${length}, cpu, median of ${rounds} rounds of ${stepsARound} steps`);
for (const [name, values] of Object.entries(times)) {
  console.log(
    `  ${name.padEnd(8)} ${median(values).toFixed(1).padStart(8)} ms   (${Math.min(...values).toFixed(1)} to ${Math.max(...values).toFixed(1)})`,
  );
}
if (times["PyTorch"])
  console.log(`  Lowrank takes ${(median(times["Lowrank"] ?? []) / median(times["PyTorch"])).toFixed(2)} of PyTorch's time`);
else console.log("  PyTorch: skipped, LOWRANK_PYTHON names no interpreter");
for (const side of Object.values(sides)) side.end();
