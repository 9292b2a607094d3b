import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { type AxesOptions, legend, lineChart, type Series } from "./svg.js";

/** At most this many points a curve are written into a page; more cannot be told apart. */
const pointLimit = 400;

/** Neighbouring points taken together, by mean, until there are few enough. */
export function thinned(points: Series["points"], limit: number = pointLimit): Series["points"] {
  if (points.length <= limit) return points;
  const size = Math.ceil(points.length / limit);
  return Array.from({ length: Math.ceil(points.length / size) }, (_, i) => {
    const group = points.slice(i * size, (i + 1) * size);
    const mean = (values: readonly number[]): number => values.reduce((sum, value) => sum + value, 0) / values.length;
    return { x: group.at(-1)?.x ?? 0, y: mean(group.map(({ y }) => y)) };
  });
}

/** The mean of each point and those before it, weighted as 0.9ⁿ: noisy losses become readable. */
export function smoothed(points: Series["points"]): Series["points"] {
  let mean = 0;
  let weight = 0;
  return points.map(({ x, y }) => {
    mean = 0.9 * mean + 0.1 * y;
    weight = 0.9 * weight + 0.1;
    return { x, y: mean / weight };
  });
}

/** Curves that uPlot draws where scripts run, over drawings that need none: a wide and a narrow one, of which the page shows one. */
export function curves(series: readonly Series[], options: AxesOptions): string {
  const thin = series.map((curve) => ({ ...curve, points: thinned(curve.points) }));
  const xs = [...new Set(thin.flatMap(({ points }) => points.map(({ x }) => x)))].sort((a, b) => a - b);
  const plotted = {
    x: options.x,
    y: options.y,
    isLogX: options.isLogX ?? false,
    isLogY: options.isLogY ?? false,
    hasDots: options.hasDots ?? false,
    names: thin.map(({ name }) => name),
    colors: thin.map(({ color }) => color),
    data: [
      xs,
      ...thin.map(({ points }) => {
        const at = new Map(points.map(({ x, y }) => [x, Number(y.toPrecision(6))]));
        return xs.map((x) => at.get(x) ?? null);
      }),
    ],
  };
  // A script element's text ends at the first "</".
  const data = JSON.stringify(plotted).replaceAll("<", "\\u003c");
  return `<div class="curves"><script type="application/json">${data}</script><div class="plot"></div><div class="drawn"><div class="wide">${lineChart(thin, options, 980, 340)}</div><div class="narrow">${lineChart(thin, options, 330, 260)}</div></div>${legend(thin)}</div>`;
}

/** uPlot and its style sheet, and what puts them to work, as elements of a page's head and end. */
export function plotScript(): { readonly style: string; readonly script: string } {
  const { resolve } = createRequire(import.meta.url);
  const read = (name: string): string => readFileSync(resolve(`uplot/dist/${name}`), "utf8").replace("https://", "");
  return { style: read("uPlot.min.css"), script: `${read("uPlot.iife.min.js")}\n${plotAll}\n${watchTables}` };
}

/** Runs in the page. Colours come from the style sheet, so a change between light and dark draws anew. */
const plotAll = `
const incrs = [0, 1, 2, 3, 4, 5, 6].flatMap((power) => [1, 2, 5].map((digit) => digit * 10 ** power));
for (const box of document.querySelectorAll(".curves:has(script)")) {
  const given = JSON.parse(box.querySelector("script").textContent);
  const drawn = box.querySelector(".drawn");
  const place = box.querySelector(".plot");
  let plot = null;
  const draw = () => {
    if (plot) plot.destroy();
    drawn.style.display = "none";
    const style = getComputedStyle(document.documentElement);
    const color = (name) => style.getPropertyValue(name).trim();
    const axis = { stroke: color("--soft"), grid: { stroke: color("--line"), width: 1 }, ticks: { show: false }, font: "12px system-ui, sans-serif", labelFont: "12px system-ui, sans-serif", labelSize: 18 };
    const short = (u, values) => values.map((v) => v == null ? "" : Math.abs(v) >= 1e6 ? v / 1e6 + "M" : Math.abs(v) >= 1e3 ? v / 1e3 + "k" : String(+v.toPrecision(4)));
    plot = new uPlot({
      width: place.clientWidth, height: place.clientWidth < 500 ? 280 : 340, padding: [10, 16, 0, 0],
      scales: { x: { time: false, distr: given.isLogX ? 3 : 1, log: given.isLogX ? 2 : 10 }, y: { distr: given.isLogY ? 3 : 1 } },
      axes: [{ ...axis, label: given.x, size: 34, values: short, ...(given.data[0].every(Number.isInteger) && !given.isLogX ? { incrs } : {}) }, { ...axis, label: given.y, size: 48, values: short }],
      legend: { show: false },
      cursor: { y: false, points: { size: 7 } },
      series: [{}, ...given.names.map((label, i) => ({ label, stroke: color("--c" + given.colors[i] % 10), width: 2, spanGaps: true, points: { show: given.hasDots, size: 7, fill: color("--c" + given.colors[i] % 10) } }))],
      hooks: { setCursor: [say] },
    }, given.data, place);
  };
  const items = [...box.querySelectorAll(".legend li")];
  const names = items.map((item) => item.textContent);
  function say(u) {
    const at = u.cursor.idx;
    items.forEach((item, i) => {
      const y = at == null ? null : u.data[i + 1][at];
      item.lastChild.textContent = y == null ? names[i] : names[i] + " " + y.toPrecision(4);
    });
  }
  draw();
  let width = place.clientWidth;
  // In the next frame: drawing changes the box, which an observer may not do while it is called.
  new ResizeObserver(() => requestAnimationFrame(() => { if (place.clientWidth !== width) { width = place.clientWidth; draw(); } })).observe(box);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);
}`;

/** Runs in the page: says below a table that it is wider than its box, for as long as something lies to the right. */
const watchTables = `
for (const box of document.querySelectorAll(".scroll")) {
  const look = () => box.classList.toggle("cut", box.scrollWidth > box.clientWidth + box.scrollLeft + 2);
  box.addEventListener("scroll", look, { passive: true });
  new ResizeObserver(look).observe(box);
}`;
