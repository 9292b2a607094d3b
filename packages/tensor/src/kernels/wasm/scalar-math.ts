import { type Code, call, type FunctionBuilder, f32, f64, i32, i64, type Local, type ModuleBuilder, op } from "./assembler.js";

/**
 * Functions that are computed one number at a time in f64, as functions of the module that uses them: sin, cos (any argument, reduced
 * exactly), pow and fmod. Rounded once at the end, their error is below 1 ulp of f32. Powers of integers wrap.
 */
export type ScalarFunction = "sin" | "cos" | "pow" | "mod" | "powInt" | "powUint";

interface ScalarDefinition {
  readonly type: "f32" | "i32";
  readonly operands: 1 | 2;
  readonly write: (f: FunctionBuilder) => void;
}

const functions: Readonly<Record<ScalarFunction, ScalarDefinition>> = {
  sin: { type: "f32", operands: 1, write: (f) => writeSine(f, "sin") },
  cos: { type: "f32", operands: 1, write: (f) => writeSine(f, "cos") },
  pow: { type: "f32", operands: 2, write: writePow },
  mod: { type: "f32", operands: 2, write: writeMod },
  powInt: { type: "i32", operands: 2, write: (f) => writeIntegerPower(f, true) },
  powUint: { type: "i32", operands: 2, write: (f) => writeIntegerPower(f, false) },
};

/** The scalar functions that one module has needed so far. */
export class ScalarMath {
  readonly #indices = new Map<ScalarFunction, number>();

  constructor(readonly module: ModuleBuilder) {}

  call(name: ScalarFunction, ...operands: readonly Code[]): Code {
    let index = this.#indices.get(name);
    if (index === undefined) {
      const { type, operands: count, write } = functions[name];
      const f = this.module.function(new Array<"f32" | "i32">(count).fill(type), [type]);
      index = f.index;
      this.#indices.set(name, index);
      write(f);
    }
    return call(index, ...operands);
  }
}

const add = (a: Code, b: Code): Code => op("f64.add", a, b);
const mul = (a: Code, b: Code): Code => op("f64.mul", a, b);

function polynomial(x: Code, coefficients: readonly number[]): Code {
  const [first = 0, ...rest] = coefficients;
  return rest.reduce<Code>((sum, c) => add(mul(sum, x), f64(c)), f64(first));
}

/** sin or cos of r + q π/2, |r| ≤ π/4; polynomials of FreeBSD's __sindf and __cosdf. */
function writeSine(f: FunctionBuilder, name: "sin" | "cos"): void {
  const x = f.let("f64", op("f64.promote_f32", f.param(0).get));
  const r = f.local("f64");
  const quadrant = f.local("i32");
  f.if(
    op("f64.lt", op("f64.abs", x.get), f64(2 ** 27)),
    () => {
      // π/2 in two parts; the first has 25 bits, so that its product with n is exact.
      const n = f.let("f64", op("f64.nearest", mul(x.get, f64(2 / Math.PI))));
      const high = op("f64.sub", x.get, mul(n.get, f64(1.5707963109016418)));
      f.emit(r.set(op("f64.sub", high, mul(n.get, f64(1.5893254773528196e-8)))));
      f.emit(quadrant.set(op("i32.trunc_sat_f64_s", n.get)));
    },
    () => reduceLarge(f, r, quadrant),
  );
  if (name === "cos") f.emit(quadrant.set(op("i32.add", quadrant.get, i32(1))));
  const z = f.let("f64", mul(r.get, r.get));
  const sine = f.let(
    "f64",
    add(
      r.get,
      mul(mul(r.get, z.get), polynomial(z.get, [2.718311493989822e-6, -1.9839334836096632e-4, 8.333329385889463e-3, -0.16666666641626524])),
    ),
  );
  const cosine = f.let(
    "f64",
    add(f64(1), mul(z.get, polynomial(z.get, [2.439044879627741e-5, -1.388676377460993e-3, 4.166662332373906e-2, -0.499999997251031]))),
  );
  const value = [sine.get, cosine.get, op("i32.eqz", op("i32.and", quadrant.get, i32(1))), op("select")];
  const signed = f.let("f64", value);
  const negative = op("i32.and", quadrant.get, i32(2));
  const finite = [op("f64.neg", signed.get), signed.get, negative, op("select")];
  // ∞ - ∞ and NaN - NaN are NaN; sin(-0) stays -0 because r does.
  f.emit(op("f32.demote_f64", add(finite, op("f64.sub", x.get, x.get))));
}

