import type { CaseResult } from "../families/measure.js";
import type { Report } from "./json.js";
import { columns, figure } from "./terminal.js";

/** A case in two reports. */
export interface Change {
  readonly family: string;
  readonly name: string;
  /** Old time over new time: above 1 is faster. */
  readonly ratio: number;
  readonly before: number;
  readonly after: number;
  /** True when the spreads between the quartiles do not meet. */
  readonly isBeyondNoise: boolean;
}

/** Cases that both reports have, with what became of them. */
export function changes(before: Report, after: Report): Change[] {
  const key = ({ family, name }: CaseResult): string => `${family} ${name}`;
  const old = new Map(before.cases.map((item) => [key(item), item.timing]));
  return after.cases.flatMap((item) => {
    const known = old.get(key(item));
    if (!known) return [];
    const { timing } = item;
    return [
      {
        family: item.family,
        name: item.name,
        ratio: known.median / timing.median,
        before: known.median,
        after: timing.median,
        isBeyondNoise: timing.low > known.high || timing.high < known.low,
      },
    ];
  });
}

/** The changes beyond the noise, largest first, and how many stayed within it. */
export function changeLines(before: Report, after: Report): string[] {
  const all = changes(before, after);
  const found = all.filter(({ isBeyondNoise }) => isBeyondNoise).sort((a, b) => Math.abs(Math.log(b.ratio)) - Math.abs(Math.log(a.ratio)));
  const width = columns - 44;
  const rows = found.map(({ family, name, ratio, before: old, after: now }) => {
    const label = `${family}: ${name}`;
    const cells = [`${figure(old * 1e6)}`.padStart(11), `${figure(now * 1e6)}`.padStart(11), `${figure(ratio)}x`.padStart(9)];
    return `${(label.length > width ? `${label.slice(0, width - 1)}…` : label).padEnd(width)} ${cells.join(" ")} ${ratio > 1 ? "faster" : "slower"}`;
  });
  const barsNow = new Map(after.bars.map((bar) => [bar.name, bar.verdict]));
  const turned = before.bars.flatMap(({ name, verdict }) => {
    const now = barsNow.get(name);
    return now !== undefined && now !== verdict ? [`${name}: ${verdict} before, now ${now}`] : [];
  });
  const head = [
    `${"changed beyond the noise".padEnd(width)} ${"µs before".padStart(11)} ${"µs now".padStart(11)} ${"speed".padStart(9)}`,
    "─".repeat(columns),
  ];
  const rest = `${all.length - found.length} of ${all.length} cases stayed within the spread of their rounds`;
  return [...(rows.length > 0 ? [...head, ...rows] : []), rest, ...turned];
}
