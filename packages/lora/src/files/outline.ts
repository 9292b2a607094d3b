import { checkDevice, checkFiles, type Device, type FileSystem, zeros } from "@lowrank/tensor";
import { AdapterError, listed } from "../errors.js";
import type { AdaptableModel, DenseLayer } from "../targeting/model.js";
import { modelPrefix } from "./layouts/peft.js";
import { openStoredAdapter, type StoredAdapter } from "./stored.js";

/** Where the adapters lie, and where their tensors are read to. */
export interface OutlineOptions {
  readonly files: FileSystem;
  readonly device: Device;
}

const suffix = /\.lora_(A|B)\.weight$/;

/**
 * The dense layers that LoRA adapters' files name, with their sizes and no weights: enough of a model to load these adapters on, for what
 * needs their tensors only (combining, resizing). Reads headers. Rejects with AdapterError for a folder without an adapter, one that holds
 * anything but pairs of LoRA on dense layers, and where two of them do not agree on a layer's sizes.
 */
export async function adapterOutline(folders: readonly string[], options: OutlineOptions): Promise<AdaptableModel> {
  const { files, device }: Partial<OutlineOptions> = options ?? {};
  checkFiles(files, "adapterOutline");
  checkDevice(device, "adapterOutline");
  const layers = new Map<string, DenseLayer>();
  for (const folder of folders) {
    const stored = await openStoredAdapter(files, folder);
    await stored.close();
    const isTransposed = checkedKind(folder, stored);
    for (const [name, { inFeatures, outFeatures }] of sizesOf(stored)) {
      const known = layers.get(name);
      if (!known) layers.set(name, emptyLayer(inFeatures, outFeatures, isTransposed, device));
      else if (known.inFeatures !== inFeatures || known.outFeatures !== outFeatures) {
        throw new AdapterError(
          `${name} goes from ${known.inFeatures} to ${known.outFeatures} in one adapter and from ${inFeatures} to ${outFeatures} in ${folder}. Give adapters of one base.`,
          [name],
        );
      }
    }
  }
  const parameters = new Map([...layers].map(([name, { weight }]) => [`${name}.weight`, weight]));
  return { namedModules: () => layers, namedParameters: () => parameters };
}

/** Whether the layers are stored [in, out]. Throws AdapterError for what is not plain LoRA. */
function checkedKind(folder: string, { config }: StoredAdapter): boolean {
  const { peft_type: type, use_dora, fan_in_fan_out, init_lora_weights: given } = config;
  const init = typeof given === "string" ? given : "";
  if (type !== "LORA" || use_dora === true) {
    throw new AdapterError(
      `${folder} holds an adapter of type ${use_dora === true ? "DoRA" : typeof type === "string" ? type : "unknown"}; this needs plain LoRA. Merge it into its base (lowrank merge) and extract a LoRA from the difference (lowrank extract).`,
      ["peft_type"],
    );
  }
  if (/^(pissa|olora)/.test(init)) {
    throw new AdapterError(
      `${folder} began as "${init}", which took something out of the base's weights that is not in the file. Load it on its base and save it as plain LoRA (saveAdapter with asPlainLora, or lowrank train --resume --as-plain-lora).`,
      ["init_lora_weights"],
    );
  }
  return fan_in_fan_out === true;
}

interface Sizes {
  inFeatures: number;
  outFeatures: number;
}

function sizesOf({ tensors, tensorsPath }: StoredAdapter): ReadonlyMap<string, Sizes> {
  const sizes = new Map<string, Sizes>();
  const others: string[] = [];
  for (const [full, { key, shape }] of tensors) {
    const factor = suffix.exec(full)?.[1];
    const [rows, columns] = shape;
    if (!factor || shape.length !== 2 || rows === undefined || columns === undefined) {
      others.push(key);
      continue;
    }
    const name = full.slice(modelPrefix.length).replace(suffix, "");
    const found = sizes.get(name) ?? { inFeatures: 0, outFeatures: 0 };
    sizes.set(name, found);
    if (factor === "A") found.inFeatures = columns;
    else found.outFeatures = rows;
  }
  for (const [name, { inFeatures, outFeatures }] of sizes) if (inFeatures * outFeatures === 0) others.push(name);
  if (others.length > 0 || sizes.size === 0) {
    throw new AdapterError(
      `${tensorsPath} holds ${others.length > 0 ? `more than pairs A and B of dense layers: ${listed(others, 4)}` : "no tensors"}. Give an adapter that was trained without these.`,
      others,
    );
  }
  return sizes;
}

/** A layer with sizes only: its weight is an expression that nobody computes. */
function emptyLayer(inFeatures: number, outFeatures: number, isTransposed: boolean, device: Device): DenseLayer {
  return {
    weight: zeros(isTransposed ? [inFeatures, outFeatures] : [outFeatures, inFeatures], { device }),
    bias: null,
    inFeatures,
    outFeatures,
    isTransposed,
    isTraining: false,
    use: () => () => {},
    replace: () => () => {},
  };
}
