import { type DType, dtypeBytes } from "../../tensor/dtype.js";
import {
  type Code,
  extractLane,
  type FunctionBuilder,
  f32,
  i32,
  type Local,
  laneMemory,
  type ModuleBuilder,
  memory,
  op,
  shuffle32,
} from "./assembler.js";
import { kernelParams } from "./loop.js";
import { loadScalar, loadVector } from "./storage.js";

export const add = (a: Code, b: Code): Code => op("i32.add", a, b);
export const sub = (a: Code, b: Code): Code => op("i32.sub", a, b);
export const mul = (a: Code, b: Code): Code => op("i32.mul", a, b);

/** Transposes four vectors. */
export function transpose(f: FunctionBuilder, rows: readonly [Local, Local, Local, Local]): readonly [Local, Local, Local, Local] {
  const [a, b, c, d] = rows;
  const lowAb = f.let("v128", shuffle32(a.get, b.get, [0, 4, 1, 5]));
  const highAb = f.let("v128", shuffle32(a.get, b.get, [2, 6, 3, 7]));
  const lowCd = f.let("v128", shuffle32(c.get, d.get, [0, 4, 1, 5]));
  const highCd = f.let("v128", shuffle32(c.get, d.get, [2, 6, 3, 7]));
  return [
    f.let("v128", shuffle32(lowAb.get, lowCd.get, [0, 1, 4, 5])),
    f.let("v128", shuffle32(lowAb.get, lowCd.get, [2, 3, 6, 7])),
    f.let("v128", shuffle32(highAb.get, highCd.get, [0, 1, 4, 5])),
    f.let("v128", shuffle32(highAb.get, highCd.get, [2, 3, 6, 7])),
  ];
}

export interface PanelSource {
  readonly dtype: DType;
  /** Address of the panel's first element. */
  readonly from: Code;
  /** Bytes from lane to lane of the panel (rows of a, columns of b), and from k to k. */
  readonly laneStride: Local;
  readonly depthStride: Local;
  /** How many lanes of the panel exist; the rest become zero. */
  readonly lanes: Local;
  readonly depth: Local;
  /** Four times the number by which all elements are multiplied. */
  readonly factor?: Local;
}

/** Four elements, in f32 and times the factor. */
function loadLanes(f: FunctionBuilder, { dtype, factor }: PanelSource, address: Code, offset: number): Local {
  const value = loadVector(f, dtype, address, offset);
  return f.let("v128", factor ? op("f32x4.mul", value, factor.get) : value);
}

/** Packs one panel of `width` lanes, an even number: to[k][lane] = from[lane, k]. Advances `to` past it. */
export function packPanel(f: FunctionBuilder, width: number, source: PanelSource, to: Local): void {
  const { dtype, laneStride, depthStride, lanes, depth, factor } = source;
  const elementBytes = dtypeBytes[dtype];
  const from = f.let("i32", source.from);
  const d = f.let("i32", i32(0));
  const inVectors = width & -4;
  const isWhole = op("i32.eq", lanes.get, i32(width));
  const lanesTouch = op("i32.and", isWhole, op("i32.eq", laneStride.get, i32(elementBytes)));
  const depthTouches = op("i32.and", isWhole, op("i32.eq", depthStride.get, i32(elementBytes)));
  const advance = (steps: number): void => {
    f.emit(from.set(add(from.get, mul(depthStride.get, i32(steps)))));
    f.emit(to.set(add(to.get, i32(width * 4 * steps))));
  };
  f.if(
    lanesTouch,
    () => {
      f.while(d, depth.get, i32(1), () => {
        for (const start of vectorStarts(width)) {
          const value = loadLanes(f, source, from.get, start * elementBytes);
          f.emit(memory("v128.store", start * 4, to.get, value.get));
        }
        advance(1);
      });
    },
    () => {
      f.if(depthTouches, () => {
        f.while(d, f.let("i32", op("i32.and", depth.get, i32(-4))).get, i32(4), () => {
          const lane = f.let("i32", from.get);
          const read = (): Local => {
            const value = loadLanes(f, source, lane.get, 0);
            f.emit(lane.set(add(lane.get, laneStride.get)));
            return value;
          };
          for (let start = 0; start < inVectors; start += 4) {
            for (const [step, value] of transpose(f, [read(), read(), read(), read()]).entries()) {
              f.emit(memory("v128.store", (step * width + start) * 4, to.get, value.get));
            }
          }
          for (let start = inVectors; start < width; start += 2) {
            const [first, second] = [read(), read()];
            const pairs = [shuffle32(first.get, second.get, [0, 4, 1, 5]), shuffle32(first.get, second.get, [2, 6, 3, 7])];
            for (const [i, pair] of pairs.map((code) => f.let("v128", code)).entries()) {
              for (const half of [0, 1]) {
                f.emit(laneMemory("v128.store64_lane", ((i * 2 + half) * width + start) * 4, half, to.get, pair.get));
              }
            }
          }
          advance(4);
        });
      });
      // What is left: any stride, edges.
      f.while(d, depth.get, i32(1), () => {
        const lane = f.let("i32", i32(0));
        const at = f.let("i32", from.get);
        const target = f.let("i32", to.get);
        f.for(lane, lanes.get, i32(1), () => {
          const value = loadScalar(f, dtype, at.get);
          f.emit(memory("f32.store", 0, target.get, factor ? op("f32.mul", value, extractLane("f32", 0, factor.get)) : value));
          f.emit(at.set(add(at.get, laneStride.get)));
          f.emit(target.set(add(target.get, i32(4))));
        });
        f.while(lane, i32(width), i32(1), () => {
          f.emit(memory("f32.store", 0, target.get, f32(0)));
          f.emit(target.set(add(target.get, i32(4))));
        });
        advance(1);
      });
    },
  );
}

