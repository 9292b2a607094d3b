import { compositeDefinition, dtypeBytes, inputsOf, type Node, sizeOf, topological } from "@lowrank/tensor";
import type { Targets } from "./observe.js";

/**
 * Bytes that any schedule of a graph has to move, in a simple model. Matrix products, attention, the cross-entropy, gathers and scatters
 * stay kernels of their own: each reads each of its distinct operands once and writes each result that is used once. Everything else
 * (elementwise work, norms, movement) is taken to fuse into them for nothing. Besides, buffers that none of them reads (the optimizer's
 * state, biases) are read once, and results of the step that none of them writes are written once. A broadcast or sliced operand counts
 * with the elements that exist or are used, a gather with the rows that it takes.
 */
export function minimumBytes(targets: Targets): number {
  const order = topological(targets.map(({ value }) => value));
  const read = new Set<Node>();
  const counted = new Set<Node>();
  let bytes = 0;
  for (const node of order) {
    if (isElementwise(node)) continue;
    switch (node.op) {
      case "gather":
        bytes += 2 * bytesOf(node) + bytesOf(node.indices);
        read.add(source(node.x).node).add(source(node.indices).node);
        counted.add(node);
        break;
      case "matmul":
      case "scatterAdd":
      case "composite": {
        const operands = new Map(inputsOf(node).map((input) => [source(input).node, source(input).bytes]));
        for (const [operand, size] of operands) {
          bytes += size;
          read.add(operand);
        }
        if (node.op !== "composite") bytes += bytesOf(node);
        counted.add(node);
        break;
      }
      case "output":
        bytes += bytesOf(node);
        counted.add(node);
        break;
      default:
    }
  }
  for (const node of order) if (node.op === "buffer" && !read.has(node)) bytes += bytesOf(node);
  for (const { value } of targets) if (!counted.has(source(value).node)) bytes += bytesOf(value);
  return bytes;
}

/** A composite that is elementwise work like any other, or its result. */
function isElementwise(node: Node): boolean {
  const composite = node.op === "output" ? node.of : node;
  return composite.op === "composite" && compositeDefinition(composite.name).isElementwise === true;
}

function bytesOf({ shape, dtype }: Node): number {
  return sizeOf(shape) * dtypeBytes[dtype];
}

/** What lies behind views and casts, and the fewest bytes on the way there: what has to be read of it. */
function source(node: Node): { readonly node: Node; readonly bytes: number } {
  let at = node;
  let bytes = bytesOf(at);
  while (isView(at)) {
    at = at.x;
    bytes = Math.min(bytes, bytesOf(at));
  }
  return { node: at, bytes };
}

type View = Node & { readonly op: "reshape" | "permute" | "expand" | "slice" | "pad" | "cast" | "detach" };

function isView(node: Node): node is View {
  return ["reshape", "permute", "expand", "slice", "pad", "cast", "detach"].includes(node.op);
}
