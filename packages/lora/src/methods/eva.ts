import { largest, realize, realizeNow, type Tensor, tensor } from "@lowrank/tensor";
import { AdapterError } from "../errors.js";
import { byPattern } from "../targeting/match.js";
import { type DenseLayer, isDense } from "../targeting/model.js";
import { type EvaOptions, evaOptions } from "./init/eva-options.js";
import { IncrementalPca } from "./init/pca.js";
import type { LoraOptions, LoraPlace } from "./lora.js";
import type { AdapterParts, DataRun, InitializationData } from "./method.js";
import type { LowRankPair } from "./pair.js";

type Parts = AdapterParts<LoraOptions, LoraPlace>;

/** A layer on its way to a rank. */
interface Candidate {
  readonly name: string;
  readonly layer: DenseLayer;
  readonly pair: LowRankPair;
  /** Components that are looked for. */
  components: number;
}

/** Layers that are given the same input, and its components. The first one is never given fewer than the others. */
interface Group {
  readonly members: readonly Candidate[];
  readonly pca: IncrementalPca;
  similarity: Float64Array;
}

/** Data is looked at this many times at most, so that an input without clear components ends in an error. */
const runLimit = 1000;

/**
 * EVA (Paischer et al. 2024): A's rows are the principal components of what a layer is given, B is 0, and the ranks of all layers together
 * are given to the components that explain most. Runs repeat in a circle until the components that are wanted stand still. A layer without
 * any is left out. Gives the adapter's parts with `rankPattern`, `alphaPattern` and targets that say so.
 * Throws AdapterError without data, and when components do not settle. peft.initialize_lora_eva_weights.
 */
export async function initializeEva(parts: Parts, { runs }: InitializationData): Promise<Parts> {
  const { options, places, attachments } = parts;
  if (options.init !== "eva") return parts;
  const eva = evaOptions(options.eva);
  const waiting: Candidate[] = [];
  let budget = 0;
  for (const [name, { pair }] of attachments) {
    const layer = places.get(name);
    if (!pair || !layer || !("inFeatures" in layer) || !isDense(layer) || pair.values.isReady) continue;
    const rank = byPattern(options.rankPattern, name, options.rank);
    budget += rank;
    waiting.push({ name, layer, pair, components: roundHalfEven(rank * eva.rho) });
  }
  if (waiting.length === 0) return parts;
  const batches = [...(runs ?? [])];
  if (batches.length === 0)
    throw new AdapterError(
      'init "eva" takes first values from data, and none was given. Call `await adapter.initialize({ runs: [() => model.forward(ids)] })`.',
      ["runs"],
    );
  const groups = await grouped(waiting, batches);
  const ranks = await settled(groups, batches, budget, eva.tau);
  return withRanks(parts, groups, ranks, eva);
}

/** What the layers are given in a run, by name: rows of those tokens that count. */
async function observed(candidates: readonly Candidate[], batch: DataRun): Promise<Map<string, Float32Array>> {
  const inputs = new Map<string, Tensor>();
  const removers = candidates.map(({ name, layer }) =>
    layer.use((x, next) => {
      inputs.set(name, x);
      return next(x);
    }),
  );
  try {
    if (typeof batch === "function") batch();
    else batch.run();
  } finally {
    for (const remove of removers) remove();
  }
  // What already had a home before is the caller's own.
  const own = [...new Set(inputs.values())].filter(({ home }) => !home);
  await realize(...new Set(inputs.values()));
  const rows = new Map<string, Float32Array>();
  for (const { name, layer } of candidates) {
    const input = inputs.get(name);
    if (!input) continue;
    const values = Float32Array.from(await input.data());
    const mask = typeof batch === "function" ? null : batch.mask;
    if (mask && mask.length * layer.inFeatures !== values.length)
      throw new AdapterError(`A run's mask has ${mask.length} numbers for ${values.length / layer.inFeatures} tokens. Give one a token.`, [
        "mask",
      ]);
    rows.set(name, mask ? values.filter((_, i) => mask[Math.floor(i / layer.inFeatures)] !== 0) : values);
  }
  for (const input of own) input.dispose();
  return rows;
}

/** Layers that are given the same numbers, told by a first run. */
async function grouped(candidates: readonly Candidate[], batches: readonly DataRun[]): Promise<Group[]> {
  const rows = await observed(candidates, batches[0] as DataRun); // there is one
  const unseen = candidates.filter(({ name }) => !rows.has(name)).map(({ name }) => name);
  if (unseen.length > 0)
    throw new AdapterError(
      `The run did not pass through ${unseen.join(", ")}. Run the model itself, or leave these layers out of the targets.`,
      unseen,
    );
  const groups: Candidate[][] = [];
  for (const candidate of candidates) {
    const own = rows.get(candidate.name);
    const same = groups.find(([first]) => first && own && isEqual(own, rows.get(first.name)));
    if (same) same.push(candidate);
    else groups.push([candidate]);
  }
  return groups.map((members) => {
    const count = largest(members.map(({ components }) => components));
    const { layer, name } = members[0] as Candidate; // a group starts with one
    if (count > layer.inFeatures)
      throw new AdapterError(
        `EVA looks for ${count} components of the input of ${name}, which has ${layer.inFeatures} features. Lower the rank or eva.rho.`,
        [name],
      );
    for (const member of members) member.components = count;
    return { members, pca: new IncrementalPca(count, layer.inFeatures), similarity: new Float64Array() };
  });
}

function isEqual(a: Float32Array, b: Float32Array | undefined): boolean {
  return a.length === b?.length && a.every((value, i) => value === b[i]);
}

