import { readFileSync, writeFileSync } from "node:fs";
import { availableParallelism, loadavg } from "node:os";
import { parseArgs } from "node:util";
import { device } from "@lowrank/tensor";
import { BarContext, verdict } from "./bars/bar.js";
import { bars } from "./bars/index.js";
import { families } from "./families/index.js";
import { type CaseResult, measureCase, WrongResult } from "./families/measure.js";
import { firstTouch } from "./first-touch.js";
import { installedPeers, isSkipped, type PeerName, Peers } from "./peers/peer.js";
import { changeLines } from "./report/compare.js";
import { type BarResult, machine, method, type Report } from "./report/json.js";
import { page } from "./report/page.js";
import { scaleSheet } from "./report/scale-plot.js";
import {
  absenceLines,
  barDetail,
  barHead,
  barLine,
  caseLine,
  familyHead,
  required,
  rooflineLines,
  scaleHead,
  scaleLine,
  wrapped,
} from "./report/terminal.js";
import { useDriver } from "./repository.js";
import { measureRoofline } from "./roofline/index.js";
import { stepsFamily, wholeCases } from "./steps/measure.js";
import { measureScale } from "./steps/scale.js";

const familyNames: string = [...families, stepsFamily].map(({ name }) => name).join(", ");

const help = `lowrank-bench: the kernel benchmark suite of Lowrank

  npm run bench                 every family on the cpu, beside the peers there are
  npm run bench -- --bars       the table of bars; status 1 when one is short
  npm run bench -- --scale      how cost grows with length, rank, width and so on

  --bars           measure the bars instead of the families
  --scale          how a LoRA step's time and memory grow, on the cpu
  --svg FILE       with --scale: the same as a sheet of plots
  --only TEXT      only bars, cases or sweeps whose name holds TEXT
  --family NAME    only this family:
${wrapped(familyNames, 19).join("\n")}
  --device NAME    cpu (default) or webgpu
  --driver NAME    lavapipe or swiftshader: the software adapter for webgpu
  --peers LIST     only these peers, or none:
${wrapped("tfjs-wasm, tfjs-webgpu, jax-wasm, jax-webgpu, onnx-wasm, pytorch", 19).join("\n")}
  --quick          few small cases and short rounds
  --json FILE      the report as JSON; - for stdout
  --html FILE      the report as a page with plots against size
  --compare FILE   what changed beyond the noise since a report of --json
  --help

LOWRANK_PYTHON names a Python interpreter with torch, transformers and peft;
LOWRANK_SHARED the folder with the big models and data.
`;

/** A mistake on the command line. */
class UsageError extends Error {
  override readonly name = "UsageError";
}

const options = {
  bars: { type: "boolean", default: false },
  scale: { type: "boolean", default: false },
  svg: { type: "string" },
  only: { type: "string" },
  family: { type: "string" },
  device: { type: "string", default: "cpu" },
  driver: { type: "string" },
  peers: { type: "string" },
  quick: { type: "boolean", default: false },
  json: { type: "string" },
  html: { type: "string" },
  compare: { type: "string" },
  help: { type: "boolean", default: false },
} as const;

type Given = ReturnType<typeof parse>;

function parse(args: readonly string[]) {
  try {
    return parseArgs({ args: [...args], options, strict: true }).values;
  } catch (error) {
    throw new UsageError(
      `${error instanceof Error ? error.message.split(". ")[0] : String(error)}. \`lowrank-bench --help\` lists all flags.`,
    );
  }
}

/** Names that a list may hold, checked. */
function chosenPeers(given: string | undefined): PeerName[] {
  const installed = installedPeers();
  if (given === undefined) return installed;
  if (given === "none") return [];
  return given.split(",").map((name) => {
    const found = installed.find((peer) => peer === name.trim());
    if (!found) throw new UsageError(`--peers: ${name} is not there. Choose among ${installed.join(", ") || "none"}.`);
    return found;
  });
}

