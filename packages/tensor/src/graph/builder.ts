import { Marks } from "./marks.js";
import type { Node } from "./node.js";
import { NumberedGraph } from "./numbered.js";

/** A list of integers of 32 bits, in memory that doubles where it is too small. */
class Integers {
  values = new Int32Array(1024);
  length = 0;

  push(value: number): void {
    if (this.length === this.values.length) {
      const grown = new Int32Array(this.length * 2);
      grown.set(this.values);
      this.values = grown;
    }
    this.values[this.length++] = value;
  }

  /** The list as it is, which must not grow any more. */
  all(): Int32Array {
    return this.values.subarray(0, this.length);
  }
}

/**
 * Nodes with their inputs as they are found, from which a graph is made in the end. What `find` looks for among them, and `close` then
 * adds, is a form over the inputs that were given since the last node; a leaf has a number of its own instead.
 */
export class GraphBuilder {
  readonly nodes: Node[] = [];
  readonly #forms = new Integers();
  readonly #starts = new Integers();
  readonly #inputs = new Integers();
  readonly #leaves = new Integers();
  readonly #hashes = new Integers();
  /** Numbers of nodes by hash; -1 where there is none. */
  #table: Int32Array = new Int32Array(4096).fill(-1);
  /** The numbers of nodes, and of others that are equal to them. */
  readonly marks: Marks = new Marks();

  constructor() {
    this.#starts.push(0);
  }

  get count(): number {
    return this.nodes.length;
  }

  /** Appends an input of the node that `close` adds next. */
  input(number: number): void {
    this.#inputs.push(number);
  }

  /** Takes the inputs back that were given since the last node. */
  drop(): void {
    this.#inputs.length = this.#starts.values[this.count] as number; // one more than nodes
  }

  /** A number of 32 bits of what `find` looks for. */
  hash(form: number, leaf = -1): number {
    const { values, length } = this.#inputs;
    let hash = Math.imul(form ^ Math.imul(leaf, 0x27d4eb2d), 0x5bd1e995);
    for (let edge = this.#starts.values[this.count] as number; edge < length; edge++) {
      hash = Math.imul(hash ^ (values[edge] as number), 0x5bd1e995);
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
    const mask = table.length - 1;
    for (let at = hash & mask; ; at = (at + 1) & mask) {
      const number = table[at] as number;
      if (number < 0) return -1;
      if (this.#hashes.values[number] === hash && this.#isEqual(number, form, leaf)) return number;
    }
  }

  #isEqual(number: number, form: number, leaf: number): boolean {
    if (this.#forms.values[number] !== form || this.#leaves.values[number] !== leaf) return false;
    const [starts, inputs] = [this.#starts.values, this.#inputs.values];
    let at = starts[number] as number;
    const end = starts[number + 1] as number;
    let given = starts[this.count] as number;
    if (end - at !== this.#inputs.length - given) return false;
    for (; at < end; at++, given++) if (inputs[at] !== inputs[given]) return false;
    return true;
  }

  /** Adds a node over the inputs since the last one; returns its number. Nodes that are to be found have their hash. */
  close(node: Node, form: number, hash: number | null = null, leaf = -1): number {
    const number = this.nodes.push(node) - 1;
    this.#forms.push(form);
    this.#starts.push(this.#inputs.length);
    this.marks.set(node, number);
    if (hash === null) return number;
    this.#leaves.push(leaf);
    this.#hashes.push(hash);
    if (number * 2 >= this.#table.length) this.#grow();
    else this.#enter(number);
    return number;
  }

  #enter(number: number): void {
    const table = this.#table;
    const mask = table.length - 1;
    let at = (this.#hashes.values[number] as number) & mask;
    while ((table[at] as number) >= 0) at = (at + 1) & mask;
    table[at] = number;
  }

  #grow(): void {
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
    const hashes = this.#hashes.all();
    let hash = hashes.length;
    for (let i = 0; i < hashes.length; i++) hash = Math.imul(hash, 31) ^ (hashes[i] as number);
    return { words: [this.#forms.all().slice(), this.#inputs.all().slice(), this.#leaves.all().slice()], hash };
  }

  /** The graph of all nodes, as they were added. */
  all(roots: readonly number[]): NumberedGraph {
    return new NumberedGraph(this.nodes, this.#forms.all(), this.#starts.all(), this.#inputs.all(), roots);
  }
}
