/** Code points that two texts begin with in common. */
export function commonLength(a: string, b: string): number {
  const [left, right] = [[...a], [...b]];
  const end = Math.min(left.length, right.length);
  const at = left.findIndex((character, i) => i >= end || character !== right[i]);
  return at < 0 ? left.length : at;
}

/** Parts of a text: what it has in common with another from its start on, and the rest. */
export function parted(text: string, other: string): { readonly same: string; readonly rest: string } {
  const characters = [...text];
  const length = commonLength(text, other);
  return { same: characters.slice(0, length).join(""), rest: characters.slice(length).join("") };
}

/**
 * Two texts cut to `width` characters around the place where they part, with an ellipsis where something is left out; `at` is that
 * place's column. Line breaks are shown as ⏎.
 */
export function partingLines(a: string, b: string, width: number): { readonly a: string; readonly b: string; readonly at: number } {
  const [left, right] = [flat(a), flat(b)];
  const parting = commonLength(left.join(""), right.join(""));
  const longest = Math.max(left.length, right.length);
  // A third of the width for what both have in common, unless all of it fits or the end is near.
  const start = longest <= width ? 0 : Math.max(0, Math.min(parting - Math.floor(width / 3), longest - width));
  const cut = (text: readonly string[]): string => {
    const shown = text.slice(start, start + width);
    if (start > 0) shown[0] = "…";
    if (start + width < text.length) shown[width - 1] = "…";
    return shown.join("");
  };
  return { a: cut(left), b: cut(right), at: parting - start };
}

function flat(text: string): string[] {
  return [...text.replace(/\r?\n/g, "⏎").replace(/\s/g, " ")];
}
