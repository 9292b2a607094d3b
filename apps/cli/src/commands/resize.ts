import { adapterFiles, adapterOutline, loadAdapter, resizeAdapter, saveAdapter } from "@lowrank/lora";
import { type CommandContext, defineCommand } from "../command.js";
import { UsageError } from "../failure.js";
import type { Flags } from "../flags.js";
import { adapterFolder } from "../hub.js";
import { inputsOf } from "../out/inputs.js";
import { withOutFolder } from "../out-folder.js";
import { program } from "../program.js";
import { rankChoice, rankFlags, sayKept } from "../rank-choice.js";
import { deviceFlag, jsonFlag, withDevice } from "../session.js";

const flags = {
  ...rankFlags,
  out: { type: "text", value: "DIR", path: "written", help: "new folder for the adapter", required: true },
  device: { ...deviceFlag, default: "cpu" },
  json: jsonFlag,
} as const satisfies Flags;

async function runResize(context: CommandContext<typeof flags>): Promise<number> {
  const { values, positionals, output, signal } = context;
  const [path, ...surplus] = positionals;
  if (path === undefined || surplus.length > 0)
    throw new UsageError(
      `lowrank resize takes one adapter's folder, and got ${positionals.length}. Write: ${program()} resize DIR --rank 4 --out DIR.`,
    );
  const choice = rankChoice(values);
  const { out } = values;
  const claim = { command: "resize", path: out, inputs: inputsOf(flags, values, positionals), writes: adapterFiles, mode: "new" } as const;
  return withOutFolder(context, claim, ({ files }) =>
    withDevice(values.device, output, async (device) => {
      const onWarning = (message: string): void => output.note(`warning: ${message}`);
      const folder = await adapterFolder(path, { output, signal });
      const adapter = await loadAdapter(await adapterOutline([folder], { device }), folder, { onWarning });
      const { adapter: resized, report } = await resizeAdapter(adapter, {
        ...choice,
        onWarning,
        onLayer: (name, done, count) => output.draw(`${done} of ${count}: ${name}`),
      });
      output.draw("");
      await saveAdapter(resized, out, { files });
      sayKept(report, output);
      output.say(`The adapter is in ${out}.`);
      output.result({ out, kept: report.kept, layers: report.layers.map(({ name, rank, kept }) => ({ name, rank, kept })) });
      return 0;
    }),
  );
}

export const resizeCommand = defineCommand({
  name: "resize",
  makes: "files",
  summary: "Give a LoRA adapter another rank, up or down; the base is not needed.",
  positionals: "DIR",
  flags,
  examples: ["lowrank resize runs/large --rank 4 --out runs/small", "lowrank resize runs/large --energy 0.99 --out runs/small"],
  run: runResize,
});
