import { Marks } from "./marks.js";
import type { Node } from "./node.js";
import { NumberedGraph } from "./numbered.js";

function grown(values: Int32Array, length: number): Int32Array {
  const more = new Int32Array(length);
  more.set(values);
  return more;
}

/**
 * Nodes with their inputs as they are found, from which a graph is made in the end. What `find` looks for among them, and `close` then
 * adds, is a form over the inputs that were given since the last node; a leaf has a number of its own instead.
 */
export class GraphBuilder {
  readonly nodes: Node[] = [];
  /** How many nodes and inputs there are. */
  count = 0;
  #edgeCount = 0;
  #forms: Int32Array;
  #starts: Int32Array;
  #leaves: Int32Array;
  #hashes: Int32Array;
  #inputs: Int32Array;
  /** Numbers of nodes by hash; -1 where there is none. */
  #table: Int32Array;
  /** The numbers of nodes, and of others that are equal to them. */
  readonly marks: Marks = new Marks();

  /** Room for about as many nodes and inputs as a graph has, where it is known. */
  constructor(like: Pick<NumberedGraph, "count" | "inputs"> | null = null) {
    const room = like ? Math.ceil(like.count * 1.25) + 64 : 1024;
    this.#forms = new Int32Array(room);
    this.#starts = new Int32Array(room + 1);
    this.#leaves = new Int32Array(room);
    this.#hashes = new Int32Array(room);
    this.#inputs = new Int32Array(like ? Math.ceil(like.inputs.length * 1.25) + 64 : 2048);
    this.#table = new Int32Array(2 ** Math.ceil(Math.log2(room * 2))).fill(-1);
  }

  /** Appends an input of the node that `close` adds next. */
  input(number: number): void {
    if (this.#edgeCount === this.#inputs.length) this.#inputs = grown(this.#inputs, this.#edgeCount * 4);
    this.#inputs[this.#edgeCount++] = number;
  }

  /** Takes the inputs back that were given since the last node. */
  drop(): void {
    this.#edgeCount = this.#starts[this.count] as number; // one more than nodes
  }

  /** A number of 32 bits of what `find` looks for. */
  hash(form: number, leaf = -1): number {
    const inputs = this.#inputs;
    const length = this.#edgeCount;
    let hash = Math.imul(form ^ Math.imul(leaf, 0x27d4eb2d), 0x5bd1e995);
    for (let edge = this.#starts[this.count] as number; edge < length; edge++) {
      hash = Math.imul(hash ^ (inputs[edge] as number), 0x5bd1e995);
      hash ^= hash >>> 15;
    }
    // The finalizer of MurmurHash3: places in a table are the low bits.
    hash = Math.imul(hash ^ (hash >>> 16), 0x85ebca6b);
    hash = Math.imul(hash ^ (hash >>> 13), 0xc2b2ae35);
    return hash ^ (hash >>> 16);
  }

  /** The number of the node that is a form over the inputs given since the last one, or of a leaf; -1 where there is none. */
  find(hash: number, form: number, leaf = -1): number {
    const table = this.#table;
    const hashes = this.#hashes;
    const mask = table.length - 1;
    for (let at = hash & mask; ; at = (at + 1) & mask) {
      const number = table[at] as number;
      if (number < 0) return -1;
      if (hashes[number] === hash && this.#isEqual(number, form, leaf)) return number;
    }
  }

  #isEqual(number: number, form: number, leaf: number): boolean {
    if (this.#forms[number] !== form || this.#leaves[number] !== leaf) return false;
    const starts = this.#starts;
    const inputs = this.#inputs;
    let at = starts[number] as number;
    const end = starts[number + 1] as number;
    let given = starts[this.count] as number;
    if (end - at !== this.#edgeCount - given) return false;
    for (; at < end; at++, given++) if (inputs[at] !== inputs[given]) return false;
    return true;
  }

  /** Adds a node over the inputs since the last one; returns its number. Nodes that are to be found have their hash. */
  close(node: Node, form: number, hash: number | null = null, leaf = -1): number {
    const number = this.count++;
    if (number === this.#forms.length) this.#growNodes(number * 4);
    this.nodes.push(node);
    this.#forms[number] = form;
    this.#starts[number + 1] = this.#edgeCount;
    this.marks.set(node, number);
    if (hash === null) return number;
    this.#leaves[number] = leaf;
    this.#hashes[number] = hash;
    if (number * 2 >= this.#table.length) this.#growTable();
    else this.#enter(number);
    return number;
  }

  #growNodes(length: number): void {
    this.#forms = grown(this.#forms, length);
    this.#starts = grown(this.#starts, length + 1);
    this.#leaves = grown(this.#leaves, length);
    this.#hashes = grown(this.#hashes, length);
  }

  #enter(number: number): void {
    const table = this.#table;
    const mask = table.length - 1;
    let at = (this.#hashes[number] as number) & mask;
    while ((table[at] as number) >= 0) at = (at + 1) & mask;
    table[at] = number;
  }

  #growTable(): void {
    this.#table = new Int32Array(this.#table.length * 4).fill(-1);
    for (let number = 0; number < this.count; number++) this.#enter(number);
  }

  /** The number of one of the nodes; -1 for others. */
  numberOf(node: Node): number {
    const number = this.marks.get(node);
    return this.nodes[number] === node ? number : -1;
  }

  /** What nodes are all together, where each has a hash, and the hash of that: equal for equal graphs. */
  describe(): { readonly words: readonly Int32Array[]; readonly hash: number } {
    const { count } = this;
    let hash = count;
    for (let i = 0; i < count; i++) hash = Math.imul(hash, 31) ^ (this.#hashes[i] as number);
    return { words: [this.#forms.slice(0, count), this.#inputs.slice(0, this.#edgeCount), this.#leaves.slice(0, count)], hash };
  }

  /** The graph of all nodes, as they were added. */
  all(roots: readonly number[]): NumberedGraph {
    const { count } = this;
    return new NumberedGraph(
      this.nodes,
      this.#forms.subarray(0, count),
      this.#starts.subarray(0, count + 1),
      this.#inputs.subarray(0, this.#edgeCount),
      roots,
    );
  }
}
