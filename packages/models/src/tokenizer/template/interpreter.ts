import { binary, concatenated, signed } from "./arithmetic.js";
import { attribute, item, sliced } from "./attributes.js";
import { contains, elementsOf, isEqual, isLess, isTrue, sizeOf } from "./compare.js";
import type { Context } from "./filter.js";
import { runFilter } from "./filters.js";
import type { Meter } from "./meter.js";
import { printed } from "./print.js";
import type { Scope } from "./scope.js";
import type { Arguments, CompareOperator, Expression } from "./syntax.js";
import { tests } from "./tests.js";
import {
  Callable,
  type Charge,
  Dict,
  type Given,
  isText,
  orElse,
  TemplateError,
  Tuple,
  textOf,
  typeName,
  Undefined,
  type Value,
} from "./values.js";

/** Evaluates a template's expressions as Python does, within a budget. */
export class Evaluator implements Context {
  readonly charge: Charge;

  constructor(readonly meter: Meter) {
    this.charge = meter.charge;
  }

  filter(name: string, value: Value, given: Given): Value {
    return this.#paid(runFilter(name, value, given, this));
  }

  test(name: string, value: Value, args: readonly Value[]): boolean {
    const run = tests.get(name);
    if (!run) throw new TemplateError(`there is no test "${name}"`);
    return run(value, args, this.charge);
  }

  /** The value of an expression. Throws TemplateError where Python would raise, and RenderLimit. */
  evaluate(node: Expression, scope: Scope): Value {
    this.meter.enter();
    try {
      return this.#evaluate(node, scope);
    } finally {
      this.meter.leave();
    }
  }

  #evaluate(node: Expression, scope: Scope): Value {
    switch (node.type) {
      case "constant":
        return node.value;
      case "name":
        return orElse(scope.find(node.name, this.charge), () => new Undefined(`'${node.name}' is undefined`));
      case "text":
        return concatenated(
          node.parts.map((part) => this.evaluate(part, scope)),
          this.charge,
        );
      case "list":
        return node.items.map((part) => this.evaluate(part, scope));
      case "tuple":
        return new Tuple(node.items.map((part) => this.evaluate(part, scope)));
      case "dict":
        return new Dict(node.pairs.map(([key, value]) => [this.evaluate(key, scope), this.evaluate(value, scope)] as const));
      case "attribute":
        return attribute(this.evaluate(node.object, scope), node.name, this.charge);
      case "item":
        return this.#item(this.evaluate(node.object, scope), node.key, scope);
      case "slice":
        throw new TemplateError("a slice stands where it slices nothing");
      case "call":
        return this.call(this.evaluate(node.callee, scope), this.given(node.args, scope));
      case "filter": {
        if (!node.operand) throw new TemplateError("a filter has nothing to work on");
        const value = this.evaluate(node.operand, scope);
        return this.filter(node.name, value, this.given(node.args, scope));
      }
      case "test": {
        const value = this.evaluate(node.operand, scope);
        const { positional } = this.given(node.args, scope);
        return this.test(node.name, value, positional);
      }
      case "unary": {
        const value = this.evaluate(node.operand, scope);
        return node.operator === "not" ? !isTrue(value) : signed(node.operator, value);
      }
      case "binary": {
        const left = this.evaluate(node.left, scope);
        return binary(node.operator, left, this.evaluate(node.right, scope), this.charge);
      }
      case "and":
      case "or": {
        const left = this.evaluate(node.left, scope);
        return isTrue(left) === (node.type === "and") ? this.evaluate(node.right, scope) : left;
      }
      case "compare":
        return this.#compare(node, scope);
      case "choice":
        if (isTrue(this.evaluate(node.test, scope))) return this.evaluate(node.chosen, scope);
        return node.otherwise
          ? this.evaluate(node.otherwise, scope)
          : new Undefined("the inline if-expression evaluated to false and no else section was defined.");
    }
  }

  /** Calls a value. Throws TemplateError where it is not a function. */
  call(callee: Value, given: Given): Value {
    if (callee instanceof Undefined) callee.fail();
    if (!(callee instanceof Callable)) throw new TemplateError(`'${typeName(callee)}' object is not callable`);
    return this.#paid(callee.call(given));
  }

  given(args: Arguments, scope: Scope): Given {
    const positional = args.positional.map((arg) => this.evaluate(arg, scope));
    const named = new Map(args.named.map(([name, value]) => [name, this.evaluate(value, scope)]));
    if (args.list) positional.push(...elementsOf(this.evaluate(args.list, scope), this.charge));
    if (args.mapping) {
      const mapping = this.evaluate(args.mapping, scope);
      if (!(mapping instanceof Dict)) throw new TemplateError(`argument after ** must be a mapping, not ${typeName(mapping)}`);
      for (const [key, value] of mapping.entries()) {
        if (!isText(key)) throw new TemplateError("keywords must be strings");
        named.set(textOf(key), value);
      }
    }
    return { positional, named };
  }

  #item(object: Value, key: Expression, scope: Scope): Value {
    if (key.type !== "slice") return item(object, this.evaluate(key, scope), this.charge);
    const part = (border: Expression | null): Value => (border ? this.evaluate(border, scope) : null);
    return this.#paid(sliced(object, part(key.start), part(key.stop), part(key.step), this.charge));
  }

  /** `a < b < c`: each pair holds, and each value is found once. */
  #compare(node: Expression & { readonly type: "compare" }, scope: Scope): boolean {
    let left = this.evaluate(node.left, scope);
    for (const [operator, expression] of node.rest) {
      const right = this.evaluate(expression, scope);
      this.charge(Math.min(sizeOf(left), sizeOf(right)));
      if (!compared(operator, left, right, this.charge)) return false;
      left = right;
    }
    return true;
  }

  /** The value as text, which is paid for. */
  text(value: Value): string {
    const text = printed(value, this.charge);
    this.charge(text.length / 8);
    return text;
  }

  #paid(value: Value): Value {
    this.charge(sizeOf(value));
    return value;
  }
}

function compared(operator: CompareOperator, left: Value, right: Value, charge: Charge): boolean {
  switch (operator) {
    case "==":
      return isEqual(left, right, charge);
    case "!=":
      return !isEqual(left, right, charge);
    case "in":
      return contains(right, left, charge);
    case "not in":
      return !contains(right, left, charge);
    case "<":
      return isLess(left, right, charge);
    case ">":
      return isLess(right, left, charge);
    case "<=":
      return isLess(left, right, charge) || isEqual(left, right, charge);
    case ">=":
      return isLess(right, left, charge) || isEqual(left, right, charge);
  }
}
