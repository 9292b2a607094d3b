import { elementsOf, isTrue } from "./compare.js";
import { globals } from "./globals.js";
import { Evaluator } from "./interpreter.js";
import { loopVariable } from "./loop.js";
import type { Meter } from "./meter.js";
import { Output, Scope } from "./scope.js";
import type { Expression, MacroBody, Statement, Target } from "./syntax.js";
import { Callable, Dict, type Given, Namespace, orElse, TemplateError, Tuple, Undefined, type Value } from "./values.js";

/** What a template gives: the text, and the spans that `{% generation %}` marks as [start, end) in UTF-16 units. */
export interface Rendering {
  readonly text: string;
  readonly generation: readonly (readonly [start: number, end: number])[];
}

/** Renders a parsed template. Throws TemplateError where Python would raise, RenderLimit, and what `globals` throw. */
export function render(program: readonly Statement[], variables: ReadonlyMap<string, Value>, now: () => Date, meter: Meter): Rendering {
  const renderer = new Renderer(meter);
  const around = new Scope(null);
  for (const [name, value] of globals(now)) around.set(name, value);
  const scope = new Scope(around);
  for (const [name, value] of variables) scope.set(name, value);
  renderer.run(program, new Scope(scope), renderer.output);
  return { text: renderer.output.text(), generation: renderer.generation };
}

type Signal = "break" | "continue" | null;

class Renderer extends Evaluator {
  /** What the template itself writes; the bodies of macros write elsewhere. */
  readonly output = new Output();
  readonly generation: (readonly [number, number])[] = [];

  constructor(meter: Meter) {
    super(meter);
  }

  /** Runs statements one after another, until one of them ends the round of a loop. */
  run(statements: readonly Statement[], scope: Scope, output: Output): Signal {
    for (const statement of statements) {
      this.meter.enter();
      const signal = this.#statement(statement, scope, output);
      this.meter.leave();
      if (signal) return signal;
    }
    return null;
  }

  #statement(node: Statement, scope: Scope, output: Output): Signal {
    switch (node.type) {
      case "data":
        this.charge(node.text.length / 8);
        output.write(node.text);
        return null;
      case "output":
        output.write(this.text(this.evaluate(node.value, scope)));
        return null;
      case "if": {
        const branch = node.branches.find(([test]) => isTrue(this.evaluate(test, scope)));
        return this.run(branch ? branch[1] : node.otherwise, scope, output);
      }
      case "for":
        this.#for(node, this.evaluate(node.sequence, scope), scope, output, 1);
        return null;
      case "set":
        this.#assign(node.target, this.evaluate(node.value, scope), scope);
        return null;
      case "setBlock": {
        const text = this.#body(node.body, new Scope(scope));
        this.#assign(node.target, node.filter ? this.#filtered(node.filter, text, scope) : text, scope);
        return null;
      }
      case "with": {
        const inner = new Scope(scope);
        const values = node.targets.map(([, value]) => this.evaluate(value, scope));
        for (const [i, [target]] of node.targets.entries()) this.#assign(target, values[i] as Value, inner);
        return this.run(node.body, inner, output);
      }
      case "macro":
        scope.set(node.name, this.#macro(node.name, node.macro, scope));
        return null;
      case "callBlock": {
        const { positional, named } = this.given(node.call.args, scope);
        const caller = this.#macro("caller", node.macro, scope);
        const value = this.call(this.evaluate(node.call.callee, scope), { positional, named: new Map([...named, ["caller", caller]]) });
        output.write(this.text(value));
        return null;
      }
      case "filterBlock":
        output.write(this.text(this.#filtered(node.filter, this.#body(node.body, new Scope(scope)), scope)));
        return null;
      case "block":
        return this.run(node.body, new Scope(scope), output);
      case "generation": {
        const text = this.#body(node.body, new Scope(scope));
        // As transformers counts: from what the template has written so far. In a macro's text that place is another one.
        this.generation.push([this.output.length, this.output.length + text.length]);
        output.write(text);
        return null;
      }
      case "break":
      case "continue":
        return node.type;
    }
  }

  #for(node: Statement & { readonly type: "for" }, sequence: Value, scope: Scope, output: Output, depth: number): void {
    let items = elementsOf(sequence, this.charge);
    if (node.test) {
      const { test } = node;
      items = items.filter((value) => {
        const inner = new Scope(scope);
        this.#assign(node.target, value, inner);
        return isTrue(this.evaluate(test, inner));
      });
    }
    const again = (inner: Value): Value => {
      const text = new Output();
      this.meter.enter();
      this.#for(node, inner, scope, text, depth + 1);
      this.meter.leave();
      return text.text();
    };
    const memory = { changed: undefined };
    for (const [index, value] of items.entries()) {
      this.charge(20);
      const round = new Scope(scope);
      round.set("loop", loopVariable(items, index, depth, memory, node.isRecursive ? again : null, this.charge));
      this.#assign(node.target, value, round);
      if (this.run(node.body, round, output) === "break") break;
    }
    if (items.length === 0) this.run(node.otherwise, new Scope(scope), output);
  }

  #assign(target: Target, value: Value, scope: Scope): void {
    if (target.type === "name") scope.set(target.name, value);
    else if (target.type === "field") {
      const space = scope.find(target.name, this.charge);
      if (!(space instanceof Namespace)) throw new TemplateError("cannot assign attribute on non-namespace object");
      space.fields.set(target.field, value);
    } else {
      const values = elementsOf(value, this.charge);
      if (values.length !== target.items.length)
        throw new TemplateError(`${target.items.length} values are expected to unpack, and there are ${values.length}`);
      for (const [i, inner] of target.items.entries()) this.#assign(inner, values[i] as Value, scope);
    }
  }

