import type { GgufType } from "@lowrank/tensor";
import { expect, test } from "vitest";
import { linkBytes, movesWholeBlocks } from "../../src/families/gguf/apply.js";
import { type GgufChange, toModel } from "../../src/families/gguf/change.js";

const f32: GgufType = { name: "F32", blockSize: 1, blockBytes: 4 };
const pairs: GgufType = { name: "of two numbers", blockSize: 2, blockBytes: 8 };
/** Cycles of one, two, three and six. */
const order = Int32Array.of(0, 2, 1, 4, 5, 3, 11, 6, 7, 8, 9, 10);

const moves: Readonly<Record<string, readonly GgufChange[]>> = {
  "halves of heads become pairs": [{ kind: "axes", view: [3, 2, 4, 6], axes: [0, 2, 1, 3] }],
  "the same behind other numbers": [{ kind: "axes", view: [2, 4, 4], axes: [1, 0, 2], from: 12 }],
  "units in an order": [{ kind: "units", width: 12, order }],
  "rows are cut, and the rest is moved": [
    { kind: "rows", width: 12, file: 12, model: 10 },
    { kind: "axes", view: [5, 2, 12], axes: [1, 0, 2] },
  ],
  "rows are added": [{ kind: "rows", width: 12, file: 12, model: 14 }],
};

test.each(Object.keys(moves))("blocks are moved where their numbers are: %s", (name) => {
  const changes = moves[name] ?? expect.fail(name);
  const values = Float32Array.from({ length: 144 }, (_, i) => i + 1);
  const want = toModel({ changes }, values);
  for (const type of [f32, pairs]) {
    expect(movesWholeBlocks({ changes }, type)).toBe(true);
    const moved = linkBytes({ changes }, new Uint8Array(values.slice().buffer), type);
    expect([...new Float32Array(moved.slice().buffer)], type.name).toEqual([...want]);
  }
});
