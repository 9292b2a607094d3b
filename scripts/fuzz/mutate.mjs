// Ways to damage a file: by its structure where it has one, else by its bytes.
/** @typedef {import("./random.mjs").Random} Random */

/** @typedef {null | boolean | number | string | Json[] | { [key: string]: Json }} Json */

const encoder = new TextEncoder();
const decoder = new TextDecoder();

/** Keys that every JavaScript object has, or that change one. */
const strangeKeys = ["__proto__", "constructor", "toString", "hasOwnProperty", "valueOf", "length", "", "then", "\u001b[2J"];

/** Values that one type or another does not expect. @param {Random} random @returns {Json} */
function strangeValue(random) {
  const makers = /** @type {(() => Json)[]} */ ([
    () => random.pick([0, -1, 1, 2, 0.5, 30.5, -0.0, 1e9, 2 ** 31, 2 ** 32, 2 ** 53, 2 ** 53 + 2, 1e22, 1e308, 5e-324, 3145728, 65536]),
    () =>
      random.pick([
        "",
        "((",
        "(([a-z_.0-9]+)+)+!",
        ".*",
        "[",
        "\\",
        "../..",
        "/",
        "all-linear",
        "none",
        "NaN",
        "1",
        "gpt2",
        "llama",
        "\u0000",
        "\ud800",
        "🦙",
      ]),
    () => "x".repeat(random.pick([100, 10_000, 200_000])),
    () => random.pick([null, true, false]),
    () => random.pick(/** @type {Json[]} */ ([[], {}, [[]], [null], [1, "a"], { toString: 1 }, { constructor: null, length: -1 }])),
    () => random.pick(strangeKeys),
    () => JSON.parse(`{"__proto__": ${random.pick(["1", "null", "{}", '"a"', "[]"])}}`),
    () => nested(random.pick([10, 500])),
    () => new Array(random.pick([10, 1000, 20_000])).fill(random.pick([0, "a", null])),
  ]);
  return random.pick(makers)();
}

/** @param {number} depth @returns {Json} */
function nested(depth) {
  /** @type {Json} */
  let value = 1;
  for (let i = 0; i < depth; i++) value = i % 2 === 0 ? [value] : { a: value };
  return value;
}

/** A number or text near another. @param {Json} value @param {Random} random @returns {Json} */
function near(value, random) {
  if (typeof value === "number")
    return random.pick([value + 1, value - 1, -value, value * 2, value / 3, value * 1e6, value + 0.5, String(value)]);
  if (typeof value === "boolean") return random.pick([!value, Number(value), String(value)]);
  if (typeof value !== "string" || value.length === 0) return strangeValue(random);
  const at = random.below(value.length);
  return random.pick([
    value.slice(0, at),
    value.slice(at),
    value + value,
    `${value.slice(0, at)}${random.pick([".", "(", "[", "*", "\u0000", "%", "}", "{", " ", "\\"])}${value.slice(at)}`,
    [value],
    { content: value },
  ]);
}

/**
 * A few places of a JSON value changed: taken out, replaced, exchanged with another place, called otherwise.
 * @param {Json} value
 * @param {Random} random
 * @returns {Json}
 */
export function mutateJson(value, random) {
  /** @type {{ root: Json }} */
  const holder = { root: structuredClone(value) };
  const count = random.pick([1, 1, 1, 2, 3]);
  for (let i = 0; i < count; i++) change(holder, random);
  return holder.root;
}

/** @param {{ root: Json }} holder @param {Random} random */
function change(holder, random) {
  const { container, key } = place(holder, random);
  const set = (/** @type {Json} */ value) => put(container, key, value);
  switch (random.below(9)) {
    case 0:
      if (Array.isArray(container)) container.splice(Number(key), 1);
      else if (container !== holder) delete container[key];
      return;
    case 1:
    case 2:
    case 3:
      return set(strangeValue(random));
    case 4:
    case 5:
      return set(near(at(container, key), random));
    case 6: {
      const other = place(holder, random);
      return set(structuredClone(at(other.container, other.key) ?? null));
    }
    case 7: {
      if (Array.isArray(container) || container === holder) return set(strangeValue(random));
      const value = at(container, key);
      delete container[key];
      return put(container, random.chance(0.5) ? random.pick(strangeKeys) : `${key}${random.pick(["s", "_", ".", " "])}`, value);
    }
    default: {
      const value = at(container, key);
      if (Array.isArray(value)) value.push(random.chance(0.5) ? strangeValue(random) : structuredClone(value[0] ?? null));
      else if (typeof value === "object" && value !== null) put(value, random.pick(strangeKeys), strangeValue(random));
      else set(strangeValue(random));
    }
  }
}

/** @param {any} container @param {string | number} key @returns {Json} */
function at(container, key) {
  return Object.hasOwn(container, key) ? container[key] : null;
}

/** Also for "__proto__", which an assignment would not make a key of. @param {object} container @param {string | number} key @param {Json} value */
function put(container, key, value) {
  Object.defineProperty(container, key, { value, enumerable: true, configurable: true, writable: true });
}

