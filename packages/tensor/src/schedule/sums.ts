import { GraphBuilder } from "../graph/builder.js";
import { type Node, withInputs } from "../graph/node.js";
import { type NumberedGraph, orderOf, pruned } from "../graph/numbered.js";
import type { Forms } from "../graph/words.js";
import { sameShape, sizeOf } from "../tensor/shape.js";

type Matmul = Node & { readonly op: "matmul" };

/** A product of two nodes of the new graph, times a number. */
interface Product {
  readonly a: number;
  readonly b: number;
  readonly factor: number;
}

/**
 * The graph with products of matrices that are only added to one another as one node, and a product over columns put side by side as the
 * sum of the products over each part: nothing is stored for the sake of the sum, nor for what was put side by side. Products of fewer
 * rows than `leastRows` stay as they are.
 */
export function withSums(graph: NumberedGraph, leastRows: number, forms: Forms): NumberedGraph {
  return new Summer(graph, leastRows, forms).graph();
}

class Summer {
  readonly #builder: GraphBuilder;
  /** The nodes that roots need, inputs before users. */
  readonly #order: Int32Array;
  /** For each node of the old graph its number in the new one. */
  readonly #made: Int32Array;
  /** How often a node is read, as a result or by others; and the one that reads it, -1 for a result. */
  readonly #useCounts: Int32Array;
  readonly #user: Int32Array;

  constructor(
    readonly old: NumberedGraph,
    readonly leastRows: number,
    readonly forms: Forms,
  ) {
    const { count, starts, inputs, roots } = old;
    this.#builder = new GraphBuilder(old);
    this.#order = orderOf(old, roots);
    this.#made = new Int32Array(count);
    this.#useCounts = new Int32Array(count);
    this.#user = new Int32Array(count).fill(-1);
    const [counts, user] = [this.#useCounts, this.#user];
    for (const root of roots) counts[root] = (counts[root] as number) + 1;
    for (let at = 0; at < this.#order.length; at++) {
      const i = this.#order[at] as number; // within bounds
      const end = starts[i + 1] as number;
      for (let edge = starts[i] as number; edge < end; edge++) {
        const input = inputs[edge] as number;
        counts[input] = (counts[input] as number) + 1;
        user[input] = i;
      }
    }
  }

  graph(): NumberedGraph {
    const { old } = this;
    const { nodes } = old;
    for (let at = 0; at < this.#order.length; at++) {
      const i = this.#order[at] as number; // within bounds
      const { op } = nodes[i] as Node; // the graph's own number
      const replaced = op === "matmul" ? this.#parted(i) : op === "binary" ? this.#sum(i) : null;
      this.#made[i] = replaced ?? this.#kept(i);
    }
    return pruned(this.#builder.all(old.roots.map((root) => this.#now(root))));
  }

  /** What a node of the old graph is in the new one. */
  #now(old: number): number {
    return this.#made[old] as number; // inputs come first
  }

  #node(made: number): Node {
    return this.#builder.nodes[made] as Node;
  }

