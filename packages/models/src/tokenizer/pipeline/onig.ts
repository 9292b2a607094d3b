import { type CodeSet, classOf, intersection, negation, union } from "./code-set.js";
import { property, shorthand } from "./onig-classes.js";

/** An expression of Oniguruma's that is not turned into JavaScript's. */
export class PatternError extends Error {}

/** Of a group: whether case is ignored, and whether a dot takes line breaks too. */
interface Flags {
  readonly ignoresCase: boolean;
  readonly isDotAll: boolean;
}

const controls: Readonly<Record<string, number>> = { t: 9, n: 10, v: 11, f: 12, r: 13, a: 7, e: 27 };
const start = "(?:^)";
const end = "(?:$)";

/**
 * An expression of the Rust tokenizers (Oniguruma, Ruby's syntax) as one of JavaScript's, with the classes that Oniguruma has.
 * Throws PatternError for what has no equal here, by name.
 */
export function translate(pattern: string): RegExp {
  const reader = new Reader(pattern);
  return new RegExp(reader.whole(), "gu");
}

class Reader {
  #at = 0;
  #captures = 0;
  /** The letter before, where case is ignored: some pairs of letters are one sign in another case. */
  #lastLetter = "";

  constructor(readonly pattern: string) {}

  whole(): string {
    const source = this.#alternatives({ ignoresCase: false, isDotAll: false });
    if (this.#at < this.pattern.length) this.#fail("a bracket closes that did not open");
    return source;
  }

  #fail(what: string): never {
    throw new PatternError(
      `${what} in the expression ${JSON.stringify(this.pattern.length > 120 ? `${this.pattern.slice(0, 120)}…` : this.pattern)}`,
    );
  }

