/** A schema, JSON texts that it takes, and some that it does not. */
export interface SchemaCase {
  readonly name: string;
  readonly schema: unknown;
  readonly fits: readonly string[];
  readonly unfit: readonly string[];
}

/** Schemas of every kind that is known. */
export const schemas: readonly SchemaCase[] = [
  { name: "anything", schema: true, fits: ["1", "null", '{"a": [1, {}, [], ""]}', "[[[[]]]]"], unfit: ["", "01", "[1,]", "{,}", '"\t"'] },
  {
    name: "an object of required and optional properties in their order",
    schema: {
      type: "object",
      properties: { a: { type: "string" }, b: { type: "integer" }, c: { type: "null" }, d: { type: "boolean" } },
      required: ["b"],
      additionalProperties: false,
    },
    fits: ['{"b":1}', '{"a":"x","b":-3,"d":true}', '{\n  "b": 1,\n  "c": null\n}', '{"a" : "" , "b" : 0 , "c" : null , "d" : false }'],
    unfit: ["{}", '{"a":"x"}', '{"b":1,"a":"x"}', '{"b":1,}', '{"b":1.5}', '{"b":1,"z":2}', '{"b":01}'],
  },
  { name: "an object of nothing", schema: { type: "object", properties: {} }, fits: ["{}", "{\n}"], unfit: ['{"a":1}'] },
  {
    name: "an object that is all optional",
    schema: { properties: { a: { const: 1 }, b: { const: 2 } } },
    fits: ["{}", '{"a":1}', '{"b":2}', '{"a":1,"b":2}'],
    unfit: ["{,}", '{"a":1,"a":1}', "[]"],
  },
  {
    name: "further properties, which are none of those with names",
    schema: { type: "object", properties: { ab: { type: "string" } }, additionalProperties: { type: "integer" } },
    fits: ['{"ab":"x","abc":1,"a":2,"":3,"b":4}', '{"é":1}', '{"a":1}'],
    unfit: ['{"ab":1}', '{"a":"x"}', '{"x":1,"ab":"y"}', '{"\\u0061b":1}'],
  },
  {
    name: "a required property that is not described",
    schema: { type: "object", required: ["z"], additionalProperties: true },
    fits: ['{"z":[1]}', '{"z":null,"y":1}'],
    unfit: ["{}", '{"y":1}'],
  },
  {
    name: "names that must be escaped",
    schema: { type: "object", properties: { 'a"\\\n': { type: "null" }, "é\u2028": { type: "null" } }, required: ['a"\\\n', "é\u2028"] },
    fits: ['{"a\\"\\\\\\n":null,"é\u2028":null}'],
    unfit: ['{"a":null}'],
  },
  {
    name: "strings of a length in code points",
    schema: { type: "string", minLength: 2, maxLength: 4 },
    fits: ['"ab"', '"é😀"', '"\\n\\u00e9"', '"\\ud83d\\ude00😀😀😀"'],
    unfit: ['"a"', '"abcde"', '"\\ud83d\\ude00"', '"\\ud83da"', '"a\u0001"', "abc"],
  },
  {
    name: "long strings",
    schema: { type: "string", minLength: 300, maxLength: 301 },
    fits: [`"${"é".repeat(300)}"`],
    unfit: [`"${"é".repeat(299)}"`],
  },
  {
    name: "dates and the like",
    schema: {
      type: "array",
      prefixItems: ["date", "time", "date-time", "uuid"].map((format) => ({ type: "string", format })),
      items: false,
    },
    fits: ['["2024-12-31","23:59:59.5Z","2024-02-28T00:00:00+14:00","01234567-89ab-cdef-0123-456789abcdef"]'],
    unfit: ['["2024-02-30","23:59:59Z"]', '["2024-13-01"]', '["2024-12-31","24:00:00Z"]'],
  },
  ...[
    { minimum: 0, maximum: 150, in: [0, 9, 10, 99, 100, 150], out: [-1, 151, 1000] },
    { minimum: -17, maximum: 1203, in: [-17, -9, 0, 5, 999, 1000, 1203], out: [-18, -20, -100, 1204, 2000] },
    { exclusiveMinimum: 3, in: [4, 10, 123456], out: [3, 0, -4] },
    { exclusiveMaximum: -3, in: [-4, -10], out: [-3, 0, 4] },
    { minimum: 0.5, maximum: 9.5, in: [1, 9], out: [0, 10] },
    { minimum: 7, maximum: 7, in: [7], out: [6, 8, 77] },
  ].map(({ in: inside, out, ...bounds }) => ({
    name: `integers of ${JSON.stringify(bounds)}`,
    schema: { type: "integer", ...bounds },
    fits: inside.map(String),
    unfit: [...out.map(String), "1.5", "1e1"],
  })),
  ...[
    { minimum: 0, maximum: 1, in: ["0", "1", "0.5", "1.0", "0.25"], out: ["-0.5", "1.5", "1.01", "2"] },
    { exclusiveMinimum: 0, exclusiveMaximum: 10, in: ["0.001", "9.999", "5"], out: ["0", "0.0", "10", "10.0", "-1"] },
    { minimum: -2, maximum: 3, in: ["-2", "-2.0", "-1.5", "-0.5", "0", "2.9", "3"], out: ["-2.5", "3.1", "-3"] },
    { exclusiveMinimum: -2, maximum: -1, in: ["-1.5", "-1", "-1.0", "-1.999"], out: ["-2", "0", "-0.5", "1"] },
    { minimum: 100, in: ["100", "100.5", "123456.75"], out: ["99.9", "-100", "1e3"] },
    { maximum: -1, in: ["-1", "-1.5", "-10"], out: ["-0.5", "0", "1"] },
  ].map(({ in: inside, out, ...bounds }) => ({
    name: `numbers of ${JSON.stringify(bounds)}`,
    schema: { type: "number", ...bounds },
    fits: inside,
    unfit: out,
  })),
  { name: "numbers", schema: { type: "number" }, fits: ["-0.5e-7", "12", "1E+30"], unfit: ["+1", ".5", "1.", "1e400", "01"] },
  {
    name: "lists of so many",
    schema: { type: "array", items: { type: "integer" }, minItems: 2, maxItems: 3 },
    fits: ["[1,2]", "[1, 2, 3]", "[\n  1,\n  2\n]"],
    unfit: ["[]", "[1]", "[1,2,3,4]", "[1 2]"],
  },
  { name: "an empty list", schema: { type: "array", maxItems: 0 }, fits: ["[]", "[ ]"], unfit: ["[1]"] },
  { name: "at most one", schema: { type: "array", items: { const: 1 }, maxItems: 1 }, fits: ["[]", "[1]"], unfit: ["[1,1]"] },
  {
    name: "a list that begins with others",
    schema: { type: "array", prefixItems: [{ type: "string" }, { type: "null" }], items: { type: "boolean" }, maxItems: 3 },
    fits: ['["a",null]', '["a",null,true]'],
    unfit: ['["a",null,1]', '["a",null,true,true]', "[null]"],
  },
  {
    name: "more than the described ones",
    schema: { type: "array", prefixItems: [{ const: 1 }], minItems: 2 },
    fits: ['[1,"x"]', "[1,{},[]]"],
    unfit: ["[1]", '["x",1]'],
  },
  {
    name: "values of a list",
    schema: { enum: ["a", "ab", 1, null, { x: [1, "é\n"] }, [], -0.5] },
    fits: ['"a"', '"ab"', "1", "null", '{"x":[1,"é\\n"]}', '{ "x": [ 1, "é\\n" ] }', "[]", "-0.5"],
    unfit: ['"abc"', "10", "2", '{"x":[1]}'],
  },
  {
    name: "values of a type",
    schema: { type: ["string", "integer"], enum: ["a", 1, 1.5, null] },
    fits: ['"a"', "1"],
    unfit: ["1.5", "null"],
  },
  { name: "one value", schema: { const: { a: 1.5, b: {} } }, fits: ['{"a":1.5,"b":{}}'], unfit: ['{"b":{},"a":1.5}', "{}"] },
  { name: "types", schema: { type: ["string", "null", "array"], maxLength: 1 }, fits: ['"a"', "null", "[1]"], unfit: ['"ab"', "1"] },
  { name: "keywords of one type say the type", schema: { maxLength: 2 }, fits: ['"ab"'], unfit: ['"abc"', "1"] },
  {
    name: "one of several",
    schema: { anyOf: [{ type: "integer" }, { type: "number" }, { type: "object", properties: { a: true } }] },
    fits: ["1", "1.5", '{"a":{}}'],
    unfit: ['"a"', '{"b":1}'],
  },
  {
    name: "exactly one of some that differ by a property",
    schema: {
      oneOf: [{ $ref: "#/$defs/cat" }, { $ref: "#/$defs/dog" }, { type: "null" }],
      $defs: {
        cat: { type: "object", properties: { kind: { const: "cat" }, lives: { type: "integer" } }, required: ["kind"] },
        dog: { type: "object", properties: { kind: { enum: ["dog", "wolf"] }, bark: { type: "string" } }, required: ["kind", "bark"] },
      },
    },
    fits: ['{"kind":"cat"}', '{"kind":"wolf","bark":"!"}', "null", '{"kind":"cat","lives":9}'],
    unfit: ['{"kind":"dog"}', '{"kind":"cat","bark":"x"}', '{"kind":"cow"}'],
  },
  { name: "all of one, as pydantic writes it", schema: { allOf: [{ type: "null" }], description: "d" }, fits: ["null"], unfit: ["1"] },
  {
    name: "what holds itself",
    schema: {
      $defs: { "a/b~": { type: "object", properties: { v: { type: "integer" }, next: { $ref: "#/$defs/a~1b~0" } }, required: ["v"] } },
      $ref: "#/$defs/a~1b~0",
    },
    fits: ['{"v":1}', '{"v":1,"next":{"v":2,"next":{"v":3}}}'],
    unfit: ['{"next":{"v":1}}', '{"v":1,"next":null}'],
  },
  {
    name: "what holds itself as a whole",
    schema: { anyOf: [{ type: "array", items: { $ref: "#" } }, { const: 0 }] },
    fits: ["0", "[]", "[0,[0,[]]]"],
    unfit: ["1", "[1]"],
  },
  {
    name: "what nobody needs to look at",
    schema: { $schema: "s", $id: "i", title: "t", description: "d", default: 1, examples: [1], $comment: "c", type: "boolean" },
    fits: ["true", "false"],
    unfit: ["1"],
  },
];
