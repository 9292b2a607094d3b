import { plotScript } from "./curves.js";
import { escaped, prose } from "./html.js";

/** A part of a page under its heading; `body` is HTML. */
export interface Section {
  readonly heading: string;
  /** A sentence or two on what is seen and how it was measured. */
  readonly note?: string;
  readonly body: string;
}

/** A page that needs no other file and no network. */
export function page(parts: {
  readonly title: string;
  /** What was done, in a sentence or two. */
  readonly lead: string;
  /** Facts in a row below the lead: name and value. */
  readonly facts: readonly (readonly [name: string, value: string])[];
  readonly sections: readonly Section[];
}): string {
  const { style, script } = plotScript();
  const facts = parts.facts.map(([name, value]) => `<div><dt>${escaped(name)}</dt><dd>${prose(value)}</dd></div>`).join("");
  const sections = parts.sections.map(
    ({ heading, note, body }) =>
      `<section><h2>${escaped(heading)}</h2>${note === undefined ? "" : `<p class="note">${prose(note)}</p>`}\n${body}\n</section>`,
  );
  return `<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>${escaped(parts.title)}</title>
<style>${style}
${pageStyle}</style>
</head>
<body>
<main>
<header><h1>${escaped(parts.title)}</h1>
<p class="lead">${prose(parts.lead)}</p>
<dl class="facts">${facts}</dl></header>
${sections.join("\n")}
</main>
<script>${script}</script>
</body>
</html>
`;
}

/** Small charts side by side, each in its own box. */
export function gallery(
  items: readonly { readonly heading: string; readonly note?: string; readonly body: string }[],
  isSmall = false,
): string {
  const boxes = items.map(
    ({ heading, note, body }) =>
      `<figure><figcaption>${escaped(heading)}${note === undefined ? "" : `<small>${escaped(note)}</small>`}</figcaption>${body}</figure>`,
  );
  return `<div class="gallery${isSmall ? " small" : ""}">${boxes.join("\n")}</div>`;
}

