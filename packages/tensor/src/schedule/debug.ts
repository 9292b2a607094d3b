/** How much of what runs is printed: 1 kernels with times, 2 also schedules, 3 also generated shaders. */
export type DebugLevel = 0 | 1 | 2 | 3;

let level: DebugLevel = 0;

/** The level in force; `LOWRANK_DEBUG` sets it in Node. */
export function debugLevel(): DebugLevel {
  return level;
}

/** Sets what is printed from now on; devices opened before keep their level for kernel times and shaders. */
export function setDebugLevel(value: number): void {
  level = Math.min(Math.max(Math.trunc(value) || 0, 0), 3) as DebugLevel;
}

/** Prints a line of what runs, beside the program's own output. */
export function debugPrint(text: string): void {
  console.error(text);
}