/**
 * A random place; deeper ones as often as those at the top.
 * @param {{ root: Json }} holder
 * @param {Random} random
 * @returns {{ container: any, key: string | number }}
 */
function place(holder, random) {
  /** @type {{ container: any, key: string | number }} */
  let found = { container: holder, key: "root" };
  for (;;) {
    const value = at(found.container, found.key);
    if (typeof value !== "object" || value === null || random.chance(0.15)) return found;
    const keys = Array.isArray(value) ? value.length : Object.keys(value).length;
    if (keys === 0) return found;
    const chosen = random.below(keys);
    found = { container: value, key: Array.isArray(value) ? chosen : /** @type {string} */ (Object.keys(value)[chosen]) };
  }
}

/**
 * Bytes flipped, cut, repeated, put in, or taken from another file.
 * @param {Uint8Array} bytes
 * @param {Random} random
 * @param {Uint8Array} other
 * @returns {Uint8Array}
 */
export function mutateBytes(bytes, random, other = bytes) {
  let result = bytes;
  const count = random.pick([1, 1, 2, 4]);
  for (let i = 0; i < count; i++) {
    const from = random.below(result.length + 1);
    const length = random.below(Math.min(64, result.length - from) + 1);
    const start = random.below(other.length + 1);
    switch (random.below(6)) {
      case 0: {
        result = result.slice();
        if (from < result.length) result[from] = (result[from] ?? 0) ^ (1 << random.below(8));
        break;
      }
      case 1:
        result = result.subarray(0, from);
        break;
      case 2:
        result = joined(result.subarray(0, from), result.subarray(from + length));
        break;
      case 3:
        result = joined(result.subarray(0, from + length), result.subarray(from));
        break;
      case 4:
        result = joined(
          result.subarray(0, from),
          Uint8Array.from({ length: 1 + random.below(16) }, () => random.below(256)),
          result.subarray(from),
        );
        break;
      default:
        result = joined(result.subarray(0, from), other.subarray(start, start + random.below(256)), result.subarray(from + length));
    }
  }
  return result;
}

/** @param {readonly Uint8Array[]} parts */
export function joined(...parts) {
  const result = new Uint8Array(parts.reduce((sum, { length }) => sum + length, 0));
  let offset = 0;
  for (const part of parts) {
    result.set(part, offset);
    offset += part.length;
  }
  return result;
}

