import { type TunedClass, tune } from "@lowrank/tensor";
import { type CommandContext, defineCommand } from "../command.js";
import { modelOfFlags, outlinedStep, outlineFlags } from "../plan/outline.js";
import { withDevice } from "../session.js";
import { tableLines } from "../terminal/format.js";

/** A time in at most five characters. */
const milliseconds = (ms: number): string => (ms < 100 ? ms.toPrecision(3) : ms.toFixed(0));

function tile({ variant }: TunedClass): string {
  const { tileRows, tileColumns, threadRows, threadColumns, isTransposed } = variant;
  return `${tileRows}x${tileColumns} in ${threadRows}x${threadColumns}${isTransposed ? ", transposed" : ""}`;
}

async function runTune(context: CommandContext<typeof outlineFlags>): Promise<number> {
  const { output } = context;
  return withDevice("webgpu", output, async (dev) => {
    const { plans } = await outlinedStep(dev, await modelOfFlags(context), context);
    const start = performance.now();
    const found: TunedClass[] = [];
    const tuning = await tune(dev, plans, (one) => {
      found.push(one);
      output.draw(`${one.done} of ${one.count} classes of products measured …`);
    });
    const known = Object.keys(tuning.matmul).length - found.length;
    if (found.length > 0) {
      const lines = found.map((one) => [
        one.name,
        milliseconds(one.modelledMs),
        milliseconds(one.fastestMs),
        one.fastestMs < one.modelledMs ? tile(one) : "as before",
      ]);
      for (const line of tableLines([["products, sizes up to powers of two", "ms", "tuned", "register tile in threads"], ...lines], {
        areNumbers: true,
        width: output.tableColumns,
      }))
        output.say(line);
    }
    if (found.length > 0) output.say(`${found.length} classes measured in ${((performance.now() - start) / 1000).toFixed(1)} s`);
    if (known > 0) output.say(`${known} classes were known from before`);
    output.say("remembered: from now on all commands use these on this adapter");
    output.result({ adapter: tuning.adapter, tuned: found, known });
    return 0;
  });
}

export const tuneCommand = defineCommand({
  name: "tune",
  makes: "files",
  summary: "Measure which WebGPU kernels suit this adapter, for the products of a step of training.",
  flags: outlineFlags,
  examples: ["lowrank tune --model config.json --batch 8 --seq 256"],
  run: runTune,
});
