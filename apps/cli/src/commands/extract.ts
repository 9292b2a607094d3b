import { adapterFiles, extractAdapter, saveAdapter } from "@lowrank/lora";
import { loadModel } from "@lowrank/models";
import { type CommandContext, defineCommand } from "../command.js";
import type { Flags } from "../flags.js";
import { modelFolder } from "../hub.js";
import { inputsOf } from "../out/inputs.js";
import { withOutFolder } from "../out-folder.js";
import { rankChoice, rankFlags, sayKept } from "../rank-choice.js";
import { deviceFlag, jsonFlag, withDevice } from "../session.js";

const flags = {
  base: { type: "text", value: "DIR", path: "read", help: "the checkpoint that training began with", required: true },
  tuned: { type: "text", value: "DIR", path: "read", help: "the checkpoint that it ended with", required: true },
  ...rankFlags,
  out: { type: "text", value: "DIR", path: "written", help: "new folder for the adapter", required: true },
  device: { ...deviceFlag, default: "cpu" },
  json: jsonFlag,
} as const satisfies Flags;

async function runExtract(context: CommandContext<typeof flags>): Promise<number> {
  const { values, output, signal } = context;
  const choice = rankChoice(values);
  const { out } = values;
  const claim = { command: "extract", path: out, inputs: inputsOf(flags, values), writes: adapterFiles, mode: "new" } as const;
  return withOutFolder(context, claim, ({ files }) =>
    withDevice(values.device, output, async (device) => {
      const { model: base } = await loadModel(await modelFolder(values.base, { output, signal }), { device });
      const { model: tuned } = await loadModel(await modelFolder(values.tuned, { output, signal }), { device });
      const { adapter, report } = await extractAdapter(base, tuned, {
        ...choice,
        baseModel: values.base,
        onLayer: ({ name }, done, count) => output.draw(`${done} of ${count}: ${name}`),
        onWarning: (message) => output.note(`warning: ${message}`),
      });
      output.draw("");
      tuned.dispose();
      await saveAdapter(adapter, out, { files });
      sayKept(report, output);
      if (report.notKept.length > 0)
        output.say(`These differ as well, are no dense layers of their own, and are not kept: ${report.notKept.join(", ")}`);
      output.say(`The adapter is in ${out}.`);
      const { kept, layers, notKept } = report;
      output.result({ out, kept, layers: layers.map(({ name, rank, kept: own }) => ({ name, rank, kept: own })), notKept });
      return 0;
    }),
  );
}

export const extractCommand = defineCommand({
  name: "extract",
  makes: "files",
  summary: "Make a LoRA adapter out of the difference between a base and a fine-tuned checkpoint.",
  flags,
  examples: ["lowrank extract --base ./model --tuned ./fine-tuned --energy 0.95 --out runs/extracted"],
  run: runExtract,
});