/** x mod π/2 for |x| ≥ 2^27 after Payne and Hanek: the product of the 24-bit fraction with those bits of 2/π that matter. */
function reduceLarge(f: FunctionBuilder, r: Local, quadrant: Local): void {
  const twoOverPi = [0xa2f9836e4e441529n, 0xfc2757d1f534ddc0n, 0xdb6295993c439041n, 0xfe5163abdebbc561n] as const;
  const bits = f.let("i32", op("i32.reinterpret_f32", f.param(0).get));
  const fraction = op("i32.or", op("i32.and", bits.get, i32(0x7fffff)), i32(0x800000));
  const m = f.let("i64", op("i64.extend_i32_u", fraction));
  // x = m 2^e; the first useful bit of 2/π is the one whose product has weight 2.
  const exponent = op("i32.and", op("i32.shr_u", bits.get, i32(23)), i32(255));
  const start = f.let("i32", op("i32.sub", exponent, i32(150 + 2)));
  const shift = f.let("i64", op("i64.extend_i32_u", op("i32.and", start.get, i32(63))));
  const isLate = op("i32.ge_u", start.get, i32(64));
  const word = (i: 0 | 1 | 2): Local => f.let("i64", [i64(twoOverPi[(i + 1) as 1 | 2 | 3]), i64(twoOverPi[i]), isLate, op("select")]);
  const words = [word(0), word(1), word(2)] as const;
  const window = (a: Local, b: Local): Code =>
    op("i64.or", op("i64.shl", a.get, shift.get), op("i64.shr_u", op("i64.shr_u", b.get, i64(1n)), op("i64.sub", i64(63n), shift.get)));
  const low = op("i64.shr_u", op("i64.mul", m.get, op("i64.shr_u", window(words[1], words[2]), i64(32n))), i64(32n));
  const product = f.let("i64", op("i64.add", op("i64.mul", m.get, window(words[0], words[1])), low));
  const turns = f.let("i64", op("i64.shr_s", op("i64.add", product.get, i64(1n << 61n)), i64(62n)));
  const rest = op("i64.sub", product.get, op("i64.shl", turns.get, i64(62n)));
  f.emit(r.set(mul(op("f64.convert_i64_s", rest), f64(2 ** -62 * (Math.PI / 2)))));
  f.emit(quadrant.set(op("i32.wrap_i64", turns.get)));
  f.if(op("i32.lt_s", bits.get, i32(0)), () => {
    f.emit(r.set(op("f64.neg", r.get)));
    f.emit(quadrant.set(op("i32.sub", i32(0), quadrant.get)));
  });
}

/** xʸ = 2^(y log2 x) in f64, with the special cases of C's pow. */
function writePow(f: FunctionBuilder): void {
  const x = f.let("f64", op("f64.promote_f32", f.param(0).get));
  const y = f.let("f64", op("f64.promote_f32", f.param(1).get));
  const result = (value: Code): void => f.emit([value, op("return")]);
  f.if(op("i32.or", op("f64.eq", y.get, f64(0)), op("f64.eq", x.get, f64(1))), () => result(f32(1)));
  f.if(op("i32.or", op("f64.ne", x.get, x.get), op("f64.ne", y.get, y.get)), () => result(f32(Number.NaN)));
  const isInteger = f.let("i32", op("f64.eq", op("f64.floor", y.get), y.get));
  const half = mul(y.get, f64(0.5));
  const isOdd = f.let("i32", op("i32.and", isInteger.get, op("f64.ne", op("f64.floor", half), half)));
  const size = f.let("f64", op("f64.abs", x.get));
  const isFiniteSize = f.let("i32", op("f64.lt", size.get, f64(Number.POSITIVE_INFINITY)));
  f.if(op("i32.and", op("i32.and", op("f64.lt", x.get, f64(0)), op("i32.eqz", isInteger.get)), isFiniteSize.get), () => {
    f.if(op("f64.lt", op("f64.abs", y.get), f64(Number.POSITIVE_INFINITY)), () => result(f32(Number.NaN)));
  });
  // log2 |x| = e + 2 atanh(s) / ln 2, s = (m - 1) / (m + 1), m in [√½, √2).
  const bits = f.let("i64", op("i64.reinterpret_f64", size.get));
  const above = f.let("i64", op("i64.sub", bits.get, i64(0x3fe6a09e667f3bcdn)));
  const e = op("f64.convert_i64_s", op("i64.shr_s", above.get, i64(52n)));
  const m = f.let("f64", op("f64.reinterpret_i64", op("i64.sub", bits.get, op("i64.and", above.get, i64(-1n << 52n)))));
  const s = f.let("f64", op("f64.div", op("f64.sub", m.get, f64(1)), add(m.get, f64(1))));
  const s2 = f.let("f64", mul(s.get, s.get));
  const series = polynomial(s2.get, [1 / 17, 1 / 15, 1 / 13, 1 / 11, 1 / 9, 1 / 7, 1 / 5, 1 / 3, 1]);
  const finite = add(e, mul(mul(s.get, series), f64(2 / Math.LN2)));
  const isZero = op("f64.eq", size.get, f64(0));
  const log2 = [f64(Number.NEGATIVE_INFINITY), [finite, size.get, isFiniteSize.get, op("select")], isZero, op("select")];
  const power = f.let("f64", mul(y.get, log2));
  // 0 · ∞ happens for |x| = 1 only, where the result is 1.
  f.if(op("f64.ne", power.get, power.get), () => f.emit(power.set(f64(0))));
  f.emit(power.set(op("f64.max", op("f64.min", power.get, f64(1000)), f64(-1000))));
  const n = f.let("f64", op("f64.nearest", power.get));
  const r = f.let("f64", mul(op("f64.sub", power.get, n.get), f64(Math.LN2)));
  const factorials = [3628800, 362880, 40320, 5040, 720, 120, 24, 6, 2, 1, 1].map((factorial) => 1 / factorial);
  const exponent = op("i64.shl", op("i64.extend_i32_s", op("i32.add", op("i32.trunc_sat_f64_s", n.get), i32(1023))), i64(52n));
  const value = f.let("f64", mul(polynomial(r.get, factorials), op("f64.reinterpret_i64", exponent)));
  const isNegative = op("i32.and", isOdd.get, op("i64.lt_s", op("i64.reinterpret_f64", x.get), i64(0n)));
  f.emit(op("f32.demote_f64", [op("f64.neg", value.get), value.get, isNegative, op("select")]));
}

