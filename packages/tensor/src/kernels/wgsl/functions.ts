/**
 * Functions that generated programs call, as WGSL templates. F, I, U and B stand for f32, i32, u32 and bool or for vec4s of them: a
 * template gives both forms. A name with `4` appended is the vector form. Accuracies are over all finite f32, in units of the last place.
 */
interface Template {
  readonly calls: readonly string[];
  readonly text: string;
  /** True where the function branches or loops, so that the vector form applies the scalar one to each lane. */
  readonly isScalar?: boolean;
}

const notANumber = "(bitcast<U>(X) & U(2147483647u)) > U(2139095040u)";
const isNan = (x: string): string => notANumber.replace("X", x);

const templates: Readonly<Record<string, Template>> = {
  // max and min hand NaN on, as IEEE 754-2019 maximum does. Compilers may assume that x == x, so the bits are looked at.
  maximum: { calls: [], text: `fn maximum(a: F, b: F) -> F { return select(max(a, b), a + b, (${isNan("a")}) | (${isNan("b")})); }` },
  minimum: { calls: [], text: `fn minimum(a: F, b: F) -> F { return select(min(a, b), a + b, (${isNan("a")}) | (${isNan("b")})); }` },
  // Cephes expf: x = n ln 2 + r, a polynomial of degree 7 in r; 2^n in two factors, so that results below 2^-126 stay right.
  // The max changes nothing, but keeps compilers from joining the two products, whose point is their separate rounding. 1 ulp.
  exponential: {
    calls: [],
    text: `fn exponential(x: F) -> F {
  let c = clamp(x, F(-104.0), F(89.0));
  let n = round(c * 1.4426950408889634);
  let r = fma(n, F(2.12194440e-4), max(fma(n, F(-0.693359375), c), F(-1.0)));
  var p = fma(r, F(1.9875691500e-4), F(1.3981999507e-3));
  p = fma(p, r, F(8.3334519073e-3));
  p = fma(p, r, F(4.1665795894e-2));
  p = fma(p, r, F(1.6666665459e-1));
  p = fma(p, r, F(5.0000001201e-1));
  let y = fma(p, r * r, r) + 1.0;
  let whole = I(n);
  let half = whole >> U(1u);
  let result = y * bitcast<F>((half + 127) << U(23u)) * bitcast<F>((whole - half + 127) << U(23u));
  return select(result, x, ${isNan("x")});
}`,
  },
  // Cephes logf: x = 2^e m with m in [√½, √2). 1 ulp; log of 0 is -inf, of a negative number NaN.
  logarithm: {
    calls: [],
    text: `fn logarithm(x: F) -> F {
  let isTiny = x < F(1.17549435e-38);
  let scaled = select(x, x * 8388608.0, isTiny);
  let bits = bitcast<I>(scaled);
  let e = (bits - 1060439283) >> U(23u);
  let f = bitcast<F>(bits - (e << U(23u))) - 1.0;
  let exponent = F(e) - select(F(0.0), F(23.0), isTiny);
  let z = f * f;
  var p = fma(f, F(7.0376836292e-2), F(-1.1514610310e-1));
  p = fma(p, f, F(1.1676998740e-1));
  p = fma(p, f, F(-1.2420140846e-1));
  p = fma(p, f, F(1.4249322787e-1));
  p = fma(p, f, F(-1.6668057665e-1));
  p = fma(p, f, F(2.0000714765e-1));
  p = fma(p, f, F(-2.4999993993e-1));
  p = fma(p, f, F(3.3333331174e-1));
  let y = fma(exponent, F(-2.12194440e-4), p * f * z) - 0.5 * z;
  let finite = fma(exponent, F(0.693359375), f + y);
  let top = bitcast<U>(x);
  let atZero = select(finite, bitcast<F>(U(opaqueBits(4286578688u))), (top & U(2147483647u)) == U(0u));
  let negative = select(atZero, bitcast<F>(U(opaqueBits(2143289344u))), (top > U(2147483648u)));
  return select(negative, x, (top >= U(2139095040u)) & (top < U(2147483648u)));
}`,
  },
  // Cephes tanhf; built-ins overflow for large |x| on some drivers and lose small ones. 2 ulp.
  tangent: {
    calls: ["exponential"],
    text: `fn tangent(x: F) -> F {
  let z = x * x;
  var p = fma(z, F(-5.70498872745e-3), F(2.06390887954e-2));
  p = fma(p, z, F(-5.37397155531e-2));
  p = fma(p, z, F(1.33314422036e-1));
  p = fma(p, z, F(-3.33332819422e-1));
  let near = fma(p * z, x, x);
  let a = min(abs(x), F(10.0));
  let far = 1.0 - 2.0 / (exponential(a + a) + 1.0);
  let result = select(select(far, -far, x < F(0.0)), near, abs(x) < F(0.625));
  return select(result, x, ${isNan("x")});
}`,
  },
  // A rational approximation on [-4, 4] (Eigen, XLA). 4 ulp.
  errorFunction: {
    calls: [],
    text: `fn errorFunction(value: F) -> F {
  let x = clamp(value, F(-4.0), F(4.0));
  let z = x * x;
  var p = fma(z, F(-2.72614225801306e-10), F(2.77068142495902e-08));
  p = fma(p, z, F(-2.10102402082508e-06));
  p = fma(p, z, F(-5.69250639462346e-05));
  p = fma(p, z, F(-7.34990630326855e-04));
  p = fma(p, z, F(-2.95459980854025e-03));
  p = fma(p, z, F(-1.60960333262415e-02));
  var q = fma(z, F(-1.45660718464996e-05), F(-2.13374055278905e-04));
  q = fma(q, z, F(-1.68282697438203e-03));
  q = fma(q, z, F(-7.37332916720468e-03));
  q = fma(q, z, F(-1.42647390514189e-02));
  return select(x * p / q, value, ${isNan("value")});
}`,
  },
  // Cephes sinf and cosf: Cody and Waite's reduction by π/2 in three parts, kept apart as above. Absolute error 1e-7 for |x| < 1e5; WGSL's own may be 5e-4.
  circular: {
    calls: [],
    text: `fn circular(x: F, shift: i32) -> F {
  let n = round(x * 0.6366197723675814);
  let r = fma(n, F(-7.549789948768648e-8), max(fma(n, F(-4.837512969970703e-4), max(fma(n, F(-1.5703125), x), F(-1e6))), F(-1e6)));
  let z = r * r;
  let s = fma(fma(fma(z, F(-1.9515295891e-4), F(8.3321608736e-3)), z, F(-1.6666654611e-1)) * z, r, r);
  let c = fma(fma(fma(z, F(2.443315711809948e-5), F(-1.388731625493765e-3)), z, F(4.166664568298827e-2)), z * z, 1.0 - 0.5 * z);
  let quadrant = I(n) + shift;
  let value = select(s, c, (quadrant & I(1)) != I(0));
  return select(value, -value, (quadrant & I(2)) != I(0));
}`,
  },
  // C's pow. Small whole exponents by squaring; others through logarithms, whose error grows with |b log a|.
  power: {
    calls: ["exponential", "logarithm"],
    isScalar: true,
    text: `fn power(a: f32, b: f32) -> f32 {
  if (a == 1.0) { return 1.0; }
  let isWhole = floor(b) == b;
  if (isWhole && abs(b) <= 64.0) {
    var result = 1.0;
    var square = a;
    for (var left = u32(abs(b)); left > 0u; left = left >> 1u) {
      if ((left & 1u) != 0u) { result = result * square; }
      square = square * square;
    }
    return select(result, 1.0 / result, b < 0.0);
  }
  if (a == 0.0) { return select(0.0, bitcast<f32>(opaqueBits(2139095040u)), b < 0.0); }
  let size = exponential(b * logarithm(abs(a)));
  if (a >= 0.0) { return size; }
  if (!isWhole) { return bitcast<f32>(opaqueBits(2143289344u)); }
  let isOdd = abs(b) < 16777216.0 && (u32(abs(b)) & 1u) != 0u;
  return select(size, -size, isOdd);
}`,
  },
  // Integers wrap; a negative power of anything but 1 and -1 truncates to 0.
  powerInt: {
    calls: [],
    isScalar: true,
    text: `fn powerInt(a: i32, b: i32) -> i32 {
  if (b < 0) { return select(select(0, select(1, -1, (b & 1) != 0), a == -1), 1, a == 1); }
  var result = 1;
  var square = a;
  for (var left = u32(b); left > 0u; left = left >> 1u) {
    if ((left & 1u) != 0u) { result = result * square; }
    square = square * square;
  }
  return result;
}`,
  },
  powerUint: {
    calls: [],
    isScalar: true,
    text: `fn powerUint(a: u32, b: u32) -> u32 {
  var result = 1u;
  var square = a;
  for (var left = b; left > 0u; left = left >> 1u) {
    if ((left & 1u) != 0u) { result = result * square; }
    square = square * square;
  }
  return result;
}`,
  },
  // C's fmod, exactly: subtracts the largest b · 2^k that fits, from the top.
  remainder: {
    calls: [],
    isScalar: true,
    text: `fn remainder(a: f32, b: f32) -> f32 {
  let size = abs(b);
  var rest = abs(a);
  if (!(size > 0.0) || !(rest <= 3.4028234e38)) { return bitcast<f32>(opaqueBits(2143289344u)); }
  for (var turn = 0; turn < 300; turn++) {
    if (!(rest >= size)) { break; }
    let apart = i32(bitcast<u32>(rest) >> 23u) - i32(bitcast<u32>(size) >> 23u);
    let half = apart >> 1u;
    var step = size * bitcast<f32>((half + 127) << 23u) * bitcast<f32>((apart - half + 127) << 23u);
    if (step > rest) { step = step * 0.5; }
    rest = rest - step;
  }
  return select(rest, -rest, (bitcast<u32>(a) & 2147483648u) != 0u);
}`,
  },
  quotientInt: { calls: [], text: "fn quotientInt(a: I, b: I) -> I { return select(a / select(b, I(1), b == I(0)), I(0), b == I(0)); }" },
  remainderInt: { calls: [], text: "fn remainderInt(a: I, b: I) -> I { return select(a % select(b, I(1), b == I(0)), I(0), b == I(0)); }" },
  quotientUint: {
    calls: [],
    text: "fn quotientUint(a: U, b: U) -> U { return select(a / select(b, U(1u), b == U(0u)), U(0u), b == U(0u)); }",
  },
  remainderUint: {
    calls: [],
    text: "fn remainderUint(a: U, b: U) -> U { return select(a % select(b, U(1u), b == U(0u)), U(0u), b == U(0u)); }",
  },
  // Philox4x32-10 (Salmon et al. 2011), counter [block, 0, stream, 0].
  philox: {
    calls: [],
    isScalar: true,
    text: `fn timesHigh(a: u32, b: u32) -> u32 {
  let low = (a & 65535u) * (b & 65535u);
  let left = (a & 65535u) * (b >> 16u);
  let right = (a >> 16u) * (b & 65535u);
  let middle = (low >> 16u) + (left & 65535u) + (right & 65535u);
  return (a >> 16u) * (b >> 16u) + (left >> 16u) + (right >> 16u) + (middle >> 16u);
}
fn philox(key0: u32, key1: u32, stream: u32, block: u32) -> vec4u {
  var c = vec4u(block, 0u, stream, 0u);
  var k = vec2u(key0, key1);
  for (var turn = 0; turn < 10; turn++) {
    c = vec4u(timesHigh(3449720151u, c.z) ^ c.y ^ k.x, 3449720151u * c.z, timesHigh(3528531795u, c.x) ^ c.w ^ k.y, 3528531795u * c.x);
    k = k + vec2u(2654435769u, 3144134277u);
  }
  return c;
}`,
  },
};

