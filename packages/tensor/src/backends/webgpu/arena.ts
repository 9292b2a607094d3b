import type { Plan, Slot } from "../../kernels/kernel.js";
import { readsOf, writesOf } from "../../kernels/slots.js";
import { largest } from "../../tensor/extremes.js";
import type { BufferPool, DeviceBuffer } from "./buffers.js";

/** Where a plan's arena slots lie: chunk number and byte offset. */
export interface ArenaLayout {
  readonly chunkBytes: readonly number[];
  readonly places: ReadonlyMap<Slot, { readonly chunk: number; readonly offset: number }>;
}

/** The plan's own offsets where its arena fits one buffer; else slots are placed anew in several, by when they are first and last used. */
export function layOutArena(plan: Plan, maxBufferBytes: number): ArenaLayout {
  const places = new Map<Slot, { chunk: number; offset: number }>();
  if (plan.arenaBytes === 0) return { chunkBytes: [], places };
  // 256 more: bindings are rounded up to whole vectors.
  if (plan.arenaBytes + 256 <= maxBufferBytes) {
    for (const [slot, info] of plan.slots.entries()) if (info.kind === "arena") places.set(slot, { chunk: 0, offset: info.offset });
    return { chunkBytes: [plan.arenaBytes + 256], places };
  }

  const first = new Map<Slot, number>();
  const last = new Map<Slot, number>();
  for (const [at, kernel] of plan.kernels.entries()) {
    for (const slot of new Set([...readsOf(kernel), ...writesOf(kernel)])) {
      if (plan.slots[slot]?.kind !== "arena") continue;
      if (!first.has(slot)) first.set(slot, at);
      last.set(slot, at);
    }
  }
  const chunkBytes: number[] = [];
  const placed: { slot: Slot; chunk: number; offset: number; end: number }[] = [];
  const bytesOf = (slot: Slot): number => Math.ceil(Math.max(plan.slots[slot]?.bytes ?? 0, 1) / 256) * 256;
  for (const slot of [...first.keys()].sort((a, b) => bytesOf(b) - bytesOf(a))) {
    const bytes = bytesOf(slot);
    const isAlive = (other: Slot): boolean =>
      (first.get(other) ?? 0) <= (last.get(slot) ?? 0) && (first.get(slot) ?? 0) <= (last.get(other) ?? 0);
    for (let chunk = 0; ; chunk++) {
      const busy = placed.filter((other) => other.chunk === chunk && isAlive(other.slot)).sort((a, b) => a.offset - b.offset);
      let offset = 0;
      for (const other of busy) if (offset + bytes > other.offset) offset = Math.max(offset, other.end);
      if (offset + bytes + 256 > maxBufferBytes && offset > 0) continue;
      placed.push({ slot, chunk, offset, end: offset + bytes });
      places.set(slot, { chunk, offset });
      chunkBytes[chunk] = Math.max(chunkBytes[chunk] ?? 0, offset + bytes + 256);
      break;
    }
  }
  return { chunkBytes, places };
}

/**
 * The memory in which all plans keep their intermediates. Plans run one after another and leave nothing behind, so one arena, as large
 * as the largest needs, serves them all.
 */
export class SharedArena {
  readonly #layouts = new Set<ArenaLayout>();
  #chunks: DeviceBuffer[] = [];
  /** Grows whenever a chunk was exchanged: bind groups made before are stale. */
  generation = 0;

  constructor(readonly pool: BufferPool) {}

  get bytes(): number {
    return this.#chunks.reduce((sum, chunk) => sum + chunk.capacity, 0);
  }

  chunk(index: number): DeviceBuffer {
    const chunk = this.#chunks[index];
    if (!chunk) throw new Error(`The arena has no chunk ${index}.`);
    return chunk;
  }

  /** Makes room for a plan. Throws DeviceError when the budget does not hold it. */
  add(layout: ArenaLayout): void {
    this.#layouts.add(layout);
    try {
      this.#fit();
    } catch (error) {
      this.#layouts.delete(layout);
      // What the others need was there before.
      this.#fit();
      throw error;
    }
  }

  remove(layout: ArenaLayout): void {
    if (this.#layouts.delete(layout)) this.#fit();
  }

  #fit(): void {
    const count = largest(
      [...this.#layouts].map((layout) => layout.chunkBytes.length),
      0,
    );
    for (const chunk of this.#chunks.splice(count)) this.#discard(chunk);
    for (let index = 0; index < count; index++) {
      const needed = largest([...this.#layouts].map((layout) => layout.chunkBytes[index] ?? 0));
      const chunk = this.#chunks[index];
      if (chunk && chunk.capacity >= needed && chunk.capacity <= needed * 2) continue;
      if (chunk) {
        this.#chunks.splice(index, 1);
        this.#discard(chunk);
      }
      this.#chunks.splice(index, 0, this.pool.allocate(needed));
      this.generation++;
    }
  }

  #discard(chunk: DeviceBuffer): void {
    this.pool.free(chunk);
    this.generation++;
  }
}
