import { mappingOf } from "./properties.js";
import { rangesOf } from "./ranges.js";
import { canonical, combiningClasses, compatible, compositions } from "./tables.js";

export type NormalForm = "NFC" | "NFD" | "NFKC" | "NFKD";

/** Code points, and how each came out of those before: 0 in the place of one, 1 put in after it, -n in the place of one and n more. */
export interface Changed {
  readonly codes: number[];
  readonly changes: number[];
}

interface Tables {
  readonly canonical: ReadonlyMap<number, readonly number[]>;
  readonly compatible: ReadonlyMap<number, readonly number[]>;
  readonly classes: ReadonlyMap<number, number>;
  /** Two code points, the first one times 2^21, to the one that they make together. */
  readonly pairs: ReadonlyMap<number, number>;
}

let tables: Tables | null = null;

function read(): Tables {
  const classes = new Map<number, number>();
  for (const [name, table] of Object.entries(combiningClasses)) {
    const borders = rangesOf(table);
    for (let i = 0; i < borders.length; i += 2)
      for (let code = borders[i] as number; code < (borders[i + 1] as number); code++) classes.set(code, Number(name));
  }
  const pairs = new Map<number, number>();
  for (const [whole, [first = 0, second = 0]] of mappingOf(compositions)) pairs.set(first * 2 ** 21 + second, whole);
  return { canonical: mappingOf(canonical), compatible: mappingOf(compatible), classes, pairs };
}

const hangul = { first: 0xac00, count: 11172, leading: 0x1100, vowel: 0x1161, trailing: 0x11a7 };

/** Whether no text of such code points differs from its normal form. */
const isPlain = (codes: readonly number[], form: NormalForm): boolean => {
  const below = form === "NFC" ? 0x300 : form === "NFD" ? 0xc0 : 0xa0;
  return codes.every((code) => code < below);
};

/** A normal form of code points, as Rust's unicode-normalization-alignments 0.1 gives it; null where it is the same. */
export function normalForm(codes: readonly number[], form: NormalForm): Changed | null {
  if (isPlain(codes, form)) return null;
  tables ??= read();
  const decomposed = decompose(codes, tables, form.includes("K"));
  return form.endsWith("C") ? compose(decomposed, tables) : decomposed;
}

function decompose(codes: readonly number[], { canonical: plain, compatible: more, classes }: Tables, isCompatible: boolean): Changed {
  const out: number[] = [];
  const changes: number[] = [];
  /** Marks that wait to be put in order. */
  let waiting: { readonly code: number; readonly change: number; readonly rank: number }[] = [];
  const flush = (): void => {
    if (waiting.length > 1) waiting.sort((a, b) => a.rank - b.rank);
    for (const { code, change } of waiting) {
      out.push(code);
      changes.push(change);
    }
    waiting = [];
  };
  const push = (code: number, change: number): void => {
    const rank = classes.get(code) ?? 0;
    if (rank === 0) {
      flush();
      out.push(code);
      changes.push(change);
    } else waiting.push({ code, change, rank });
  };
  for (const code of codes) {
    const parts = code < 0xa0 ? null : (hangulParts(code) ?? (isCompatible ? more.get(code) : undefined) ?? plain.get(code));
    if (!parts) push(code, 0);
    else for (let i = 0; i < parts.length; i++) push(parts[i] as number, i === 0 ? 0 : 1);
  }
  flush();
  return { codes: out, changes };
}

function hangulParts(code: number): readonly number[] | null {
  const index = code - hangul.first;
  if (index < 0 || index >= hangul.count) return null;
  const parts = [hangul.leading + Math.floor(index / 588), hangul.vowel + Math.floor((index % 588) / 28)];
  return index % 28 === 0 ? parts : [...parts, hangul.trailing + (index % 28)];
}

function together(first: number, second: number, { pairs }: Tables): number | undefined {
  const [leading, vowel] = [first - hangul.leading, second - hangul.vowel];
  if (leading >= 0 && leading < 19 && vowel >= 0 && vowel < 21) return hangul.first + (leading * 21 + vowel) * 28;
  const [syllable, trailing] = [first - hangul.first, second - hangul.trailing];
  if (syllable >= 0 && syllable < hangul.count && syllable % 28 === 0 && trailing > 0 && trailing < 28) return first + trailing;
  return pairs.get(first * 2 ** 21 + second);
}

function compose({ codes, changes }: Changed, given: Tables): Changed {
  const out: number[] = [];
  const outChanges: number[] = [];
  /** The place of what marks are put together with, and the class of the last mark that stayed. */
  let [starter, lastClass] = [-1, -1];
  for (let i = 0; i < codes.length; i++) {
    const [code, change] = [codes[i] as number, changes[i] as number];
    const rank = given.classes.get(code) ?? 0;
    if (starter >= 0 && (lastClass < 0 || lastClass < rank)) {
      const whole = together(out[starter] as number, code, given);
      if (whole !== undefined) {
        out[starter] = whole;
        outChanges[starter] = (outChanges[starter] as number) + change - 1;
        continue;
      }
    }
    if (rank === 0) [starter, lastClass] = [out.length, -1];
    else if (starter >= 0) lastClass = rank;
    out.push(code);
    outChanges.push(change);
  }
  return { codes: out, changes: outChanges };
}
