import { grad, nn } from "@lowrank/autograd";
import {
  attention,
  compile,
  type Device,
  device,
  Generator,
  linearCrossEntropy,
  type Node,
  type Tensor,
  tensor,
  topological,
} from "@lowrank/tensor";
import { beforeAll, expect, test } from "vitest";

let dev: Device;

beforeAll(async () => {
  dev = await device("reference");
});

/** Nodes that `after` needs and `before` does not. */
function added(before: readonly Tensor[], after: readonly Tensor[]): Node[] {
  const old = new Set(topological(before.map((t) => t.node)));
  return topological(after.map((t) => t.node)).filter((node) => !old.has(node));
}

const countOf = (nodes: readonly Node[], op: Node["op"]): number => nodes.filter((node) => node.op === op).length;

function network(): { layers: nn.Linear[]; loss: Tensor } {
  const generator = new Generator(dev, 0);
  const layers = [nn.Linear.init(4, 5, { generator }), nn.Linear.init(5, 6, { generator }), nn.Linear.init(6, 1, { generator })];
  const x = tensor([[1, 2, 3, 4]], { device: dev });
  const loss = layers.reduce((hidden, layer) => layer.forward(hidden).tanh(), x).sum();
  return { layers, loss };
}

test("a frozen weight has no gradient node: of 3 layers, training the last records 1 product and none below it", () => {
  const { layers, loss } = network();
  const last = added([loss], grad(loss, [layers[2]?.weight as Tensor]));
  expect(countOf(last, "matmul")).toBe(1);
  // dW of the first alone: dY through two layers, then one product with x; no dW of the others.
  const first = added([loss], grad(loss, [layers[0]?.weight as Tensor]));
  expect(countOf(first, "matmul")).toBe(3);
  // All weights: one dW each, and dX for two.
  const all = added(
    [loss],
    grad(
      loss,
      layers.map((layer) => layer.weight),
    ),
  ); // prettier-ignore
  expect(countOf(all, "matmul")).toBe(5);
  expect(
    all.some((node) => layers.some((layer) => layer.bias && node.shape.join() === layer.bias.shape.join() && node.op === "reduce")),
  ).toBe(false);
});

test("nothing at all is recorded for what the loss does not reach", () => {
  const { loss } = network();
  const other = tensor([1, 2], { device: dev });
  expect(added([loss], grad(loss, [other])).map((node) => node.op)).toEqual(["const"]);
});

test("a frozen head gets no gradient from linearCrossEntropy", () => {
  const hidden = tensor([[1, 2, 3]], { device: dev });
  const weight = tensor(
    [
      [1, 2, 3],
      [3, 2, 1],
    ],
    { device: dev },
  ); // prettier-ignore
  const loss = linearCrossEntropy(hidden, weight, tensor([1], { device: dev, dtype: "i32" })).sum();
  const results = (wrt: readonly Tensor[]): number[] =>
    added([loss], grad(loss, wrt)).flatMap((node) => (node.op === "composite" ? [node.outputs.length] : []));
  expect(results([hidden])).toEqual([1]);
  expect(results([hidden, weight])).toEqual([2]);
});

test("attention is differentiated by its own backward primitive", () => {
  const x = new Generator(dev, 1).normal([1, 2, 3, 4]);
  const loss = attention(x, x, x, { isCausal: true }).sum();
  const names = added([loss], grad(loss, [x])).flatMap((node) => (node.op === "composite" ? [node.name] : []));
  expect(names).toEqual(["attentionBackward"]);
});

test("a gradient inside a compiled function sees its arguments as variables", async () => {
  const slope = compile((x: Tensor) => grad(x.pow(3).sum(), [x])[0] as Tensor);
  expect([...(await slope(tensor([1, 2], { device: dev })).data())]).toEqual([3, 12]);
  expect([...(await slope(tensor([3, 4], { device: dev })).data())]).toEqual([27, 48]);
});
