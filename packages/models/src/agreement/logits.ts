import { compile, type Tensor, tensor } from "@lowrank/tensor";
import type { CausalLM } from "../causal-lm.js";
import { type Batch, bucketLength, collate, pack, packedLength, tokensOf } from "../data/batches.js";
import { type Example, ignoredLabel } from "../data/example.js";
import { longestLength } from "../data/examples.js";
import { type DeviceBatch, tensorsOf, upload } from "../train/device-batch.js";

/** Tokens that are read together, about, and the rows of a batch that is padded. */
const [batchTokens, batchRows] = [512, 8];
/** Bytes of logits that are on the device at a time. */
const chunkBytes = 2 ** 24;

/** What is wanted of a position: the logits behind it, and the token that stands there. */
export interface Probed<Numbers> {
  readonly values: Numbers;
  readonly targets: readonly number[];
}

/** How texts are read: in which batches, and how many logits at a time. */
interface Reading {
  readonly batches: readonly Batch[];
  readonly chunk: number;
}

/**
 * What `take` makes of a model's logits f32 [positions, vocab] in front of each loss token of some examples, in their order, beside these tokens: a
 * few positions at a time, so that the logits of whole texts are never in memory. Adapters and virtual tokens that are on the model take part.
 */
export async function* probed(
  model: CausalLM,
  examples: readonly Example[],
  take: (logits: Tensor) => Tensor,
): AsyncGenerator<Probed<Float32Array | Int32Array>> {
  const { batches, chunk } = readingOf(model, examples);
  const read = compile(({ ids, packed }: DeviceBatch) => {
    const hidden = model.hidden(ids, { packed });
    const [rows = 0, columns = 0, width = 0] = hidden.shape;
    return hidden.reshape([rows * columns, width]);
  });
  const answer = compile((hidden: Tensor, places: Tensor) => take(model.logits(hidden.gather(places))));
  try {
    for (const batch of batches) {
      const uploaded = upload(batch, model.device);
      const hidden = read(uploaded);
      for (const t of tensorsOf(uploaded)) t.dispose();
      // Virtual tokens stand in front of each row.
      const stride = (hidden.shape[0] ?? 0) / batch.rowCount;
      const learned = lossPlaces(batch);
      for (let at = 0; at < learned.length; at += chunk) {
        const some = learned.slice(at, at + chunk);
        const places = some.map(
          (place) => Math.floor(place / batch.length) * stride + (stride - batch.length) + (place % batch.length) - 1,
        );
        const given = tensor(
          Int32Array.from({ length: chunk }, (_, i) => places[i] ?? 0),
          { dtype: "i32", device: model.device },
        );
        const taken = answer(hidden, given);
        given.dispose();
        const numbers = (await taken.data()) as Float32Array | Int32Array; // logits, or what is chosen by them
        taken.dispose();
        yield { values: numbers.subarray(0, (numbers.length / chunk) * some.length), targets: some.map((place) => batch.ids[place] ?? 0) };
      }
      hidden.dispose();
    }
  } finally {
    read.dispose();
    answer.dispose();
  }
}

function readingOf(model: CausalLM, examples: readonly Example[]): Reading {
  const isPacked = model.batchLayout === "packed";
  const longest = longestLength(examples);
  const groups: Example[][] = [];
  let taken = Number.POSITIVE_INFINITY;
  for (const example of examples) {
    const tokens = isPacked ? example.ids.length : longest;
    if (taken + tokens > batchTokens || (!isPacked && groups.at(-1)?.length === batchRows)) {
      groups.push([]);
      taken = 0;
    }
    groups.at(-1)?.push(example);
    taken += tokens;
  }
  // One shape for all, so that one plan serves them.
  const most = groups.reduce((largest, group) => Math.max(largest, tokensOf(group)), 1);
  const length = packedLength(most, Number.MAX_SAFE_INTEGER);
  const rowCount = groups.reduce((largest, group) => Math.max(largest, group.length), 0);
  const shape = { layout: "padded", lengthLimit: bucketLength(longest, model.contextLength) } as const;
  return {
    batches: groups.map((group) => (isPacked ? pack(group, longest, length) : collate(group, shape, { rowCount }))),
    chunk: Math.max(1, Math.min(64, Math.floor(chunkBytes / (4 * model.vocabSize)))),
  };
}

/** The places of a batch's loss tokens: of each row all but the first. */
function lossPlaces({ labels, positions, length }: Batch): number[] {
  const places: number[] = [];
  for (let at = 0; at < labels.length; at++) if (labels[at] !== ignoredLabel && (positions?.[at] ?? at % length) !== 0) places.push(at);
  return places;
}
