import { Marks } from "./marks.js";
import type { Node } from "./node.js";

/** Who reads each node, as `NumberedGraph` says what each node reads. */
export interface Users {
  readonly starts: Int32Array;
  readonly users: Int32Array;
}

/**
 * The nodes behind some roots by number, inputs before users: passes over a graph read arrays of numbers, and hash no node. The inputs of
 * node i are `inputs[starts[i]]` to `inputs[starts[i + 1] - 1]`, in the order of `inputsOf`.
 */
export class NumberedGraph {
  #marks: Marks | null = null;
  #numbers: Map<Node, number> | null = null;
  #users: Users | null = null;

  constructor(
    readonly nodes: readonly Node[],
    /** What each node is besides its inputs, as a number of the table of forms. */
    readonly forms: Int32Array,
    readonly starts: Int32Array,
    readonly inputs: Int32Array,
    readonly roots: readonly number[],
  ) {}

  get count(): number {
    return this.nodes.length;
  }

  node(number: number): Node {
    return this.nodes[number] as Node; // the graph's own number
  }

  /** The number of an input of a node. */
  input(number: number, index = 0): number {
    return this.inputs[(this.starts[number] as number) + index] as number; // nodes have their inputs
  }

  /** The number of a node; undefined for one of another graph. */
  numberOf(node: Node): number | undefined {
    if (!this.#marks) {
      this.#marks = new Marks();
      for (let i = 0; i < this.nodes.length; i++) this.#marks.set(this.nodes[i] as Node, i);
    }
    const number = this.#marks.get(node);
    if (this.nodes[number] === node) return number;
    // A node of another graph, or one that another walk has numbered since.
    this.#numbers ??= new Map(this.nodes.map((each, i) => [each, i]));
    return this.#numbers.get(node);
  }

  /** Who reads each node, in order, once for each time. */
  get users(): Users {
    this.#users ??= this.#findUsers();
    return this.#users;
  }

  #findUsers(): Users {
    const { count, inputs } = this;
    const starts = new Int32Array(count + 1);
    for (let edge = 0; edge < inputs.length; edge++) {
      const after = (inputs[edge] as number) + 1;
      starts[after] = (starts[after] as number) + 1;
    }
    for (let i = 0; i < count; i++) starts[i + 1] = (starts[i + 1] as number) + (starts[i] as number);
    const next = starts.slice(0, count);
    const users = new Int32Array(inputs.length);
    for (let i = 0; i < count; i++) {
      const end = this.starts[i + 1] as number;
      for (let edge = this.starts[i] as number; edge < end; edge++) {
        const input = inputs[edge] as number;
        const at = next[input] as number;
        users[at] = i;
        next[input] = at + 1;
      }
    }
    return { starts, users };
  }
}

/**
 * The numbers of the nodes that some roots need, inputs before users: depth first, in the order of inputs. `after` names a node that comes
 * before another though that does not read it.
 */
export function orderOf(
  { starts, inputs, count }: Pick<NumberedGraph, "starts" | "inputs" | "count">,
  roots: readonly number[],
  after: ReadonlyMap<number, number> = new Map(),
): Int32Array {
  const order = new Int32Array(count);
  let found = 0;
  const seen = new Uint8Array(count);
  const stack = new Int32Array(count + 1);
  const next = new Int32Array(count + 1);
  for (const root of roots) {
    if (seen[root]) continue;
    seen[root] = 1;
    let depth = 0;
    stack[0] = root;
    next[0] = starts[root] as number;
    while (depth >= 0) {
      const node = stack[depth] as number;
      const edge = next[depth] as number;
      const end = starts[node + 1] as number;
      let input = -1;
      if (edge < end) input = inputs[edge] as number;
      else if (edge === end && after.size > 0) input = after.get(node) ?? -1;
      if (edge > end || input < 0) {
        order[found++] = node;
        depth--;
        continue;
      }
      next[depth] = edge + 1;
      if (seen[input]) continue;
      seen[input] = 1;
      depth++;
      stack[depth] = input;
      next[depth] = starts[input] as number;
    }
  }
  return order.subarray(0, found);
}

/** The part of a graph that some of its nodes need, numbered in the order of `orderOf`. */
export function pruned(graph: NumberedGraph, roots: readonly number[] = graph.roots): NumberedGraph {
  const order = orderOf(graph, roots);
  const { nodes: all, forms: allForms, starts: allStarts, inputs: allInputs } = graph;
  const numbers = new Int32Array(graph.count);
  const nodes = new Array<Node>(order.length);
  const forms = new Int32Array(order.length);
  const starts = new Int32Array(order.length + 1);
  const inputs = new Int32Array(allInputs.length);
  let edges = 0;
  for (let i = 0; i < order.length; i++) {
    const old = order[i] as number;
    numbers[old] = i;
    nodes[i] = all[old] as Node;
    forms[i] = allForms[old] as number;
    const end = allStarts[old + 1] as number;
    for (let edge = allStarts[old] as number; edge < end; edge++) inputs[edges++] = numbers[allInputs[edge] as number] as number;
    starts[i + 1] = edges;
  }
  return new NumberedGraph(
    nodes,
    forms,
    starts,
    inputs.subarray(0, edges),
    roots.map((root) => numbers[root] as number),
  );
}
