import type { Preview, PreviewRow } from "@lowrank/models";
import { escaped } from "../report/html.js";
import { page, type Section } from "../report/page.js";
import { grouped } from "../terminal/format.js";
import { printable } from "../terminal/printable.js";
import { countLines, lengthClasses } from "./preview.js";

/** A page of what data files hold: their first rows with what is in the loss marked, lengths, and what is odd. */
export function previewPage(
  previews: readonly Preview[],
  about: { readonly model: string; readonly maxLength: number | undefined; readonly notes: readonly string[] },
): string {
  const total = (count: (preview: Preview) => number): string => grouped(previews.reduce((sum, preview) => sum + count(preview), 0));
  return page({
    title: "What is learned",
    lead: `Rows of ${previews.map(({ path }) => path).join(", ")} as ${about.model} sees them.`,
    facts: [
      ["rows", total(({ rowCount }) => rowCount)],
      ["tokens", total(({ tokenCount }) => tokenCount)],
      ["in the loss", total(({ learnedTokenCount }) => learnedTokenCount)],
      ["rows that cannot be used", total(({ errors }) => errors.length)],
      ...about.notes.map((note) => ["overlap", note] as const),
    ],
    sections: previews.flatMap((preview) => sectionsOf(preview, about.maxLength)),
  });
}

function sectionsOf(preview: Preview, maxLength: number | undefined): Section[] {
  const lines = countLines({ ...preview, lengths: [] }, 80, maxLength).filter((line) => line !== "");
  return [
    {
      heading: preview.path,
      note: "Green is in the loss; special tokens stand in boxes.",
      body: preview.rows.map(rowHtml).join("\n"),
    },
    { heading: "Tokens a row", body: `<figure class="chart">${histogram(preview)}</figure>` },
    { heading: "Counts", body: `<pre class="counts">${escaped(lines.join("\n"))}</pre>` },
  ];
}

function rowHtml({ line, parts, tokenCount, learnedTokenCount }: PreviewRow): string {
  const text = parts
    .map(({ text: piece, isLearned, isSpecial }) => {
      const classes = [isLearned ? "learned" : "context", ...(isSpecial ? ["special"] : [])].join(" ");
      return `<span class="${classes}">${escaped(printable(piece))}</span>`;
    })
    .join("");
  return `<figure class="sample"><figcaption>line ${line}<small>${grouped(tokenCount)} tokens, ${grouped(learnedTokenCount)} in the loss</small></figcaption><div class="row">${text}</div></figure>`;
}

/** Bars that stand beside each other, and for narrow screens the same below one another: text that is scaled down cannot be read. */
function histogram({ lengths }: Preview): string {
  const classes = lengthClasses(lengths);
  const most = classes.reduce((largest, { count }) => Math.max(largest, count), 1);
  return `<div class="wide">${standing(classes, most)}</div><div class="narrow">${lying(classes, most)}</div>`;
}

type LengthClass = ReturnType<typeof lengthClasses>[number];

const title = ({ from, to, count }: LengthClass): string => `<title>${count} rows of ${from} to ${to} tokens</title>`;

function standing(classes: readonly LengthClass[], most: number): string {
  const [width, height, gap] = [64, 120, 22];
  const bars = classes.map((each, i) => {
    const tall = (height * each.count) / most;
    const x = i * width;
    const middle = x + (width - 8) / 2;
    return `<rect class="cell" x="${x}" y="${gap + height - tall}" width="${width - 8}" height="${tall}" rx="3">${title(each)}</rect>
<text class="mark mid" x="${middle}" y="${gap + height - tall - 5}">${grouped(each.count)}</text><text class="mark mid" x="${middle}" y="${gap + height + 15}">${each.from}–${each.to}</text>`;
  });
  return svg(Math.max(1, classes.length) * width, height + gap + 22, bars);
}

function lying(classes: readonly LengthClass[], most: number): string {
  const [label, room, line] = [82, 170, 24];
  const bars = classes.map((each, i) => {
    const long = (room * each.count) / most;
    const y = i * line;
    return `<text class="mark end" x="${label - 8}" y="${y + 16}">${each.from}–${each.to}</text><rect class="cell" x="${label}" y="${y + 3}" width="${long}" height="${line - 6}" rx="3">${title(each)}</rect>
<text class="mark" x="${label + long + 6}" y="${y + 16}">${grouped(each.count)}</text>`;
  });
  return svg(label + room + 58, Math.max(1, classes.length) * line, bars);
}

function svg(width: number, height: number, parts: readonly string[]): string {
  return `<svg viewBox="0 0 ${width} ${height}" width="${width}" role="img" aria-label="rows by their tokens">${parts.join("\n")}</svg>`;
}