/** aᵇ modulo 2³² by squaring; a negative power of anything but ±1 truncates to 0. */
function writeIntegerPower(f: FunctionBuilder, isSigned: boolean): void {
  const [a, b] = [f.param(0), f.param(1)];
  const result = f.let("i32", i32(1));
  const square = f.let("i32", a.get);
  const left = f.let("i32", b.get);
  if (isSigned) {
    f.if(op("i32.lt_s", b.get, i32(0)), () => {
      const ofMinusOne = [i32(-1), i32(1), op("i32.and", b.get, i32(1)), op("select")];
      const other = [ofMinusOne, i32(0), op("i32.eq", a.get, i32(-1)), op("select")];
      f.emit([[i32(1), other, op("i32.eq", a.get, i32(1)), op("select")], op("return")]);
    });
  }
  f.if(left.get, () => {
    f.loop((again) => {
      f.if(op("i32.and", left.get, i32(1)), () => f.emit(result.set(op("i32.mul", result.get, square.get))));
      f.emit(square.set(op("i32.mul", square.get, square.get)));
      f.emit(left.set(op("i32.shr_u", left.get, i32(1))));
      f.brIf(again, left.get);
    });
  });
  f.emit(result.get);
}

/** C's fmod: the remainder is taken off in steps of 28 bits of quotient, each of which is exact in f64. */
function writeMod(f: FunctionBuilder): void {
  const x = f.let("f64", op("f64.promote_f32", f.param(0).get));
  const y = f.let("f64", op("f64.abs", op("f64.promote_f32", f.param(1).get)));
  const rest = f.let("f64", op("f64.abs", x.get));
  const isDefined = op("i32.and", op("f64.gt", y.get, f64(0)), op("f64.lt", rest.get, f64(Number.POSITIVE_INFINITY)));
  f.if(op("i32.eqz", isDefined), () => f.emit([f32(Number.NaN), op("return")]));
  f.if(op("f64.ge", rest.get, y.get), () => {
    const t = f.let("f64", y.get);
    const step = 2 ** 28;
    f.loop((again) => {
      f.if(op("f64.le", mul(t.get, f64(step)), rest.get), () => {
        f.emit(t.set(mul(t.get, f64(step))));
        f.br(again);
      });
    });
    f.loop((again) => {
      f.emit(rest.set(op("f64.sub", rest.get, mul(op("f64.floor", op("f64.div", rest.get, t.get)), t.get))));
      f.if(op("f64.lt", rest.get, f64(0)), () => f.emit(rest.set(add(rest.get, t.get))));
      f.emit(t.set(mul(t.get, f64(1 / step))));
      f.brIf(again, op("f64.ge", t.get, y.get));
    });
  });
  f.emit(op("f32.demote_f64", op("f64.copysign", rest.get, x.get)));
}
