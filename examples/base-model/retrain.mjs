/**
 * Makes the embedded base model again, from nothing but the two data sets, with our own trainer:
 * corpus → tokenizer → random checkpoint → `lowrank train --method full` → bf16 → `model/`.
 *
 *     node examples/base-model/retrain.mjs [--work DIR] [--model DIR] [--device auto|cpu|webgpu] [--steps 4000] [--resume]
 *
 * `--work` holds the intermediate files (default `examples/base-model/.work`); `--resume` goes on with an interrupted training there.
 */
import { spawnSync } from "node:child_process";
import { copyFileSync, existsSync, mkdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import { writeCorpus } from "./corpus.mjs";
import { writeFreshLlama } from "./init.mjs";
import { decodeSafetensors, encodeSafetensors } from "./safetensors.mjs";

const here = dirname(fileURLToPath(import.meta.url));
const cli = join(here, "../../apps/cli/dist/main.js");

/** The recipe. README.md of the model says what it gives. */
const MAX_LENGTH = 128; // tokens a row
const SIZES = { vocabSize: 1024, hidden: 128, intermediate: 384, layers: 5, heads: 4, context: 2 * MAX_LENGTH };
const TRAINING = { "batch-size": 16, "max-length": MAX_LENGTH, lr: 3e-3, schedule: "cosine", warmup: 100, seed: 1 };

const { values } = parseArgs({
  options: {
    work: { type: "string", default: join(here, ".work") },
    model: { type: "string", default: join(here, "model") },
    device: { type: "string", default: "auto" },
    steps: { type: "string", default: "4000" },
    resume: { type: "boolean", default: false },
  },
});
const { work, model } = values;
const corpus = join(work, "corpus");
const fresh = join(work, "fresh");
const run = join(work, "run");

if (!values.resume) {
  rmSync(work, { recursive: true, force: true });
  console.log(writeCorpus(corpus, { vocabSize: SIZES.vocabSize, maxLength: MAX_LENGTH }));
  writeFreshLlama(fresh, { ...SIZES, seed: TRAINING.seed });
  for (const name of ["tokenizer.json", "tokenizer_config.json"]) copyFileSync(join(corpus, name), join(fresh, name));
}

const flags = {
  model: fresh,
  data: join(corpus, "train.jsonl"),
  "eval-data": join(corpus, "eval.jsonl"),
  method: "full",
  steps: values.steps,
  ...TRAINING,
  device: values.device,
  out: run,
};
const trained = spawnSync(
  process.execPath,
  [cli, "train", ...Object.entries(flags).flatMap(([name, value]) => [`--${name}`, String(value)]), ...(values.resume ? ["--resume"] : [])],
  { stdio: "inherit" },
);
if (trained.status !== 0) process.exit(trained.status ?? 1);

mkdirSync(model, { recursive: true });
const config = { ...JSON.parse(readFileSync(join(fresh, "config.json"), "utf8")), torch_dtype: "bfloat16" };
writeFileSync(join(model, "config.json"), `${JSON.stringify(config, null, 2)}\n`);
writeFileSync(join(model, "model.safetensors"), encodeSafetensors(decodeSafetensors(readFileSync(join(run, "model.safetensors"))), "BF16"));
for (const name of ["tokenizer.json", "tokenizer_config.json"]) copyFileSync(join(corpus, name), join(model, name));
if (!existsSync(join(model, "README.md"))) console.log(`${model} has no README.md: write the model card.`);
console.log(`The base model is in ${model}.`);
