import type { BinaryKind, ExprMakers, Index, Range } from "./expr.js";

/** Operations of index arithmetic. */
export type IndexKind = "add" | "sub" | "mul" | "div" | "mod" | "min" | "max";

const unknown: Range = { low: Number.NEGATIVE_INFINITY, high: Number.POSITIVE_INFINITY };

/** Smallest and largest value of `a kind b`. */
export function rangeOfIndex(kind: IndexKind, a: Range, b: Range): Range {
  switch (kind) {
    case "add":
      return { low: a.low + b.low, high: a.high + b.high };
    case "sub":
      return { low: a.low - b.high, high: a.high - b.low };
    case "mul": {
      // 0 · ∞ is 0: infinite stands for any integer.
      const products = [a.low * b.low, a.low * b.high, a.high * b.low, a.high * b.high].map((x) => (Number.isNaN(x) ? 0 : x));
      return { low: Math.min(...products), high: Math.max(...products) };
    }
    case "div":
      return b.low === b.high && b.low > 0 ? { low: Math.trunc(a.low / b.low), high: Math.trunc(a.high / b.low) } : unknown;
    case "mod":
      return b.low === b.high && b.low > 0 && a.low >= 0 ? { low: 0, high: Math.min(a.high, b.low - 1) } : unknown;
    case "max":
      return { low: Math.max(a.low, b.low), high: Math.max(a.high, b.high) };
    case "min":
      return { low: Math.min(a.low, b.low), high: Math.min(a.high, b.high) };
  }
}

/** The outcome of a comparison of indices where their ranges decide it; null where they do not, or for what is not a comparison. */
export function simplifyComparison(kind: BinaryKind, a: Index, b: Index): boolean | null {
  if (kind === "lt") return a.high < b.low ? true : a.low >= b.high ? false : null;
  if (kind === "le") return a.high <= b.low ? true : a.low > b.high ? false : null;
  if (kind === "eq") return a === b ? true : null;
  return null;
}

/** `a kind b` said in less, so that a reshape that only splits or merges axes leaves no division behind; null where it is no simpler. */
export function simplifyIndex(make: ExprMakers, kind: IndexKind, a: Index, b: Index): Index | null {
  if (a.op === "const" && b.op === "const") return make.int(foldIndex(kind, a.value, b.value));
  switch (kind) {
    case "add":
      if (a.op === "const") return a.value === 0 ? b : make.add(b, a);
      if (b.op === "const") {
        if (b.value === 0) return a;
        if (a.op === "index" && a.kind === "add" && a.b.op === "const") return make.add(a.a, make.int(a.b.value + b.value));
      }
      // (x / c) * c + x % c = x for x ≥ 0, also inside longer sums.
      return joinQuotient(make, a, b) ?? joinQuotient(make, b, a);
    case "sub":
      if (b.op === "const") return make.add(a, make.int(-b.value));
      return a === b ? make.int(0) : null;
    case "mul":
      if (a.op === "const") return make.mul(b, a);
      if (b.op === "const") {
        if (b.value === 0) return b;
        if (b.value === 1) return a;
        if (a.op === "index" && a.kind === "mul" && a.b.op === "const") return make.mul(a.a, make.int(a.b.value * b.value));
        if (a.op === "index" && a.kind === "add") return make.add(make.mul(a.a, b), make.mul(a.b, b));
      }
      return null;
    case "div":
    case "mod":
      return b.op === "const" && b.value > 0 ? simplifyDivision(make, kind, a, b.value) : null;
    case "max":
      if (a.low >= b.high) return a;
      return b.low >= a.high ? b : null;
    case "min":
      if (a.high <= b.low) return a;
      return b.high <= a.low ? b : null;
  }
}

function foldIndex(kind: IndexKind, a: number, b: number): number {
  switch (kind) {
    case "add":
      return a + b;
    case "sub":
      return a - b;
    case "mul":
      return a * b;
    case "div":
      return b === 0 ? 0 : Math.trunc(a / b);
    case "mod":
      return b === 0 ? 0 : a % b;
    case "max":
      return Math.max(a, b);
    case "min":
      return Math.min(a, b);
  }
}

/** The terms of a sum from left to right. */
function termsOf(index: Index): Index[] {
  const terms: Index[] = [];
  const stack = [index];
  while (stack.length > 0) {
    const next = stack.pop() as Index;
    if (next.op === "index" && next.kind === "add") stack.push(next.b, next.a);
    else terms.push(next);
  }
  return terms;
}

function sumOf(make: ExprMakers, terms: readonly Index[]): Index {
  return terms.reduce((sum, term) => make.add(sum, term), make.int(0));
}

