import { isFloat } from "../tensor/dtype.js";
import { bufferOf, homeOf, isPresent } from "./live.js";
import { inputsOf, type Node, topological } from "./node.js";
import { type Storage, Version } from "./storage.js";

type BufferNode = Node & { readonly op: "buffer" };

/** Why values have no expression any more: a tensor that they were computed from was assigned to, or it was given up for its memory. */
export type LetGo = "overwritten" | "memory";

/** Nodes behind values that were read which a device keeps for `grad`: about 15 MB of JavaScript's heap. */
const maxNodes = 100_000;
/** What a computation counts beside its nodes. */
const nodesPerHistory = 16;
/** Nodes that are looked at for values that were computed together, to tell their histories apart. */
const maxWalk = 50_000;
/** Of values from more storages than these it is not remembered which they were. */
const maxSources = 64;

/** Where the expression of a value is found. */
export interface Place {
  readonly of: History;
  readonly index: number;
}

/** The expressions of values that were computed together, while `grad` may go through them. */
export class History {
  #expressions: readonly Node[] | null;
  #leaves: readonly BufferNode[];
  #reason: LetGo | null = null;
  #sources: ReadonlySet<number> | null = null;

  constructor(
    expressions: readonly Node[],
    /** The float buffers that the values may be differentiated by. */
    leaves: readonly BufferNode[],
    readonly nodeCount: number,
  ) {
    this.#expressions = expressions;
    this.#leaves = leaves;
  }

  /** The expression of one of the values; null once it was let go. */
  expression(index: number): Node | null {
    return this.#expressions?.[index] ?? null;
  }

  /** Why the expressions were let go; null while they are there. */
  get reason(): LetGo | null {
    return this.#reason;
  }

  /** Whether the values may have been computed from a storage. */
  mayComeFrom(storage: Storage): boolean {
    return this.#sources?.has(storage.id) ?? true;
  }

  letGo(reason: LetGo): void {
    if (!this.#expressions) return;
    this.#sources = sourcesOf(this.#leaves);
    this.#expressions = null;
    this.#leaves = [];
    this.#reason = reason;
  }

  /** The float buffers behind the values; none once they were let go. */
  get leaves(): readonly BufferNode[] {
    return this.#leaves;
  }

  /** Ids of the storages behind values that were let go; null where there are too many. */
  get sources(): ReadonlySet<number> | null {
    return this.#sources;
  }
}

/** Ids of all storages behind some leaves; null where there are too many. */
function sourcesOf(leaves: readonly BufferNode[]): ReadonlySet<number> | null {
  const ids = new Set<number>();
  const seen = new Set<BufferNode>(leaves);
  for (const { storage, history } of seen) {
    ids.add(storage.id);
    const further = history?.of;
    if (further?.reason && !further.sources) return null;
    for (const id of further?.sources ?? []) ids.add(id);
    for (const leaf of further?.leaves ?? []) seen.add(leaf);
    if (ids.size > maxSources) return null;
  }
  return ids;
}

/** The expression behind a value that was read, where there is one: what `grad` looks at in its place. */
export function expressionOf(node: Node): Node | null {
  return node.op === "buffer" && node.history ? node.history.of.expression(node.history.index) : null;
}

/** The histories of a device's values, within a limit: the oldest are let go, never the latest. */
export class Histories {
  readonly #kept = new Set<{ readonly history: WeakRef<History>; readonly cost: number }>();
  #nodeCount = 0;

  /**
   * Where the expressions of values that were computed together are found later; null for those behind which no float tensor lies. They
   * are let go when one of those tensors is overwritten: each by itself, or all at once where there are many large ones.
   */
  record(expressions: readonly Node[]): (Place | null)[] {
    const together = differentiable(expressions);
    if (expressions.length * together.nodeCount > maxWalk) {
      const history = this.#keep(expressions, together);
      return expressions.map((_, index) => history && { of: history, index });
    }
    return expressions.map((expression) => {
      const history = this.#keep([expression], expressions.length === 1 ? together : differentiable([expression]));
      return history && { of: history, index: 0 };
    });
  }

  #keep(expressions: readonly Node[], { leaves, nodeCount }: Differentiable): History | null {
    if (leaves.length === 0) return null;
    const history = new History(expressions, leaves, nodeCount);
    const reference = new WeakRef(history);
    for (const { storage } of leaves) storage.addHistory(reference);
    const cost = nodeCount + nodesPerHistory;
    if (!leaves.every(isPresent)) {
      history.letGo("overwritten");
      return history;
    }
    this.#kept.add({ history: reference, cost });
    this.#nodeCount += cost;
    if (this.#nodeCount > maxNodes) this.#shrink();
    return history;
  }

  /** Lets all go: they keep the memory of what values were computed from. */
  letGo(): void {
    for (const { history } of this.#kept) history.deref()?.letGo("memory");
    this.#kept.clear();
    this.#nodeCount = 0;
  }

  #shrink(): void {
    for (const kept of this.#kept) {
      if (kept.history.deref()?.reason === null) continue;
      this.#kept.delete(kept);
      this.#nodeCount -= kept.cost;
    }
    // Half of the room at once, so that it is not looked for at each read.
    const latest = [...this.#kept].at(-1);
    for (const kept of this.#kept) {
      if (this.#nodeCount <= maxNodes / 2 || kept === latest) return;
      kept.history.deref()?.letGo("memory");
      this.#kept.delete(kept);
      this.#nodeCount -= kept.cost;
    }
  }
}

/** Whether gradients go through a node to what it reads: through floats, and through composites, whose results may be floats. */
export function passesGradients(node: Node): boolean {
  return node.op === "composite" || (node.op !== "detach" && isFloat(node.dtype));
}

/** The float buffers that values depend on through floats, and the number of nodes in between. */
interface Differentiable {
  readonly leaves: readonly BufferNode[];
  readonly nodeCount: number;
}

function differentiable(expressions: readonly Node[]): Differentiable {
  const leaves: BufferNode[] = [];
  const order = topological(expressions, (node) => (passesGradients(node) ? inputsOf(node) : []));
  for (const node of order) {
    if (!isFloat(node.dtype)) continue;
    // What was assigned, in expressions written before it was computed.
    const home = node.op === "detach" ? homeOf(node) : null;
    if (node.op === "buffer") leaves.push(node);
    else if (home) leaves.push(isPresent(node) ? bufferOf(home, node) : { ...bufferOf(home, node), version: new Version() });
  }
  return { leaves, nodeCount: order.length };
}
