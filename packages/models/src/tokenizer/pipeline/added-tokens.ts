import { isRegexSpace, isWord } from "../unicode/properties.js";
import type { Normalizer } from "./normalizers.js";
import { Piece } from "./piece.js";

/** A token that is found in a text as it stands. Rust's AddedToken. */
export interface AddedToken {
  readonly id: number;
  readonly content: string;
  /** Whether it counts only where no word goes on before or after it. */
  readonly singleWord: boolean;
  /** Whether it takes the white space before it, and after it. */
  readonly lstrip: boolean;
  readonly rstrip: boolean;
  /** Whether it is found in the normalized text, and its own text is normalized. */
  readonly normalized: boolean;
  /** Whether `decode` may leave it out. */
  readonly special: boolean;
}

/** A part of a text: an added token, or text between. */
export type Extracted = { readonly piece: Piece; readonly token: AddedToken | null };

/** The tokens by the signs of their texts. */
interface Node {
  readonly children: Map<number, Node>;
  token: AddedToken | null;
}

/** Finds added tokens: those that are not normalized in the text as it is, then the others in what is left, normalized. */
export class AddedTokens {
  readonly byId: ReadonlyMap<number, AddedToken>;
  readonly byContent: ReadonlyMap<string, AddedToken>;
  readonly #plain: Node | null;
  readonly #normalized: Node | null;
  readonly #normalize: Normalizer;
  /** How `decode` writes those whose text the normalizer changes. */
  readonly #written = new Map<number, string>();

  constructor(tokens: readonly AddedToken[], normalize: Normalizer) {
    this.byId = new Map(tokens.map((token) => [token.id, token]));
    this.byContent = new Map(tokens.map((token) => [token.content, token]));
    this.#normalize = normalize;
    const all = [...this.byId.values()];
    this.#plain = treeOf(all.filter((token) => !token.normalized).map((token) => [token.content, token]));
    const normalized = all
      .filter((token) => token.normalized)
      .map((token) => {
        const text = normalize(new Piece(token.content, 0)).text;
        if (text !== token.content) this.#written.set(token.id, text);
        return [text, token] as const;
      });
    this.#normalized = treeOf(normalized);
  }

  /** The text of a token as it is decoded, or undefined. */
  written(id: number): string | undefined {
    return this.#written.get(id) ?? this.byId.get(id)?.content;
  }

  /** The text in parts; those between the tokens are normalized. */
  extract(text: string): Extracted[] {
    return this.#split(new Piece(text, 0), this.#plain).flatMap((part) =>
      part.token ? [part] : this.#split(this.#normalize(part.piece), this.#normalized),
    );
  }

  #split(piece: Piece, tree: Node | null): Extracted[] {
    const { text } = piece;
    if (text === "") return [];
    if (!tree) return [{ piece, token: null }];
    const parts: Extracted[] = [];
    let from = 0;
    const until = (to: number): void => {
      if (from < to) parts.push({ piece: piece.slice(from, to), token: null });
    };
    for (let at = 0; at < text.length; ) {
      const found = longest(tree, text, at);
      if (!found) {
        at++;
        continue;
      }
      const { token, end } = found;
      at = end;
      let [start, stop] = [end - found.length, end];
      if (token.singleWord && (isWordBefore(text, start) || isWordAfter(text, stop))) continue;
      if (token.lstrip) start = Math.max(spaceBefore(text, start), from);
      if (token.rstrip) stop = spaceAfter(text, stop);
      until(start);
      if (start < stop) parts.push({ piece: piece.slice(start, stop), token });
      from = stop;
    }
    until(text.length);
    return parts;
  }
}

function treeOf(tokens: readonly (readonly [string, AddedToken])[]): Node | null {
  const root: Node = { children: new Map(), token: null };
  for (const [text, token] of tokens) {
    let node = root;
    for (let i = 0; i < text.length; i++) {
      const unit = text.charCodeAt(i);
      let child = node.children.get(unit);
      if (!child) {
        child = { children: new Map(), token: null };
        node.children.set(unit, child);
      }
      node = child;
    }
    if (node !== root) node.token = token;
  }
  return root.children.size > 0 ? root : null;
}

/** The longest token that starts at a place. */
function longest(
  tree: Node,
  text: string,
  at: number,
): { readonly token: AddedToken; readonly end: number; readonly length: number } | null {
  let node: Node | undefined = tree;
  let best: { readonly token: AddedToken; readonly end: number; readonly length: number } | null = null;
  for (let i = at; i < text.length; ) {
    node = node.children.get(text.charCodeAt(i++));
    if (!node) break;
    if (node.token) best = { token: node.token, end: i, length: i - at };
  }
  return best;
}

function isWordBefore(text: string, at: number): boolean {
  if (at === 0) return false;
  const from = at > 1 && (text.charCodeAt(at - 1) & 0xfc00) === 0xdc00 ? at - 2 : at - 1;
  return isWord(text.codePointAt(from) as number); // from is within the text
}

function isWordAfter(text: string, at: number): boolean {
  return at < text.length && isWord(text.codePointAt(at) as number); // at is within the text
}

/** White space is of one unit. */
function spaceBefore(text: string, at: number): number {
  let start = at;
  while (start > 0 && isRegexSpace(text.charCodeAt(start - 1))) start--;
  return start;
}

function spaceAfter(text: string, at: number): number {
  let end = at;
  while (end < text.length && isRegexSpace(text.charCodeAt(end))) end++;
  return end;
}
