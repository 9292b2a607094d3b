import type { Slot } from "../../kernels/kernel.js";
import { panelWidth } from "../../kernels/wasm/matmul.js";
import { type PackWord, packWords, panelsAbreast, printPack } from "../../kernels/wasm/pack.js";
import { type DType, dtypeBytes } from "../../tensor/dtype.js";
import { type ComputedRight, computedSteps } from "./computed.js";
import type { KernelLibrary } from "./library.js";
import { number, type Step, table, type Word } from "./steps.js";

/** The right operand of a product: lanes are its columns, depth is along k. */
export interface Operand {
  /** For each batch where its matrix is: an element offset, or which it is of those that are computed. */
  readonly offsets: readonly number[];
  readonly depth: number;
  readonly source: StoredRight | ComputedRight;
}

/** One that lies in memory. */
export interface StoredRight {
  readonly slot: Slot;
  readonly dtype: DType;
  /** Elements from lane to lane, and from k to k. */
  readonly laneStride: number;
  readonly depthStride: number;
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
    to:
      at === null && "slot" in operand.source
        ? { kind: "slot", slot: operand.source.slot, byteOffset: lane * operand.depth * 4 }
        : { kind: "scratch", offset: at ?? 0 },
    offsets: table(places, matrixBytes(panels)),
  };
}

/** The step that packs a part of an operand; none where there is nothing to pack. */
export function packSteps(panels: Panels, part: Part, dtypeOf: (slot: Slot) => DType, library: KernelLibrary): Step[] {
  const { operand, at } = panels;
  const { source, depth } = operand;
  if (depth === 0 || at === null) return [];
  const offsets = [...new Set(operand.offsets.slice(part.batch, part.batch + part.count))];
  if ("program" in source) {
    const { lane, lanes } = part;
    return computedSteps(source, { matrices: offsets, lane, lanes, depth }, (i) => at + i * matrixBytes(panels), dtypeOf, library);
  }
  const { dtype, factor } = source;
  const bytes = dtypeBytes[dtype];
  const count = Math.ceil(part.lanes / panelWidth);
  const panelsOfTile = Math.min(count, Math.max(panelsAbreast, Math.round(16384 / Math.max(1, depth * panelWidth))));
  const tiles = Math.ceil(count / panelsOfTile);
  const isScaled = factor !== 1;
  const entry = library.entry(`pack;${dtype}${isScaled ? ";scaled" : ""}`, (module, _, name) =>
    printPack(module, dtype, panelWidth, isScaled, name),
  );
  const words: Record<PackWord, Word> = {
    from: { kind: "slot", slot: source.slot },
    to: { kind: "scratch", offset: at },
    lanes: part.lanes,
    depth: part.countedDepth ?? number(depth),
    laneStride: source.laneStride * bytes,
    depthStride: source.depthStride * bytes,
    fromOffsets: table(offsets, bytes, part.lane * source.laneStride),
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
