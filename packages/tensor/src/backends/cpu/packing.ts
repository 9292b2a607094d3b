import type { MatrixView } from "../../kernels/kernel.js";
import { panelWidth } from "../../kernels/wasm/matmul.js";
import { type PackWord, packWords, panelsAbreast, printPack } from "../../kernels/wasm/pack.js";
import { type DType, dtypeBytes } from "../../tensor/dtype.js";
import type { KernelLibrary } from "./library.js";
import { number, type Step, table, type Word } from "./steps.js";

/** The right operand of a product: lanes are its columns, depth is along k. */
export interface Operand {
  readonly slot: MatrixView["slot"];
  readonly dtype: DType;
  /** Element offset of each batch's matrix. */
  readonly offsets: readonly number[];
  /** Elements from lane to lane, and from k to k. */
  readonly laneStride: number;
  readonly depthStride: number;
  readonly depth: number;
  /** By what packing multiplies it. */
  readonly factor: number;
}

/** Where the panels of an operand's part lie. */
export interface Panels {
  readonly operand: Operand;
  /** Lanes of a part at most. */
  readonly lanesAtOnce: number;
  readonly batchesAtOnce: number;
  /** Offset in a plan's scratch memory; null where the whole operand lies in panels, in its slot. */
  readonly at: number | null;
}

/** The part of an operand that is packed: some batches' lanes from `lane` on. */
export interface Part {
  readonly batch: number;
  readonly count: number;
  readonly lane: number;
  readonly lanes: number;
  /** Where steps before have counted how much of the depth there is: at most the operand's. */
  readonly countedDepth: Word | undefined;
}

/** Bytes that the panels take: batches which share a matrix share its panels. */
export function panelsBytes(panels: Panels): number {
  if (panels.at === null) return 0;
  const { offsets } = panels.operand;
  let most = 0;
  for (let batch = 0; batch < offsets.length; batch += panels.batchesAtOnce) {
    most = Math.max(most, new Set(offsets.slice(batch, batch + panels.batchesAtOnce)).size);
  }
  return most * matrixBytes(panels);
}

/** The arguments by which a product finds the panels of a part. */
export function panelWords(panels: Panels, { batch, count, lane }: Part): { readonly to: Word; readonly offsets: Word } {
  const { operand, at } = panels;
  const offsets = operand.offsets.slice(batch, batch + count);
  const unique = [...new Set(offsets)];
  const places = offsets.map((offset) => unique.indexOf(offset));
  return {
    to: at === null ? { kind: "slot", slot: operand.slot, byteOffset: lane * operand.depth * 4 } : { kind: "scratch", offset: at },
    offsets: table(places, matrixBytes(panels)),
  };
}

/** The step that packs a part of an operand; none where there is nothing to pack. */
export function packSteps(panels: Panels, part: Part, library: KernelLibrary): Step[] {
  const { operand, at } = panels;
  const { dtype, depth, factor } = operand;
  if (depth === 0 || at === null) return [];
  const bytes = dtypeBytes[dtype];
  const offsets = [...new Set(operand.offsets.slice(part.batch, part.batch + part.count))];
  const count = Math.ceil(part.lanes / panelWidth);
  const panelsOfTile = Math.min(count, Math.max(panelsAbreast, Math.round(16384 / Math.max(1, depth * panelWidth))));
  const tiles = Math.ceil(count / panelsOfTile);
  const isScaled = factor !== 1;
  const entry = library.entry(`pack;${dtype}${isScaled ? ";scaled" : ""}`, (module, _, name) =>
    printPack(module, dtype, panelWidth, isScaled, name),
  );
  const words: Record<PackWord, Word> = {
    from: { kind: "slot", slot: operand.slot },
    to: { kind: "scratch", offset: at },
    lanes: part.lanes,
    depth: part.countedDepth ?? number(depth),
    laneStride: operand.laneStride * bytes,
    depthStride: operand.depthStride * bytes,
    fromOffsets: table(offsets, bytes, part.lane * operand.laneStride),
    toOffsets: table(
      offsets.map((_, i) => i),
      matrixBytes(panels),
    ),
    panels: panelsOfTile,
    tiles,
    factor: new Int32Array(Float32Array.of(factor).buffer)[0] ?? 0,
  };
  return [
    {
      entry,
      tiles: tiles * offsets.length,
      words: packWords.map((word) => words[word]),
      cost: offsets.length * part.lanes * depth * 0.3,
    },
  ];
}

function matrixBytes({ operand, lanesAtOnce }: Panels): number {
  return lanesAtOnce * operand.depth * 4;
}
