import { inputsOf, type Node, topological, withInputs } from "../graph/node.js";
import { sameShape, sizeOf } from "../tensor/shape.js";

type Matmul = Node & { readonly op: "matmul" };
type Product = NonNullable<Matmul["plus"]>[number];

/**
 * The graph with products of matrices that are only added to one another as one node, and a product over columns put side by side as the
 * sum of the products over each part: nothing is stored for the sake of the sum, nor for what was put side by side. Products of fewer
 * rows than `leastRows` stay as they are. Returns the roots in order.
 */
export function withSums(roots: readonly Node[], leastRows: number): Node[] {
  const order = topological(roots);
  const summer = new Summer(usesOf(roots, order), leastRows);
  for (const node of order) summer.add(node);
  return roots.map((root) => summer.now(root));
}

function usesOf(roots: readonly Node[], order: readonly Node[]): Map<Node, readonly (Node | null)[]> {
  const uses = new Map<Node, (Node | null)[]>();
  const use = (node: Node, user: Node | null): void => {
    const list = uses.get(node);
    if (list) list.push(user);
    else uses.set(node, [user]);
  };
  for (const root of roots) use(root, null);
  for (const node of order) for (const input of inputsOf(node)) use(input, node);
  return uses;
}

class Summer {
  readonly #made = new Map<Node, Node>();

  constructor(
    /** Who reads a node; null stands for a result. */
    readonly uses: ReadonlyMap<Node, readonly (Node | null)[]>,
    readonly leastRows: number,
  ) {}

  /** What a node of the old graph is in the new one. */
  now(node: Node): Node {
    return this.#made.get(node) ?? node;
  }

  add(node: Node): void {
    const inputs = inputsOf(node);
    const rebuilt = inputs.some((input) => this.now(input) !== input)
      ? withInputs(
          node,
          inputs.map((input) => this.now(input)),
        )
      : node;
    this.#made.set(node, this.#sum(node) ?? this.#parted(node) ?? rebuilt);
  }