  #take(text: string): boolean {
    if (!this.pattern.startsWith(text, this.#at)) return false;
    this.#at += text.length;
    return true;
  }

  #next(): string {
    const code = this.pattern.codePointAt(this.#at);
    if (code === undefined) return this.#fail("an end where a sign belongs");
    const sign = String.fromCodePoint(code);
    this.#at += sign.length;
    return sign;
  }

  #alternatives(flags: Flags): string {
    let current = flags;
    let source = "";
    while (this.#at < this.pattern.length && this.pattern[this.#at] !== ")") {
      if (this.#take("|")) {
        source += "|";
        this.#lastLetter = "";
        continue;
      }
      const switched = /^\(\?([im]*)(?:-([im]+))?\)/.exec(this.pattern.slice(this.#at, this.#at + 12));
      if (switched) {
        this.#at += switched[0].length;
        current = flagsOf(current, switched[1] ?? "", switched[2] ?? "");
        // What follows is one group up to the end of this one, its alternatives included.
        return `${source}(?:${this.#alternatives(current)})`;
      }
      source += this.#quantified(current);
    }
    return source;
  }

  #quantified(flags: Flags): string {
    const captures = this.#captures;
    const from = this.#at;
    let source = this.#atom(flags);
    for (;;) {
      const [found] = /^(?:[?*+]|\{\d*,?\d*\})/.exec(this.pattern.slice(this.#at, this.#at + 24)) ?? [];
      if (found === undefined || found === "{}" || found === "{,}") return source;
      this.#at += found.length;
      this.#lastLetter = "";
      const count = found.replace(/^\{,/, "{0,");
      if (this.#take("?")) source = `(?:${source}${count}?)`;
      else if (found.length === 1 && this.#take("+")) {
        // It gives nothing back once it has matched.
        this.#at = from;
        this.#captures = captures + 1;
        const inner = this.#atom(flags);
        this.#at += found.length + 1;
        source = `(?:(?=(${inner}${count}))\\${captures + 1})`;
      } else source = `(?:${source}${count})`;
    }
  }

  #atom(flags: Flags): string {
    const sign = this.#next();
    switch (sign) {
      case "(":
        return this.#group(flags);
      case "[":
        return this.#plain(classOf(this.#class(flags)));
      case ".":
        return this.#plain(flags.isDotAll ? "[\\s\\S]" : "[^\\n]");
      case "^":
        return this.#plain(`(?:${start}|(?<=\\n)(?=[\\s\\S]))`);
      case "$":
        return this.#plain(`(?=\\n|${end})`);
      case "\\":
        return this.#escape(flags);
      case "*":
      case "+":
      case "?":
        return this.#fail(`"${sign}" repeats nothing`);
      default:
        return this.#literal(sign.codePointAt(0) as number, flags); // a sign has a code point
    }
  }

  #plain(source: string): string {
    this.#lastLetter = "";
    return source;
  }

  #group(flags: Flags): string {
    this.#lastLetter = "";
    let [open, close] = ["(?:", ")"];
    let inner = flags;
    if (this.#take("?")) {
      const named = /^(?:<[A-Za-z_]\w*>|'[A-Za-z_]\w*')/.exec(this.pattern.slice(this.#at, this.#at + 80));
      const switched = /^([im]*)(?:-([im]+))?:/.exec(this.pattern.slice(this.#at, this.#at + 12));
      const looks = ["=", "!", "<=", "<!"].find((look) => this.pattern.startsWith(look, this.#at));
      if (looks !== undefined) {
        this.#at += looks.length;
        open = `(?${looks}`;
      } else if (this.#take(">")) {
        const number = ++this.#captures;
        [open, close] = ["(?:(?=(", `))\\${number})`];
      } else if (this.#take("#")) {
        while (this.#next() !== ")");
        return "(?:)";
      } else if (named) this.#at += named[0].length;
      else if (switched) {
        this.#at += switched[0].length;
        inner = flagsOf(flags, switched[1] ?? "", switched[2] ?? "");
      } else this.#fail(`the group "(?${this.pattern[this.#at] ?? ""}"`);
    }
    const source = this.#alternatives(inner);
    if (!this.#take(")")) this.#fail("a group that does not end");
    this.#lastLetter = "";
    return open + source + close;
  }

  #escape(flags: Flags): string {
    const code = this.#escapedCode();
    if (code !== null) return this.#literal(code, flags);
    const set = this.#escapedSet();
    if (set) return this.#plain(classOf(set));
    const sign = this.#next();
    const word = classOf(shorthand("w") ?? []);
    const anchors: Readonly<Record<string, string>> = {
      A: start,
      z: end,
      Z: `(?=\\n?${end})`,
      b: `(?:(?<=${word})(?!${word})|(?<!${word})(?=${word}))`,
      B: `(?:(?<=${word})(?=${word})|(?<!${word})(?!${word}))`,
      R: "(?:\\r\\n|[\\n-\\r\\x85\\u2028\\u2029])",
    };
    return this.#plain(anchors[sign] ?? this.#fail(`"\\${sign}"`));
  }

  /** The code point of an escape that stands for one, or null. */
  #escapedCode(): number | null {
    const rest = this.pattern.slice(this.#at, this.#at + 14);
    const hex = /^(?:x\{([\da-fA-F]{1,8})\}|u([\da-fA-F]{4})|x([0-7][\da-fA-F]))/.exec(rest);
    if (hex) {
      this.#at += hex[0].length;
      return Number.parseInt(hex[1] ?? hex[2] ?? hex[3] ?? "", 16);
    }
    const sign = rest[0] ?? "";
    if (Object.hasOwn(controls, sign)) {
      this.#at++;
      return controls[sign] as number; // it is one of them
    }
    if (sign === "" || /[A-Za-z0-9]/.test(sign)) return null;
    return this.#next().codePointAt(0) ?? null;
  }

  /** The set of an escape that stands for one, or null. */
  #escapedSet(): CodeSet | null {
    const found = /^([pP])\{(\^?)([^}]*)\}/.exec(this.pattern.slice(this.#at, this.#at + 60));
    if (found) {
      const set = property(found[3] ?? "");
      if (!set) return this.#fail(`"\\p{${found[3]}}", of which there is no table,`);
      this.#at += found[0].length;
      return (found[1] === "P") !== (found[2] === "^") ? negation(set) : set;
    }
    const set = shorthand(this.pattern[this.#at] ?? "");
    if (set) this.#at++;
    return set;
  }

  /** What stands in square brackets, the first of which is read. */
  #class(flags: Flags): CodeSet {
    const isNegated = this.#take("^");
    let whole: CodeSet | null = null;
    let set: CodeSet = [];
    for (let isFirst = true; isFirst || !this.#take("]"); isFirst = false) {
      if (this.#take("&&")) {
        whole = whole ? intersection(whole, set) : set;
        set = [];
      } else if (this.#take("[:")) {
        const [name = ""] = /^[^:\]]*/.exec(this.pattern.slice(this.#at)) ?? [];
        const posix: Readonly<Record<string, CodeSet | null>> = {
          space: shorthand("s"),
          digit: shorthand("d"),
          word: shorthand("w"),
          xdigit: shorthand("h"),
        };
        const found = posix[name];
        if (!found) return this.#fail(`"[:${name}:]", of which there is no table,`);
        this.#at += name.length;
        if (!this.#take(":]")) this.#fail("a class that does not end");
        set = union(set, found);
      } else if (this.#take("[")) set = union(set, this.#class(flags));
      else set = union(set, this.#classItem(flags));
    }
    const all = whole ? intersection(whole, set) : set;
    return isNegated ? negation(all) : all;
  }

  #classItem(flags: Flags): CodeSet {
    const from = this.#classCode();
    if (typeof from !== "number") return from;
    let to = from;
    if (this.pattern[this.#at] === "-" && this.pattern[this.#at + 1] !== "]") {
      this.#at++;
      const bound = this.#classCode();
      if (typeof bound !== "number") return union([[from, from]], [[0x2d, 0x2d]], bound);
      to = bound;
      if (to < from) this.#fail("a range that ends before it begins");
    }
    return flags.ignoresCase ? this.#bothCases(from, to) : [[from, to]];
  }

  #classCode(): number | CodeSet {
    if (!this.#take("\\")) return this.#next().codePointAt(0) as number; // a sign has a code point
    const set = this.#escapedSet();
    if (set) return set;
    if (this.#take("b")) return 8;
    return this.#escapedCode() ?? this.#fail(`"\\${this.pattern[this.#at] ?? ""}" in a class`);
  }

  /** ASCII in both cases. The Kelvin sign is a k, and the long s is an s. */
  #bothCases(from: number, to: number): CodeSet {
    if (to > 0x7f) this.#fail("a class beyond ASCII that ignores case,");
    const sets: CodeSet[] = [[[from, to]]];
    for (let code = from; code <= to; code++) {
      const letter = String.fromCharCode(code);
      if (!/[a-z]/i.test(letter)) continue;
      const other = code ^ 0x20;
      sets.push([[other, other]]);
      if (/k/i.test(letter)) sets.push([[0x212a, 0x212a]]);
      if (/s/i.test(letter)) sets.push([[0x17f, 0x17f]]);
    }
    return union(...sets);
  }

  #literal(code: number, { ignoresCase }: Flags): string {
    const letter = String.fromCodePoint(code);
    if (!ignoresCase) return classOf([[code, code]]);
    if (code > 0x7f) this.#fail("a sign beyond ASCII that ignores case,");
    const pair = (this.#lastLetter + letter).toLowerCase();
    if (["ss", "st", "ff", "fi", "fl"].includes(pair)) this.#fail(`"${pair}" that ignores case, which a single sign may be too,`);
    this.#lastLetter = letter;
    return classOf(this.#bothCases(code, code));
  }
}

function flagsOf(flags: Flags, on: string, off: string): Flags {
  const has = (letter: string, before: boolean): boolean => (on.includes(letter) || before) && !off.includes(letter);
  return { ignoresCase: has("i", flags.ignoresCase), isDotAll: has("m", flags.isDotAll) };
}
