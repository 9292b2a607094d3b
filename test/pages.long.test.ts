import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { pathToFileURL } from "node:url";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import type { Report } from "../apps/bench/src/report/json.js";
import { page as benchPage } from "../apps/bench/src/report/page.js";
import { summary } from "../apps/bench/src/timing.js";
import type { MethodResult } from "../apps/cli/src/compare/measure.js";
import { comparisonPage } from "../apps/cli/src/compare/page.js";
import { studyPage } from "../apps/cli/src/study/page.js";
import { findChromium, visitPage } from "../scripts/chromium.mjs";
import { skipReason } from "../test-support/index.js";

type Browser = Exclude<ReturnType<typeof findChromium>, string>;
const chromium = findChromium();
if (typeof chromium === "string") skipReason(`no browser: ${chromium}`);
const folder = mkdtempSync(join(tmpdir(), "lowrank-pages-"));
afterAll(() => rmSync(folder, { recursive: true, force: true }));

const sample = (answer: string) => ({ line: 3, prompt: "A lamp <for> Ann", expected: "name: Ann", answer });
const base = { evalLoss: 5, exactMatch: 0, generalLoss: 3, samples: [sample("")] };

function method(name: string, trainable: number, evalLoss: number): MethodResult {
  return {
    ...base,
    method: name,
    settings: {},
    parameters: {
      trainable,
      frozen: 1e6 - trainable,
      trainablePercent: trainable / 1e4,
      optimizerBytes: 8 * trainable,
    } as unknown as MethodResult["parameters"],
    peakBytes: 1e7,
    stepMs: 40,
    trainLoss: evalLoss,
    decoding: { baseMs: 1, methodMs: 1.2, ratio: 1.2, mergedMs: null, mergedRatio: null, whyNotMerged: "it does not", rounds: 12 },
    contextTokens: 0,
    evalLoss,
    samples: [sample(name === "lora" ? "name: Ann" : "name: Anna")],
  };
}
const results = [method("lora", 1e4, 0.2), method("dora", 1.1e4, 0.21), method("ptuning-v2", 1e6, 2)];
const steps = new Map(
  results.map(({ method: name }) => [
    name,
    Array.from({ length: 30 }, (_, i) => ({ step: i + 1, loss: 5 - i / 10, stepMs: 1, isWarmUp: false })),
  ]),
);
const map = {
  heading: "q_proj",
  x: "j",
  y: "i",
  rows: [1, 2],
  columns: [1, 2, 3],
  values: [
    [0, 0.5, 1],
    [1, 0.2, 0],
  ],
};

const timing = summary("lowrank", [1, 1.1], 1);
const benchmark: Report = {
  machine: { date: "2026-01-01T00:00:00Z", node: "v20", platform: "linux", processor: "p", threads: 2, memoryBytes: 1, device: "cpu" },
  method: "how",
  roofline: null,
  bars: [{ name: "a bar", required: "≥ 1", verdict: "ok", outcome: { values: [2], detail: "behind it" } }],
  cases: [64, 128].map((size) => ({
    ...{ family: "matmul", name: `${size}`, curve: "square", size, timing, gflops: 1, gbps: 2, share: 0.5, error: 1e-7 },
    peers: {},
  })),
  peers: {},
};

const pages: Readonly<Record<string, { readonly html: string; readonly curves: number }>> = {
  compare: {
    html: comparisonPage({ base, results, steps, facts: [["model", "m"]], generalText: "prose", stepCount: 30, decodedTokens: 24 }),
    curves: 1,
  },
  "rank-study": {
    html: studyPage({
      baseLoss: 5,
      runs: [1, 4].map((rank) => ({ set: "q,v", rank, seed: 0, evalLoss: 5 - rank, trainable: 100 * rank, effectiveRank: 1 })),
      sets: ["q,v"],
      ranks: [1, 4],
      sentence: "Take rank 4.",
      analysed: "q,v (q_proj)",
      spectra: [{ layers: "q_proj", rank: 4, values: [3, 2, 1] }],
      betweenRanks: [map],
      betweenSeeds: [map],
      amplification: [{ layers: "q_proj", rank: 4, factor: 2, norm: 1 }],
      facts: [["model", "m"]],
    }),
    curves: 2,
  },
  benchmark: { html: benchPage(benchmark, { matmul: "size" }), curves: 1 },
};

