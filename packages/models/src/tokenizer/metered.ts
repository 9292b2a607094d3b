import { type Callable, Interpreter, type Node, type Scope, type Value } from "./jinja.js";

/** Rendering went beyond its budget. */
export class RenderLimit extends Error {}

/** Characters that cost as much as one step: copying them takes a few nanoseconds. */
const charactersPerStep = 8;
/** Expressions within expressions, calls of macros included. Templates of models have some dozen. */
const deepest = 500;

/** What a round of a loop costs besides its body: its scope and the variable `loop`. */
const stepsPerRound = 30;

/** Filters that look at nothing but the outside of what they are given. */
const cheapFilters: ReadonlySet<string> = new Set(["first", "last", "length", "list", "default", "safe", "abs", "int", "float", "bool"]);

/**
 * Jinja's interpreter with a budget: every node that is evaluated, every element that a step goes through and every eight characters that
 * one copies cost a step, and are paid before they are done. What a template gives is what the plain interpreter gives, or RenderLimit.
 */
export class MeteredInterpreter extends Interpreter {
  #left: number;
  #depth = 0;
  readonly #places: Places;

  /** `steps`: how much rendering may cost. `template`: what `parse` gave. */
  constructor(environment: Scope, template: Places, steps: number) {
    super(environment);
    this.#places = template;
    this.#left = steps;
  }

