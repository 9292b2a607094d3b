/** Text as HTML and SVG take it, inside elements and attributes. */
export function escaped(text: string): string {
  const entities: Readonly<Record<string, string>> = { "&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;", "'": "&#39;" };
  return text.replace(/[&<>"']/g, (character) => entities[character] ?? character);
}

/** A sentence as HTML takes it; a figure and its percent sign stay on one line. */
export function prose(text: string): string {
  return escaped(text).replace(/(\d) %/g, "$1\u00a0%");
}

/** Colours of the page's palette; more series than that begin again. */
export const colorCount = 10;

/** The CSS variable of a series' colour. */
export function colorOf(series: number): string {
  return `var(--c${series % colorCount})`;
}
