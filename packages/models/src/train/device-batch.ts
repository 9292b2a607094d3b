import { type Device, type Tensor, tensor } from "@lowrank/tensor";
import type { Batch } from "../data/batches.js";
import { ignoredLabel } from "../data/example.js";
import { outsideVocabulary } from "../labels.js";
import type { PackedRows } from "../packed-rows.js";

/** Throws RangeError for a label that is neither a token of the vocabulary nor -100, with its row and its position there. */
export function checkLabels({ labels, positions, length }: Batch, vocabSize: number): void {
  for (let at = 0; at < labels.length; at++) {
    const label = labels[at] as number; // at < length
    if (label === ignoredLabel || (label >= 0 && label < vocabSize)) continue;
    // Packed rows begin where positions do.
    const place = positions?.[at] ?? at % length;
    const row = positions ? positions.subarray(0, at + 1).filter((position) => position === 0).length - 1 : Math.floor(at / length);
    throw outsideVocabulary(label, row, place, vocabSize);
  }
}

/** A batch on the device. */
export type DeviceBatch = { readonly ids: Tensor; readonly labels: Tensor; readonly packed: PackedRows | null };

export function upload({ ids, labels, positions, rowCount, length, rowLimit }: Batch, device: Device): DeviceBatch {
  const put = (values: Int32Array): Tensor => tensor(values, { device, dtype: "i32", shape: [rowCount, length] });
  return { ids: put(ids), labels: put(labels), packed: positions && { positions: put(positions), rowLimit } };
}

export function tensorsOf({ ids, labels, packed }: DeviceBatch): Tensor[] {
  return packed ? [ids, labels, packed.positions] : [ids, labels];
}
