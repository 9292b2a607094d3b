import { type Code, type FunctionBuilder, f32x4, i32, i32x4, type Local, op, shuffle32 } from "./assembler.js";

/**
 * Elementary functions of four f32 lanes at a time, written into the calling function. Errors are the largest found against Math.*
 * in units of the last place (cpu-math.host.test.ts): exp 1.2, log 1.1, tanh 2, erf 2. NaN gives NaN; ±∞, overflow and underflow (also to
 * subnormal numbers) give what C's functions do.
 */

/** c[0] xⁿ + c[1] xⁿ⁻¹ + … by Horner's rule. */
function polynomial(f: FunctionBuilder, x: Code, coefficients: readonly number[]): Code {
  const [first = 0, ...rest] = coefficients;
  return rest.reduce<Code>((sum, c) => f.multiplyAdd(sum, x, f32x4(c)), f32x4(first));
}

/** The lanes of `a` where `mask` is set, else those of `b`. */
export function choose(mask: Code, a: Code, b: Code): Code {
  return op("v128.bitselect", a, b, mask);
}

const signBit = -0x80000000;

/** -x. The sign mask is a constant that stays in a register; V8 makes up a new one for each f32x4.neg. */
export function negated(x: Code): Code {
  return op("v128.xor", x, i32x4(signBit));
}

/** |x|, in the same way. */
export function absolute(x: Code): Code {
  return op("v128.and", x, i32x4(~signBit));
}

// ln 2 in two parts; the first has so few bits that its product with any exponent is exact.
const ln2High = 0.693359375;
const ln2Low = -0.00021219444005469057;

/** Arguments below this size give a normal power of 2 on either side of their own, so that exponents can be added as they are. */
const nearLimit = 86;
// Adding 1.5 · 2^23 rounds to an integer, and leaves it in the low bits; shifted by 23, nothing else of the sum is left.
const roundingBase = 12582912;
const roundingBits = 0x4b400000;

/**
 * eˣ = 2ⁿ eʳ with n = round(x / ln 2), and eʳ by the polynomial of degree 6 whose relative error is least on |r| ≤ ln 2 / 2 (3e-9, with
 * the first two coefficients 1). 2ⁿ goes straight into the exponent's bits; where that could leave the normal numbers in some lane, it is
 * applied in two factors.
 */
export function exp(f: FunctionBuilder, argument: Code): Code {
  const given = f.let("v128", argument);
  const x = f.let("v128", given.get);
  // Not near: large numbers, infinities and NaN, which compares as false.
  const isNear = op("i32x4.bitmask", op("f32x4.lt", absolute(given.get), f32x4(nearLimit)));
  const hasFar = f.let("i32", op("i32.ne", isNear, i32(15)));
  // Below -104 the result is 0 in f32. A processor takes a hundred cycles to find that out by underflow, and half of a causal mask is
  // there (e^-∞), so those lanes compute e⁰ and are cleared at the end. pmin keeps a NaN in its first operand.
  const isZero = op("f32x4.lt", given.get, f32x4(-104));
  f.if(hasFar.get, () => f.emit(x.set(op("v128.andnot", op("f32x4.pmin", given.get, f32x4(89)), isZero))));
  const { power, rounded, result } = expParts(f, x.get);
  f.if(hasFar.get, () => {
    const exponent = f.let("v128", op("i32x4.sub", rounded.get, i32x4(roundingBits)));
    const half = f.let("v128", op("i32x4.shr_s", exponent.get, i32(1)));
    const scale = (e: Code): Code => op("i32x4.shl", op("i32x4.add", e, i32x4(127)), i32(23));
    const scaled = op("f32x4.mul", op("f32x4.mul", power.get, scale(half.get)), scale(op("i32x4.sub", exponent.get, half.get)));
    f.emit(result.set(op("v128.andnot", scaled, isZero)));
  });
  return result.get;
}

/** eˣ where every |x| < 86, or x is NaN. */
function expNear(f: FunctionBuilder, argument: Code): Code {
  return expParts(f, argument).result.get;
}