/** a + b where a sum `b` has the remainder of a division whose quotient is in `a`. */
function joinQuotient(make: ExprMakers, a: Index, b: Index): Index | null {
  const mods = termsOf(b);
  for (const [m, mod] of mods.entries()) {
    if (mod.op !== "index") continue;
    const scale = mod.kind === "mul" && mod.b.op === "const" ? mod.b.value : 1;
    const inner = scale === 1 ? mod : mod.a;
    if (inner.op !== "index" || inner.kind !== "mod" || inner.b.op !== "const") continue;
    const x = inner.a;
    const divisor = inner.b.value;
    if (x.low < 0) continue;
    const terms = termsOf(a);
    const wanted = make.mul(make.index("div", x, make.int(divisor)), make.int(divisor * scale));
    const at = terms.indexOf(wanted);
    if (at < 0) continue;
    return sumOf(make, [...terms.filter((_, i) => i !== at), ...mods.filter((_, i) => i !== m), make.mul(x, make.int(scale))]);
  }
  return null;
}

/** a / c and a % c where the multiples of c in a sum can be taken out; needs a ≥ 0 so that truncation is floor. */
function simplifyDivision(make: ExprMakers, kind: "div" | "mod", a: Index, divisor: number): Index | null {
  if (divisor === 1) return kind === "div" ? a : make.int(0);
  if (a.low < 0) return null;
  const quotient = Math.floor(a.low / divisor);
  if (Math.floor(a.high / divisor) === quotient) return kind === "div" ? make.int(quotient) : make.add(a, make.int(-quotient * divisor));
  const multiples: Index[] = [];
  const rest: Index[] = [];
  for (const term of termsOf(a)) {
    if (term.op === "const") {
      const whole = Math.floor(term.value / divisor);
      if (whole !== 0) multiples.push(make.int(whole));
      if (whole * divisor !== term.value) rest.push(make.int(term.value - whole * divisor));
    } else if (factorOf(term) % divisor === 0) multiples.push(divided(make, term, divisor));
    else rest.push(term);
  }
  const remainder = sumOf(make, rest);
  if (multiples.length > 0 && remainder.low >= 0) {
    const small = make.index(kind, remainder, make.int(divisor));
    return kind === "mod" ? small : make.add(sumOf(make, multiples), small);
  }
  if (a.op === "index" && a.b.op === "const" && a.b.value > 0) {
    if (kind === "div" && a.kind === "div") return make.index("div", a.a, make.int(a.b.value * divisor));
    if (kind === "mod" && a.kind === "mod" && a.b.value % divisor === 0) return make.index("mod", a.a, make.int(divisor));
  }
  return inGrains(make, kind, a, divisor);
}

/** a / c and a % c where a sum is g · x + y, 0 ≤ y < g, and c a multiple of g: x / (c / g), and g · (x % (c / g)) + y. */
function inGrains(make: ExprMakers, kind: "div" | "mod", a: Index, divisor: number): Index | null {
  const terms = termsOf(a);
  const grains = new Set(terms.map((term) => (term.op === "const" ? 1 : commonDivisor(factorOf(term), divisor))));
  for (const grain of [...grains].sort((x, y) => y - x)) {
    if (grain === 1) return null;
    const [coarse, fine]: [Index[], Index[]] = [[], []];
    for (const term of terms) {
      if (term.op === "const") {
        const whole = Math.floor(term.value / grain);
        coarse.push(make.int(whole));
        fine.push(make.int(term.value - whole * grain));
      } else if (factorOf(term) % grain === 0) coarse.push(divided(make, term, grain));
      else fine.push(term);
    }
    const [x, y] = [sumOf(make, coarse), sumOf(make, fine)];
    if (x.low < 0 || y.low < 0 || y.high >= grain) continue;
    const within = make.index(kind, x, make.int(divisor / grain));
    return kind === "div" ? within : make.add(make.mul(within, make.int(grain)), y);
  }
  return null;
}

/** The number by which a term of a sum is multiplied. */
function factorOf(term: Index): number {
  return term.op === "index" && term.kind === "mul" && term.b.op === "const" ? term.b.value : 1;
}

/** A term by a divisor of its factor. */
function divided(make: ExprMakers, term: Index, divisor: number): Index {
  if (divisor === 1 || term.op !== "index" || term.b.op !== "const") return term;
  return make.mul(term.a, make.int(term.b.value / divisor));
}

function commonDivisor(a: number, b: number): number {
  let [x, y] = [Math.abs(a), b];
  while (y > 0) [x, y] = [y, x % y];
  return x;
}
