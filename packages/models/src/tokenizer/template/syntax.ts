import type { Value } from "./values.js";

/** An expression of a template. */
export type Expression =
  | { readonly type: "constant"; readonly value: Value }
  | { readonly type: "name"; readonly name: string }
  | { readonly type: "text"; readonly parts: readonly Expression[] }
  | { readonly type: "list" | "tuple"; readonly items: readonly Expression[] }
  | { readonly type: "dict"; readonly pairs: readonly (readonly [Expression, Expression])[] }
  | { readonly type: "attribute"; readonly object: Expression; readonly name: string }
  | { readonly type: "item"; readonly object: Expression; readonly key: Expression }
  | { readonly type: "slice"; readonly start: Expression | null; readonly stop: Expression | null; readonly step: Expression | null }
  | { readonly type: "call"; readonly callee: Expression; readonly args: Arguments }
  | { readonly type: "filter"; readonly operand: Expression | null; readonly name: string; readonly args: Arguments }
  | { readonly type: "test"; readonly operand: Expression; readonly name: string; readonly args: Arguments }
  | { readonly type: "unary"; readonly operator: "+" | "-" | "not"; readonly operand: Expression }
  | { readonly type: "binary"; readonly operator: BinaryOperator; readonly left: Expression; readonly right: Expression }
  | { readonly type: "and" | "or"; readonly left: Expression; readonly right: Expression }
  | { readonly type: "compare"; readonly left: Expression; readonly rest: readonly (readonly [CompareOperator, Expression])[] }
  | { readonly type: "choice"; readonly test: Expression; readonly chosen: Expression; readonly otherwise: Expression | null };

export type BinaryOperator = "+" | "-" | "*" | "/" | "//" | "%" | "**";
export type CompareOperator = "==" | "!=" | "<" | "<=" | ">" | ">=" | "in" | "not in";

/** Arguments of a call: by place, by name, and those that a list or a mapping holds. */
export interface Arguments {
  readonly positional: readonly Expression[];
  readonly named: readonly (readonly [string, Expression])[];
  readonly list: Expression | null;
  readonly mapping: Expression | null;
}

/** What is assigned to. */
export type Target =
  | { readonly type: "name"; readonly name: string }
  | { readonly type: "field"; readonly name: string; readonly field: string }
  | { readonly type: "tuple"; readonly items: readonly Target[] };

/** Parameters of a macro or of a call block; the last ones have defaults. */
export interface Signature {
  readonly names: readonly string[];
  readonly defaults: readonly Expression[];
}

/** A body that is called, and the names that occur in it. */
export interface MacroBody extends Signature {
  readonly body: readonly Statement[];
  readonly mentioned: ReadonlySet<string>;
}

/** A statement of a template. */
export type Statement =
  | { readonly type: "data"; readonly text: string }
  | { readonly type: "output"; readonly value: Expression }
  | {
      readonly type: "if";
      readonly branches: readonly (readonly [Expression, readonly Statement[]])[];
      readonly otherwise: readonly Statement[];
    }
  | {
      readonly type: "for";
      readonly target: Target;
      readonly sequence: Expression;
      readonly test: Expression | null;
      readonly isRecursive: boolean;
      readonly body: readonly Statement[];
      readonly otherwise: readonly Statement[];
    }
  | { readonly type: "set"; readonly target: Target; readonly value: Expression }
  | { readonly type: "setBlock"; readonly target: Target; readonly filter: Expression | null; readonly body: readonly Statement[] }
  | { readonly type: "with"; readonly targets: readonly (readonly [Target, Expression])[]; readonly body: readonly Statement[] }
  | { readonly type: "macro"; readonly name: string; readonly macro: MacroBody }
  | { readonly type: "callBlock"; readonly call: Expression & { readonly type: "call" }; readonly macro: MacroBody }
  | { readonly type: "filterBlock"; readonly filter: Expression; readonly body: readonly Statement[] }
  | { readonly type: "block"; readonly body: readonly Statement[] }
  | { readonly type: "generation"; readonly body: readonly Statement[] }
  | { readonly type: "break" | "continue" };