  #isUsedOnce(node: Node): boolean {
    return this.uses.get(node)?.length === 1;
  }

  /** The products over the parts of a product's inner axis that its left operand is put together from. */
  #parted(node: Node): Node | null {
    const parts = node.op === "matmul" && this.#isLarge(node) ? this.#partsOf(node) : null;
    return parts && joined(parts, node.shape);
  }

  #isLarge({ shape }: Node): boolean {
    return shape.length === 2 && (shape[0] ?? 0) >= this.leastRows;
  }

  #partsOf(product: Matmul): Product[] | null {
    const [rows = 1, inner = 1] = product.a.shape;
    let joint = product.a;
    while (joint.op === "reshape" && joint.x.shape.at(-1) === inner && this.#isUsedOnce(joint)) joint = joint.x;
    const pads = this.#padsOf(joint);
    if (!pads || pads.reduce((sum, { x }) => sum + (x.shape.at(-1) ?? 1), 0) > inner) return null;
    const b = this.now(product.b);
    return pads.map(({ x, before }) => {
      const size = x.shape.at(-1) ?? 1;
      const shape = [size, product.shape[1] ?? 1];
      return {
        a: { op: "reshape", x: this.now(x), shape: [rows, size], dtype: x.dtype },
        b: { op: "slice", x: b, starts: [before.at(-1) ?? 0, 0], steps: [1, 1], shape, dtype: b.dtype },
        factor: 1,
      };
    });
  }

  /** The parts whose sum this is, each with zeros beside it on the last axis and nowhere else; null where it is anything else. */
  #padsOf(joint: Node): (Node & { readonly op: "pad" })[] | null {
    const pads: (Node & { readonly op: "pad" })[] = [];
    const stack = [joint];
    for (let node = stack.pop(); node; node = stack.pop()) {
      if (!this.#isUsedOnce(node)) return null;
      if (isSum(node)) stack.push(node.b, node.a);
      else if (node.op === "pad" && isPart(node)) pads.push(node);
      else return null;
    }
    return pads;
  }

  /** A sum in which some terms are products: those of one shape as one node, where the first of them stood. */
  #sum(node: Node): Node | null {
    const [user] = this.uses.get(node) ?? [];
    if (!isSum(node) || (this.#isUsedOnce(node) && user && isSum(user))) return null;
    const terms = this.#termsOf(node);
    const groups = new Map<string, { products: Product[]; shape: readonly number[]; count: number }>();
    const found = terms.map((term) => {
      const products = this.#productsOf(term);
      if (!products) return null;
      const key = products.shape.join();
      const group = groups.get(key) ?? { products: [], shape: products.shape, count: 0 };
      for (const product of products.products) group.products.push(product);
      group.count++;
      groups.set(key, group);
      return group;
    });
    if (![...groups.values()].some((group) => group.count > 1)) return null;
    const written = new Set<unknown>();
    const parts = terms.flatMap((term, i): Node[] => {
      const group = found[i];
      if (!group || group.count < 2) return [this.now(term)];
      if (written.has(group)) return [];
      written.add(group);
      return [reshaped(joined(group.products, group.shape), term.shape)];
    });
    return parts.reduce((a, b) => ({ ...node, a, b }));
  }

  /** The terms of a sum, whose own sums nothing else reads. */
  #termsOf(sum: Node): Node[] {
    const terms: Node[] = [];
    const stack = [sum];
    for (let node = stack.pop(); node; node = stack.pop()) {
      if (isSum(node) && (node === sum || this.#isUsedOnce(node))) stack.push(node.b, node.a);
      else terms.push(node);
    }
    return terms;
  }

  /** The products that a term of a sum is, times a number and seen through reshapes, where nothing else reads them. */
  #productsOf(term: Node): { readonly products: readonly Product[]; readonly shape: readonly number[] } | null {
    let [node, factor] = [term, 1];
    while (this.#isUsedOnce(node)) {
      if (node.op === "matmul") {
        if (!this.#isLarge(node)) return null;
        const parts = this.#partsOf(node) ?? [{ a: this.now(node.a), b: this.now(node.b), factor: 1 }];
        return { products: parts.map((part) => ({ ...part, factor })), shape: node.shape };
      }
      if (node.op === "reshape") node = node.x;
      else if (node.op === "binary" && node.kind === "mul" && node.b.op === "const" && isUsable(node.b.value)) {
        factor *= node.b.value;
        node = node.a;
      } else return null;
    }
    return null;
  }
}

/** Whether x has zeros beside it on the last axis and nowhere else. */
function isPart({ x, value, shape }: Node & { readonly op: "pad" }): boolean {
  return value === 0 && sameShape(shape.slice(0, -1), x.shape.slice(0, -1)) && sizeOf(x.shape) > 0;
}

function isSum(node: Node): node is Node & { readonly op: "binary" } {
  return node.op === "binary" && node.kind === "add" && node.dtype === "f32";
}

/** Whether the product that comes first may be taken out of a sum with this factor. */
function isUsable(factor: number): boolean {
  return Number.isFinite(factor) && Math.abs(factor) > 1e-6 && Math.abs(factor) < 1e6;
}

function reshaped(x: Node, shape: readonly number[]): Node {
  return sameShape(x.shape, shape) ? x : { op: "reshape", x, shape, dtype: x.dtype };
}

/** The sum of products; the one with the most multiplications that has no factor is the node's own. */
function joined(products: readonly Product[], shape: readonly number[]): Node {
  const inner = ({ a }: Product): number => a.shape.at(-1) ?? 1;
  const [first, ...plus] = [...products].sort((x, y) => Number(y.factor === 1) - Number(x.factor === 1) || inner(y) - inner(x));
  if (!first) throw new Error("sums: no products.");
  const others = plus.map((product) => ({ ...product, factor: product.factor / first.factor }));
  const sum: Node = { op: "matmul", a: first.a, b: first.b, shape, dtype: "f32", ...(others.length > 0 && { plus: others }) };
  if (first.factor === 1) return sum;
  return { op: "binary", kind: "mul", a: sum, b: { op: "const", value: first.factor, shape, dtype: "f32" }, shape, dtype: "f32" };
}
