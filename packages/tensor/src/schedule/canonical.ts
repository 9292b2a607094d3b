import type { Backend } from "../backends/backend.js";
import type { Device } from "../backends/device.js";
import { compositeDefinition } from "../graph/composites.js";
import { bufferOf, liveInputs, realizedStorage } from "../graph/live.js";
import { inputsOf, type Node, topological, withInputs } from "../graph/node.js";
import { untracked } from "../graph/unread.js";
import type { Storage } from "../tensor/storage.js";
import { Tensor } from "../tensor/tensor.js";
import type { Target } from "./executor.js";
import { simplify } from "./simplify.js";

/** What identifies a graph apart from which storages it reads and writes. */
export interface Structure {
  /** Equal for graphs that one plan can serve. */
  readonly key: string;
  /** The storages that the graph reads, in the order of first appearance. */
  readonly inputs: readonly Storage[];
}

/** The facts of a node besides its inputs. */
function signature(node: Node): string {
  const type = `${node.dtype}[${node.shape.join()}]`;
  switch (node.op) {
    case "const":
      return `const ${Object.is(node.value, -0) ? "-0" : node.value} ${type}`;
    case "iota":
      return `iota ${node.axis} ${type}`;
    case "random":
      return `random ${node.stream} ${type}`;
    case "unary":
    case "binary":
      return `${node.kind} ${type}`;
    case "reduce":
      return `${node.kind}(${node.axes.join()}) ${type}`;
    case "permute":
      return `permute(${node.order.join()}) ${type}`;
    case "slice":
      return `slice(${node.starts.join()};${node.steps.join()}) ${type}`;
    case "pad":
      return `pad(${node.before.join()};${node.value}) ${type}`;
    case "gather":
      return `gather ${node.axis} ${type}`;
    case "composite":
      return `${node.name} ${JSON.stringify(node.attributes)} ${type}${(node.bodies ?? []).map((body) => `{${bodyText(body)}}`).join("")}`;
    case "argument":
      return `argument ${node.index} ${type}`;
    case "output":
      return `output ${node.index} ${type}`;
    case "dynamicSlice":
    case "dynamicUpdateSlice":
    case "buffer":
    case "select":
    case "cast":
    case "detach":
    case "reshape":
    case "expand":
    case "scatterAdd":
    case "matmul":
      return `${node.op} ${type}`;
  }
}

const bodyTexts = new WeakMap<Node, string>();

/** Equal for equal bodies of composites. */
function bodyText(body: Node): string {
  const known = bodyTexts.get(body);
  if (known !== undefined) return known;
  const numbers = new Map<Node, number>();
  const lines = topological([body]).map((node) => {
    numbers.set(node, numbers.size);
    return `${signature(node)} ${inputsOf(node)
      .map((input) => numbers.get(input))
      .join()}`;
  });
  const text = lines.join(";");
  bodyTexts.set(body, text);
  return text;
}

/** Describes the graph behind the targets; equal nodes are described once. */
export function structureOf(targets: readonly Target[]): Structure {
  const inputs: Storage[] = [];
  const numbers = new Map<Node, number>();
  const byLine = new Map<string, number>();
  const storages = new Map<Storage, number>();
  const inputNumber = (storage: Storage): number => {
    let number = storages.get(storage);
    if (number === undefined) {
      number = inputs.length;
      inputs.push(storage);
      storages.set(storage, number);
    }
    return number;
  };
  const order = topological(
    targets.map((target) => target.value),
    liveInputs,
  );
  for (const node of order) {
    const storage = realizedStorage(node);
    const line = storage
      ? `buffer ${inputNumber(storage)} ${node.dtype}[${node.shape.join()}]`
      : `${signature(node)} ${inputsOf(node)
          .map((input) => numbers.get(input))
          .join()}`;
    const number = byLine.get(line) ?? byLine.size;
    byLine.set(line, number);
    numbers.set(node, number);
  }
  const results = targets.map(({ storage, value }) => `${numbers.get(value)}>${storages.get(storage) ?? "new"}:${storage.dtype}`);
  return { key: [...byLine.keys(), ...results].join("\n"), inputs };
}

/**
 * The graph that is scheduled: equal subgraphs shared, detach and neutral operations gone, composites that the backend has no kernel for
 * replaced by their definition. Returns the roots in order.
 */
export function canonicalize(roots: readonly Node[], device: Device): Node[] {
  const byLine = new Map<string, Node>();
  const numbers = new Map<Node, number>();
  const canonical = new Map<Node, Node>();
  const storages = new Map<Storage, number>();
  const intern = (node: Node): Node => {
    const leaf = node.op === "buffer" ? `#${storages.get(node.storage) ?? storages.set(node.storage, storages.size).size - 1}` : "";
    const line = `${signature(node)}${leaf} ${inputsOf(node)
      .map((input) => numbers.get(input))
      .join()}`;
    const found = byLine.get(line);
    if (found) return found;
    byLine.set(line, node);
    numbers.set(node, numbers.size);
    canonical.set(node, node);
    return node;
  };
  const visit = (from: readonly Node[]): Node[] => {
    for (const node of topological(from, (n) => (canonical.has(n) ? [] : liveInputs(n)))) {
      if (canonical.has(node)) continue;
      const storage = realizedStorage(node);
      if (storage) {
        canonical.set(node, intern(bufferOf(storage, node)));
        continue;
      }
      const inputs = inputsOf(node).map((input) => canonical.get(input) as Node);
      const rebuilt = withInputs(node, inputs);
      const { bodies } = rebuilt as Partial<Node & { op: "composite" }>;
      canonical.set(node, make(bodies ? ({ ...rebuilt, bodies: visit(bodies) } as Node) : rebuilt));
    }
    return from.map((node) => canonical.get(node) as Node);
  };
  /** A node over canonical inputs, as simple as it can be said. */
  const make = (node: Node): Node => {
    const replaced = replace(node, device.backend);
    if (!replaced) return intern(node);
    return numbers.has(replaced) ? replaced : make(replaced);
  };
  const decomposed = new Map<Node, readonly Node[]>();
  const replace = (node: Node, backend: Backend): Node | null => {
    if (node.op === "detach") return node.x;
    if (node.op === "output" && !isNative(node.of, backend)) {
      let results = decomposed.get(node.of);
      if (!results) {
        const { name, inputs, attributes, bodies } = node.of;
        const made = untracked(() =>
          compositeDefinition(name).decompose(
            inputs.map((input) => new Tensor(input, device)),
            attributes,
            bodies,
          ),
        );
        results = visit(made.map((t) => t.node));
        decomposed.set(node.of, results);
      }
      return results[node.index] ?? null;
    }
    return simplify(node, make);
  };
  return visit(roots);
}

/**
 * True when the device computes `t`, a result of a composite such as `attention`, with a kernel of its own for these shapes; otherwise
 * primitives compute it.
 */
export function hasOwnKernel({ node, device }: Tensor): boolean {
  return node.op === "output" && isNative(node.of, device.backend);
}

/** True when the backend runs the composite with a kernel of its own. */
export function isNative(node: Node & { op: "composite" }, backend: Backend): boolean {
  return backend.supports({
    kind: "composite",
    name: node.name,
    attributes: node.attributes,
    inputs: node.inputs.map((_, i) => i),
    inputShapes: node.inputs.map((input) => input.shape),
    outputs: node.outputs.map((_, i) => i),
    outputShapes: node.outputs.map((output) => output.shape),
  });
}