/** Python's round. */
function roundHalfEven(value: number): number {
  const rounded = Math.round(value);
  return Math.abs(value % 1) === 0.5 && rounded % 2 !== 0 ? rounded - 1 : rounded;
}

/** Runs until the components of every rank stand still; the ranks by name. */
async function settled(groups: readonly Group[], batches: readonly DataRun[], budget: number, tau: number): Promise<Map<string, number>> {
  let ranks = new Map(groups.flatMap(({ members }) => members.map(({ name, components }) => [name, components] as const)));
  const isSettled = ({ members: [first], pca, similarity }: Group): boolean => {
    if (!first || !pca.components) return false;
    const rank = ranks.get(first.name) ?? 0;
    return rank === 0 || (similarity.length > 0 && similarity.slice(0, rank).every((value) => value >= tau));
  };
  for (let run = 0; run < runLimit; run++) {
    const open = groups.filter((group) => !isSettled(group));
    if (open.length === 0) return ranks;
    const rows = await observed(
      open.map(({ members }) => members[0] as Candidate), // a group starts with one
      batches[run % batches.length] as DataRun,
    );
    for (const group of open) {
      const { members, pca } = group;
      const own = rows.get(members[0]?.name ?? "") ?? new Float32Array();
      const count = own.length / pca.width;
      // Too few tokens for so many components: the batch says nothing about this layer.
      if (count < pca.count) continue;
      const before = pca.components;
      pca.add(own, count);
      if (before) group.similarity = pca.similarity(before);
    }
    if (groups.every(({ pca }) => pca.components)) ranks = shared(groups, budget);
    const unseen = run + 1 >= batches.length ? groups.find(({ pca }) => !pca.components) : undefined;
    if (unseen) {
      const name = unseen.members[0]?.name ?? "";
      throw new AdapterError(
        `None of the ${batches.length} runs has as many tokens that count as EVA looks for components, ${unseen.pca.count} on ${name}. Give larger batches, or lower the rank or eva.rho.`,
        ["runs"],
      );
    }
  }
  throw new AdapterError(
    `EVA's components did not settle in ${runLimit} runs. Give larger or more batches (each needs more tokens than components), or lower eva.tau.`,
    ["runs"],
  );
}

/** The budget goes to the components that explain most of their layer's variance. */
function shared(groups: readonly Group[], budget: number): Map<string, number> {
  // The first of each group, then the others, as PEFT counts them: it decides between equals.
  const firsts = groups.map((group) => ({ group, member: group.members[0] as Candidate })); // a group starts with one
  const others = groups.flatMap((group) => group.members.slice(1).map((member) => ({ group, member })));
  const all = [...firsts, ...others];
  const shares = all.flatMap(({ group, member }) => [...group.pca.explained].map((share) => ({ name: member.name, share })));
  shares.sort((a, b) => b.share - a.share);
  const ranks = new Map(all.map(({ member }) => [member.name, 0]));
  for (const { name } of shares.slice(0, budget)) ranks.set(name, (ranks.get(name) ?? 0) + 1);
  for (const { group, member } of others) {
    const first = group.members[0]?.name ?? "";
    const [own, most] = [ranks.get(member.name) ?? 0, ranks.get(first) ?? 0];
    if (own > most) {
      ranks.set(first, own);
      ranks.set(member.name, most);
    }
  }
  return ranks;
}

/** Sets A and B, and what the configuration says about ranks. */
function withRanks(
  { options, places, attachments }: Parts,
  groups: readonly Group[],
  ranks: ReadonlyMap<string, number>,
  eva: EvaOptions,
): Parts {
  const rankPattern: Record<string, number> = {};
  const alphaPattern: Record<string, number> = {};
  const note = (name: string, rank: number, alpha: number): void => {
    if (rank !== options.rank) rankPattern[name] = rank;
    if (alpha !== options.alpha) alphaPattern[name] = alpha;
  };
  // Embeddings keep what the options said of them, under their full names.
  for (const name of places.keys())
    if (!ranks.has(name))
      note(name, byPattern(options.rankPattern, name, options.rank), byPattern(options.alphaPattern, name, options.alpha));
  const isKept = (name: string): boolean => ranks.get(name) !== 0;
  for (const { members, pca } of groups) {
    for (const { name, layer, pair } of members) {
      const rank = ranks.get(name) ?? 0;
      if (rank === 0) continue;
      const planned = byPattern(options.rankPattern, name, options.rank);
      const alpha = byPattern(options.alphaPattern, name, options.alpha) * (eva.adjustScaling ? rank / planned : 1);
      note(name, rank, alpha);
      const { width, singularValues } = pca;
      const rows = Float32Array.from(
        pca.components?.slice(0, rank * width) ?? [],
        (value, i) => value / (eva.whiten ? Math.sqrt(singularValues[Math.floor(i / width)] ?? 1) : 1),
      );
      pair.values.takeComponents(
        tensor(rows, { device: pair.a.device, shape: [rank, width] }),
        layer.outFeatures,
        alpha / (options.rslora ? Math.sqrt(rank) : rank),
      );
    }
  }
  const kept = <T>(of: ReadonlyMap<string, T>): Map<string, T> => new Map([...of].filter(([name]) => isKept(name)));
  const left = kept(attachments);
  realizeNow([...left.values()].flatMap(({ parameters }) => Object.values(parameters)));
  const { exclude: _, layers: __, layersPattern: ___, ...others } = options;
  return {
    options: { ...others, targets: [...kept(places).keys()], rankPattern, alphaPattern },
    places: kept(places),
    attachments: left,
  };
}