/** Collects the functions that one program calls. */
export class ProgramFunctions {
  readonly #used = new Set<string>();

  /** The name to call, in the vector form when asked for. */
  use(name: string, isVector: boolean): string {
    const template = templates[name];
    if (!template) throw new Error(`No WGSL function is called ${name}.`);
    for (const called of template.calls) this.use(called, isVector && !template.isScalar);
    // Order of insertion is order of need, so that text is the same for the same program.
    this.#used.add(name + (isVector && !template.isScalar ? "4" : ""));
    return isVector && !template.isScalar ? `${name}4` : name;
  }

  /** True when the vector form must be written lane by lane. */
  isScalar(name: string): boolean {
    return templates[name]?.isScalar === true;
  }

  declarations(): string {
    const lines = ["fn opaqueBits(bits: u32) -> u32 { return bits; }"];
    for (const used of this.#used) {
      const isVector = used.endsWith("4");
      const name = isVector ? used.slice(0, -1) : used;
      const template = templates[name];
      if (!template) continue;
      let text = template.text;
      if (!template.isScalar) {
        for (const [letter, type] of [
          ["F", "f32"],
          ["I", "i32"],
          ["U", "u32"],
          ["B", "bool"],
        ] as const) {
          text = text.replaceAll(new RegExp(`\\b${letter}\\b`, "g"), isVector ? `vec4<${type}>` : type);
        }
        if (isVector) for (const own of [name, ...template.calls]) text = text.replaceAll(`${own}(`, `${own}4(`);
      }
      lines.push(text);
    }
    return lines.join("\n");
  }
}