  /** Pays for steps. Throws RenderLimit where there are not as many left. */
  charge(steps: number): void {
    this.#left -= steps;
    // NaN too: sizes are of the template's own making.
    if (!(this.#left >= 0)) throw new RenderLimit("it takes too many steps");
  }

  override evaluate(node: Node | undefined, environment: Scope): Value {
    // The parser's nodes have null where a part is left out.
    if (!node) return super.evaluate(undefined, environment);
    if (node.type === "Known") return node["value"] as Value;
    this.charge(1);
    if (++this.#depth > deepest) throw new RenderLimit(`it goes more than ${deepest} expressions deep`);
    try {
      const value = this.#evaluate(node, environment);
      // What a block writes, it writes as text.
      if (this.#places.outputs.has(node)) this.#chargeText(value);
      else if (this.#places.sequences.has(node)) this.charge(stepsPerRound * lengthOf(value));
      return value;
    } finally {
      this.#depth--;
    }
  }

  #evaluate(node: Node, environment: Scope): Value {
    const plain = (changed: Node = node): Value => super.evaluate(changed, environment);
    switch (node.type) {
      case "Identifier": {
        // As the lookup goes, from scope to scope; it makes an error, which is slow, where it finds nothing.
        for (let scope: Scope | undefined = environment; scope; scope = scope.parent) {
          if (scope.variables.has(node["value"] as string)) return plain();
          this.charge(1);
        }
        return super.evaluate(undefined, environment);
      }
      case "BinaryExpression":
        return this.#binary(node, environment);
      case "FilterStatement": {
        const text = plain({ type: "Program", body: node["body"] });
        return this.#filter(text, node["filter"] as Node, environment);
      }
      case "FilterExpression":
        return this.#filter(this.evaluate(node["operand"] as Node, environment), node["filter"] as Node, environment);
      case "TestExpression": {
        const operand = this.evaluate(node["operand"] as Node, environment);
        const test = (node["test"] as Node)["value"];
        if (test === "lower" || test === "upper") this.charge(lengthOf(operand));
        return plain({ ...node, operand: known(operand) });
      }
      case "MemberExpression":
        return this.#member(node, environment);
      case "CallExpression":
        return this.#paid(plain(this.#call(node, environment)));
      case "CallStatement":
        this.charge(this.#places.sizes.get(node) ?? 0);
        return this.#paid(plain({ ...node, call: this.#call(node["call"] as Node, environment) }));
      case "Macro":
        this.charge(this.#places.sizes.get(node) ?? 0);
        return plain();
      default:
        return plain();
    }
  }

  /** The value, its size paid. */
  #paid(value: Value): Value {
    this.charge(lengthOf(value));
    return value;
  }

  #binary(node: Node, environment: Scope): Value {
    const operator = (node["operator"] as { readonly value: string }).value;
    if (operator === "and" || operator === "or") return super.evaluate(node as unknown as Node, environment);
    const left = this.evaluate(node["left"] as Node, environment);
    const right = this.evaluate(node["right"] as Node, environment);
    if (operator === "in" || operator === "not in") this.charge(lengthOf(left) + lengthOf(right));
    // A container beside a text becomes one.
    else if (isContainer(left) !== isContainer(right)) for (const value of [left, right]) this.#chargeText(value);
    else this.charge(lengthOf(left) + lengthOf(right));
    if (operator === "~" && isContainer(left)) for (const value of [left, right]) this.#chargeText(value);
    return super.evaluate({ ...node, left: known(left), right: known(right) } as unknown as Node, environment);
  }

  #filter(operand: Value, filter: Node, environment: Scope): Value {
    const isCall = filter.type === "CallExpression";
    const name = String((isCall ? (filter["callee"] as Node) : filter)["value"]);
    const { nodes, values, named } = isCall ? this.#arguments(filter["args"] as readonly Node[], environment) : noArguments;
    const first = values[0];
    if (!cheapFilters.has(name)) this.charge(lengthOf(operand) + values.reduce((sum, value) => sum + lengthOf(value), 0));
    switch (name) {
      case "tojson": {
        const separators = named.get("separators");
        this.#chargeText(operand, numberOf(named.get("indent")), separators === undefined ? 0 : 8 * this.#measured(separators));
        break;
      }
      case "string":
        this.#chargeText(operand);
        break;
      case "join":
        this.#chargeText(operand);
        this.#chargeCopies(elementsOf(operand), first ?? named.get("separator"));
        break;
      case "indent":
        this.charge((linesOf(operand) * (numberOf(first ?? named.get("width")) || 4)) / charactersPerStep);
        break;
      case "replace":
        this.#chargeReplacement(operand, values);
        break;
      case "sort":
      case "dictsort":
        this.#chargeSorting(operand, values[2] ?? named.get("attribute"));
        break;
      case "map":
        this.#chargeCopies(elementsOf(operand), named.get("attribute"));
        break;
      default:
    }
    const changed = { type: "FilterExpression", operand: known(operand), filter: isCall ? { ...filter, args: nodes } : filter };
    // The first element of nothing is undefined in JavaScript's way too.
    const value: Value | undefined = super.evaluate(changed as unknown as Node, environment);
    return value ? this.#paid(value) : super.evaluate(undefined, environment);
  }

  /** A call whose arguments and function are known, in the order in which the interpreter finds them. */
  #call(call: Node, environment: Scope): Node {
    const { nodes, values } = this.#arguments(call["args"] as readonly Node[], environment);
    for (const value of values) this.charge(lengthOf(value));
    return { ...call, args: nodes, callee: known(this.evaluate(call["callee"] as Node, environment)) };
  }

  /** Arguments, positional ones before named ones: as nodes that hold their values, and as values. */
  #arguments(args: readonly Node[], environment: Scope): Arguments {
    const nodes = new Map<Node, Node>();
    const values: Value[] = [];
    const named = new Map<string, Value>();
    const evaluate = (part: unknown): Value => this.evaluate(part as Node, environment);
    const isNamed = ({ type }: Node): boolean => type === "KeywordArgumentExpression" || type === "KeywordSpreadExpression";
    for (const arg of args) {
      if (isNamed(arg)) continue;
      const isSpread = arg.type === "SpreadExpression";
      const value = evaluate(isSpread ? arg["argument"] : arg);
      this.charge(lengthOf(value));
      for (const item of isSpread ? itemsOf(value) : [value]) values.push(item);
      // Some filters ask for texts that stand in the template.
      nodes.set(arg, isSpread ? { ...arg, argument: known(value) } : arg.type === "StringLiteral" ? arg : known(value));
    }
    for (const arg of args) {
      if (!isNamed(arg)) continue;
      const isSpread = arg.type === "KeywordSpreadExpression";
      const value = evaluate(isSpread ? arg["argument"] : arg["value"]);
      this.charge(lengthOf(value));
      if (!isSpread) named.set(String((arg["key"] as Node)["value"]), value);
      else for (const [key, item] of entriesOf(value)) named.set(key, item);
      nodes.set(arg, { ...arg, [isSpread ? "argument" : "value"]: known(value) });
    }
    return { nodes: args.map((arg) => nodes.get(arg) ?? arg), values, named };
  }

  #member(node: Node, environment: Scope): Value {
    const object = this.evaluate(node["object"] as Node, environment);
    const isSlice = node["computed"] === true && (node["property"] as Node).type === "SliceExpression";
    if (isSlice) this.charge(lengthOf(object) * (typeof object.value === "string" ? charactersPerStep : 1));
    const value = super.evaluate({ ...node, object: known(object) } as unknown as Node, environment);
    if (value.type !== "FunctionValue") return value;
    // A method of the object: it pays for its object's size whenever it is called, whatever it is called by then.
    const builtin = (name: string): boolean => object.builtins.get(name) === value;
    const [isReplace, isSort] = [builtin("replace"), builtin("dictsort")];
    const method = value.value as Callable;
    const FunctionValue = value.constructor as new (run: Callable) => Value;
    return new FunctionValue((args, scope) => {
      this.charge(lengthOf(object));
      if (isReplace) this.#chargeReplacement(object, args);
      if (isSort) this.#chargeSorting(object, undefined);
      return method(args, scope);
    });
  }

