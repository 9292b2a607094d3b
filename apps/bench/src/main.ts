import { readFileSync, writeFileSync } from "node:fs";
import { availableParallelism } from "node:os";
import { parseArgs } from "node:util";
import { device } from "@lowrank/tensor";
import { BarContext, verdict } from "./bars/bar.js";
import { bars } from "./bars/index.js";
import { families } from "./families/index.js";
import { type CaseResult, measureCase, WrongResult } from "./families/measure.js";
import { installedPeers, isSkipped, type PeerName, Peers } from "./peers/peer.js";
import { changeLines } from "./report/compare.js";
import { type BarResult, machine, method, type Report } from "./report/json.js";
import { page } from "./report/page.js";
import { barDetail, barHead, barLine, caseLine, familyHead, required, rooflineLines, wrapped } from "./report/terminal.js";
import { useDriver } from "./repository.js";
import { measureRoofline } from "./roofline/index.js";

const help = `lowrank-bench: the kernel benchmark suite of Lowrank

  npm run bench                          every family on the cpu, beside the peers that are there
  npm run bench -- --bars                the table of bars; status 1 when one is short

  --bars            measure the bars instead of the families
  --only TEXT       only bars, or cases, whose name holds TEXT
  --family NAME     only this family (${families.map(({ name }) => name).join(", ")})
  --device NAME     cpu (default) or webgpu
  --driver NAME     lavapipe or swiftshader: the software adapter for webgpu
  --peers LIST      only these peers; "none" for none (${["tfjs-wasm", "tfjs-webgpu", "jax-wasm", "jax-webgpu", "onnx-wasm", "pytorch"].join(", ")})
  --quick           few small cases and short rounds
  --json FILE       the report as JSON; - for stdout
  --html FILE       the report as a page with plots against size
  --compare FILE    what changed beyond the noise since a report of --json
  --help

LOWRANK_PYTHON names a Python interpreter with torch (and transformers, peft); LOWRANK_SHARED the folder with the big models and data.
`;

/** A mistake on the command line. */
class UsageError extends Error {
  override readonly name = "UsageError";
}

const options = {
  bars: { type: "boolean", default: false },
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
    lines[name] = isSkipped(peer) ? `skipped: ${peer.skipped}` : peer.description;
  }
  return lines;
}

async function runFamilies(given: Given, say: (line: string) => void): Promise<Report> {
  if (given.device !== "cpu" && given.device !== "webgpu") throw new UsageError(`--device is "${given.device}". Use cpu or webgpu.`);
  const chosen = families.filter(({ name }) => given.family === undefined || name === given.family);
  if (chosen.length === 0)
    throw new UsageError(`--family is "${given.family}". Use one of ${families.map(({ name }) => name).join(", ")}.`);
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
    for (const [name, text] of Object.entries(described)) for (const line of wrapped(`${name.padEnd(10)} ${text}`, 0)) say(line);
    const taking = names.filter((name) => !described[name]?.startsWith("skipped"));
    for (const family of chosen) {
      const items = family.cases(given.quick).filter(({ name }) => given.only === undefined || name.includes(given.only));
      if (items.length === 0) continue;
      say("");
      for (const line of familyHead(family.name, taking)) say(line);
      for (const item of items) {
        const result = await measureCase(dev, family, item, { peers, peerNames: taking, roofline, isQuick: given.quick });
        cases.push(result);
        say(caseLine(result, taking));
      }
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

/** Runs the suite and returns the exit status: 0, 1 when a bar is short or a result wrong, 2 for a mistake on the command line. */
async function main(args: readonly string[]): Promise<number> {
  const given = parse(args);
  if (given.help) {
    process.stdout.write(help);
    return 0;
  }
  const say = speaker(given);
  if (given.driver !== undefined) {
    if (given.driver !== "lavapipe" && given.driver !== "swiftshader")
      throw new UsageError(`--driver is "${given.driver}". Use lavapipe or swiftshader.`);
    const absent = await useDriver(given.driver);
    if (absent !== null) throw new UsageError(`--driver ${given.driver}: ${absent}.`);
  }
  const before = given.compare === undefined ? null : (JSON.parse(readFileSync(given.compare, "utf8")) as Report);
  const report = await (given.bars ? runBars(given, say) : runFamilies(given, say));
  if (before) for (const line of ["", ...changeLines(before, report)]) say(line);
  if (given.json === "-") process.stdout.write(`${JSON.stringify(report)}\n`);
  else if (given.json !== undefined) writeFileSync(given.json, `${JSON.stringify(report, null, 1)}\n`);
  if (given.html !== undefined) {
    const labels = Object.fromEntries(families.map(({ name, sizeLabel }) => [name, sizeLabel]));
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
