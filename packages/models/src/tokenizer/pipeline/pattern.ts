import { CheckpointError } from "@lowrank/tensor";
import { PatternError, translate } from "./onig.js";
import type { Part } from "./piece.js";

/** Finds the parts of a text that match, and those between. */
export type Matcher = (text: string) => Part[];

/** What a tokenizer.json has for a pattern: a text, or an expression. */
export type Pattern = { readonly String: string } | { readonly Regex: string } | string;

/** A pattern's matcher. Throws CheckpointError for an expression that Rust's engine reads in a way that is not known here. */
export function matcherOf(pattern: Pattern, path: string): Matcher {
  const text = typeof pattern === "string" ? pattern : "String" in pattern ? pattern.String : null;
  if (text !== null) return (inside) => literalParts(inside, text);
  return expressionMatcher((pattern as { readonly Regex: string }).Regex, path);
}

export function expressionMatcher(expression: string, path: string): Matcher {
  try {
    const compiled = translate(expression);
    return (inside) => expressionParts(inside, compiled);
  } catch (error) {
    if (!(error instanceof PatternError) && !(error instanceof SyntaxError)) throw error;
    throw new CheckpointError(
      `${path}: the tokenizer splits texts by ${error.message}, which Lowrank cannot read as Rust's tokenizers do. Use another checkpoint.`,
      path,
    );
  }
}

function literalParts(inside: string, text: string): Part[] {
  if (text === "") return inside === "" ? [] : [[0, inside.length, false]];
  const parts: Part[] = [];
  let from = 0;
  for (let at = inside.indexOf(text); at >= 0; at = inside.indexOf(text, from)) {
    if (from < at) parts.push([from, at, false]);
    from = at + text.length;
    parts.push([at, from, true]);
  }
  if (from < inside.length) parts.push([from, inside.length, false]);
  return parts;
}

function expressionParts(inside: string, expression: RegExp): Part[] {
  const parts: Part[] = [];
  let from = 0;
  expression.lastIndex = 0;
  for (let found = expression.exec(inside); found; found = expression.exec(inside)) {
    const end = found.index + found[0].length;
    // JavaScript finds nothing between the halves of a sign, but for what matches no sign at all.
    if (found[0] === "" && isWithinSign(inside, end)) {
      expression.lastIndex = end + 1;
      continue;
    }
    if (found[0] === "") {
      // Oniguruma gives no empty match where the last match ended.
      expression.lastIndex += (inside.codePointAt(end) ?? 0) > 0xffff ? 2 : 1;
      if (end === from && parts.length > 0) {
        if (expression.lastIndex > inside.length) break;
        continue;
      }
    }
    if (from < found.index) parts.push([from, found.index, false]);
    parts.push([found.index, end, true]);
    from = end;
    if (expression.lastIndex > inside.length) break;
  }
  if (from < inside.length) parts.push([from, inside.length, false]);
  return parts;
}

function isWithinSign(text: string, at: number): boolean {
  return at > 0 && (text.charCodeAt(at) & 0xfc00) === 0xdc00 && (text.charCodeAt(at - 1) & 0xfc00) === 0xd800;
}

/** The same parts, with what matches and what does not changed over. */
export function inverted(matcher: Matcher): Matcher {
  return (text) => matcher(text).map(([start, end, isMatch]) => [start, end, !isMatch] as const);
}