/** What was found in a page: figures in a row, plots drawn, tables that say they are cut, and how wide it is beyond its frame. */
interface Found {
  readonly canvases: number;
  readonly cut: number;
  readonly cues: number;
  readonly excess: number;
}

describe.skipIf(typeof chromium === "string")("in a browser", () => {
  const widths = { wide: 1280, narrow: 400 };
  const found = new Map<string, Found>();
  let lines: readonly string[] = [];

  // One visit for all pages: a window is at least 500 pixels wide, a frame may be narrower.
  beforeAll(() => {
    const frames: string[] = [];
    for (const [name, { html }] of Object.entries({ ...pages, broken: { html: "<script>null.textContent</script>" } })) {
      writeFileSync(join(folder, `${name}.html`), html);
      for (const [kind, width] of Object.entries(widths))
        frames.push(`<iframe id="${name} ${kind}" src="${name}.html" style="width:${width}px;height:800px;border:0"></iframe>`);
    }
    // Plots are drawn in frames that the browser makes when it comes to it, while its clock runs ahead: what is found is told once it has all
    // curves and has not changed for a while, or is all that there will be.
    const look = `const curves = ${JSON.stringify(Object.fromEntries(Object.entries(pages).map(([name, { curves }]) => [name, curves])))};
    let [seen, same, looks] = ["", 0, 0];
    const timer = setInterval(() => {
      const found = [...document.querySelectorAll("iframe")].map((frame) => {
        const page = frame.contentDocument;
        const count = (selector) => [...page.querySelectorAll(selector)].filter((each) => each.offsetHeight > 0).length;
        return [frame.id, { canvases: count("canvas"), cut: count(".scroll.cut"), cues: count(".cue"), excess: page.documentElement.scrollWidth - frame.clientWidth }];
      });
      const text = JSON.stringify(found);
      same = text === seen ? same + 1 : 0;
      seen = text;
      const isDrawn = found.every(([id, { canvases }]) => canvases >= (curves[id.split(" ")[0]] ?? 0));
      if (++looks < 500 && !(isDrawn && same >= 20)) return;
      clearInterval(timer);
      document.title = text;
    }, 100)`;
    writeFileSync(join(folder, "all.html"), `${frames.join("")}<script>onload = () => { ${look} };</script>`);
    const { dom, console } = visitPage(chromium as Browser, pathToFileURL(join(folder, "all.html")).href); // skipped without one
    lines = console;
    const [, title = "[]"] = /<title>(.*?)<\/title>/.exec(dom) ?? [];
    for (const [name, value] of JSON.parse(title) as [string, Found][]) found.set(name, value);
  });
  const saidBy = (name: string): string[] => lines.filter((line) => line.includes(`${name}.html`));

  test("a page that throws is noticed", () => {
    expect(saidBy("broken")[0]).toContain("TypeError");
  });

  test.each(Object.entries(pages))("%s draws its curves and says nothing on the console", (name, { curves }) => {
    expect(saidBy(name)).toEqual([]);
    for (const kind of Object.keys(widths)) expect(found.get(`${name} ${kind}`), kind).toMatchObject({ canvases: curves, excess: 0 });
  });

  test("a table that is wider than a telephone says so, and none does where there is room", () => {
    expect(found.get("compare narrow")).toMatchObject({ cut: 1, cues: 1 });
    expect(found.get("compare wide")).toMatchObject({ cut: 0, cues: 0 });
    expect(found.get("rank-study narrow")).toMatchObject({ cut: 0, cues: 0 });
  });
});

test("a comparison names no folder of the machine and shows sample answers", () => {
  const html = pages["compare"]?.html ?? "";
  expect(html).toContain("A lamp &lt;for&gt; Ann");
  expect(html).toContain('<dd class="right">name: Ann ✓</dd>');
  expect(html).toContain("<dd>name: Ann<mark>a</mark></dd>");
});
