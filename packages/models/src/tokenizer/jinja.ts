import * as jinja from "@huggingface/jinja";

// The package's own types import one another without file endings, which Node's resolution does not follow; these are the parts used here.

/** A node of a parsed template, with the fields that its type has. */
export interface Node {
  readonly type: string;
  readonly [field: string]: unknown;
}

/** A value while a template is rendered: a text, number, array, map or function in JavaScript's form, under its type's name. */
export interface Value {
  readonly type: string;
  readonly value: unknown;
  readonly builtins: ReadonlyMap<string, Value>;
}

/** Variables by name, and the scope around them. */
export interface Scope {
  readonly parent?: Scope;
  readonly variables: ReadonlyMap<string, Value>;
  /** Declares a variable of a JavaScript value. */
  set(name: string, value: unknown): Value;
}

/** What a function of a template is in JavaScript. */
export type Callable = (args: Value[], scope: Scope) => Value;

const given = jinja as unknown as {
  readonly Environment: new (parent?: Scope) => Scope;
  readonly Interpreter: new (global: Scope) => { evaluate(node: Node | undefined, scope: Scope): Value; run(program: Node): Value };
  readonly tokenize: (text: string, options: { readonly lstrip_blocks: boolean; readonly trim_blocks: boolean }) => readonly unknown[];
  readonly parse: (tokens: readonly unknown[]) => Node;
};

export const Environment: typeof given.Environment = given.Environment;
export const Interpreter: typeof given.Interpreter = given.Interpreter;

/** A template's program; white space about blocks is cut as transformers does. Throws SyntaxError. */
export function parseTemplate(text: string): Node {
  return given.parse(given.tokenize(text, { lstrip_blocks: true, trim_blocks: true }));
}