  /** The text that statements write. */
  #body(statements: readonly Statement[], scope: Scope): string {
    const output = new Output();
    this.run(statements, scope, output);
    this.charge(output.length / 8);
    return output.text();
  }

  /** A chain of filters whose first one has no operand, on a text. */
  #filtered(node: Expression, text: string, scope: Scope): Value {
    if (node.type !== "filter") throw new TemplateError("a filter is expected");
    const operand = node.operand ? this.#filtered(node.operand, text, scope) : text;
    return this.filter(node.name, operand, this.given(node.args, scope));
  }

  #macro(name: string, macro: MacroBody, scope: Scope): Callable {
    const { names, defaults, mentioned, body } = macro;
    const call = ({ positional, named }: Given): Value => {
      const inner = new Scope(scope);
      const rest = new Map(named);
      for (const [i, parameter] of names.entries()) {
        const byName = rest.get(parameter);
        if (byName !== undefined && i < positional.length) throw new TemplateError(`macro '${name}' got the argument '${parameter}' twice`);
        rest.delete(parameter);
        const given = i < positional.length ? positional[i] : byName;
        const standard = defaults[i - (names.length - defaults.length)];
        inner.set(
          parameter,
          orElse(given, () => (standard ? this.evaluate(standard, inner) : new Undefined(`parameter '${parameter}' was not provided`))),
        );
      }
      if (mentioned.has("caller") && !names.includes("caller")) {
        inner.set(
          "caller",
          orElse(rest.get("caller"), () => new Undefined("No caller defined")),
        );
        rest.delete("caller");
      }
      if (mentioned.has("kwargs")) inner.set("kwargs", new Dict(rest));
      else if (rest.size > 0) throw new TemplateError(`macro '${name}' takes no keyword argument '${[...rest.keys()][0]}'`);
      if (mentioned.has("varargs")) inner.set("varargs", new Tuple(positional.slice(names.length)));
      else if (positional.length > names.length) throw new TemplateError(`macro '${name}' takes not more than ${names.length} argument(s)`);
      return this.#body(body, inner);
    };
    const attributes = (key: string): Value | undefined => (key === "name" ? name : key === "arguments" ? new Tuple(names) : undefined);
    return new Callable(`<Macro '${name}'>`, call, attributes);
  }
}
