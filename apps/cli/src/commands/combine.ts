import { adapterFiles, adapterOutline, type CombineMethod, combineAdapters, combineMethods, loadAdapter, saveAdapter } from "@lowrank/lora";
import { type CommandContext, defineCommand } from "../command.js";
import { UsageError } from "../failure.js";
import type { Flags } from "../flags.js";
import { adapterFolder } from "../hub.js";
import { inputsOf } from "../out/inputs.js";
import { withOutFolder } from "../out-folder.js";
import { program } from "../program.js";
import { deviceFlag, jsonFlag, withDevice } from "../session.js";

const flags = {
  weights: { type: "list", value: "0.7,0.3", help: "a factor for each adapter, below 0 to take it away (default: 1 each)" },
  method: {
    type: "choice",
    choices: combineMethods,
    help: "cat: exact, ranks add up; svd: nearest of its rank; the others as in PEFT's add_weighted_adapter",
    default: "svd",
  },
  density: { type: "number", above: 0, help: "share of the numbers that ties, dare and magnitude_prune keep, up to 1" },
  "majority-sign": { type: "choice", choices: ["total", "frequency"], help: "how ties finds the sign of the majority", default: "total" },
  rank: { type: "integer", min: 1, help: "rank of the result of the methods with svd (default: the largest)" },
  seed: { type: "integer", min: 0, help: "of what dare drops", default: 0 },
  out: { type: "text", value: "DIR", path: "written", help: "new folder for the adapter", required: true },
  device: { ...deviceFlag, default: "cpu" },
  json: jsonFlag,
} as const satisfies Flags;

function weightsOf(given: readonly string[] | undefined, count: number): readonly number[] {
  const weights = given?.map(Number) ?? Array.from({ length: count }, () => 1);
  if (weights.length !== count || weights.some((weight) => !Number.isFinite(weight))) {
    throw new UsageError(`--weights is ${given?.join(",")} for ${count} adapters. Give a number for each adapter, in their order.`);
  }
  return weights;
}

async function runCombine(context: CommandContext<typeof flags>): Promise<number> {
  const { values, positionals: paths, output, signal } = context;
  if (paths.length === 0) throw new UsageError(`lowrank combine needs folders of adapters. Write: ${program()} combine A B --out DIR.`);
  const { out, density, rank } = values;
  const weights = weightsOf(values.weights, paths.length);
  const claim = { command: "combine", path: out, inputs: inputsOf(flags, values, paths), writes: adapterFiles, mode: "new" } as const;
  return withOutFolder(context, claim, ({ files }) =>
    withDevice(values.device, output, async (device) => {
      const folders: string[] = [];
      for (const path of paths) folders.push(await adapterFolder(path, { output, signal }));
      // The adapters' own tensors say all that is needed of the base.
      const outline = await adapterOutline(folders, { device });
      const onWarning = (message: string): void => output.note(`warning: ${message}`);
      const adapters = [];
      for (const folder of folders) adapters.push(await loadAdapter(outline, folder, { onWarning }));
      const method: CombineMethod = values.method;
      const combined = await combineAdapters(adapters, {
        weights,
        method,
        seed: values.seed,
        majoritySign: values["majority-sign"],
        ...(density !== undefined && { density }),
        ...(rank !== undefined && { rank }),
        onWarning,
        onLayer: (name, done, count) => output.draw(`${done} of ${count}: ${name}`),
      });
      output.draw("");
      for (const adapter of adapters) adapter.dispose();
      await saveAdapter(combined, out, { files });
      const parameters = combined.parameters().reduce((sum, { size }) => sum + size, 0);
      const layers = combined.places.size;
      const used = folders.length === 1 ? "linear" : method;
      output.say(`${folders.length} adapters combined (${used}) on ${layers} layers; the adapter is in ${out}.`);
      output.result({ out, method: used, weights, layers, parameters });
      return 0;
    }),
  );
}

export const combineCommand = defineCommand({
  name: "combine",
  makes: "files",
  summary: "Make one LoRA adapter out of several, with a weight each; the base is not needed.",
  positionals: "DIR DIR …",
  flags,
  examples: [
    "lowrank combine runs/french runs/polite --weights 0.7,0.3 --method ties --density 0.2 --out runs/both",
    "lowrank combine runs/rude --weights -1 --out runs/not-rude",
  ],
  run: runCombine,
});
