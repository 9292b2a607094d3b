/**
 * An upper bound for the steps of a backtracking matcher on a text of `length` characters, by the expression's form alone: each quantifier
 * on a single character multiplies by its choices, each group by its alternatives; a repeated group that can match in several ways, and a
 * reference to a group, count as without bound.
 */
export function mostSteps(source: string, length: number): number {
  let steps = 1;
  /** Of each open group: its alternatives, and whether there are several ways through it. */
  const open: { alternatives: number; hasChoice: boolean }[] = [{ alternatives: 1, hasChoice: false }];
  const top = (): { alternatives: number; hasChoice: boolean } => open.at(-1) ?? { alternatives: 1, hasChoice: false };
  let last: "atom" | "group" | "choice" | "none" = "none";
  for (const token of source.match(tokens) ?? []) {
    if (/^\\(?:[1-9]|k)/.test(token)) return Number.POSITIVE_INFINITY;
    if (token.startsWith("(")) {
      open.push({ alternatives: 1, hasChoice: false });
      last = "none";
    } else if (token === ")") {
      const { alternatives, hasChoice } = open.length > 1 ? (open.pop() ?? top()) : top();
      steps *= alternatives;
      top().hasChoice ||= hasChoice;
      last = hasChoice ? "choice" : "group";
    } else if (token === "|") {
      top().alternatives++;
      for (const group of open) group.hasChoice = true;
      last = "none";
    } else if (/^[*+?{]/.test(token) && last !== "none") {
      const isOptional = token.startsWith("?");
      const most = /^\{(\d+)(?:,(\d*))?\}/.exec(token);
      const isFixed = most !== null && most[2] === undefined;
      if (last === "choice" && !isOptional) return Number.POSITIVE_INFINITY;
      if (!isFixed) {
        steps *= isOptional ? 2 : length + 1;
        for (const group of open) group.hasChoice = true;
      }
      // `(a){5}`: each round is the same, so only the expression grows.
      if (isFixed) steps *= Number(most[1]) || 1;
      last = "none";
    } else last = "atom";
  }
  return steps * (top().alternatives + length);
}

/** Escapes, classes, the beginnings of groups, quantifiers with their laziness, and single characters. */
const tokens = /\\(?:k<[^>]*>|.)|\[(?:\\.|[^\]\\])*\]|\((?:\?(?:<?[=!]|:|<[^>]*>))?|\)|\||(?:[*+?]|\{\d+(?:,\d*)?\})\??|./gs;
