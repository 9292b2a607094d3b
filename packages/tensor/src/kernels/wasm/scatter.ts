import { computeDType, type DType, dtypeBytes } from "../../tensor/dtype.js";
import { i32, type Local, type ModuleBuilder, memory, memoryCopy, memoryFill, op } from "./assembler.js";
import { kernelParams } from "./loop.js";
import { loadScalar, loadVector, storeVector } from "./storage.js";

/** Arguments of scatterAdd; each tile owns `tileRows` rows of out and looks through all indices, so that sums keep their order. */
export const scatterWords = ["indices", "updates", "out", "rows", "width", "count", "tileRows"] as const;

export function printScatterAdd(module: ModuleBuilder, indexType: DType, updateType: DType, outType: DType, name: string): void {
  const f = module.function([...kernelParams], [], name);
  const word = (key: (typeof scatterWords)[number]): Local =>
    f.let("i32", memory("i32.load", scatterWords.indexOf(key) * 4, f.param(0).get));
  const [indices, updates, out] = [word("indices"), word("updates"), word("out")];
  const [rows, width, count, tileRows] = [word("rows"), word("width"), word("count"), word("tileRows")];
  const outBytes = dtypeBytes[outType];
  const updateBytes = dtypeBytes[updateType];
  const first = f.let("i32", op("i32.mul", f.param(1).get, tileRows.get));
  const limit = f.let("i32", op("i32.sub", rows.get, first.get));
  const height = f.let("i32", [tileRows.get, limit.get, op("i32.lt_u", tileRows.get, limit.get), op("select")]);
  const rowBytes = f.let("i32", op("i32.mul", width.get, i32(outBytes)));
  const base = f.let("i32", op("i32.add", out.get, op("i32.mul", first.get, rowBytes.get)));
  f.emit(memoryFill(base.get, i32(0), op("i32.mul", height.get, rowBytes.get)));
  const n = f.local("i32");
  const whole = f.let("i32", op("i32.and", width.get, i32(-4)));
  f.for(n, count.get, i32(1), () => {
    const index = loadScalar(f, indexType, op("i32.add", indices.get, op("i32.mul", n.get, i32(dtypeBytes[indexType]))));
    const row = f.let("i32", op("i32.sub", index, first.get));
    // A negative or foreign index is, unsigned, beyond the tile.
    f.if(op("i32.lt_u", row.get, height.get), () => {
      const to = f.let("i32", op("i32.add", base.get, op("i32.mul", row.get, rowBytes.get)));
      const from = f.let("i32", op("i32.add", updates.get, op("i32.mul", op("i32.mul", n.get, width.get), i32(updateBytes))));
      const column = f.let("i32", i32(0));
      const advance = (lanes: 4 | 1): void => {
        const a = loadVector(f, outType, to.get, 0);
        const b = loadVector(f, updateType, from.get, 0);
        storeVector(f, outType, to.get, 0, op(computeDType(outType) === "f32" ? "f32x4.add" : "i32x4.add", a, b), lanes);
        f.emit(to.set(op("i32.add", to.get, i32(outBytes * lanes))));
        f.emit(from.set(op("i32.add", from.get, i32(updateBytes * lanes))));
      };
      f.while(column, whole.get, i32(4), () => advance(4));
      f.while(column, width.get, i32(1), () => advance(1));
    });
  });
}

/** Arguments of copy: each tile moves `tileBytes`. */
export const copyWords = ["from", "to", "bytes", "tileBytes"] as const;

export function printCopy(module: ModuleBuilder, name: string): void {
  const f = module.function([...kernelParams], [], name);
  const word = (key: (typeof copyWords)[number]): Local => f.let("i32", memory("i32.load", copyWords.indexOf(key) * 4, f.param(0).get));
  const [from, to, bytes, tileBytes] = [word("from"), word("to"), word("bytes"), word("tileBytes")];
  const first = f.let("i32", op("i32.mul", f.param(1).get, tileBytes.get));
  const rest = f.let("i32", op("i32.sub", bytes.get, first.get));
  const length = [tileBytes.get, rest.get, op("i32.lt_u", tileBytes.get, rest.get), op("select")];
  f.emit(memoryCopy(op("i32.add", to.get, first.get), op("i32.add", from.get, first.get), length));
}