  /** Pays for a value as text, whatever it holds; each holds others, the same one perhaps many times. */
  #chargeText(value: Value, indent = 0, separator = 0): void {
    const waiting: { readonly value: Value; readonly depth: number }[] = [{ value, depth: 1 }];
    for (let next = waiting.pop(); next; next = waiting.pop()) {
      const { depth } = next;
      this.charge(1 + lengthOf(next.value) + (separator + indent * depth) / charactersPerStep);
      for (const item of itemsOf(next.value)) waiting.push({ value: item, depth: depth + 1 });
    }
  }

  /** Eight characters' steps of a value that is a text or holds texts. */
  #measured(value: Value): number {
    return itemsOf(value).reduce((sum, item) => sum + lengthOf(item), lengthOf(value));
  }

  #chargeCopies(count: number, text: Value | undefined): void {
    if (text !== undefined) this.charge(count * (1 + lengthOf(text)));
  }

  #chargeReplacement(text: Value, [old, by]: readonly Value[]): void {
    const [whole, sought, put] = [text.value, old?.value, by?.value].map((value) => (typeof value === "string" ? value : "")) as [
      string,
      string,
      string,
    ];
    let count = sought === "" ? whole.length + 1 : 0;
    if (sought !== "") for (let at = whole.indexOf(sought); at >= 0; at = whole.indexOf(sought, at + sought.length)) count++;
    this.charge(count * (1 + put.length / charactersPerStep));
  }

  /** Each comparison looks at two values whole, and at the path to them. */
  #chargeSorting(operand: Value, path: Value | undefined): void {
    const rounds = Math.ceil(Math.log2(elementsOf(operand) + 2));
    for (let i = 0; i < rounds; i++) this.#chargeText(operand);
    this.#chargeCopies(rounds * elementsOf(operand), path);
  }
}

interface Arguments {
  readonly nodes: readonly Node[];
  readonly values: readonly Value[];
  readonly named: ReadonlyMap<string, Value>;
}

const noArguments: Arguments = { nodes: [], values: [], named: new Map() };

/** A node whose value is there already. */
function known(value: Value): Node {
  return { type: "Known", value };
}

function isContainer({ value }: Value): boolean {
  return typeof value === "object" && value !== null;
}

/** Steps that going through a value once takes: a text's characters by eight, an array's or an object's elements. */
function lengthOf({ value }: Value): number {
  return typeof value === "string"
    ? value.length / charactersPerStep
    : Array.isArray(value)
      ? value.length
      : value instanceof Map
        ? value.size
        : 0;
}

function elementsOf({ value }: Value): number {
  return typeof value === "string" || Array.isArray(value) ? value.length : value instanceof Map ? value.size : 0;
}

function linesOf({ value }: Value): number {
  return typeof value === "string" ? value.split("\n").length : 0;
}

function itemsOf({ value }: Value): readonly Value[] {
  if (Array.isArray(value)) return value as readonly Value[];
  return value instanceof Map ? ([...value.values()] as Value[]) : [];
}

function entriesOf({ value }: Value): readonly (readonly [string, Value])[] {
  return value instanceof Map ? ([...value] as (readonly [string, Value])[]) : [];
}

function numberOf(value: Value | undefined): number {
  return typeof value?.value === "number" && value.value > 0 ? value.value : 0;
}

/** What a template's nodes are to those around them. */
export interface Places {
  /** Nodes whose value becomes text of a block. */
  readonly outputs: ReadonlySet<unknown>;
  /** Nodes whose elements are gone through: what a loop runs over. */
  readonly sequences: ReadonlySet<unknown>;
  /** Nodes in a macro or in a block that is handed to one, which are looked through when it is defined. */
  readonly sizes: ReadonlyMap<unknown, number>;
}

const blocks = ["body", "alternate", "defaultBlock"] as const;

/** Looks through a parsed template once. */
export function placesOf(program: unknown): Places {
  const outputs = new Set<unknown>();
  const sequences = new Set<unknown>();
  const sizes = new Map<unknown, number>();
  const visit = (value: unknown): number => {
    if (Array.isArray(value)) return value.reduce((sum: number, item: unknown) => sum + visit(item), 0);
    if (value instanceof Map) return [...value].reduce((sum, [key, item]) => sum + visit(key) + visit(item), 0);
    if (typeof value !== "object" || value === null) return 0;
    const node = value as Node;
    for (const block of blocks) if (Array.isArray(node[block])) for (const child of node[block]) outputs.add(child);
    if (node.type === "For") {
      const iterable = node["iterable"] as Node;
      sequences.add(iterable.type === "SelectExpression" ? iterable["lhs"] : iterable);
    }
    const size = Object.values(node).reduce<number>((sum, field) => sum + visit(field), 1);
    if (node.type === "Macro" || node.type === "CallStatement") sizes.set(node, size);
    return size;
  };
  visit(program);
  return { outputs, sequences, sizes };
}