function expParts(f: FunctionBuilder, argument: Code): Record<"power" | "rounded" | "result", Local> {
  const x = f.let("v128", argument);
  const rounded = f.let("v128", f.multiplyAdd(x.get, f32x4(Math.LOG2E), f32x4(roundingBase)));
  const n = f.let("v128", op("f32x4.sub", rounded.get, f32x4(roundingBase)));
  const near = f.multiplyAdd(n.get, f32x4(-ln2High), x.get);
  const r = f.let("v128", f.multiplyAdd(n.get, f32x4(-ln2Low), near));
  const coefficients = [1.3814539415761828e-3, 8.36874544620514e-3, 4.166838899254799e-2, 1.666652113199234e-1, 4.999999403953552e-1, 1, 1];
  const power = f.let("v128", polynomial(f, r.get, coefficients));
  const result = f.let("v128", op("i32x4.add", power.get, op("i32x4.shl", rounded.get, i32(23))));
  return { power, rounded, result };
}

/** log x = e ln 2 + log m with m in [√½, √2), by Cephes' polynomial in m - 1. */
export function log(f: FunctionBuilder, argument: Code): Code {
  const x = f.let("v128", argument);
  const isSubnormal = f.let("v128", op("f32x4.lt", x.get, f32x4(2 ** -126)));
  const bits = f.let("v128", choose(isSubnormal.get, op("f32x4.mul", x.get, f32x4(2 ** 23)), x.get));
  const above = f.let("v128", op("i32x4.sub", bits.get, i32x4(0x3f3504f3)));
  const e = f.let(
    "v128",
    op("f32x4.convert_i32x4_s", op("i32x4.sub", op("i32x4.shr_s", above.get, i32(23)), op("v128.and", isSubnormal.get, i32x4(23)))),
  );
  const m = f.let("v128", op("f32x4.sub", op("i32x4.sub", bits.get, op("v128.and", above.get, i32x4(0xff800000))), f32x4(1)));
  const z = f.let("v128", op("f32x4.mul", m.get, m.get));
  const p = polynomial(
    f,
    m.get,
    [
      7.0376836292e-2, -1.151461031e-1, 1.167699874e-1, -1.2420140846e-1, 1.4249322787e-1, -1.6668057665e-1, 2.0000714765e-1,
      -2.4999993993e-1, 3.3333331174e-1,
    ],
  );
  const tail = op("f32x4.add", op("f32x4.mul", op("f32x4.mul", m.get, z.get), p), op("f32x4.mul", e.get, f32x4(ln2Low)));
  const y = op("f32x4.sub", tail, op("f32x4.mul", z.get, f32x4(0.5)));
  const result = op("f32x4.add", op("f32x4.add", m.get, y), op("f32x4.mul", e.get, f32x4(ln2High)));
  const finite = choose(op("f32x4.lt", x.get, f32x4(Number.POSITIVE_INFINITY)), result, x.get);
  const positive = choose(op("f32x4.eq", x.get, f32x4(0)), f32x4(Number.NEGATIVE_INFINITY), finite);
  return choose(op("f32x4.lt", x.get, f32x4(0)), f32x4(Number.NaN), positive);
}

/** tanh x: Cephes' polynomial below 0.625, else 1 - 2 / (e²ˣ + 1). */
export function tanh(f: FunctionBuilder, argument: Code): Code {
  const x = f.let("v128", argument);
  const z = f.let("v128", op("f32x4.mul", x.get, x.get));
  const p = polynomial(f, z.get, [-5.70498872745e-3, 2.06390887954e-2, -5.37397155531e-2, 1.33314422036e-1, -3.33332819422e-1]);
  const small = f.let("v128", op("f32x4.add", op("f32x4.mul", op("f32x4.mul", z.get, p), x.get), x.get));
  const size = f.let("v128", absolute(x.get));
  // From 10 on it is 1 in f32.
  const near = f.let("v128", op("f32x4.pmin", size.get, f32x4(16)));
  const power = expNear(f, op("f32x4.add", near.get, near.get));
  const large = op("f32x4.sub", f32x4(1), op("f32x4.div", f32x4(2), op("f32x4.add", power, f32x4(1))));
  const signed = op("v128.or", large, op("v128.and", x.get, i32x4(signBit)));
  return choose(op("f32x4.ge", size.get, f32x4(0.625)), signed, small.get);
}

