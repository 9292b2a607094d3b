import { type Tensor, zeros } from "@lowrank/tensor";
import { AdapterError } from "../errors.js";
import { byPattern } from "../targeting/match.js";
import type { EmbeddingLayer } from "../targeting/model.js";
import { initNamed } from "./init/table.js";
import type { LoraOptions } from "./lora.js";
import { type Attachment, type PlaceContext, wrapping } from "./method.js";
import { scalingOf } from "./pair.js";

/** ‖M‖ of every row, [rows, columns] → [rows]. torch.linalg.norm(dim=1). */
export function rowNorms(matrix: Tensor): Tensor {
  return matrix.square().sum(1).sqrt();
}

/**
 * LoRA on an embedding E [count, width]: E[x] + s (Aᵀ)[x] Bᵀ with A [rank, count] zero and B [width, rank] random at the start, as PEFT has it
 * (the other way round than on a dense layer). With `hasMagnitude`, DoRA: m / ‖Eᵀ + s B A‖ ⊙ that, one norm a dimension over all tokens. First
 * values by name are those of dense layers: here they are always these. Throws AdapterError for `freezeA`.
 */
export function embeddingPair(layer: EmbeddingLayer, options: LoraOptions, context: PlaceContext, hasMagnitude: boolean): Attachment {
  const [count = 0, width = 0] = layer.weight.shape;
  const rank = byPattern(options.rankPattern, context.name, options.rank);
  const scaling = scalingOf(options, context.name, rank);
  if (options.freezeA)
    throw new AdapterError(`A on the embedding ${context.name} starts at 0 and could not stay there (freezeA). Target dense layers only.`, [
      context.name,
    ]);
  const a = zeros([rank, count], { device: context.generator.device });
  const b = context.generator.normal([width, rank]);
  const delta = (): Tensor => b.matmul(a).mul(scaling).t(); // [count, width]
  const table = (): Tensor => layer.weight.cast("f32").add(delta());
  const norms = (): Tensor => rowNorms(table().t()).detach();
  const magnitude = hasMagnitude ? norms() : null;
  const more = magnitude && { lora_magnitude_vector: magnitude };
  return {
    parameters: { lora_embedding_A: a, lora_embedding_B: b, ...more },
    // As a plain adapter, all ranks are doubled where those of dense layers must be.
    ...(initNamed(options.init).fromWeight && {
      plain: () => ({
        lora_embedding_A: a.pad([
          [0, rank],
          [0, 0],
        ]),
        lora_embedding_B: b.pad([
          [0, 0],
          [0, rank],
        ]),
        ...more,
      }),
    }),
    enable: wrapping(layer, (ids, next) => {
      const adapted = next(ids).add(a.t().gather(ids).matmul(b.t()).mul(scaling));
      return magnitude ? adapted.mul(magnitude.div(norms())) : adapted;
    }),
    merge: () => {
      const { weight } = layer;
      if (magnitude) return [{ weight, value: table().mul(magnitude.div(norms())) }];
      return [{ weight, value: table(), restore: (merged) => merged.sub(delta()) }];
    },
  };
}
