import type { ComputeDType } from "../../tensor/dtype.js";

/** The WGSL scalar type of a compute type. */
export function wgslType(dtype: ComputeDType): string {
  return dtype;
}

/** The WGSL type of a value that is one element or four lanes. */
export function valueType(dtype: ComputeDType, isVector: boolean): string {
  return isVector ? `vec4<${dtype}>` : dtype;
}

/**
 * A literal. WGSL rejects expressions of constants that overflow, and has no infinity or NaN, so those come from their bits through
 * `opaqueBits`, a function, which compilers must not evaluate while they check.
 */
export function literal(dtype: ComputeDType, value: number): string {
  switch (dtype) {
    case "bool":
      return value === 0 ? "false" : "true";
    case "u32":
      return `${value >>> 0}u`;
    case "i32":
      if (value === -2147483648) return "i32(-2147483648)";
      return value < 0 ? `(${value}i)` : `${value}i`;
    case "f32":
      return floatLiteral(value);
  }
}

function floatLiteral(value: number): string {
  if (Number.isNaN(value)) return "bitcast<f32>(opaqueBits(2143289344u))";
  if (value === Number.POSITIVE_INFINITY) return "bitcast<f32>(opaqueBits(2139095040u))";
  if (value === Number.NEGATIVE_INFINITY) return "bitcast<f32>(opaqueBits(4286578688u))";
  if (Object.is(value, -0)) return "bitcast<f32>(opaqueBits(2147483648u))";
  const text = String(Math.fround(value));
  const number = /[.e]/.test(text) ? `${text}f` : `${text}.0f`;
  return value < 0 ? `(${number})` : number;
}
