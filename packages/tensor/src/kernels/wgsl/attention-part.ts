import type { PlanSlot } from "../kernel.js";
import { type ScoreFunction, scoreFunction } from "./attention-bodies.js";
import {
  type AttentionEngine,
  type AttentionVariant,
  type ScoreProduct,
  subgroupEngine,
  type WeightedSum,
  workgroupEngine,
} from "./attention-engine.js";
import { type AttentionOperands, baseOf, type HeadMatrices } from "./attention-operands.js";
import { type Walk, walkKeys, walkQueries } from "./attention-walk.js";
import { ProgramFunctions } from "./functions.js";
import { literal } from "./literals.js";
import { ProgramMemory } from "./memory.js";
import { vectorAlong } from "./operands.js";
import { assemble, foldWorkgroups, type Target, type WgslProgram } from "./program.js";

/** What a program of attention computes: the output, the gradient of queries, or those of keys and values. */
export type AttentionPart = "out" | "dQueries" | "dKeys";

/** A result, with what the rows are weighed by: attention's weights, or the slopes of the scores. */
interface Sum extends WeightedSum {
  readonly weights: "weight" | "slope";
}

/** Below every score: what a query's maximum starts from, and what hides a key. */
const lowest = "vec4f(-3.4e38f)";

const indices = (count: number): number[] => Array.from({ length: count }, (_, i) => i);

/** The products and sums of a part; the columns of all are queries, or keys in the last case. */
function contentsOf(
  part: AttentionPart,
  { queries, keys, values, out, gradients }: AttentionOperands,
): { products: ScoreProduct[]; sums: Sum[] } {
  if (part === "out" || !gradients) {
    return { products: [{ rows: keys, columns: queries }], sums: [{ rows: values, out, weights: "weight" }] };
  }
  const { dOut, dQueries, dKeys, dValues } = gradients;
  if (part === "dQueries") {
    const products = [
      { rows: keys, columns: queries },
      { rows: values, columns: dOut },
    ];
    return { products, sums: [{ rows: keys, out: dQueries, weights: "slope" }] };
  }
  const products = [
    { rows: queries, columns: keys },
    { rows: dOut, columns: values },
  ];
  const sums: Sum[] = [
    { rows: dOut, out: dValues, weights: "weight" },
    { rows: queries, out: dKeys, weights: "slope" },
  ];
  return { products, sums };
}

/** Prints one part: a workgroup has a block of columns and walks through the rows that they see, or that see them. */
export function printAttentionPart(
  part: AttentionPart,
  operands: AttentionOperands,
  slots: readonly PlanSlot[],
  name: string,
  target: Target,
  variant: AttentionVariant,
): WgslProgram {
  return new PartPrinter(part, operands, slots, target, variant).print(name);
}

class PartPrinter {
  readonly #memory: ProgramMemory;
  readonly #functions = new ProgramFunctions();
  readonly #products: readonly ScoreProduct[];
  readonly #sums: readonly Sum[];
  readonly #engine: AttentionEngine;
  readonly #walk: Walk;
  readonly #isByKeys: boolean;
  readonly #columnCount: number;
  readonly #blockColumns: number;
  /** The numbers of each query that a step's weights are made of, and the first key that it sees. */
  readonly #statistics: readonly HeadMatrices[];
  /** These, where queries are rows. */
  readonly #perRow: ReadonlyMap<HeadMatrices, ReturnType<AttentionEngine["scalars"]>>;
  readonly #rows: readonly number[];
  readonly #scale: string;
  readonly #bodies: ScoreFunction | null;

  constructor(
    readonly part: AttentionPart,
    readonly operands: AttentionOperands,
    slots: readonly PlanSlot[],
    readonly target: Target,
    readonly variant: AttentionVariant,
  ) {
    const { visibility, logsumexp, starts, gradients } = operands;
    const memory = new ProgramMemory(slots, target);
    const { products, sums } = contentsOf(part, operands);
    const engine =
      variant.rows === "workgroup" ? workgroupEngine(memory, variant, target.isSoftware) : subgroupEngine(memory, variant, products, sums);
    [this.#memory, this.#products, this.#sums, this.#engine] = [memory, products, sums, engine];
    this.#isByKeys = part === "dKeys";
    this.#columnCount = this.#isByKeys ? visibility.keyCount : visibility.queryCount;
    this.#blockColumns = variant.threadColumns * 4;
    this.#statistics = [...(gradients ? [logsumexp, gradients.delta] : []), ...(starts ? [starts] : [])];
    this.#perRow = new Map(this.#isByKeys ? this.#statistics.map((operand) => [operand, engine.scalars(operand)]) : []);
    this.#rows = indices(variant.tileRows);
    this.#scale = literal("f32", operands.scale);
    const { bodies } = operands;
    this.#bodies = bodies.length === 0 ? null : scoreFunction(bodies, operands, this.#isByKeys, memory, this.#functions);
    this.#walk = (this.#isByKeys ? walkQueries : walkKeys)(operands, {
      engine,
      blockColumns: this.#blockColumns,
      blockRows: variant.threadRows * variant.tileRows,
      startOf: (query) => (starts ? memory.load(starts.view.slot, `base${starts.name} + ${query} * ${starts.view.rowStride}`) : "0"),
      startsAt: (i) => (starts ? this.#statistic(starts, i, "vec4i") : ""),
    });
  }

