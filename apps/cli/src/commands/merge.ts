import { merge } from "@lowrank/lora";
import { checkpointFiles, loadModel, saveModel } from "@lowrank/models";
import { type CommandContext, defineCommand } from "../command.js";
import type { Flags } from "../flags.js";
import { modelFolder, revisionFlag } from "../hub.js";
import { inputsOf } from "../out/inputs.js";
import { withOutFolder } from "../out-folder.js";
import { deviceFlag, jsonFlag, modelFlag, openAdapter, withDevice } from "../session.js";

const flags = {
  model: modelFlag,
  revision: revisionFlag,
  adapter: {
    type: "text",
    value: "DIR",
    path: "read",
    help: "folder of an adapter, ours or PEFT's, or its name on the hub",
    required: true,
  },
  dtype: {
    type: "choice",
    choices: ["as-stored", "f32", "bf16", "f16"],
    help: "how the merged weights are stored",
    default: "as-stored",
  },
  out: { type: "text", value: "DIR", path: "written", help: "new folder for the whole checkpoint", required: true },
  device: deviceFlag,
  json: jsonFlag,
} as const satisfies Flags;

async function runMerge(context: CommandContext<typeof flags>): Promise<number> {
  const { values, output, signal } = context;
  const { out } = values;
  const claim = { command: "merge", path: out, inputs: inputsOf(flags, values), writes: checkpointFiles, mode: "new" } as const;
  return withOutFolder(context, claim, ({ files }) =>
    withDevice(values.device, output, async (dev) => {
      const { dtype } = values;
      const folder = await modelFolder(values.model, { revision: values.revision, output, signal });
      const { model, warnings } = await loadModel(folder, { device: dev, ...(dtype !== "as-stored" && { dtype }) });
      for (const warning of warnings) output.note(`warning: ${warning}`);
      const adapter = await openAdapter(model, values.adapter, output, signal);
      if (adapter) merge(adapter);
      await saveModel(model, out, { files });
      const parameters = [...model.namedParameters().values()].reduce((sum, { size }) => sum + size, 0);
      output.say(
        `${adapter?.places.size ?? 0} layers merged; the checkpoint is in ${out}. It needs no adapter and costs what the base did.`,
      );
      output.result({ out, merged: adapter?.places.size ?? 0, parameters });
      return 0;
    }),
  );
}

export const mergeCommand = defineCommand({
  name: "merge",
  makes: "files",
  summary: "Add an adapter to its base's weights: a full checkpoint that transformers loads.",
  flags,
  examples: ["lowrank merge --model ./model --adapter run --out merged"],
  run: runMerge,
});