/** erf x after N. Juffa: x + x P(x²) below 0.9277, else 1 - e^Q(|x|); above 4 it is 1 in f32. */
export function erf(f: FunctionBuilder, argument: Code): Code {
  const x = f.let("v128", argument);
  const t = f.let("v128", op("f32x4.pmin", absolute(x.get), f32x4(4)));
  const s = f.let("v128", op("f32x4.mul", t.get, t.get));
  const p = polynomial(f, s.get, [-5.96761703e-4, 4.99119423e-3, -2.67681349e-2, 1.12819925e-1, -3.76125336e-1, 1.28379166e-1]);
  const small = f.let("v128", op("f32x4.add", op("f32x4.mul", p, x.get), x.get));
  const q = polynomial(
    f,
    t.get,
    [-1.7285347e-5, 3.83197126e-4, -3.88396438e-3, 2.42546219e-2, -1.06777877e-1, -6.34846687e-1, -1.28717512e-1],
  );
  const large = op("f32x4.sub", f32x4(1), expNear(f, op("f32x4.sub", op("f32x4.mul", q, t.get), t.get)));
  const signed = op("v128.or", large, op("v128.and", x.get, i32x4(signBit)));
  return choose(op("f32x4.gt", t.get, f32x4(0.927734375)), signed, choose(op("f32x4.eq", x.get, x.get), small.get, x.get));
}

/** Word `index & 3` of Philox4x32-10 (Salmon et al. 2011) for four indices, all as vectors. */
export function philox(f: FunctionBuilder, key0: Code, key1: Code, stream: Code, index: Code): Code {
  const word = f.let("v128", index);
  const key = [f.let("v128", key0), f.let("v128", key1)] as const;
  const c = [f.local("v128"), f.local("v128"), f.local("v128"), f.local("v128")] as const;
  f.emit(c[0].set(op("i32x4.shr_u", word.get, i32(2))));
  f.emit(c[1].set(i32x4(0)));
  f.emit(c[2].set(stream));
  f.emit(c[3].set(i32x4(0)));
  const low = f.local("v128");
  const high = f.local("v128");
  const product = (x: Code, factor: number): readonly [lows: Code, highs: Code] => {
    f.emit(low.set(op("i64x2.extmul_low_i32x4_u", x, i32x4(factor))));
    f.emit(high.set(op("i64x2.extmul_high_i32x4_u", x, i32x4(factor))));
    const lows = f.let("v128", shuffle32(low.get, high.get, [0, 2, 4, 6]));
    const highs = f.let("v128", shuffle32(low.get, high.get, [1, 3, 5, 7]));
    return [lows.get, highs.get];
  };
  for (let round = 0; round < 10; round++) {
    const [low0, high0] = product(c[0].get, 0xd2511f53);
    const [low1, high1] = product(c[2].get, 0xcd9e8d57);
    f.emit(c[0].set(op("v128.xor", op("v128.xor", high1, c[1].get), key[0].get)));
    f.emit(c[2].set(op("v128.xor", op("v128.xor", high0, c[3].get), key[1].get)));
    f.emit(c[1].set(low1));
    f.emit(c[3].set(low0));
    f.emit(key[0].set(op("i32x4.add", key[0].get, i32x4(0x9e3779b9))));
    f.emit(key[1].set(op("i32x4.add", key[1].get, i32x4(0xbb67ae85))));
  }
  const isOdd = f.let("v128", op("i32x4.ne", op("v128.and", word.get, i32x4(1)), i32x4(0)));
  const isUpper = op("i32x4.ne", op("v128.and", word.get, i32x4(2)), i32x4(0));
  return choose(isUpper, choose(isOdd.get, c[3].get, c[2].get), choose(isOdd.get, c[1].get, c[0].get));
}