  #kept(i: number): number {
    const { nodes: before, starts, inputs, forms } = this.old;
    const made = this.#made;
    const { nodes } = this.#builder;
    const [start, end] = [starts[i] as number, starts[i + 1] as number];
    let isSame = true;
    for (let edge = start; edge < end; edge++) {
      const input = inputs[edge] as number;
      const now = made[input] as number; // inputs come first
      this.#builder.input(now);
      if (nodes[now] !== before[input]) isSame = false;
    }
    const node = before[i] as Node; // within bounds
    if (isSame) return this.#builder.close(node, forms[i] as number);
    const over = new Array<Node>(end - start);
    for (let edge = start; edge < end; edge++) over[edge - start] = nodes[made[inputs[edge] as number] as number] as Node;
    return this.#builder.close(withInputs(node, over), forms[i] as number);
  }

  /** Adds a node that the old graph does not have. */
  #add(node: Node, inputs: readonly number[]): number {
    for (const input of inputs) this.#builder.input(input);
    return this.#builder.close(node, this.forms.of(node));
  }

  #isUsedOnce(old: number): boolean {
    return this.#useCounts[old] === 1;
  }

  #isSum(old: number): boolean {
    const node = this.old.nodes[old] as Node; // the graph's own number
    return node.op === "binary" && node.kind === "add" && node.dtype === "f32";
  }

  /** The products over the parts of a product's inner axis that its left operand is put together from. */
  #parted(i: number): number | null {
    const node = this.old.node(i);
    const parts = node.op === "matmul" && this.#isLarge(node) ? this.#partsOf(i, node) : null;
    return parts && this.#joined(parts, node.shape);
  }

  #isLarge({ shape }: Node): boolean {
    return shape.length === 2 && (shape[0] ?? 0) >= this.leastRows;
  }

  #partsOf(i: number, { a, shape }: Matmul): Product[] | null {
    const { old } = this;
    const [rows = 1, inner = 1] = a.shape;
    let joint = old.input(i);
    for (
      let node = old.node(joint);
      node.op === "reshape" && node.x.shape.at(-1) === inner && this.#isUsedOnce(joint);
      node = old.node(joint)
    )
      joint = old.input(joint);
    const pads = this.#padsOf(joint);
    if (!pads || pads.reduce((sum, { pad }) => sum + (pad.x.shape.at(-1) ?? 1), 0) > inner) return null;
    const right = this.#now(old.input(i, 1));
    return pads.map(({ number, pad }) => {
      const x = this.#now(old.input(number));
      const left = this.#node(x);
      const size = pad.x.shape.at(-1) ?? 1;
      const b = this.#node(right);
      const starts = [pad.before.at(-1) ?? 0, 0];
      return {
        a: this.#add({ op: "reshape", x: left, shape: [rows, size], dtype: left.dtype }, [x]),
        b: this.#add({ op: "slice", x: b, starts, steps: [1, 1], shape: [size, shape[1] ?? 1], dtype: b.dtype }, [right]),
        factor: 1,
      };
    });
  }

  /** The parts whose sum this is, each with zeros beside it on the last axis and nowhere else; null where it is anything else. */
  #padsOf(joint: number): { readonly number: number; readonly pad: Node & { readonly op: "pad" } }[] | null {
    const { op } = this.old.node(joint);
    if (op !== "pad" && op !== "binary") return null;
    const pads: { readonly number: number; readonly pad: Node & { readonly op: "pad" } }[] = [];
    const stack = [joint];
    for (let number = stack.pop(); number !== undefined; number = stack.pop()) {
      if (!this.#isUsedOnce(number)) return null;
      const node = this.old.node(number);
      if (this.#isSum(number)) stack.push(this.old.input(number, 1), this.old.input(number));
      else if (node.op === "pad" && isPart(node)) pads.push({ number, pad: node });
      else return null;
    }
    return pads;
  }

  /** A sum in which some terms are products: those of one shape as one node, where the first of them stood. */
  #sum(i: number): number | null {
    const user = this.#user[i] as number;
    if (!this.#isSum(i) || (this.#isUsedOnce(i) && user >= 0 && this.#isSum(user))) return null;
    const terms = this.#termsOf(i);
    const productsOf = terms.map((term) => this.#productsOf(term));
    if (productsOf.filter((products) => products !== null).length < 2) return null;
    const groups = new Map<string, { products: Product[]; shape: readonly number[]; count: number }>();
    const found = productsOf.map((products) => {
      if (!products) return null;
      const key = products.shape.join();
      const group = groups.get(key) ?? { products: [], shape: products.shape, count: 0 };
      for (const product of products.products()) group.products.push(product);
      group.count++;
      groups.set(key, group);
      return group;
    });
    if (![...groups.values()].some((group) => group.count > 1)) return null;
    const written = new Set<unknown>();
    const parts = terms.flatMap((term, at): number[] => {
      const group = found[at];
      if (!group || group.count < 2) return [this.#now(term)];
      if (written.has(group)) return [];
      written.add(group);
      return [this.#reshaped(this.#joined(group.products, group.shape), this.old.node(term).shape)];
    });
    const sum = this.old.node(i) as Node & { readonly op: "binary" }; // isSum
    return parts.reduce((a, b) => this.#add({ ...sum, a: this.#node(a), b: this.#node(b) }, [a, b]));
  }

  /** The terms of a sum, whose own sums nothing else reads. */
  #termsOf(sum: number): number[] {
    const terms: number[] = [];
    const stack = [sum];
    for (let number = stack.pop(); number !== undefined; number = stack.pop()) {
      if (this.#isSum(number) && (number === sum || this.#isUsedOnce(number)))
        stack.push(this.old.input(number, 1), this.old.input(number));
      else terms.push(number);
    }
    return terms;
  }

  /** The products that a term of a sum is, times a number and seen through reshapes, where nothing else reads them. */
  #productsOf(term: number): { readonly products: () => readonly Product[]; readonly shape: readonly number[] } | null {
    const { old } = this;
    let number = term;
    let factor = 1;
    while (this.#isUsedOnce(number)) {
      const node = old.node(number);
      if (node.op === "matmul") {
        if (!this.#isLarge(node)) return null;
        const [product, by] = [number, factor];
        const products = (): Product[] => {
          const parts = this.#partsOf(product, node) ?? [
            { a: this.#now(old.input(product)), b: this.#now(old.input(product, 1)), factor: 1 },
          ];
          return parts.map((part) => ({ ...part, factor: by }));
        };
        return { products, shape: node.shape };
      }
      if (node.op === "reshape" || (node.op === "binary" && node.kind === "mul" && node.b.op === "const" && isUsable(node.b.value))) {
        if (node.op === "binary") factor *= (node.b as Node & { readonly op: "const" }).value;
        number = old.input(number);
      } else return null;
    }
    return null;
  }

  #reshaped(number: number, shape: readonly number[]): number {
    const x = this.#node(number);
    return sameShape(x.shape, shape) ? number : this.#add({ op: "reshape", x, shape, dtype: x.dtype }, [number]);
  }

  /** The sum of products; the one with the most multiplications that has no factor is the node's own. */
  #joined(products: readonly Product[], shape: readonly number[]): number {
    const inner = ({ a }: Product): number => this.#node(a).shape.at(-1) ?? 1;
    const [first, ...others] = [...products].sort((x, y) => Number(y.factor === 1) - Number(x.factor === 1) || inner(y) - inner(x));
    if (!first) throw new Error("sums: no products.");
    const plus = others.map(({ a, b, factor }) => ({ a: this.#node(a), b: this.#node(b), factor: factor / first.factor }));
    const node: Node = {
      op: "matmul",
      a: this.#node(first.a),
      b: this.#node(first.b),
      shape,
      dtype: "f32",
      ...(plus.length > 0 && { plus }),
    };
    const sum = this.#add(
      node,
      [first, ...others].flatMap(({ a, b }) => [a, b]),
    );
    if (first.factor === 1) return sum;
    const factor = this.#add({ op: "const", value: first.factor, shape, dtype: "f32" }, []);
    return this.#add({ op: "binary", kind: "mul", a: this.#node(sum), b: this.#node(factor), shape, dtype: "f32" }, [sum, factor]);
  }
}

/** Whether x has zeros beside it on the last axis and nowhere else. */
function isPart({ x, value, shape }: Node & { readonly op: "pad" }): boolean {
  return value === 0 && sameShape(shape.slice(0, -1), x.shape.slice(0, -1)) && sizeOf(x.shape) > 0;
}

/** Whether the product that comes first may be taken out of a sum with this factor. */
function isUsable(factor: number): boolean {
  return Number.isFinite(factor) && Math.abs(factor) > 1e-6 && Math.abs(factor) < 1e6;
}
