/** A grammar over bytes: what a text's UTF-8 may be. Expressions are compared by identity, and may hold themselves through a reference. */
export type Expression = Bytes | Sequence | Choice | Repeat | Reference;

/** One byte of a set. */
export interface Bytes {
  readonly kind: "bytes";
  /** Of each byte, whether it is in the set: 256 of them. */
  readonly has: Uint8Array;
}

/** Parts one after another. */
export interface Sequence {
  readonly kind: "sequence";
  readonly parts: readonly Expression[];
}

/** One of the options; none at all where there are none. */
export interface Choice {
  readonly kind: "choice";
  readonly options: readonly Expression[];
}

/** The item at least `min` and at most `max` times. It is never empty itself where `max` is infinite. */
export interface Repeat {
  readonly kind: "repeat";
  readonly item: Expression;
  readonly min: number;
  readonly max: number;
}

/** An expression by its name: it is known once it is asked for. */
export interface Reference {
  readonly kind: "reference";
  readonly target: () => Expression;
}

const encoder = new TextEncoder();

export const sequence = (...parts: readonly Expression[]): Sequence => ({ kind: "sequence", parts });
export const choice = (...options: readonly Expression[]): Choice => ({ kind: "choice", options });
export const reference = (target: () => Expression): Reference => ({ kind: "reference", target });
export const optional = (item: Expression): Repeat => repeat(item, 0, 1);

export function repeat(item: Expression, min: number, max: number = Number.POSITIVE_INFINITY): Repeat {
  return { kind: "repeat", item, min, max };
}

/** One byte between two, both included. */
export function byteBetween(least: number, most: number): Bytes {
  return { kind: "bytes", has: new Uint8Array(256).fill(1, least, most + 1) };
}

/** One of the bytes of an ASCII text. */
export function anyOf(signs: string): Bytes {
  const has = new Uint8Array(256);
  for (const byte of encoder.encode(signs)) has[byte] = 1;
  return { kind: "bytes", has };
}

/** A text's bytes. */
export function text(content: string): Expression {
  return sequence(...Array.from(encoder.encode(content), (byte) => byteBetween(byte, byte)));
}

/** One of several texts: those that begin alike go together, so that thousands cost what their beginnings cost. */
export function oneOf(texts: readonly string[]): Expression {
  return oneOfBytes([...new Set(texts)].map((content) => encoder.encode(content)));
}

function oneOfBytes(texts: readonly Uint8Array[]): Expression {
  const [first = new Uint8Array()] = texts;
  let common = 0;
  while (common < first.length && texts.every((bytes) => bytes[common] === first[common])) common++;
  const head = Array.from(first.subarray(0, common), (byte) => byteBetween(byte, byte));
  if (texts.length === 1) return sequence(...head);
  const byNext = new Map<number, Uint8Array[]>();
  for (const bytes of texts) {
    const next = bytes[common] ?? -1;
    const group = byNext.get(next) ?? [];
    group.push(bytes.subarray(common));
    byNext.set(next, group);
  }
  return sequence(...head, choice(...Array.from(byNext.values(), oneOfBytes)));
}

/** Strings of symbols of one length between two of them in their order, each symbol from `least` to `most`. */
export function stringsBetween(low: readonly number[], high: readonly number[], least: number, most: number): Expression {
  const [first, last] = [low[0] ?? 0, high[0] ?? 0];
  if (low.every((symbol) => symbol === least) && high.every((symbol) => symbol === most))
    return repeat(byteBetween(least, most), low.length, low.length);
  if (first === last) return sequence(byteBetween(first, first), stringsBetween(low.slice(1), high.slice(1), least, most));
  const rest = low.length - 1;
  const bottom = new Array<number>(rest).fill(least);
  const top = new Array<number>(rest).fill(most);
  const options: Expression[] = [
    sequence(byteBetween(first, first), stringsBetween(low.slice(1), top, least, most)),
    sequence(byteBetween(last, last), stringsBetween(bottom, high.slice(1), least, most)),
  ];
  if (last - first > 1) options.push(sequence(byteBetween(first + 1, last - 1), repeat(byteBetween(least, most), rest, rest)));
  return choice(...options);
}

/** Where the number of bytes of a code point changes, and the surrogates, which UTF-8 has not. */
const ranges = [
  [0, 0x7f],
  [0x80, 0x7ff],
  [0x800, 0xd7ff],
  [0xe000, 0xffff],
  [0x10000, 0x10ffff],
] as const;

/** One code point between two, both included, in UTF-8. */
export function codePointBetween(least: number, most: number): Expression {
  const options = ranges.flatMap(([from, to]) => {
    const [low, high] = [Math.max(from, least), Math.min(to, most)];
    if (low > high) return [];
    const [bytesOfLow, bytesOfHigh] = [low, high].map((point) => [...encoder.encode(String.fromCodePoint(point))]);
    return [stringsBetween(bytesOfLow ?? [], bytesOfHigh ?? [], 0x80, 0xbf)];
  });
  return choice(...options);
}

/** One code point from U+0020 on that is not among some. */
export function codePointExcept(excluded: Iterable<number>): Expression {
  const options: Expression[] = [];
  let next = 0x20;
  for (const point of [...new Set(excluded)].sort((a, b) => a - b)) {
    if (point > next) options.push(codePointBetween(next, point - 1));
    next = Math.max(next, point + 1);
  }
  return choice(...options, codePointBetween(next, 0x10ffff));
}

/** The expressions that some text fits: the others wait for themselves without end, or have no option. */
export function satisfiable(root: Expression): ReadonlySet<Expression> {
  const all = new Set([root]);
  for (const expression of all) for (const part of partsOf(expression)) all.add(part);
  const found = new Set<Expression>();
  const fits = (expression: Expression): boolean => {
    switch (expression.kind) {
      case "bytes":
        return expression.has.includes(1);
      case "sequence":
        return expression.parts.every((part) => found.has(part));
      case "choice":
        return expression.options.some((option) => found.has(option));
      case "repeat":
        return expression.min <= expression.max && (expression.min === 0 || found.has(expression.item));
      case "reference":
        return found.has(expression.target());
    }
  };
  // Parts were added behind what they are part of, so that most are known before it when gone through from the end.
  const order = [...all].reverse();
  for (let before = -1; before < found.size; ) {
    before = found.size;
    for (const expression of order) if (!found.has(expression) && fits(expression)) found.add(expression);
  }
  return found;
}

function partsOf(expression: Expression): readonly Expression[] {
  switch (expression.kind) {
    case "bytes":
      return [];
    case "sequence":
      return expression.parts;
    case "choice":
      return expression.options;
    case "repeat":
      return [expression.item];
    case "reference":
      return [expression.target()];
  }
}
