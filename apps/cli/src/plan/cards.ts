import { UsageError } from "../failure.js";

/** A GPU's published peaks: f32 arithmetic outside tensor cores in 10^12 operations a second, memory in 10^9 bytes a second; and its memory in GB. */
export interface Card {
  readonly name: string;
  readonly teraflops: number;
  readonly gigabytes: number;
  readonly memory: number;
}

/** Of the makers' data sheets: NVIDIA's for T4, RTX 3060, RTX 4090, A100 80 GB SXM and H100 SXM; Apple's for the M2 Max with 38 cores and its least memory. */
export const cards: readonly Card[] = [
  { name: "Apple M2 Max", teraflops: 13.6, gigabytes: 400, memory: 32 },
  { name: "NVIDIA T4", teraflops: 8.1, gigabytes: 320, memory: 16 },
  { name: "NVIDIA RTX 3060", teraflops: 12.7, gigabytes: 360, memory: 12 },
  { name: "NVIDIA RTX 4090", teraflops: 82.6, gigabytes: 1008, memory: 24 },
  { name: "NVIDIA A100", teraflops: 19.5, gigabytes: 2039, memory: 80 },
  { name: "NVIDIA H100", teraflops: 67, gigabytes: 3350, memory: 80 },
];

/** The card of a name, of which a part that no other has is enough. Throws UsageError for one that is not in the table. */
export function cardOf(name: string): Card {
  const letters = (text: string): string => text.toLowerCase().replace(/[^a-z0-9]/g, "");
  const found = cards.filter((card) => letters(card.name).includes(letters(name)));
  const [card] = found;
  if (card && found.length === 1 && letters(name) !== "") return card;
  throw new UsageError(
    `--card "${name}" is ${found.length > 1 ? "more than one" : "none"} of ${cards.map((each) => each.name).join(", ")}. Name one of them, or give the memory of any other with --device-memory.`,
  );
}

/** What a kernel does, as `planStatistics` counts it. */
export interface KernelWork {
  readonly operations: number;
  readonly readBytes: number;
  readonly writtenBytes: number;
}

/** The least seconds that kernels one after another can take (Williams et al. 2009): each at the peak that it meets first. */
export function leastSeconds(kernels: readonly KernelWork[], card: Card): number {
  return kernels.reduce(
    (sum, { operations, readBytes, writtenBytes }) =>
      sum + Math.max(operations / (card.teraflops * 1e12), (readBytes + writtenBytes) / (card.gigabytes * 1e9)),
    0,
  );
}