/** Where lines for people go: beside the JSON when that has stdout. */
function speaker(given: Given): (line: string) => void {
  const stream = given.json === "-" ? process.stderr : process.stdout;
  return (line) => void stream.write(`${line}\n`);
}

async function peerLines(peers: Peers, names: readonly PeerName[]): Promise<Record<string, string>> {
  const lines: Record<string, string> = {};
  for (const name of names) {
    const peer = await peers.get(name);
    lines[name] = isSkipped(peer) ? `skipped, ${peer.skipped}` : peer.description;
  }
  return lines;
}

async function runFamilies(given: Given, say: (line: string) => void): Promise<Report> {
  if (given.device !== "cpu" && given.device !== "webgpu") throw new UsageError(`--device is "${given.device}". Use cpu or webgpu.`);
  const isChosen = ({ name }: { readonly name: string }): boolean => given.family === undefined || name === given.family;
  const isNamed = ({ name }: { readonly name: string }): boolean => given.only === undefined || name.includes(given.only);
  const chosen = families.filter(isChosen);
  if (chosen.length === 0 && !isChosen(stepsFamily)) throw new UsageError(`--family is "${given.family}". Use one of ${familyNames}.`);
  const threads = availableParallelism();
  const dev = await device(given.device);
  const names = chosenPeers(given.peers).filter((name) =>
    name === "pytorch" ? given.device === "cpu" : name.endsWith(given.device === "cpu" ? "wasm" : "webgpu"),
  );
  const peers = new Peers(threads);
  const cases: CaseResult[] = [];
  try {
    const roofline = await measureRoofline(dev, threads);
    for (const line of [dev.description, ...rooflineLines(roofline)]) say(line);
    const described = await peerLines(peers, names);
    for (const [name, text] of Object.entries(described))
      for (const line of wrapped(text.startsWith(name) ? text : `${name} ${text}`, 0)) say(line);
    const taking = names.filter((name) => !described[name]?.startsWith("skipped"));
    const context = { peers, peerNames: taking, roofline, isQuick: given.quick };
    const table = async (family: string, measures: readonly (() => Promise<CaseResult>)[]): Promise<void> => {
      if (measures.length === 0) return;
      for (const line of ["", ...familyHead(family, taking)]) say(line);
      const found: CaseResult[] = [];
      for (const measure of measures) {
        const result = await measure();
        cases.push(result);
        found.push(result);
        say(caseLine(result, taking));
      }
      for (const line of absenceLines(found)) say(line);
    };
    for (const family of chosen) {
      const items = family.cases(given.quick).filter(isNamed);
      await table(
        family.name,
        items.map((item) => () => measureCase(dev, family, item, context)),
      );
    }
    if (isChosen(stepsFamily)) {
      const wholes = wholeCases(given.quick).filter(isNamed);
      await table(
        stepsFamily.name,
        wholes.map((whole) => () => whole.measure(dev, context)),
      );
    }
    return { machine: machine(dev.description, threads), method, roofline, cases, bars: [], peers: described };
  } finally {
    await peers.end();
    dev.dispose();
  }
}

async function runBars(given: Given, say: (line: string) => void): Promise<Report> {
  const names = chosenPeers(given.peers);
  const context = new BarContext(names, given.quick, (line) => process.stderr.write(`  ${line}\n`));
  const chosen = bars.filter(({ name, brief }) => given.only === undefined || name.includes(given.only) || brief.includes(given.only));
  const results: BarResult[] = [];
  for (const line of barHead) say(line);
  const details: string[] = [];
  try {
    for (const bar of chosen) {
      const outcome = await bar.measure(context);
      const result = { name: bar.name, required: required(bar.limits), verdict: verdict(bar, outcome), outcome };
      results.push(result);
      say(barLine(bar, outcome));
      details.push(...barDetail(bar, outcome));
    }
    say("");
    for (const line of details) say(line);
    const described = names.length > 0 ? await peerLines(context.peers, names) : {};
    return { machine: machine("bars", context.threads), method, roofline: null, cases: [], bars: results, peers: described };
  } finally {
    await context.peers.end();
  }
}

