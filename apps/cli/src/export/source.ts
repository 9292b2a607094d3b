import { stat } from "node:fs/promises";
import { basename, join, resolve } from "node:path";
import type { Adapter } from "@lowrank/lora";
import { type LoadedModel, loadModel, type RunState, readJson, readMetrics, readState } from "@lowrank/models";
import { type Device, nodeFiles } from "@lowrank/tensor";
import { namedBase, openBase } from "../base.js";
import { licenseOf } from "../card/model-card.js";
import { UsageError } from "../failure.js";
import { anyFolder, type Fetching } from "../hub.js";
import { metricsName } from "../out/mark.js";
import { baseQuantizedTo, openAdapter, type QuantizeChoice } from "../session.js";

/** What is exported: an adapter with its base, or a model. */
export interface ExportSource {
  /** As it was given. */
  readonly path: string;
  readonly folder: string;
  readonly kind: "adapter" | "model";
  /** The model's folder: an adapter's base, or what is exported itself. */
  readonly modelFolder: string;
  /** What the base is called, as the adapter or the run has it; of a model that no run made, the model itself. */
  readonly base: string;
  /** The base's licence, where its folder says it. */
  readonly license: string | null;
  /** A name for people. */
  readonly name: string;
  /** The run that made it, where its folder is one. */
  readonly run: ExportedRun | null;
}

/** What a run's folder says of it. */
export interface ExportedRun {
  readonly settings: RunState["settings"];
  readonly steps: number;
  readonly lines: readonly { readonly step: number; readonly fields: Readonly<Record<string, unknown>> }[];
}

/** Finds what a path or a name on the hub stands for, and an adapter's base: `model` where it is given, else what the adapter says. Rejects with UsageError. */
export async function openSource(
  path: string,
  { model, ...fetching }: Fetching & { readonly model: string | undefined },
): Promise<ExportSource> {
  const folder = await anyFolder(path, fetching);
  const adapter = await readJson(nodeFiles, join(folder, "adapter_config.json"));
  const run = await runIn(folder);
  const name = basename(resolve(path)).replace(/\.gguf$/, "");
  if (!adapter) {
    const base = typeof run?.settings["model"] === "string" ? run.settings["model"] : path;
    return { path, folder, kind: "model", modelFolder: folder, base, license: await licenseOf(folder), name, run };
  }
  // --revision is the adapter's where that is on the hub.
  const base = await openBase(model, [folder], { ...fetching, revision: model === undefined ? undefined : fetching.revision });
  return {
    path,
    folder,
    kind: "adapter",
    modelFolder: base.folder,
    base: namedBase(adapter)?.model ?? base.model,
    license: await licenseOf(base.folder),
    name,
    run,
  };
}

/** What a folder says of the run that made it; null where it is none. */
export async function runIn(folder: string): Promise<ExportedRun | null> {
  if (!(await stat(folder).catch(() => null))?.isDirectory()) return null;
  const state = await readState(nodeFiles, folder);
  if (!state) return null;
  return { settings: state.settings, steps: state.step, lines: await readMetrics(join(folder, metricsName)) };
}

/** The model of a source on a device, and its adapter in the forward. */
export async function loadSource(
  { folder, kind, modelFolder: model }: ExportSource,
  {
    device,
    quantize,
    output,
    signal,
  }: {
    readonly device: Device;
    /** What its base is quantized to, as --base-quantize says. */
    readonly quantize: QuantizeChoice;
    readonly output: NonNullable<Fetching["output"]>;
    readonly signal: AbortSignal;
  },
): Promise<{ readonly loaded: LoadedModel; readonly adapter: Adapter | null }> {
  const flag = "--base-quantize";
  if (kind === "model" && quantize !== undefined) throw new UsageError(`${flag} is for the base of an adapter. Leave it out.`);
  const quantization = kind === "model" ? null : await baseQuantizedTo(quantize, [folder], { flag, output, signal });
  const loaded = await loadModel(model, { device, quantize: quantization });
  for (const warning of loaded.warnings) output.note(`warning: ${warning}`);
  return { loaded, adapter: kind === "adapter" ? await openAdapter(loaded.model, folder, output, signal) : null };
}
