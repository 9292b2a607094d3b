import { TemplateSyntaxError, type Token } from "./lexer.js";
import type { Arguments, BinaryOperator, CompareOperator, Expression } from "./syntax.js";
import { Float, type Value, wholeNumber } from "./values.js";

/** Expressions and statements within one another. Python's parser goes about as deep. */
const deepest = 200;

const constants: Readonly<Record<string, Value>> = { true: true, True: true, false: false, False: false, none: null, None: null };
const comparisons: ReadonlySet<string> = new Set(["==", "!=", "<", "<=", ">", ">="]);
const noArguments: Arguments = { positional: [], named: [], list: null, mapping: null };

/** Reads expressions off tokens with jinja2's precedence. */
export class ExpressionParser {
  #at = 0;
  #depth = 0;
  /** The names that the macros around the place mention. */
  protected readonly mentioned: Set<string>[] = [];
  /** Filters and tests that are used outside of conditions; jinja2 looks those up before it renders. */
  protected conditions = 0;
  readonly needed: { readonly kind: "filter" | "test"; readonly name: string; readonly line: number }[] = [];

  constructor(readonly tokens: readonly Token[]) {}

  protected get current(): Token {
    return this.tokens[this.#at] as Token; // The last token is the end, and is never passed.
  }

  protected next(): Token {
    const token = this.current;
    if (token.type !== "eof") this.#at++;
    return token;
  }

  protected ahead(): Token | undefined {
    return this.tokens[this.#at + 1];
  }

  protected is(type: Token["type"], value?: string): boolean {
    return this.current.type === type && (value === undefined || this.current.value === value);
  }

  protected skipIf(type: Token["type"], value: string): boolean {
    const found = this.is(type, value);
    if (found) this.next();
    return found;
  }

  protected expect(type: Token["type"], value?: string): Token {
    if (!this.is(type, value)) this.fail(`expected ${value ?? type.replace("_", " ")}, got ${describe(this.current)}`);
    return this.next();
  }

  protected fail(message: string): never {
    throw new TemplateSyntaxError(message, this.current.line);
  }

  protected deeper<R>(run: () => R): R {
    if (++this.#depth > deepest) this.fail(`more than ${deepest} levels`);
    try {
      return run();
    } finally {
      this.#depth--;
    }
  }

  expression(withChoice = true): Expression {
    return this.deeper(() => (withChoice ? this.#choice() : this.#or()));
  }

  #choice(): Expression {
    let value = this.#or();
    while (this.skipIf("name", "if")) {
      this.conditions++;
      const test = this.#or();
      const otherwise = this.skipIf("name", "else") ? this.deeper(() => this.#choice()) : null;
      this.conditions--;
      value = { type: "choice", test, chosen: value, otherwise };
    }
    return value;
  }

  #or(): Expression {
    let left = this.#and();
    while (this.skipIf("name", "or")) left = { type: "or", left, right: this.#and() };
    return left;
  }

  #and(): Expression {
    let left = this.#not();
    while (this.skipIf("name", "and")) left = { type: "and", left, right: this.#not() };
    return left;
  }

  #not(): Expression {
    if (!this.skipIf("name", "not")) return this.#compare();
    return { type: "unary", operator: "not", operand: this.deeper(() => this.#not()) };
  }

  #compare(): Expression {
    const left = this.#sum();
    const rest: (readonly [CompareOperator, Expression])[] = [];
    for (;;) {
      if (this.is("operator") && comparisons.has(this.current.value)) rest.push([this.next().value as CompareOperator, this.#sum()]);
      else if (this.skipIf("name", "in")) rest.push(["in", this.#sum()]);
      else if (this.is("name", "not") && this.ahead()?.type === "name" && this.ahead()?.value === "in") {
        this.next();
        this.next();
        rest.push(["not in", this.#sum()]);
      } else break;
    }
    return rest.length === 0 ? left : { type: "compare", left, rest };
  }

  #sum(): Expression {
    return this.#binary(["+", "-"], () => this.#concatenation());
  }

  #concatenation(): Expression {
    const parts = [this.#product()];
    while (this.skipIf("operator", "~")) parts.push(this.#product());
    return parts.length === 1 ? (parts[0] as Expression) : { type: "text", parts };
  }

  #product(): Expression {
    return this.#binary(["*", "/", "//", "%"], () => this.#power());
  }

  #power(): Expression {
    return this.#binary(["**"], () => this.#unary(true));
  }

  #binary(operators: readonly BinaryOperator[], part: () => Expression): Expression {
    let left = part();
    while (this.is("operator") && (operators as readonly string[]).includes(this.current.value)) {
      const operator = this.next().value as BinaryOperator;
      left = { type: "binary", operator, left, right: part() };
    }
    return left;
  }

  #unary(withFilter: boolean): Expression {
    const operator = this.is("operator", "-") || this.is("operator", "+") ? (this.next().value as "-" | "+") : null;
    const inner: Expression = operator ? { type: "unary", operator, operand: this.deeper(() => this.#unary(false)) } : this.primary();
    const value = this.#postfix(inner);
    return withFilter ? this.#filters(value) : value;
  }

  /** A literal, a name, or what stands in brackets. */
  protected primary(): Expression {
    const token = this.current;
    if (token.type === "name") {
      this.next();
      if (Object.hasOwn(constants, token.value)) return { type: "constant", value: constants[token.value] as Value };
      for (const names of this.mentioned) names.add(token.value);
      return { type: "name", name: token.value };
    }
    if (token.type === "string") {
      let value = "";
      while (this.is("string")) value += this.next().value;
      return { type: "constant", value };
    }
    if (token.type === "number") return { type: "constant", value: numberOf(this.next().value) };
    if (this.skipIf("operator", "(")) {
      const value = this.tuple({ inBrackets: true });
      this.expect("operator", ")");
      return value;
    }
    if (this.skipIf("operator", "[")) return { type: "list", items: this.#items("]", () => this.expression()) };
    if (this.skipIf("operator", "{")) {
      const pairs = this.#items("}", () => {
        const key = this.expression();
        this.expect("operator", ":");
        return [key, this.expression()] as const;
      });
      return { type: "dict", pairs };
    }
    return this.fail(`unexpected ${describe(token)}`);
  }

  #items<T>(end: string, item: () => T): T[] {
    const items: T[] = [];
    while (!this.is("operator", end)) {
      if (items.length > 0) this.expect("operator", ",");
      if (this.is("operator", end)) break;
      items.push(item());
    }
    this.next();
    return items;
  }

  /** An expression, or several with commas between, which are a tuple. */
  tuple(options: { readonly inBrackets?: boolean; readonly withChoice?: boolean; readonly ends?: string } = {}): Expression {
    const isEnd = (): boolean =>
      this.is("variable_end") ||
      this.is("block_end") ||
      this.is("operator", ")") ||
      (options.ends !== undefined && this.is("name", options.ends));
    const items: Expression[] = [];
    let isTuple = false;
    for (;;) {
      if (isTuple) this.expect("operator", ",");
      if (isEnd()) break;
      items.push(this.expression(options.withChoice ?? true));
      if (!this.is("operator", ",")) break;
      isTuple = true;
    }
    if (!isTuple && items[0]) return items[0];
    if (!isTuple && !options.inBrackets) this.fail(`expected an expression, got ${describe(this.current)}`);
    return { type: "tuple", items };
  }

  #postfix(value: Expression): Expression {
    let node = value;
    for (;;) {
      if (this.skipIf("operator", ".")) {
        const token = this.next();
        if (token.type === "name") node = { type: "attribute", object: node, name: token.value };
        else if (token.type === "number") node = { type: "item", object: node, key: { type: "constant", value: numberOf(token.value) } };
        else this.fail("expected a name or a number after the dot");
      } else if (this.skipIf("operator", "[")) node = this.#subscript(node);
      else if (this.is("operator", "(")) node = { type: "call", callee: node, args: this.args() };
      else return node;
    }
  }

  #subscript(object: Expression): Expression {
    const keys: Expression[] = [];
    while (!this.is("operator", "]")) {
      if (keys.length > 0) this.expect("operator", ",");
      keys.push(this.#sliceOrKey());
    }
    this.next();
    return { type: "item", object, key: keys.length === 1 ? (keys[0] as Expression) : { type: "tuple", items: keys } };
  }

  #sliceOrKey(): Expression {
    const isEnd = (): boolean => this.is("operator", "]") || this.is("operator", ",");
    const start = this.is("operator", ":") ? null : this.expression();
    if (!this.skipIf("operator", ":")) return start as Expression;
    const stop = this.is("operator", ":") || isEnd() ? null : this.expression();
    const step = this.skipIf("operator", ":") && !isEnd() ? this.expression() : null;
    return { type: "slice", start, stop, step };
  }

  #filters(value: Expression): Expression {
    let node = value;
    for (;;) {
      if (this.is("operator", "|")) node = this.filter(node) as Expression;
      else if (this.is("name", "is")) node = this.#test(node);
      else if (this.is("operator", "(")) node = { type: "call", callee: node, args: this.args() };
      else return node;
    }
  }

  /** Filters one after another; `isFirst` where the first one has no bar in front of it. */
  protected filter(operand: Expression | null, isFirst = false): Expression | null {
    let node = operand;
    let bare = isFirst;
    while (bare || this.is("operator", "|")) {
      if (!bare) this.next();
      bare = false;
      const name = this.#dotted();
      this.#need("filter", name);
      node = { type: "filter", operand: node, name, args: this.is("operator", "(") ? this.args() : noArguments };
    }
    return node;
  }

  #test(operand: Expression): Expression {
    this.next();
    const isNegated = this.skipIf("name", "not");
    const name = this.#dotted();
    this.#need("test", name);
    let args = noArguments;
    if (this.is("operator", "(")) args = this.args();
    else {
      const { type, value } = this.current;
      const starts = type === "string" || type === "number" || (type === "operator" && (value === "[" || value === "{"));
      if (starts || (type === "name" && !["else", "or", "and"].includes(value))) {
        if (this.is("name", "is")) this.fail("tests with is cannot be chained");
        args = { ...noArguments, positional: [this.#postfix(this.primary())] };
      }
    }
    const node: Expression = { type: "test", operand, name, args };
    return isNegated ? { type: "unary", operator: "not", operand: node } : node;
  }

  #dotted(): string {
    let name = this.expect("name").value;
    while (this.skipIf("operator", ".")) name += `.${this.expect("name").value}`;
    return name;
  }

  #need(kind: "filter" | "test", name: string): void {
    if (this.conditions === 0) this.needed.push({ kind, name, line: this.current.line });
  }

  /** The arguments in brackets. */
  protected args(): Arguments {
    this.expect("operator", "(");
    const positional: Expression[] = [];
    const named: (readonly [string, Expression])[] = [];
    let list: Expression | null = null;
    let mapping: Expression | null = null;
    const ensure = (holds: boolean): void => {
      if (!holds) this.fail("these arguments are in no order that a call may have");
    };
    for (let isFirst = true; !this.is("operator", ")"); isFirst = false) {
      if (!isFirst) {
        this.expect("operator", ",");
        if (this.is("operator", ")")) break;
      }
      if (this.skipIf("operator", "*")) {
        ensure(list === null && mapping === null);
        list = this.expression();
      } else if (this.skipIf("operator", "**")) {
        ensure(mapping === null);
        mapping = this.expression();
      } else if (this.is("name") && this.ahead()?.type === "operator" && this.ahead()?.value === "=") {
        ensure(mapping === null);
        const name = this.next().value;
        this.next();
        named.push([name, this.expression()]);
      } else {
        ensure(list === null && mapping === null && named.length === 0);
        positional.push(this.expression());
      }
    }
    this.next();
    return { positional, named, list, mapping };
  }
}

function describe({ type, value }: Token): string {
  return value === "" ? type.replace("_", " ") : `"${value.length > 40 ? `${value.slice(0, 40)}…` : value}"`;
}

/** A number as it stands in a template. */
function numberOf(text: string): Value {
  const plain = text.replaceAll("_", "");
  if (/^0[box]/i.test(plain)) return wholeNumber(BigInt(plain));
  return /[.e]/i.test(plain) ? new Float(Number(plain)) : wholeNumber(BigInt(plain));
}
