import { type Attributes, inputsOf, type Node, topological } from "./node.js";

/** Numbers for the names of operations, kinds, types and attributes. */
const codes = new Map<string, number>();

/** The number of a name: always the same within a process. */
export function codeOf(name: string): number {
  let code = codes.get(name);
  if (code === undefined) codes.set(name, (code = codes.size));
  return code;
}

function pushList(out: number[], list: readonly number[]): void {
  out.push(list.length);
  for (let i = 0; i < list.length; i++) out.push(list[i] as number); // within bounds
}

/** A number in two words, which tell −0 from 0 and equal themselves where it is not a number. */
function pushNumber(out: number[], value: number): void {
  if (Number.isNaN(value)) out.push(2, 0);
  else out.push(Object.is(value, -0) ? 1 : 0, value);
}

function pushAttributes(out: number[], attributes: Attributes): void {
  const entries = Object.entries(attributes);
  out.push(entries.length);
  for (const [name, value] of entries) {
    out.push(codeOf(name));
    if (typeof value === "number") pushNumber(out, value);
    else out.push(3, codeOf(typeof value === "string" ? `"${value}` : String(value)));
  }
}

/** Appends what a node is besides its inputs and its storage, as numbers: equal for equal nodes, and of a length that they tell. */
export function pushNode(out: number[], node: Node): void {
  out.push(codeOf(node.op), codeOf(node.dtype));
  pushList(out, node.shape);
  switch (node.op) {
    case "const":
      pushNumber(out, node.value);
      return;
    case "iota":
      out.push(node.axis);
      return;
    case "unary":
    case "binary":
      out.push(codeOf(node.kind));
      return;
    case "reduce":
      out.push(codeOf(node.kind));
      pushList(out, node.axes);
      return;
    case "permute":
      pushList(out, node.order);
      return;
    case "slice":
      pushList(out, node.starts);
      pushList(out, node.steps);
      return;
    case "pad":
      pushList(out, node.before);
      pushNumber(out, node.value);
      return;
    case "gather":
      out.push(node.axis);
      return;
    case "matmul":
      out.push(node.plus?.length ?? 0, Number(node.isRounded === true));
      if (node.plus) for (const { factor } of node.plus) pushNumber(out, factor);
      return;
    case "composite":
      out.push(codeOf(node.name), node.inputs.length, node.outputs.length);
      pushAttributes(out, node.attributes);
      out.push(node.bodies?.length ?? 0);
      for (const body of node.bodies ?? []) pushBody(out, body);
      return;
    case "output":
    case "argument":
      out.push(node.index);
      return;
    case "buffer":
    case "random":
    case "select":
    case "cast":
    case "detach":
    case "reshape":
    case "expand":
    case "dynamicSlice":
    case "dynamicUpdateSlice":
    case "scatterAdd":
      return;
  }
}

/** A composite's body: each node with its inputs by number. */
function pushBody(out: number[], body: Node): void {
  const numbers = new Map<Node, number>();
  const order = topological([body]);
  out.push(order.length);
  for (const node of order) {
    pushNode(out, node);
    for (const input of inputsOf(node)) out.push(numbers.get(input) as number); // inputs come first
    numbers.set(node, numbers.size);
  }
}

/** A number of 32 bits that is mostly different for different words. */
export function hashOf(words: ArrayLike<number>, from = 0, to: number = words.length): number {
  let hash = to - from;
  for (let i = from; i < to; i++) {
    const word = words[i] as number; // within bounds
    const whole = word | 0;
    hash = Math.imul(hash ^ (whole === word ? whole : (word * 1048583) | 0), 0x5bd1e995);
    hash ^= hash >>> 15;
  }
  // The finalizer of MurmurHash3: places in a table are the low bits.
  hash = Math.imul(hash ^ (hash >>> 16), 0x85ebca6b);
  hash = Math.imul(hash ^ (hash >>> 13), 0xc2b2ae35);
  return hash ^ (hash >>> 16);
}

/** Lists of words, each with a number: that of the first equal one. */
export class WordLists {
  /** All lists one after another. */
  readonly words: number[] = [];
  readonly #ends: number[] = [];
  #table: Int32Array = new Int32Array(64).fill(-1);

  get count(): number {
    return this.#ends.length;
  }

  #startOf(list: number): number {
    return list === 0 ? 0 : (this.#ends[list - 1] as number); // lists are numbered in order
  }

  #equals(list: number, start: number): boolean {
    const { words } = this;
    let at = this.#startOf(list);
    const end = this.#ends[list] as number; // as above
    if (end - at !== words.length - start) return false;
    for (let i = start; at < end; at++, i++) if (words[at] !== words[i]) return false;
    return true;
  }

  /** The number of a list equal to what was pushed to `words` since the last call, which goes again; -1 where there is none. */
  find(): number {
    const { words } = this;
    const start = this.#startOf(this.count);
    const mask = this.#table.length - 1;
    let at = hashOf(words, start) & mask;
    let list = this.#table[at] as number;
    while (list >= 0 && !this.#equals(list, start)) list = this.#table[(at = (at + 1) & mask)] as number;
    words.length = start;
    return list;
  }

  /** The number of the list that was pushed to `words` since the last call; it goes again where an equal one is there. */
  close(): number {
    const { words } = this;
    const start = this.#startOf(this.count);
    const mask = this.#table.length - 1;
    let at = hashOf(words, start) & mask;
    for (let list = this.#table[at] as number; list >= 0; list = this.#table[at] as number) {
      if (this.#equals(list, start)) {
        words.length = start;
        return list;
      }
      at = (at + 1) & mask;
    }
    this.#table[at] = this.count;
    this.#ends.push(words.length);
    if (this.count * 2 > this.#table.length) this.#grow();
    return this.count - 1;
  }

  #grow(): void {
    const table = new Int32Array(this.#table.length * 4).fill(-1);
    for (let list = 0; list < this.count; list++) {
      let at = hashOf(this.words, this.#startOf(list), this.#ends[list]) & (table.length - 1);
      while ((table[at] as number) >= 0) at = (at + 1) & (table.length - 1);
      table[at] = list;
    }
    this.#table = table;
  }
}

/** What nodes are besides their inputs, each once: equal nodes have the number of one form. */
export class Forms {
  readonly #lists = new WordLists();

  get count(): number {
    return this.#lists.count;
  }

  of(node: Node): number {
    pushNode(this.#lists.words, node);
    return this.#lists.close();
  }

  /** That of a node whose value lies in a storage. */
  ofLeaf({ dtype, shape }: Pick<Node, "dtype" | "shape">): number {
    const { words } = this.#lists;
    words.push(codeOf("buffer"), codeOf(dtype));
    pushList(words, shape);
    return this.#lists.close();
  }
}
