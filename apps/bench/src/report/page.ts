import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import type { CaseResult } from "../families/measure.js";
import type { BarResult, Report } from "./json.js";
import { figure, measured } from "./terminal.js";

/** Text as HTML takes it, inside elements and attributes. */
export function escaped(text: string): string {
  const entities: Readonly<Record<string, string>> = { "&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;", "'": "&#39;" };
  return text.replace(/[&<>"']/g, (character) => entities[character] ?? character);
}

/** A report as one page that needs no other file, no network, and, for its tables, no scripts. */
export function page(report: Report, sizeLabels: Readonly<Record<string, string>>): string {
  const { machine, roofline } = report;
  const families = [...new Set(report.cases.map(({ family }) => family))];
  const facts: readonly (readonly [string, string])[] = [
    ["device", machine.device],
    ["processor", `${machine.processor}, ${machine.threads} threads`],
    ["node", `${machine.node}, ${machine.platform}`],
    ["measured", machine.date.slice(0, 16).replace("T", " ")],
    ...(roofline
      ? [
          ["peak", `${figure(roofline.peak.gflops)} GFLOP/s (${roofline.peak.detail})`] as const,
          ["bandwidth", `${figure(roofline.bandwidth.gbps)} GB/s (${roofline.bandwidth.detail})`] as const,
        ]
      : []),
    ...Object.entries(report.peers),
  ];
  const { style, script } = plotter();
  return `<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>Lowrank: benchmark</title>
<style>${style}
${pageStyle}</style>
</head>
<body>
<main>
<header><h1>Lowrank: benchmark</h1>
<p>${escaped(report.method)}</p>
<dl>${facts.map(([name, value]) => `<div><dt>${escaped(name)}</dt><dd>${escaped(value)}</dd></div>`).join("")}</dl></header>
${report.bars.length > 0 ? barSection(report.bars) : ""}
${families
  .map((family) =>
    familySection(
      family,
      sizeLabels[family] ?? "size",
      report.cases.filter((item) => item.family === family),
    ),
  )
  .join("\n")}
</main>
<script>${script}</script>
</body>
</html>
`;
}

function barSection(bars: readonly BarResult[]): string {
  const rows = bars.map(({ name, required, verdict, outcome }) => [
    name,
    measured(outcome),
    required,
    verdict,
    "skipped" in outcome ? outcome.skipped : outcome.detail,
  ]);
  return `<section><h2>Bars</h2>\n${table(["bar", "measured", "required", "", "behind it"], rows, "bars")}</section>`;
}

function familySection(family: string, sizeLabel: string, cases: readonly CaseResult[]): string {
  const peers = [...new Set(cases.flatMap((item) => Object.keys(item.peers)))];
  const rows = cases.map((item) => [
    item.name,
    figure(item.timing.median * 1e6),
    `${(((item.timing.high - item.timing.low) / 2 / item.timing.median) * 100).toFixed(0)} %`,
    item.gflops === 0 ? "" : figure(item.gflops),
    figure(item.gbps),
    item.share.toFixed(2),
    item.error.toExponential(0),
    ...peers.map((peer) => {
      const found = item.peers[peer];
      return !found ? "" : "ratio" in found ? `${figure(found.ratio)}x` : "-";
    }),
  ]);
  const head = ["case", "µs", "±", "GFLOP/s", "GB/s", "share of roofline", "error", ...peers.map((peer) => `against ${peer}`)];
  return `<section><h2>${escaped(family)}</h2>\n${curves(cases, sizeLabel)}\n${table(head, rows)}</section>`;
}

function table(head: readonly string[], rows: readonly (readonly string[])[], kind = ""): string {
  const cells = (row: readonly string[]): string =>
    row
      .map((cell, column) =>
        column === 0 ? `<th scope="row">${escaped(cell)}</th>` : `<td class="${escaped(cell)}">${escaped(cell)}</td>`,
      )
      .join("");
  return `<div class="scroll ${kind}" tabindex="0"><table><thead><tr>${head.map((cell) => `<th scope="col">${escaped(cell)}</th>`).join("")}</tr></thead>
<tbody>${rows.map((row) => `<tr>${cells(row)}</tr>`).join("\n")}</tbody></table></div>`;
}

/** GFLOP/s against size, a curve for each kind of case and each peer; GB/s where nothing is computed. Curves of one point are left to the table. */
function curves(cases: readonly CaseResult[], sizeLabel: string): string {
  const isRate = cases.every(({ gflops }) => gflops > 0);
  const lines = new Map<string, Map<number, number>>();
  const put = (name: string, size: number, value: number): void => {
    const line = lines.get(name) ?? new Map<number, number>();
    line.set(size, Number(value.toPrecision(5)));
    lines.set(name, line);
  };
  for (const item of cases) {
    const own = isRate ? item.gflops : item.gbps;
    put(item.curve, item.size, own);
    for (const [peer, found] of Object.entries(item.peers))
      if ("ratio" in found) put(`${item.curve}, ${peer}`, item.size, own / found.ratio);
  }
  const shown = [...lines].filter(([, line]) => line.size > 1);
  if (shown.length === 0) return "";
  const xs = [...new Set(shown.flatMap(([, line]) => [...line.keys()]))].sort((a, b) => a - b);
  const data = {
    x: sizeLabel,
    y: isRate ? "GFLOP/s" : "GB/s",
    names: shown.map(([name]) => name),
    data: [xs, ...shown.map(([, line]) => xs.map((x) => line.get(x) ?? null))],
  };
  // A script element's text ends at the first "</".
  return `<div class="plot"><script type="application/json">${JSON.stringify(data).replaceAll("<", "\\u003c")}</script></div>`;
}

/** uPlot, its style sheet, and what draws each plot of the page. */
function plotter(): { readonly style: string; readonly script: string } {
  const { resolve } = createRequire(import.meta.url);
  const read = (name: string): string => readFileSync(resolve(`uplot/dist/${name}`), "utf8").replace("https://", "");
  return { style: read("uPlot.min.css"), script: `${read("uPlot.iife.min.js")}\n${drawAll}` };
}

/** Runs in the page. */
const drawAll = `
document.documentElement.classList.add("drawn");
const colors = ["#2f6fde", "#d9622b", "#1e8f5e", "#b3449c", "#8a6d00", "#0f8b9d", "#cf3550", "#6b55c9", "#6d8b1f", "#8c5a3c"];
for (const box of document.querySelectorAll(".plot")) {
  const given = JSON.parse(box.querySelector("script").textContent);
  let plot = null, width = 0;
  const draw = () => {
    if (plot) plot.destroy();
    const style = getComputedStyle(document.documentElement);
    const axis = { stroke: style.getPropertyValue("--soft"), grid: { stroke: style.getPropertyValue("--line"), width: 1 }, ticks: { show: false } };
    const short = (u, values) => values.map((v) => v == null ? "" : v >= 1e9 ? v / 1e9 + "G" : v >= 1e6 ? v / 1e6 + "M" : v >= 1e3 ? v / 1e3 + "k" : String(+v.toPrecision(4)));
    plot = new uPlot({
      width: box.clientWidth - 28, height: 300, padding: [10, 16, 0, 0],
      scales: { x: { time: false, distr: 3, log: 10 }, y: { distr: 3, log: 10 } },
      axes: [{ ...axis, label: given.x, values: short }, { ...axis, label: given.y, values: short }],
      cursor: { y: false },
      series: [{ label: given.x }, ...given.names.map((label, i) => ({ label, stroke: colors[i % 10], width: 2, dash: i >= 10 ? [6, 4] : [], spanGaps: true, points: { show: true, size: 6 } }))],
    }, given.data, box);
  };
  // In the next frame: drawing changes the box, which an observer may not do while it is called.
  new ResizeObserver(() => requestAnimationFrame(() => { if (box.clientWidth !== width) { width = box.clientWidth; draw(); } })).observe(box);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);
}`;

const pageStyle = `
:root { --paper: #fbfbf9; --card: #fff; --ink: #1d1f23; --soft: #5d636e; --line: #e4e4df; --good: #12734a; --bad: #b3261e; }
@media (prefers-color-scheme: dark) { :root { --paper: #14161a; --card: #1c1f25; --ink: #e8e9ec; --soft: #a0a6b2; --line: #31353e; --good: #5fcf9b; --bad: #ff8d84; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--paper); color: var(--ink); font: 16px/1.5 system-ui, sans-serif; }
main { max-width: 1080px; margin: 0 auto; padding: 32px 20px 64px; }
h1 { font-size: 28px; margin: 0 0 8px; }
h2 { font-size: 19px; margin: 36px 0 12px; }
p { max-width: 74ch; }
dl { display: flex; flex-wrap: wrap; gap: 10px 28px; padding: 14px 0; border-block: 1px solid var(--line); }
dt { font-size: 12.5px; color: var(--soft); }
dd { margin: 0; font-variant-numeric: tabular-nums; }
.scroll, .plot { overflow-x: auto; background: var(--card); border: 1px solid var(--line); border-radius: 10px; margin-bottom: 14px; }
.plot { padding: 14px; min-height: 60px; }
html:not(.drawn) .plot { display: none; }
table { border-collapse: collapse; width: 100%; font-size: 14px; font-variant-numeric: tabular-nums; }
th, td { padding: 7px 9px; text-align: right; white-space: nowrap; border-bottom: 1px solid var(--line); }
thead th { font-size: 12px; color: var(--soft); white-space: normal; vertical-align: bottom; }
th:first-child { text-align: left; }
.bars th:first-child, .bars td:last-child { white-space: normal; }
.bars td { text-align: left; }
td.ok { color: var(--good); font-weight: 600; }
td.short { color: var(--bad); font-weight: 600; }
`;