  print(name: string): WgslProgram {
    const { operands, target, variant } = this;
    const [batchCount, keyHeads, group] = operands.batch;
    const blocks = Math.ceil(this.#columnCount / this.#blockColumns);
    const count = blocks * batchCount * keyHeads * (this.#isByKeys ? 1 : group);
    const workgroups = foldWorkgroups(count, target);
    const isSharing = variant.rows === "subgroup";
    const rowBases = this.#bases([...this.#rowOperands, ...this.#perRow.keys()]);
    const members = group > 1 ? [`for (var member = 0u; member < ${group}u; member++) {`, `let batch = head * ${group}u + member;`] : ["{"];
    const step = this.#step();
    return assemble({
      name,
      memory: this.#memory,
      functions: this.#functions,
      workgroupSize: [variant.threadColumns, variant.threadRows],
      workgroups,
      globals: [...this.#engine.globals, ...(this.#bodies ? [this.#bodies.declaration] : [])],
      usesSubgroups: isSharing,
      // How far a loop runs is read from `starts`, alike in all lanes, which compilers cannot know.
      ...(isSharing && operands.starts ? { directives: ["diagnostic(off, subgroup_uniformity);"] } : {}),
      body: [
        ...(workgroups.x * workgroups.y > count ? [`if (group >= ${count}) { return; }`] : []),
        `let block = i32(u32(group) % ${blocks}u);`,
        `let head = u32(group) / ${blocks}u;`,
        ...this.#setup(),
        ...(this.#isByKeys ? [...members, ...rowBases, ...step, "}"] : step),
        ...(this.part === "out" ? this.#finish() : []),
        ...this.#sums.flatMap((sum) => this.#store(sum)),
      ],
    });
  }

  get #rowOperands(): HeadMatrices[] {
    return [...this.#products, ...this.#sums].map(({ rows }) => rows);
  }

  #bases(matrices: readonly HeadMatrices[]): string[] {
    return [...new Map(matrices.map((operand) => [operand.name, operand])).values()].map((operand) => baseOf(operand, this.operands));
  }

  /** What is the same for all steps. */
  #setup(): string[] {
    const { operands, variant } = this;
    const group = operands.batch[2];
    const columns = [...this.#products.map((product) => product.columns), ...this.#sums.map(({ out }) => out)];
    const all = this.#isByKeys ? columns : [...columns, ...this.#rowOperands, ...this.#statistics];
    const { starts } = operands;
    return [
      `let column = block * ${this.#blockColumns} + ${variant.rows === "subgroup" ? "lane" : "i32(local.x)"} * 4;`,
      "let columns = vec4i(column) + vec4i(0, 1, 2, 3);",
      `let batch = head${this.#isByKeys && group > 1 ? ` * ${group}u` : ""};`,
      ...this.#bases(all),
      ...this.#engine.setup,
      ...this.#sums.flatMap((sum) => this.#places(sum).map((place) => `var ${place} = vec4f(0.0);`)),
      ...(this.part === "out" ? [...this.#bases([operands.logsumexp]), `var largest = ${lowest};`, "var total = vec4f(0.0);"] : []),
      ...(this.#isByKeys
        ? []
        : this.#statistics.map(
            (operand) => `let statistic${operand.name} = ${this.#ofColumns(operand, operand === starts ? "vec4i" : "vec4f")};`,
          )),
    ];
  }

  /** The loop over the rows. */
  #step(): string[] {
    const walk = this.#walk;
    return [
      ...walk.before,
      walk.loop,
      ...walk.begin,
      ...this.#engine.begin,
      ...[...this.#perRow.values()].flatMap(({ lines }) => lines),
      ...this.#products.flatMap((product, i) => this.#engine.score(product, i === 0 ? "score" : "rise")),
      ...(walk.isMasked ? this.#rows.map((i) => `let visible${i} = ${walk.visible(i)};`) : []),
      ...this.#modified(),
      ...(this.part === "out" ? this.#onlineSoftmax() : this.#gradientWeights()),
      ...this.#sums.flatMap((sum) => this.#engine.accumulate(sum, sum.weights)),
      "}",
    ];
  }

  /** The number that belongs to the queries at row i and all columns. */
  #statistic(operand: HeadMatrices, i: number, type = "vec4f"): string {
    return this.#isByKeys ? `${type}(${this.#perRow.get(operand)?.value(i)})` : `statistic${operand.name}`;
  }

  /** The names of an invocation's sums. */
  #places(sum: Sum): string[] {
    return indices(this.#engine.widthCount(sum)).map((j) => `sum${sum.out.name}_${j}`);
  }

  /** What the bodies make of a step's scores. */
  #modified(): string[] {
    const bodies = this.#bodies;
    if (!bodies) return [];
    return this.#rows.map((i) => `let modified${i} = ${bodies.call(this.#engine.rowAt(i), `score${i} * ${this.#scale}`)};`);
  }

  /** Weights of a step relative to the largest score so far; what was summed before follows a new largest one. */
  #onlineSoftmax(): string[] {
    const rows = this.#rows;
    const scaled = (i: number): string => (this.#bodies ? `modified${i}.${this.#bodies.value}` : `score${i} * ${this.#scale}`);
    const hidden = (i: number): string => (this.#walk.isMasked ? `select(${lowest}, ${scaled(i)}, visible${i})` : scaled(i));
    return [
      ...rows.map((i) => `let scaled${i} = ${hidden(i)};`),
      `var top = ${rows.reduce((code, i) => (code === "" ? `scaled${i}` : `max(${code}, scaled${i})`), "")};`,
      ...this.#engine.join("top", (a, b) => `max(${a}, ${b})`),
      "let next = max(largest, top);",
      "let shrink = exp(largest - next);",
      "largest = next;",
      ...this.#weigh((i) => `exp(scaled${i} - next)`),
      `total = fma(total, shrink, ${rows.map((i) => `weight${i}`).join(" + ")});`,
      ...this.#sums.flatMap((sum) => this.#places(sum).map((place) => `${place} *= shrink;`)),
    ];
  }

  #gradientWeights(): string[] {
    const { logsumexp, gradients } = this.operands;
    const delta = gradients?.delta ?? logsumexp;
    const bodies = this.#bodies;
    const exponent = (i: number): string => {
      const total = this.#statistic(logsumexp, i);
      return bodies ? `modified${i}.${bodies.value} - ${total}` : `fma(score${i}, vec4f(${this.#scale}), -${total})`;
    };
    const slope = (i: number): string => {
      const plain = `weight${i} * (rise${i} - ${this.#statistic(delta, i)}) * ${this.#scale}`;
      // Where a key has no weight, the body's slope may be infinite.
      return bodies?.slope ? `select(vec4f(0.0), ${plain} * modified${i}.${bodies.slope}, weight${i} > vec4f(0.0))` : plain;
    };
    return [...this.#weigh((i) => `exp(${exponent(i)})`), ...this.#rows.map((i) => `let slope${i} = ${slope(i)};`)];
  }

  #weigh(value: (i: number) => string): string[] {
    const seen = (i: number): string => (this.#walk.isMasked ? `select(vec4f(0.0), ${value(i)}, visible${i})` : value(i));
    return this.#rows.map((i) => `let weight${i} = ${seen(i)};`);
  }

  /** Divides by the sum of weights, and stores the logsumexp. */
  #finish(): string[] {
    const { view } = this.operands.logsumexp;
    const start = `baseL + column * ${view.rowStride}`;
    const stores = indices(4).map(
      (r) =>
        `if (column + ${r} < ${this.#columnCount}) { ${this.#memory.store(view.slot, `${start} + ${r * view.rowStride}`, `logsumexp[${r}]`)} }`,
    );
    return [
      ...this.#engine.join("total", (a, b) => `${a} + ${b}`),
      `let logsumexp = largest + ${this.#functions.use("logarithm", true)}(total);`,
      ...(this.variant.threadRows > 1 ? ["if (local.y == 0u) {", ...stores, "}"] : stores),
      "let share = 1.0 / total;",
      ...this.#sums.flatMap((sum) => this.#places(sum).map((place) => `${place} *= share;`)),
    ];
  }

  /** One number for each of the invocation's columns. */
  #ofColumns({ name: own, view }: HeadMatrices, type: string): string {
    const at = (r: number): string => `base${own} + min(column + ${r}, ${this.#columnCount - 1}) * ${view.rowStride}`;
    return `${type}(${indices(4)
      .map((r) => this.#memory.load(view.slot, at(r)))
      .join(", ")})`;
  }

  #store(sum: Sum): string[] {
    const memory = this.#memory;
    const { name: own, view, positions, width } = sum.out;
    const widthCount = this.#engine.widthCount(sum);
    const isWhole = widthCount * this.variant.threadRows === width;
    const isVector = vectorAlong(view, positions, width, "row") === "column";
    const guarded = (condition: string, isSure: boolean, statements: readonly string[]): string[] =>
      isSure ? [...statements] : [`if (${condition}) {`, ...statements, "}"];
    return indices(4).flatMap((r) => {
      const stores = indices(Math.ceil(widthCount / 4)).flatMap((quad) => {
        const at = this.#engine.widthAt(quad * 4);
        const start = `base${own} + (column + ${r}) * ${view.rowStride} + ${at}`;
        const places = indices(Math.min(4, widthCount - quad * 4));
        const value = (j: number): string => `sum${own}_${quad * 4 + j}[${r}]`;
        if (isVector)
          return guarded(`${at} < ${width}`, isWhole, [memory.storeVector(view.slot, start, `vec4f(${places.map(value).join(", ")})`)]);
        return places.flatMap((j) => guarded(`${at} + ${j} < ${width}`, isWhole, [memory.store(view.slot, `${start} + ${j}`, value(j))]));
      });
      return guarded(`column + ${r} < ${this.#columnCount}`, this.#columnCount % this.#blockColumns === 0, stores);
    });
  }
}
