import { setTimeout as sleep } from "node:timers/promises";

/** Milliseconds between two sides: threads of the one before (OpenMP's, pthreadpool's) go on looking for work for a while once it is done. */
export const restMs = 30;

/** One of several ways to do the same work. */
export interface Side {
  readonly name: string;
  /** Does the work `count` times and resolves to the seconds of all of them, once the device is done. */
  run(count: number): Promise<number>;
}

/** Times of one side, in seconds for one repetition. */
export interface Timing {
  readonly name: string;
  readonly median: number;
  /** The quartiles: half of the rounds lie between them. */
  readonly low: number;
  readonly high: number;
  /** One entry a round. */
  readonly samples: readonly number[];
  /** Repetitions in a round. */
  readonly count: number;
}

export interface RoundOptions {
  /** Rounds, in each of which every side runs once; 9 when absent. */
  readonly rounds?: number;
  /** Seconds that a round of one side should take; repetitions are chosen for it. 0.05 when absent. */
  readonly seconds?: number;
  /** Upper limit of repetitions in a round. */
  readonly maxCount?: number;
}

/**
 * Times the sides in turns, so that a machine that slows down slows all of them; a side starts when the threads of the one before have gone to
 * sleep. Before that each side runs twice unmeasured (compiling, caches), and once more to find out how many repetitions fill a round. Two
 * values that are compared come from one call of this function.
 */
export async function alternate(sides: readonly Side[], options: RoundOptions = {}): Promise<Timing[]> {
  const { rounds = 9, seconds = 0.05, maxCount = 1000 } = options;
  const counts: number[] = [];
  for (const side of sides) {
    await side.run(1);
    await side.run(1);
    const once = await side.run(1);
    counts.push(Math.max(1, Math.min(maxCount, Math.round(seconds / Math.max(once, 1e-7)))));
  }
  const samples = sides.map((): number[] => []);
  for (let round = 0; round < rounds; round++) {
    for (const [i, side] of sides.entries()) {
      const count = counts[i] ?? 1;
      await sleep(restMs);
      samples[i]?.push((await side.run(count)) / count);
    }
  }
  return sides.map(({ name }, i) => summary(name, samples[i] ?? [], counts[i] ?? 1));
}

/** Median and quartiles of the samples. */
export function summary(name: string, samples: readonly number[], count: number): Timing {
  return { name, median: quantile(samples, 0.5), low: quantile(samples, 0.25), high: quantile(samples, 0.75), samples, count };
}

/** The value below which a share of the samples lies, between neighbours by their distance. NaN without samples. */
export function quantile(samples: readonly number[], share: number): number {
  const sorted = [...samples].sort((a, b) => a - b);
  const at = (sorted.length - 1) * share;
  const [below, above] = [sorted[Math.floor(at)] ?? Number.NaN, sorted[Math.ceil(at)] ?? Number.NaN];
  return below + (above - below) * (at - Math.floor(at));
}

/** How many times faster the first is than the second: the ratio of their medians. */
export function speedup(first: Timing, second: Timing): number {
  return second.median / first.median;
}

/** A side of work that is done by calling a function. */
export function side(name: string, work: () => unknown, finish: () => Promise<void>): Side {
  return {
    name,
    async run(count) {
      const start = performance.now();
      for (let i = 0; i < count; i++) await work();
      await finish();
      return (performance.now() - start) / 1000;
    },
  };
}

/** Milliseconds of the processor, of all threads of this process, that some work takes: time that other programs do not lengthen. */
export function processorMs(work: () => void): number {
  const start = process.cpuUsage();
  work();
  const { user, system } = process.cpuUsage(start);
  return (user + system) / 1000;
}
