import { type BitsandbytesType, bitsandbytesTypes, type GgufFileType } from "@lowrank/models";

/** GGUF's types that a merged model can be in. */
const ggufTypes = ["q8_0", "q4_0", "q4_k_m"] as const satisfies readonly GgufFileType[];

/** What a merged model can be quantized to: a folder of bitsandbytes, or a GGUF file. */
export const mergeTypes = [...bitsandbytesTypes, ...ggufTypes] as const;
export type MergeType = (typeof mergeTypes)[number];

/** The name of the GGUF file in the folder. */
export const mergedGguf = "model.gguf";

/** The type of the GGUF file that is written; null where a folder is. */
export function ggufTypeOf(type: MergeType | undefined): GgufFileType | null {
  return ggufTypes.find((name) => name === type) ?? null;
}

/** The type of the folder's weights; null where it is none of bitsandbytes. */
export function folderTypeOf(type: MergeType | undefined): BitsandbytesType | null {
  return bitsandbytesTypes.find((name) => name === type) ?? null;
}