/** Lanes at which vectors begin that cover all lanes; the last may overlap the one before. */
function vectorStarts(width: number): number[] {
  return Array.from({ length: Math.ceil(width / 4) }, (_, v) => Math.min(v * 4, width - 4));
}

/**
 * Panels that are packed side by side where lanes touch. One alone would read half a cache line every `depthStride` bytes; of a stride that
 * is a power of two, the lines' other halves are then gone from the cache before the next panel asks for them.
 */
export const panelsAbreast: number = 4;

/** Packs all lanes of a matrix into panels of `width` lanes, one after another. Advances `to` past them. */
export function packPanels(f: FunctionBuilder, width: number, source: PanelSource, to: Local): void {
  const { dtype, laneStride, depthStride, lanes, depth } = source;
  const elementBytes = dtypeBytes[dtype];
  const lane = f.let("i32", i32(0));
  const first = f.let("i32", source.from);
  const from = (): Code => add(first.get, mul(lane.get, laneStride.get));
  f.if(op("i32.eq", laneStride.get, i32(elementBytes)), () => {
    const panelBytes = f.let("i32", mul(depth.get, i32(width * 4)));
    const end = f.let("i32", sub(lanes.get, op("i32.rem_u", lanes.get, i32(width * panelsAbreast))));
    f.while(lane, end.get, i32(width * panelsAbreast), () => {
      const at = f.let("i32", from());
      const d = f.let("i32", i32(0));
      f.while(d, depth.get, i32(1), () => {
        const target = f.let("i32", to.get);
        for (let panel = 0; panel < panelsAbreast; panel++) {
          for (const start of vectorStarts(width)) {
            const value = loadLanes(f, source, at.get, (panel * width + start) * elementBytes);
            f.emit(memory("v128.store", start * 4, target.get, value.get));
          }
          f.emit(target.set(add(target.get, panelBytes.get)));
        }
        f.emit(at.set(add(at.get, depthStride.get)));
        f.emit(to.set(add(to.get, i32(width * 4))));
      });
      f.emit(to.set(add(to.get, mul(panelBytes.get, i32(panelsAbreast - 1)))));
    });
  });
  f.while(lane, lanes.get, i32(width), () => {
    const left = f.let("i32", sub(lanes.get, lane.get));
    const some = f.let("i32", [left.get, i32(width), op("i32.lt_u", left.get, i32(width)), op("select")]);
    packPanel(f, width, { ...source, from: from(), lanes: some }, to);
  });
}

/** The arguments of a packing step: 32-bit words, addresses and strides in bytes. */
export const packWords = [
  "from",
  "to",
  "lanes",
  /** Address of how much depth there is: steps before may have counted it. */
  "depth",
  "laneStride",
  "depthStride",
  /** Tables of the byte offsets of each matrix and of its panels. */
  "fromOffsets",
  "toOffsets",
  /** Panels of a tile, and tiles of a matrix. */
  "panels",
  "tiles",
  /** The f32 by which all is multiplied, where there is such a factor. */
  "factor",
] as const;

export type PackWord = (typeof packWords)[number];

/** Packs some panels of one matrix, widened to f32, times a factor where `isScaled`. Panels lie one after another, each [depth][width]. */
export function printPack(module: ModuleBuilder, dtype: DType, width: number, isScaled: boolean, name: string): void {
  const f = module.function([...kernelParams], [], name);
  const word = (which: PackWord): Code => memory("i32.load", packWords.indexOf(which) * 4, f.param(0).get);
  const entry = (table: PackWord, index: Local): Code => memory("i32.load", 0, add(word(table), op("i32.shl", index.get, i32(2))));
  const tiles = f.let("i32", word("tiles"));
  const matrix = f.let("i32", op("i32.div_u", f.param(1).get, tiles.get));
  const stride = f.let("i32", mul(word("panels"), i32(width)));
  const first = f.let("i32", mul(op("i32.rem_u", f.param(1).get, tiles.get), stride.get));
  const left = f.let("i32", sub(word("lanes"), first.get));
  const lanes = f.let("i32", [left.get, stride.get, op("i32.lt_u", left.get, stride.get), op("select")]);
  const depth = f.let("i32", memory("i32.load", 0, word("depth")));
  const laneStride = f.let("i32", word("laneStride"));
  const depthStride = f.let("i32", word("depthStride"));
  const from = add(add(word("from"), entry("fromOffsets", matrix)), mul(first.get, laneStride.get));
  const to = f.let("i32", add(add(word("to"), entry("toOffsets", matrix)), mul(mul(first.get, depth.get), i32(4))));
  const factor = isScaled ? f.let("v128", memory("v128.load32_splat", packWords.indexOf("factor") * 4, f.param(0).get)) : null;
  packPanels(f, width, { dtype, from, laneStride, depthStride, lanes, depth, ...(factor && { factor }) }, to);
}
