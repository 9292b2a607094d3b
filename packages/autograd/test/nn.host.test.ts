import { nn } from "@lowrank/autograd";
import { type Device, device, Generator, ShapeError, type Tensor, tensor } from "@lowrank/tensor";
import { beforeAll, describe, expect, test } from "vitest";

let dev: Device;
let generator: Generator;

beforeAll(async () => {
  dev = await device("reference");
  generator = new Generator(dev, 3);
});

class Block extends nn.Module {
  readonly up: nn.Linear;
  readonly down: nn.Linear;
  readonly drop: nn.Dropout;
  /** Not a parameter. */
  readonly table: Tensor;

  constructor() {
    super();
    this.up = nn.Linear.init(4, 8, { generator });
    this.down = nn.Linear.init(8, 4, { generator, bias: false });
    this.drop = new nn.Dropout(0.5, generator);
    this.table = tensor([1], { device: dev });
  }

  forward(x: Tensor): Tensor {
    return this.through(x, (input) => this.drop.forward(this.down.forward(this.up.forward(input).relu())));
  }
}

class Net extends nn.Module {
  readonly embed: nn.Embedding;
  readonly layers: readonly Block[];
  readonly head: nn.Linear;

  constructor() {
    super();
    this.embed = nn.Embedding.init(10, 4, { generator });
    this.layers = [new Block(), new Block()];
    this.head = new nn.Linear(this.embed.weight);
  }
}

describe("a module", () => {
  test("names its parameters by property, children in order, tied ones once", () => {
    const net = new Net();
    expect([...net.namedParameters().keys()]).toEqual([
      "embed.weight",
      "layers.0.up.weight",
      "layers.0.up.bias",
      "layers.0.down.weight",
      "layers.1.up.weight",
      "layers.1.up.bias",
      "layers.1.down.weight",
    ]);
    expect([...net.namedModules().keys()].slice(0, 4)).toEqual(["", "embed", "layers.0", "layers.0.up"]);
    expect(net.parameters().length).toBe(7);
  });

  test("records its plain graph without wrappers, and again after they are taken off", () => {
    const linear = nn.Linear.init(4, 4, { generator });
    const x = tensor([[1, 2, 3, 4]], { device: dev });
    const ops = (t: Tensor): string => JSON.stringify(t.node, (key, value) => (key === "storage" ? null : value));
    const plain = ops(linear.forward(x));
    const remove = linear.use((input, next) => next(input).mul(2));
    expect(ops(linear.forward(x))).not.toBe(plain);
    remove();
    expect(ops(linear.forward(x))).toBe(plain);
  });

  test("runs wrappers from the last added inwards", () => {
    const linear = nn.Linear.init(1, 1, { generator });
    const order: string[] = [];
    for (const name of ["inner", "outer"]) {
      linear.use((x, next) => {
        order.push(name);
        return next(x);
      });
    }
    linear.forward(tensor([[1]], { device: dev }));
    expect(order).toEqual(["outer", "inner"]);
  });

  test("drops out while it trains only", async () => {
    const block = new Block();
    const x = tensor(new Float32Array(400).fill(1), { device: dev, shape: [400] });
    expect(block.drop.forward(x)).toBe(x);
    block.train();
    const dropped = Array.from(await block.drop.forward(x).data());
    const zeros = dropped.reduce((count, value) => count + Number(value === 0), 0);
    expect([...new Set(dropped)].sort()).toEqual([0, 2]);
    expect(zeros).toBeGreaterThan(150);
    expect(zeros).toBeLessThan(250);
    block.train(false);
    expect(block.drop.forward(x)).toBe(x);
  });
});

describe("layers compute", () => {
  const x = (): Tensor =>
    tensor(
      [
        [1, 2],
        [3, 5],
      ],
      { device: dev },
    ); // prettier-ignore
  const read = async (t: Tensor): Promise<number[]> => Array.from(await t.data());

  test("Linear: x Wᵀ + b, in both layouts", async () => {
    const bias = tensor([10, 20, 30], { device: dev });
    const weight = tensor(
      [
        [1, 0],
        [0, 1],
        [1, 1],
      ],
      { device: dev },
    ); // prettier-ignore
    const want = [11, 22, 33, 13, 25, 38];
    expect(await read(new nn.Linear(weight, bias).forward(x()))).toEqual(want);
    const turned = new nn.Linear(
      tensor(
        [
          [1, 0, 1],
          [0, 1, 1],
        ],
        { device: dev },
      ),
      bias,
      { isTransposed: true },
    ); // prettier-ignore
    expect(await read(turned.forward(x()))).toEqual(want);
    expect([turned.inFeatures, turned.outFeatures]).toEqual([2, 3]);
  });

  test("Embedding: rows by id", async () => {
    const embedding = new nn.Embedding(
      tensor(
        [
          [1, 2],
          [3, 4],
          [5, 6],
        ],
        { device: dev, dtype: "bf16" },
      ),
    ); // prettier-ignore
    const rows = embedding.forward(tensor([[2, 0]], { device: dev, dtype: "i32" }));
    expect([rows.shape, rows.dtype, await read(rows)]).toEqual([[1, 2, 2], "f32", [5, 6, 1, 2]]);
  });

  test("LayerNorm and RMSNorm over the last axis", async () => {
    const normed = await read(nn.LayerNorm.init(2, { device: dev, eps: 0 }).forward(x()));
    for (const [i, value] of [-1, 1, -1, 1].entries()) expect(normed[i]).toBeCloseTo(value, 6);
    const scaled = await read(nn.RMSNorm.init(2, { device: dev, eps: 0 }).forward(x()));
    for (const [i, value] of [1, 2].entries()) expect(scaled[i]).toBeCloseTo(value / Math.sqrt(2.5), 6);
  });

  test("initial weights are uniform in ±1/√in", async () => {
    const values = Array.from(await nn.Linear.init(25, 400, { generator }).weight.data());
    const largest = values.reduce((size, value) => Math.max(size, Math.abs(value)), 0);
    const spread = Math.sqrt(values.reduce((sum, value) => sum + value * value, 0) / values.length);
    expect(largest).toBeLessThanOrEqual(0.2);
    expect(spread).toBeCloseTo(0.2 / Math.sqrt(3), 2);
  });

  test("errors say both shapes", () => {
    expect(() => new nn.Linear(tensor([1, 2], { device: dev }))).toThrow(ShapeError);
    expect(() => new nn.Linear(tensor([[1, 2]], { device: dev }), tensor([1, 2], { device: dev }))).toThrow("[1, 2] and bias [2]");
    expect(() => new nn.Dropout(1.5)).toThrow("probability is 1.5");
  });
});
