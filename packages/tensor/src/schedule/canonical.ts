import { GraphBuilder } from "../graph/builder.js";
import { compositeDefinition } from "../graph/composites.js";
import type { Device } from "../graph/device.js";
import { bufferOf, realizedStorage } from "../graph/live.js";
import { inputAt, inputsOf, type Node, topological, withInputs } from "../graph/node.js";
import { type NumberedGraph, orderOf } from "../graph/numbered.js";
import type { Storage } from "../graph/storage.js";
import { Tensor } from "../graph/tensor.js";
import { untracked } from "../graph/unread.js";
import type { Forms } from "../graph/words.js";
import { isNative } from "./native.js";
import { type Pair, pairsIn } from "./pair.js";
import { mayBeSimpler, simplify } from "./simplify.js";
import type { LiveGraph } from "./structure.js";
import { work } from "./work.js";

/**
 * The graph that is scheduled: equal subgraphs shared, detach and neutral operations gone, composites that the backend has no kernel for
 * replaced by their definition, and pairs of composites by the one that does the work of both. Its roots are in order;
 * with it are nodes that nothing needs.
 */
export function canonicalize(live: LiveGraph, device: Device, forms: Forms): NumberedGraph {
  return new Canon(device, forms, live.graph).graph(live);
}

/** The canonical graph as it is made. */
class Canon {
  readonly #builder: GraphBuilder;
  readonly #storages = new Map<Storage, number>();
  readonly #decomposed = new Map<Node, readonly Node[]>();
  /** What nodes of definitions and bodies are in the canonical graph. */
  readonly #inner = new Map<Node, Node>();

  constructor(
    readonly device: Device,
    readonly forms: Forms,
    like: NumberedGraph,
  ) {
    this.#builder = new GraphBuilder(like);
  }

  graph({ graph, storages }: LiveGraph): NumberedGraph {
    const { joint, after } = pairsIn(graph, this.device.backend);
    const order = orderOf(graph, graph.roots, after);
    work.nodes += order.length;
    /** The canonical number of each node. */
    const made = new Int32Array(graph.count);
    for (let i = 0; i < order.length; i++) {
      const number = order[i] as number; // within bounds
      const node = graph.nodes[number] as Node; // the graph's own number
      const storage = storages.get(number);
      const pair = storage || joint.size === 0 ? undefined : joint.get(node.op === "output" ? graph.input(number) : number);
      if (storage) made[number] = this.#leaf(bufferOf(storage, node));
      else if (pair) made[number] = this.#paired(node, pair, made);
      else made[number] = this.#rebuilt(graph, number, made);
    }
    return this.#builder.all(graph.roots.map((root) => made[root] as number));
  }

  /** The number of a node over the canonical forms of its inputs. */
  #rebuilt(graph: NumberedGraph, number: number, made: Int32Array): number {
    const builder = this.#builder;
    const { nodes, starts, inputs } = graph;
    const node = nodes[number] as Node; // the graph's own number
    const [start, end] = [starts[number] as number, starts[number + 1] as number];
    const form = graph.forms[number] as number;
    const hasForm = node.op !== "composite" || !node.bodies;
    let hash = 0;
    if (hasForm) {
      // What is there already is as simple as it can be.
      for (let edge = start; edge < end; edge++) builder.input(made[inputs[edge] as number] as number);
      hash = builder.hash(form);
      const found = builder.find(hash, form);
      if (found < 0 && !mayBeSimpler(node)) return builder.close(this.#over(graph, number, made), form, hash);
      builder.drop();
      if (found >= 0) return found;
    }
    const rebuilt = this.#over(graph, number, made);
    if (!hasForm) return this.#numberOf(this.#made(rebuilt));
    const count = builder.count;
    const simpler = this.#replaced(rebuilt);
    if (simpler) return this.#numberOf(this.#known(simpler));
    for (let edge = start; edge < end; edge++) builder.input(made[inputs[edge] as number] as number);
    // What was made to look for something simpler may be the node itself.
    const found = builder.count === count ? -1 : builder.find(hash, form);
    if (found < 0) return builder.close(rebuilt, form, hash);
    builder.drop();
    return found;
  }