const pageStyle = `
:root { --paper: #fbfbf9; --card: #ffffff; --ink: #1d1f23; --soft: #5d636e; --line: #e4e4df; --accent: #2f6fde; --good: #12734a; --bad: #b3261e; --shade: #0003;
  --c0: #2f6fde; --c1: #d9622b; --c2: #1e8f5e; --c3: #b3449c; --c4: #8a6d00; --c5: #0f8b9d; --c6: #cf3550; --c7: #6b55c9; --c8: #6d8b1f; --c9: #8c5a3c; }
@media (prefers-color-scheme: dark) {
  :root { --paper: #14161a; --card: #1c1f25; --ink: #e8e9ec; --soft: #a0a6b2; --line: #31353e; --accent: #6ea0ff; --good: #5fcf9b; --bad: #ff8d84; --shade: #000a;
    --c0: #6ea0ff; --c1: #f0915f; --c2: #55c896; --c3: #df86ce; --c4: #d3b441; --c5: #4fc3d4; --c6: #f57b8f; --c7: #a594f2; --c8: #abc956; --c9: #c99a7c; }
}
* { box-sizing: border-box; }
body { margin: 0; background: var(--paper); color: var(--ink); font: 16px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif; }
main { max-width: 1080px; margin: 0 auto; padding: 32px 20px 64px; }
h1 { font-size: 28px; line-height: 1.2; margin: 0 0 8px; letter-spacing: -0.01em; }
h2 { font-size: 19px; margin: 0 0 12px; }
h2:has(+ .note) { margin-bottom: 4px; }
.lead { margin: 0 0 18px; max-width: 68ch; font-size: 17px; overflow-wrap: anywhere; }
.note { margin: 0 0 14px; color: var(--soft); max-width: 74ch; font-size: 14.5px; overflow-wrap: anywhere; }
section { margin-top: 36px; }
.facts { display: flex; flex-wrap: wrap; gap: 10px 28px; margin: 0; padding: 14px 0; border-top: 1px solid var(--line); border-bottom: 1px solid var(--line); }
.facts dt { font-size: 12.5px; color: var(--soft); }
.facts dd { margin: 0; font-variant-numeric: tabular-nums; overflow-wrap: anywhere; }
/* A shadow at the side where a table goes on; sheets of the card's colour move with the table and hide it at the ends. */
.scroll { overflow-x: auto; border: 1px solid var(--line); border-radius: 10px; background:
  linear-gradient(to left, var(--card) 40%, transparent) right / 36px 100% no-repeat local,
  linear-gradient(to left, var(--shade), transparent) right / 18px 100% no-repeat scroll, var(--card); }
.cue { display: none; margin: 6px 2px 0; color: var(--soft); font-size: 13px; }
.scroll.cut + .cue { display: block; }
table { border-collapse: collapse; width: 100%; font-size: 14px; font-variant-numeric: tabular-nums; }
th, td { padding: 8px 9px; text-align: right; white-space: nowrap; border-bottom: 1px solid var(--line); }
tbody tr:last-child > * { border-bottom: 0; }
thead th { font-weight: 600; color: var(--soft); font-size: 12px; vertical-align: bottom; white-space: normal; min-width: 62px; line-height: 1.3; }
th:first-child { text-align: left; position: sticky; left: 0; background: var(--card); font-weight: 600; }
td.best { color: var(--good); font-weight: 600; }
td.bad { color: var(--bad); }
.gallery { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(310px, 100%), 1fr)); gap: 14px; }
.gallery.small { grid-template-columns: repeat(auto-fill, minmax(140px, 1fr)); }
figure { margin: 0; padding: 14px; background: var(--card); border: 1px solid var(--line); border-radius: 10px; min-width: 0; }
figcaption { font-size: 14px; font-weight: 600; margin-bottom: 10px; overflow-wrap: anywhere; }
figcaption small { display: block; font-weight: 400; color: var(--soft); font-size: 12.5px; }
figure svg { display: block; max-width: 100%; height: auto; }
.small figure { text-align: center; }
.small figure svg { margin: 0 auto; }
.answers { display: grid; grid-template-columns: max-content minmax(0, 1fr); gap: 5px 14px; margin: 0; font-size: 14px; }
.answers dt { color: var(--soft); }
.answers dd { margin: 0; white-space: pre-wrap; overflow-wrap: anywhere; }
.answers .right { color: var(--good); }
.answers mark { background: none; color: var(--bad); text-decoration: underline; text-underline-offset: 3px; }
.sample { margin-bottom: 14px; }
.sample figcaption { white-space: pre-wrap; }
.row { white-space: pre-wrap; overflow-wrap: anywhere; font: 13.5px/1.6 ui-monospace, "SF Mono", Menlo, Consolas, monospace; color: var(--soft); }
.row .learned { color: var(--good); background: color-mix(in srgb, var(--good) 12%, transparent); }
.row .special { border: 1px solid currentColor; border-radius: 4px; padding: 0 3px; font-size: 12px; }
.counts { white-space: pre-wrap; overflow-wrap: anywhere; font-size: 13.5px; margin: 0; }
.curves, .chart { background: var(--card); border: 1px solid var(--line); border-radius: 10px; padding: 14px; min-width: 0; }
.curves svg, .chart svg { display: block; max-width: 100%; height: auto; }
.narrow { display: none; }
.legend { list-style: none; display: flex; flex-wrap: wrap; gap: 4px 16px; margin: 10px 0 0; padding: 0; font-size: 13.5px; font-variant-numeric: tabular-nums; }
.legend i { display: inline-block; width: 11px; height: 11px; border-radius: 3px; margin-right: 6px; }
.mark { font-size: 12px; fill: var(--soft); }
.name { font-size: 12.5px; fill: var(--ink); }
.mark, .name { paint-order: stroke; stroke: var(--card); stroke-width: 4px; stroke-linejoin: round; }
.leader { stroke: var(--soft); stroke-width: 1; }
.figure { font-size: 16px; font-weight: 600; fill: var(--ink); }
.mid { text-anchor: middle; }
.end { text-anchor: end; }
.grid { stroke: var(--line); }
.axis { stroke: var(--soft); }
.reference { stroke: var(--soft); stroke-dasharray: 3 3; }
.curve { fill: none; stroke-width: 2; stroke-linejoin: round; }
.ring { fill: none; stroke: var(--line); stroke-width: 14; }
.part { fill: none; stroke-width: 14; }
.cell { fill: var(--accent); }
.frame { fill: none; stroke: var(--line); }
@media (max-width: 560px) {
  main { padding: 20px 14px 48px; }
  h1 { font-size: 23px; }
  .wide { display: none; }
  .narrow { display: block; }
  .gallery.small { grid-template-columns: repeat(2, minmax(0, 1fr)); }
  .curves, .chart { padding: 10px; }
}
@media print { section { break-inside: avoid; } }
`;