async function runScale(given: Given, say: (line: string) => void): Promise<Report> {
  const threads = availableParallelism();
  for (const line of scaleHead) say(line);
  const scale = await measureScale(threads, { isQuick: given.quick, only: given.only }, (row) => say(scaleLine(row)));
  if (scale.length === 0) throw new UsageError(`--only is "${given.only}", and nothing that grows is called so.`);
  // In kB, on every system.
  say(`largest resident memory of the process: ${(process.resourceUsage().maxRSS / 1000).toFixed(0)} MB`);
  if (given.svg !== undefined) writeFileSync(given.svg, scaleSheet(scale));
  return { machine: machine("cpu", threads), method, roofline: null, cases: [], bars: [], peers: {}, scale };
}

/** A touch of a page that takes longer than so many microseconds is said. */
const slowTouch = 2;

/** What about this machine makes figures worse than elsewhere. */
function machineNotices(): string[] {
  const notices: string[] = [];
  const [load = 0] = loadavg();
  if (load > availableParallelism() / 2)
    notices.push(
      `The machine is busy (load ${load.toFixed(1)} on ${availableParallelism()} cores). Sides with threads suffer unequally: measure again when it is quiet.`,
    );
  const touch = firstTouch();
  if (touch > slowTouch)
    notices.push(
      `Memory comes slowly here: the first touch of a page of 4 kB takes ${touch.toFixed(0)} µs, where 0.2 are usual. Starts, planning and loading take longer.`,
    );
  return notices;
}

/** Runs the suite and returns the exit status: 0, 1 when a bar is short or a result wrong, 2 for a mistake on the command line. */
async function main(args: readonly string[]): Promise<number> {
  const given = parse(args);
  if (given.help) {
    process.stdout.write(help);
    return 0;
  }
  if (given.svg !== undefined && !given.scale) throw new UsageError("--svg draws what --scale measures. Give both.");
  const say = speaker(given);
  if (given.driver !== undefined) {
    if (given.driver !== "lavapipe" && given.driver !== "swiftshader")
      throw new UsageError(`--driver is "${given.driver}". Use lavapipe or swiftshader.`);
    const absent = await useDriver(given.driver);
    if (absent !== null) throw new UsageError(`--driver ${given.driver}: ${absent}.`);
  }
  for (const notice of machineNotices()) process.stderr.write(`${notice}\n`);
  const before = given.compare === undefined ? null : (JSON.parse(readFileSync(given.compare, "utf8")) as Report);
  const report = await (given.bars ? runBars(given, say) : given.scale ? runScale(given, say) : runFamilies(given, say));
  if (before) for (const line of ["", ...changeLines(before, report)]) say(line);
  if (given.json === "-") process.stdout.write(`${JSON.stringify(report)}\n`);
  else if (given.json !== undefined) writeFileSync(given.json, `${JSON.stringify(report, null, 1)}\n`);
  if (given.html !== undefined) {
    const labels = Object.fromEntries([...families, stepsFamily].map(({ name, sizeLabel }) => [name, sizeLabel]));
    writeFileSync(given.html, page(report, labels));
  }
  return report.bars.some((bar) => bar.verdict === "short") ? 1 : 0;
}

try {
  process.exitCode = await main(process.argv.slice(2));
} catch (error) {
  const isMistake = error instanceof Error && (error.name === "UsageError" || error.name === "DeviceError" || "syscall" in error);
  const text = isMistake || error instanceof WrongResult ? error.message : error instanceof Error ? error.stack : String(error);
  process.stderr.write(`error: ${text}\n`);
  process.exitCode = isMistake ? 2 : 1;
}