/** A JSON file, mostly by its structure. @param {Uint8Array} bytes @param {Random} random @param {Uint8Array} [other] */
export function mutateJsonFile(bytes, random, other) {
  if (random.chance(0.15)) return mutateBytes(bytes, random, other);
  // Deeper than JSON.stringify can write, and JSON.parse reads it.
  if (random.chance(0.01)) {
    const depth = random.pick([5000, 100_000]);
    return encoder.encode(
      decoder.decode(bytes).replace(/(?<=: ?)(?:\d+|"[^"]*"|null|true|false)/, `${"[".repeat(depth)}${"]".repeat(depth)}`),
    );
  }
  return encoder.encode(JSON.stringify(mutateJson(JSON.parse(decoder.decode(bytes)), random)));
}

/** One line of a JSONL file, or its bytes. @param {Uint8Array} bytes @param {Random} random @param {Uint8Array} [other] */
export function mutateLines(bytes, random, other) {
  if (random.chance(0.2)) return mutateBytes(bytes, random, other);
  const lines = decoder.decode(bytes).split("\n");
  const chosen = random.below(lines.length);
  const line = lines[chosen] ?? "";
  const parsed = line.trim() === "" ? null : JSON.parse(line);
  lines[chosen] = random.chance(0.05)
    ? random.pick(["", "null", "[]", "\ufeff", "{", "\r", '"'.repeat(9)])
    : JSON.stringify(mutateJson(parsed, random));
  if (random.chance(0.1)) lines.splice(random.below(lines.length), random.below(3), ...lines.slice(0, 2));
  return encoder.encode(lines.join("\n"));
}

/** Header and data of a safetensors file. @param {Uint8Array} bytes @returns {{ header: Json, data: Uint8Array }} */
function parts(bytes) {
  const length = new DataView(bytes.buffer, bytes.byteOffset).getUint32(0, true);
  return { header: JSON.parse(decoder.decode(bytes.subarray(8, 8 + length))), data: bytes.subarray(8 + length) };
}

/** @param {Json} header @param {Uint8Array} data */
function safetensors(header, data) {
  const json = encoder.encode(JSON.stringify(header));
  const start = new Uint8Array(8);
  new DataView(start.buffer).setBigUint64(0, BigInt(json.length), true);
  return joined(start, json, data);
}

/**
 * A safetensors file: its header by structure, the metadata's own JSON where `inner` names it, or bytes.
 * @param {Uint8Array} bytes
 * @param {Random} random
 * @param {Uint8Array} [other]
 * @param {string} [inner]
 */
export function mutateSafetensors(bytes, random, other, inner) {
  if (random.chance(0.25)) return mutateBytes(bytes, random, other);
  const { header, data } = parts(bytes);
  const metadata = /** @type {any} */ (header)["__metadata__"];
  if (inner !== undefined && random.chance(0.7)) {
    const { [inner]: text } = metadata;
    metadata[inner] = random.chance(0.1)
      ? decoder.decode(mutateBytes(encoder.encode(text), random))
      : JSON.stringify(mutateJson(JSON.parse(text), random));
    return safetensors(header, data);
  }
  return safetensors(mutateJson(header, random), random.chance(0.1) ? mutateBytes(data, random) : data);
}

const jinja = [
  "{% for i in range(1000000000) %}{{ i }}{% endfor %}",
  "{% for i in range(9999) %}{% for j in range(9999) %}{% for k in range(9999) %}{% endfor %}{% endfor %}{% endfor %}",
  "{% set s = 'ab' %}" + "{% set s = s + s %}".repeat(40) + "{{ s }}",
  "{% set ns = namespace(s='ab') %}{% for i in range(90) %}{% set ns.s = ns.s ~ ns.s %}{% endfor %}{{ ns.s }}",
  "{% set ns = namespace(a=[1]) %}{% for i in range(90) %}{% set ns.a = [ns.a, ns.a] %}{% endfor %}{{ ns.a }}",
  "{% set ns = namespace(a=1) %}{% set ns.a = ns %}{% set ns.b = ns %}{{ ns }}",
  "{% macro m(n) %}{{ m(n + 1) }}{% endmacro %}{{ m(0) }}",
  "{% macro m(n) %}{{ m(n + 1) }}{{ m(n + 1) }}{% endmacro %}{{ m(0) }}",
  "{{ 'a,' * 1000 }}",
  "{{ messages | tojson(indent=100000000) }}",
  "{{ 'a\\nb' | indent(1000000000) }}",
  "{{ 'aaaa' | replace('', 'b') }}",
  "{{ raise_exception('no') }}",
  "{{ raise_exception(messages) }}",
  "{{ strftime_now('%Y-%d-%B') }}",
  "{{ messages | join(', ') }}",
  "{{ messages[0].content | upper | list | length }}",
  "{{ messages[::-1][0]['role'] }}",
  "{{ none.a.b }}",
  "{{ messages | selectattr('role', 'equalto', 'user') | list }}",
  "{{ messages | map(attribute='content') | join('') }}",
  "{{ loop.index }}",
  "{{ caller() }}",
  "{{ '%s' % 1 }}",
  "{{ messages | groupby('role') }}",
  "{{ __proto__ }}",
  "{{ constructor.constructor('return 1')() }}",
  "{{ messages.__proto__ }}",
  "{{ ''.constructor }}",
  "{{ messages | dictsort }}",
  "{% break %}",
  "{% continue %}",
  "{% generation %}a{% endgeneration %}",
  "{% filter upper %}a{% endfilter %}",
  "{% call m() %}a{% endcall %}",
  " ".repeat(3000),
  "{{ ",
  "{% ",
  "{#",
  "%}",
  "}}",
  "-%}",
  "{%-",
  "\\",
  "'",
  '"',
  "(".repeat(2000),
  "{% if a %}".repeat(500),
  "[[".repeat(300),
];
const words = [
  "messages",
  "message",
  "m",
  "loop",
  "loop.index0",
  "content",
  "role",
  "bos_token",
  "add_generation_prompt",
  "true",
  "none",
  "not",
  "and",
  "or",
  "in",
  "is defined",
  "is string",
  "1e9",
  "99999999999",
  "-1",
  "0",
  "+",
  "~",
  "*",
  "**",
  "//",
  "%",
  "|",
  "|trim",
  "|length",
  "|tojson",
  ".items()",
  "[0]",
  "[-1]",
  "[:]",
  "[::0]",
  "()",
  "(1, 2)",
  "{}",
  "=",
  "==",
  "if",
  "else",
  "endif",
  "for",
  "endfor",
  "set",
  "endset",
  "elif",
  "macro",
  "endmacro",
];

/** A template: pieces of its tags and of other templates put elsewhere, or constructs that ask for too much put in. @param {string} text @param {Random} random @param {string} other */
export function mutateTemplate(text, random, other) {
  let result = text;
  const count = random.pick([1, 1, 2, 3]);
  for (let i = 0; i < count; i++) {
    const pieces = result.split(/(\{%-?|-?%\}|\{\{-?|-?\}\}|[\s,.()[\]|=+~:]+)/);
    const place = random.below(pieces.length);
    switch (random.below(7)) {
      case 0:
        pieces.splice(place, 1 + random.below(3));
        break;
      case 1:
        pieces[place] = random.pick(words);
        break;
      case 2:
        pieces.splice(place, 0, random.pick(words));
        break;
      case 3:
        pieces.splice(place, 0, random.pick(jinja));
        break;
      case 4: {
        const others = other.split(/(\{%.*?%\}|\{\{.*?\}\})/s);
        pieces.splice(place, random.below(3), random.pick(others));
        break;
      }
      case 5: {
        const from = random.below(pieces.length);
        pieces.splice(place, 0, ...pieces.slice(from, from + random.below(12)));
        break;
      }
      default:
        return decoder.decode(mutateBytes(encoder.encode(pieces.join("")), random));
    }
    result = pieces.join("");
  }
  return result;
}
