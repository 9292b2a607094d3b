import { compositeDefinition } from "../graph/composites.js";
import type { Device } from "../graph/device.js";
import { bufferOf, realizedStorage } from "../graph/live.js";
import { inputsOf, type Node, topological, withInputs } from "../graph/node.js";
import type { Storage } from "../graph/storage.js";
import { Tensor } from "../graph/tensor.js";
import { untracked } from "../graph/unread.js";
import { NodeTable } from "../graph/words.js";
import { isNative } from "./native.js";
import { noPairs, type Pairs } from "./pair.js";
import { simplify } from "./simplify.js";
import { work } from "./work.js";

/**
 * The graph that is scheduled: equal subgraphs shared, detach and neutral operations gone, composites that the backend has no kernel for
 * replaced by their definition, and `pairs` of composites by the one that does the work of both. Returns the roots in order.
 */
export function canonicalize(roots: readonly Node[], device: Device, pairs: Pairs = noPairs): Node[] {
  return new Canon(device, pairs).visit(roots);
}

/** The canonical graph as it is made, and what each node of the given graph is in it. */
class Canon {
  readonly #table = new NodeTable();
  /** Nodes of the canonical graph by their number. */
  readonly #nodes: Node[] = [];
  readonly #numbers = new Map<Node, number>();
  readonly #canonical = new Map<Node, Node>();
  readonly #storages = new Map<Storage, number>();
  readonly #decomposed = new Map<Node, readonly Node[]>();

  constructor(
    readonly device: Device,
    readonly pairs: Pairs,
  ) {}

  visit(from: readonly Node[]): Node[] {
    const order = topological(from, (node) => (this.#canonical.has(node) ? [] : this.pairs.inputsOf(node)));
    work.nodes += order.length;
    for (const node of order) if (!this.#canonical.has(node)) this.#canonical.set(node, this.#of(node));
    return from.map((node) => this.#now(node));
  }

  #now(node: Node): Node {
    return this.#canonical.get(node) as Node; // inputs come first
  }

  #of(node: Node): Node {
    const storage = realizedStorage(node);
    if (storage) return this.#intern(bufferOf(storage, node));
    const pair = this.pairs.of(node);
    if (pair && node.op === "output")
      return this.make({ ...node, of: this.#now(node.of) as typeof node.of, index: pair.shift + node.index });
    const given = pair?.both ?? node;
    const inputs = inputsOf(given);
    const isSame = given === node && inputs.every((input) => this.#now(input) === input);
    const rebuilt = isSame
      ? node
      : withInputs(
          given,
          inputs.map((input) => this.#now(input)),
        );
    return this.make(rebuilt.op === "composite" && rebuilt.bodies ? { ...rebuilt, bodies: this.visit(rebuilt.bodies) } : rebuilt);
  }

  #intern(node: Node): Node {
    let number: number;
    if (node.op === "buffer") {
      const storage = this.#storages.get(node.storage) ?? this.#storages.size;
      this.#storages.set(node.storage, storage);
      number = this.#table.leaf(node, storage);
    } else {
      const inputs = inputsOf(node).map((input) => this.#numbers.get(input) as number); // inputs are canonical
      number = this.#table.number(node, inputs);
    }
    const found = this.#nodes[number];
    if (found) return found;
    this.#nodes.push(node);
    this.#numbers.set(node, number);
    this.#canonical.set(node, node);
    return node;
  }

  /** A node over canonical inputs, as simple as it can be said. */
  readonly make = (node: Node): Node => {
    const replaced = this.#replaced(node);
    if (!replaced) return this.#intern(node);
    return this.#numbers.has(replaced) ? replaced : this.make(replaced);
  };

  #replaced(node: Node): Node | null {
    if (node.op === "detach") return node.x;
    if (node.op === "output" && !isNative(node.of, this.device.backend)) return this.#definition(node.of)[node.index] ?? null;
    return simplify(node, this.make);
  }

  /** The results of a composite in terms of other operations. */
  #definition(node: Node & { op: "composite" }): readonly Node[] {
    let results = this.#decomposed.get(node);
    if (!results) {
      const { name, inputs, attributes, bodies } = node;
      const made = untracked(() =>
        compositeDefinition(name).decompose(
          inputs.map((input) => new Tensor(input, this.device)),
          attributes,
          bodies,
        ),
      );
      results = this.visit(made.map((t) => t.node));
      this.#decomposed.set(node, results);
    }
    return results;
  }
}

/**
 * True when the device computes `t`, a result of a composite such as `attention`, with a kernel of its own for these shapes; otherwise
 * primitives compute it.
 */
export function hasOwnKernel({ node, device }: Tensor): boolean {
  return node.op === "output" && isNative(node.of, device.backend);
}
