import { checkFiles, checkPath, type FileSystem, joined, openFile, type Tensor, writeWeights } from "@lowrank/tensor";
import type { CausalLM } from "../causal-lm.js";

/** Files that belong to a checkpoint beside its config and weights; copied as they are. */
const companions = [
  "generation_config.json",
  "tokenizer.json",
  "tokenizer_config.json",
  "special_tokens_map.json",
  "added_tokens.json",
  "chat_template.jinja",
  "tokenizer.model",
  "vocab.json",
  "merges.txt",
] as const;

/** Every file that `saveModel` may write. */
export const checkpointFiles: readonly string[] = [...companions, "config.json", "model.safetensors"];

/** The names that config.json has for dtypes. */
const torchNames: Readonly<Record<string, string>> = { f32: "float32", f16: "float16", bf16: "bfloat16" };

/**
 * Writes a whole checkpoint that transformers loads: config.json, model.safetensors, and the tokenizer's files where the model was read
 * from a folder that has them. Weights keep their dtype. Each file is written whole or not at all, the weights first, so that nothing is
 * written at all when they cannot be, and config.json last, so that a folder with one holds a model. Parameters of adapters are not the
 * model's and are not saved; merge them first. Rejects with CheckpointError when the disk is full and where a weight is not finite.
 */
export async function saveModel(
  model: CausalLM,
  folder: string,
  options: { readonly files: FileSystem; readonly tensors?: ReadonlyMap<string, Tensor> },
): Promise<void> {
  const { files, tensors = model.namedParameters() }: Partial<typeof options> = options ?? {};
  checkPath(folder, "saveModel");
  checkFiles(files, "saveModel");
  const dtype = torchNames[[...tensors.values()][0]?.dtype ?? "f32"] ?? "float32";
  const { torch_dtype: _old, ...config } = model.config;
  const origin = model.origin;
  const path = files.join(folder, "model.safetensors");
  await files.write(path, writeWeights(path, tensors, { metadata: { format: "pt" } }));
  if (origin && !(origin.files === files && origin.folder === folder)) {
    for (const name of companions) {
      const source = await openFile(origin.files, origin.files.join(origin.folder, name));
      if (!source) continue;
      try {
        await files.write(files.join(folder, name), await source.read(0, source.byteLength));
      } finally {
        await source.close?.();
      }
    }
  }
  await files.write(
    files.join(folder, "config.json"),
    await joined([new TextEncoder().encode(`${JSON.stringify({ ...config, dtype }, null, 2)}\n`)]),
  );
}
