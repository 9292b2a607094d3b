import { utf8Length } from "../unicode/properties.js";

/** How a piece is split at matches; Rust's SplitDelimiterBehavior. */
export type Behavior = "Removed" | "Isolated" | "MergedWithPrevious" | "MergedWithNext" | "Contiguous";

/** A part of a text, in UTF-16 units, and whether it is a match; parts follow one another without gaps. */
export type Part = readonly [start: number, end: number, isMatch: boolean];

/**
 * A part of a text as normalizers have changed it, which knows for each of its units the part of the original that it stands for.
 * Rust's NormalizedString; offsets are in UTF-16 units of the original where Rust counts bytes.
 */
export class Piece {
  /** `starts` and `ends` are null where each unit stands for itself, the first one for the original's unit `origin`. */
  constructor(
    readonly text: string,
    readonly origin: number,
    readonly starts: Int32Array | null = null,
    readonly ends: Int32Array | null = null,
  ) {}

  /** Where the original of a unit starts. */
  start(unit: number): number {
    if (this.starts) return this.starts[unit] as number; // Callers ask for units of the text.
    return this.origin + (unit > 0 && isLow(this.text.charCodeAt(unit)) ? unit - 1 : unit);
  }

  /** Where the original of a unit ends. */
  end(unit: number): number {
    if (this.ends) return this.ends[unit] as number;
    return this.origin + (isHigh(this.text.charCodeAt(unit)) ? unit + 2 : unit + 1);
  }

  slice(from: number, to: number): Piece {
    if (from === 0 && to === this.text.length) return this;
    const text = this.text.slice(from, to);
    if (!this.starts || !this.ends) return new Piece(text, this.origin + from);
    return new Piece(text, from < to ? this.start(from) : from, this.starts.subarray(from, to), this.ends.subarray(from, to));
  }

  /**
   * The piece with other code points. A change of 0 puts one in the place of the next; 1 puts one in, which stands for what the one before
   * stood for; -n puts one in the place of the next and leaves out n more. `skipped` code points are left out at the start.
   */
  transform(codes: readonly number[], changes: readonly number[], skipped = 0): Piece {
    const { text } = this;
    let at = 0;
    const skip = (count: number): void => {
      for (let i = 0; i < count && at < text.length; i++) at += isHigh(text.charCodeAt(at)) ? 2 : 1;
    };
    skip(skipped);
    const length = codes.reduce((sum, code) => sum + (code > 0xffff ? 2 : 1), 0);
    const [starts, ends] = [new Int32Array(length), new Int32Array(length)];
    let unit = 0;
    for (let i = 0; i < codes.length; i++) {
      const change = changes[i] as number;
      const source = change > 0 ? at - 1 : at;
      const isThere = source >= 0 && source < text.length;
      const [start, end] = isThere ? [this.start(source), this.end(source)] : [this.origin, this.origin];
      if (change <= 0) skip(1 - change);
      const last = unit + ((codes[i] as number) > 0xffff ? 2 : 1);
      for (; unit < last; unit++) {
        starts[unit] = start;
        ends[unit] = end;
      }
    }
    return new Piece(textOf(codes), this.origin, starts, ends);
  }

  /** The piece with a text before it, which stands for what the first sign stands for. */
  prepend(prefix: string): Piece {
    if (this.text === "" || prefix === "") return this;
    const { length } = prefix;
    const total = length + this.text.length;
    const [starts, ends] = [new Int32Array(total), new Int32Array(total)];
    for (let i = 0; i < total; i++) {
      const source = Math.max(0, i - length);
      starts[i] = this.start(source);
      ends[i] = this.end(source);
    }
    return new Piece(prefix + this.text, this.origin, starts, ends);
  }

  /** The piece with each match replaced; what is put in stands for the last sign of the match. */
  replace(parts: readonly Part[], content: string): Piece {
    if (!parts.some(([, , isMatch]) => isMatch)) return this;
    const isOneForOne = !this.starts && content.length === 1 && parts.every(([start, end, isMatch]) => !isMatch || end - start === 1);
    const text = parts.map(([start, end, isMatch]) => (isMatch ? content : this.text.slice(start, end))).join("");
    if (isOneForOne) return new Piece(text, this.origin);
    const [starts, ends] = [new Int32Array(text.length), new Int32Array(text.length)];
    let unit = 0;
    for (const [from, to, isMatch] of parts) {
      const count = isMatch ? content.length : to - from;
      for (let i = 0; i < count; i++, unit++) {
        const source = isMatch ? to - 1 : from + i;
        starts[unit] = source < 0 ? this.origin : this.start(source);
        ends[unit] = source < 0 ? this.origin : this.end(source);
      }
    }
    return new Piece(text, this.origin, starts, ends);
  }

  split(parts: readonly Part[], behavior: Behavior): Piece[] {
    return joinParts(parts, behavior).flatMap(([start, end]) => (start < end ? [this.slice(start, end)] : []));
  }
}

function joinParts(parts: readonly Part[], behavior: Behavior): readonly (readonly [number, number])[] {
  const spans: [number, number][] = [];
  let previous = false;
  switch (behavior) {
    case "Removed":
      return parts.flatMap(([start, end, isMatch]) => (isMatch ? [] : [[start, end] as const]));
    case "Isolated":
      return parts.map(([start, end]) => [start, end] as const);
    case "Contiguous":
    case "MergedWithPrevious":
      for (const [start, end, isMatch] of parts) {
        const last = spans.at(-1);
        if (last && (behavior === "Contiguous" ? isMatch === previous : isMatch && !previous)) last[1] = end;
        else spans.push([start, end]);
        previous = isMatch;
      }
      return spans;
    case "MergedWithNext":
      for (const [start, end, isMatch] of [...parts].reverse()) {
        const last = spans.at(-1);
        if (last && isMatch && !previous) last[0] = start;
        else spans.push([start, end]);
        previous = isMatch;
      }
      return spans.reverse();
  }
}

/** Parts of a text by a test of each code point. */
export function partsWhere(text: string, holds: (code: number) => boolean): Part[] {
  const parts: Part[] = [];
  let from = 0;
  for (let i = 0; i < text.length; ) {
    const code = text.codePointAt(i) as number; // i is within the text
    const next = i + (code > 0xffff ? 2 : 1);
    if (holds(code)) {
      if (from < i) parts.push([from, i, false]);
      parts.push([i, next, true]);
      from = next;
    }
    i = next;
  }
  if (from < text.length) parts.push([from, text.length, false]);
  return parts;
}

/** For each byte of a text in UTF-8 the unit whose code point it is of; null where all are ASCII, and each byte is a unit. */
export function unitsOfBytes(text: string): Int32Array | null {
  let bytes = 0;
  for (let i = 0; i < text.length; ) {
    const code = text.codePointAt(i) as number; // within the text
    bytes += utf8Length(code);
    i += code > 0xffff ? 2 : 1;
  }
  if (bytes === text.length) return null;
  const units = new Int32Array(bytes);
  let at = 0;
  for (let i = 0; i < text.length; ) {
    const code = text.codePointAt(i) as number; // within the text
    const end = at + utf8Length(code);
    units.fill(i, at, end);
    at = end;
    i += code > 0xffff ? 2 : 1;
  }
  return units;
}

export function textOf(codes: readonly number[]): string {
  let text = "";
  for (const code of codes) text += String.fromCodePoint(code);
  return text;
}

const isHigh = (unit: number): boolean => (unit & 0xfc00) === 0xd800;
const isLow = (unit: number): boolean => (unit & 0xfc00) === 0xdc00;
