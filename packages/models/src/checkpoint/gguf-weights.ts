import { CheckpointError, combinedDigest, type DType, type GgufEntry, type GgufFile, showShape, type Tensor } from "@lowrank/tensor";
import { parametersIn } from "../families/family.js";
import type { GgufLink } from "../families/gguf/change.js";
import { ggufLinks, ggufUnexpected } from "../families/gguf-model.js";
import type { FamilyConfig } from "../families/read.js";
import { listed } from "./folder.js";
import { type LinkedTensor, linkOutline, refusedTypes } from "./gguf-kept.js";
import { loadLink } from "./gguf-link.js";
import type { ReadWeights, WeightOptions } from "./weights.js";

/**
 * Reads the tensors that a config asks for from a GGUF file: blocks stay as they are, in the order that the model has. Names, shapes and types are
 * checked before anything is read; everything that does not fit is listed in one CheckpointError.
 */
export async function readGgufWeights(
  file: GgufFile,
  read: FamilyConfig,
  options: Pick<WeightOptions, "device" | "dtype" | "isOutline">,
): Promise<ReadWeights> {
  const specs = parametersIn(read, options.device);
  const links = ggufLinks(read, specs, file.name, file.entries);
  checkTensors(file, read, links);
  const tensors = new Map<string, Tensor>();
  const dtypes = new Map<string, DType>();
  const digests = new Map<string, string>();
  const widened = new Set<string>();
  const mixed: string[] = [];
  try {
    for (const link of links) {
      const loaded = options.isOutline
        ? { tensors: linkOutline(file, link, options), digests: [], widened: [], mixed: [] }
        : await loadLink(file, link, options);
      loaded.tensors.forEach(({ tensor, dtype }: LinkedTensor, i) => {
        const name = link.parameters[i]?.name ?? "";
        tensors.set(name, tensor);
        dtypes.set(name, dtype);
      });
      for (const [i, { name }] of link.tensors.entries()) digests.set(name, loaded.digests[i] ?? "");
      for (const type of loaded.widened) widened.add(type);
      if (loaded.mixed.length > 0) mixed.push(`${link.parameters[0]?.name} (${loaded.mixed.join(", ")})`);
    }
  } catch (error) {
    for (const tensor of tensors.values()) tensor.dispose();
    throw error;
  }
  const { folded } = read.family.gguf ?? {};
  const warnings = [
    ...(widened.size === 0
      ? []
      : [
          `${file.name}: the tensors of the types ${[...widened].join(", ")} are kept as bf16: nothing computes with these blocks as they are.`,
        ]),
    ...(mixed.length === 0
      ? []
      : [
          `${file.name}: the tensors of ${mixed.join("; ")} have several types, too many for one expression over blocks: they are kept as bf16.`,
        ]),
    ...(folded
      ? [
          `${file.name}: ${folded}, as in each GGUF file of this family: an adapter computes something else here than beside the checkpoint that the file was made of. Load adapters beside the base that they were trained on.`,
        ]
      : []),
  ];
  return { read, warnings, tensors, dtypes, digest: combinedDigest(digests), foreign: [] };
}

/** Throws CheckpointError with all tensors that are missing, that nothing reads, of another shape, or of a type that is not read. */
function checkTensors(file: GgufFile, read: FamilyConfig, links: readonly GgufLink[]): void {
  const wanted = links.flatMap(({ tensors }) => tensors);
  const missing = wanted.filter(({ name }) => !file.entries.has(name)).map(({ name }) => name);
  const unexpected = ggufUnexpected(file.entries.keys(), read, links);
  const problems = [
    ...(missing.length > 0 ? [`missing: ${listed(missing)}`] : []),
    ...(unexpected.length > 0 ? [`unexpected: ${listed(unexpected)}`] : []),
  ];
  for (const { name, shape } of wanted) {
    const entry: GgufEntry | undefined = file.entries.get(name);
    if (!entry) continue;
    if (showShape(entry.shape) !== showShape(shape))
      problems.push(`"${name}" has the shape ${showShape(entry.shape)}, its metadata asks for ${showShape(shape)}`);
    else if (refusedTypes(entry.type.name)) problems.push(`"${name}" is ${entry.type.name}, which is not read`);
  }
  if (problems.length === 0) return;
  const told = problems.length <= 8 ? problems.join("; ") : `${problems.slice(0, 8).join("; ")}; and ${problems.length - 8} more`;
  throw new CheckpointError(
    `${file.name}: the tensors do not fit the metadata: ${told}. Fetch the file again, or convert the model with a current llama.cpp, to Q8_0 or Q4_K.`,
    file.name,
  );
}
