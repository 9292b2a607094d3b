/** Scripts that are told apart, as Unicode names them. */
const scripts = [
  "Latin",
  "Cyrillic",
  "Greek",
  "Han",
  "Hiragana",
  "Katakana",
  "Hangul",
  "Arabic",
  "Hebrew",
  "Devanagari",
  "Bengali",
  "Tamil",
  "Telugu",
  "Thai",
  "Georgian",
  "Armenian",
  "Ethiopic",
].map((name) => ({ name, pattern: new RegExp(`\\p{Script=${name}}`, "gu") }));

/** Controls but line feeds, carriage returns and tabs; and U+FFFD, which stands for what could not be decoded. */

const control = /(?![\t\n\r])[\p{Cc}\uFFFD]/gu;

/** Counts the characters of texts by their script. */
export class Characters {
  readonly #scripts = new Map<string, number>();
  readonly #controls = new Map<number, number>();

  add(text: string): void {
    for (const { name, pattern } of scripts) {
      const count = text.match(pattern)?.length ?? 0;
      if (count > 0) this.#scripts.set(name, (this.#scripts.get(name) ?? 0) + count);
    }
    for (const [found] of text.matchAll(control)) {
      const code = found.charCodeAt(0);
      this.#controls.set(code, (this.#controls.get(code) ?? 0) + 1);
    }
  }

  /** The most frequent first. */
  get scripts(): { readonly name: string; readonly count: number }[] {
    return [...this.#scripts].map(([name, count]) => ({ name, count })).sort((a, b) => b.count - a.count);
  }

  get controls(): { readonly code: number; readonly count: number }[] {
    return [...this.#controls].map(([code, count]) => ({ code, count })).sort((a, b) => b.count - a.count);
  }
}