  /** A node over the canonical forms of its inputs. */
  #over(graph: NumberedGraph, number: number, made: Int32Array): Node {
    const { nodes } = this.#builder;
    const { starts, inputs } = graph;
    const node = graph.nodes[number] as Node; // the graph's own number
    const [start, end] = [starts[number] as number, starts[number + 1] as number];
    if (end === start) return node;
    let isSame = true;
    for (let edge = start; edge < end && isSame; edge++)
      isSame = nodes[made[inputs[edge] as number] as number] === inputAt(node, edge - start);
    if (isSame) return node;
    const canonical = new Array<Node>(end - start);
    for (let edge = start; edge < end; edge++) canonical[edge - start] = nodes[made[inputs[edge] as number] as number] as Node;
    return withInputs(node, canonical);
  }

  #paired(node: Node, { both, inputs, shift }: Pair, made: Int32Array): number {
    const composite = this.#made(
      withInputs(
        both,
        inputs.map((input) => this.#builder.nodes[made[input] as number] as Node),
      ),
    );
    if (node.op !== "output") return this.#numberOf(composite);
    return this.#numberOf(this.make({ ...node, of: composite as typeof node.of, index: shift + node.index }));
  }

  #numberOf(node: Node): number {
    const number = this.#builder.numberOf(node);
    if (number < 0) throw new Error(`canonical: ${node.op} is not in the graph.`);
    return number;
  }

  #isCanonical(node: Node): boolean {
    return this.#builder.numberOf(node) >= 0;
  }

  /** Nodes of definitions and bodies, whose inputs are canonical or among them. */
  #visit(from: readonly Node[]): Node[] {
    const known = (node: Node): Node | undefined => (this.#isCanonical(node) ? node : this.#inner.get(node));
    const order = topological(from, (node) => (known(node) ? [] : inputsOf(node)));
    work.nodes += order.length;
    for (const node of order) {
      if (known(node)) continue;
      const storage = realizedStorage(node);
      const inputs = inputsOf(node).map((input) => known(input) as Node); // inputs come first
      this.#inner.set(
        node,
        storage ? (this.#builder.nodes[this.#leaf(bufferOf(storage, node))] as Node) : this.#made(withInputs(node, inputs)),
      );
    }
    return from.map((node) => known(node) as Node);
  }

  /** A node over canonical inputs. */
  #made(node: Node): Node {
    return this.make(node.op === "composite" && node.bodies ? { ...node, bodies: this.#visit(node.bodies) } : node);
  }

  #leaf(node: Node & { readonly op: "buffer" }): number {
    let storage = this.#storages.get(node.storage);
    if (storage === undefined) this.#storages.set(node.storage, (storage = this.#storages.size));
    const form = this.forms.ofLeaf(node);
    const hash = this.#builder.hash(form, storage);
    const found = this.#builder.find(hash, form, storage);
    return found < 0 ? this.#builder.close(node, form, hash, storage) : found;
  }

  #intern(node: Node, form: number): Node {
    const builder = this.#builder;
    for (const input of inputsOf(node)) builder.input(this.#numberOf(input));
    const hash = builder.hash(form);
    const found = builder.find(hash, form);
    if (found < 0) return builder.nodes[builder.close(node, form, hash)] as Node;
    builder.drop();
    return builder.nodes[found] as Node;
  }

  /** A node over canonical inputs, as simple as it can be said. */
  readonly make = (node: Node): Node => {
    const replaced = this.#replaced(node);
    return replaced ? this.#known(replaced) : this.#intern(node, this.forms.of(node));
  };

  /** What says a node in less: canonical, or to be made so. */
  #known(replaced: Node): Node {
    return this.#isCanonical(replaced) ? replaced : this.make(replaced);
  }

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
      results = this.#visit(made.map((t) => t.node));
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
