import { ExpressionParser } from "./expressions.js";
import { filters } from "./filters.js";
import { TemplateSyntaxError, tokenize } from "./lexer.js";
import type { Expression, MacroBody, Signature, Statement, Target } from "./syntax.js";
import { tests } from "./tests.js";

/** A template's statements. Throws TemplateSyntaxError where it is not valid Jinja as transformers sets it up. */
export function parseTemplate(text: string): readonly Statement[] {
  const parser = new Parser(tokenize(text));
  const statements = parser.template();
  for (const { kind, name, line } of parser.needed)
    if (!(kind === "filter" ? filters : tests).has(name)) throw new TemplateSyntaxError(`there is no ${kind} "${name}"`, line);
  return statements;
}

class Parser extends ExpressionParser {
  #loops = 0;

  template(): readonly Statement[] {
    const statements = this.#statements([]);
    if (!this.is("eof")) this.fail("a block ends that did not begin");
    return statements;
  }

  /** Statements up to a block with one of these names, which is the next token then. */
  #statements(ends: readonly string[]): Statement[] {
    const statements: Statement[] = [];
    while (!this.is("eof")) {
      if (this.is("data")) statements.push({ type: "data", text: this.next().value });
      else if (this.is("variable_begin")) {
        this.next();
        statements.push({ type: "output", value: this.tuple() });
        this.expect("variable_end");
      } else {
        this.expect("block_begin");
        if (this.is("name") && ends.includes(this.current.value)) return statements;
        statements.push(...this.deeper(() => this.#statement()));
        this.expect("block_end");
      }
    }
    if (ends.length > 0) this.fail(`a block has no ${ends.at(-1)}`);
    return statements;
  }

  /** The statements of a block, whose end is skipped. */
  #body(...ends: readonly string[]): { readonly statements: Statement[]; readonly end: string } {
    this.skipIf("operator", ":");
    this.expect("block_end");
    const statements = this.#statements(ends);
    return { statements, end: this.next().value };
  }

  #statement(): readonly Statement[] {
    const { value: tag } = this.expect("name");
    switch (tag) {
      case "if":
        return [this.#if()];
      case "for":
        return [this.#for()];
      case "set":
        return [this.#set()];
      case "macro": {
        const { value: name } = this.expect("name");
        return [{ type: "macro", name, macro: this.#macro(this.#signature(), "endmacro") }];
      }
      case "call": {
        const signature = this.is("operator", "(") ? this.#signature() : { names: [], defaults: [] };
        const call = this.expression();
        if (call.type !== "call") return this.fail("expected a call");
        return [{ type: "callBlock", call, macro: this.#macro(signature, "endcall") }];
      }
      case "filter": {
        const filter = this.filter(null, true) as Expression; // The first one has no bar in front of it, so there is one.
        return [{ type: "filterBlock", filter, body: this.#body("endfilter").statements }];
      }
      case "with":
        return [this.#with()];
      case "block": {
        const { value: name } = this.expect("name");
        this.skipIf("name", "scoped");
        const body = this.#body("endblock").statements;
        this.skipIf("name", name);
        return [{ type: "block", body }];
      }
      case "generation":
        return [{ type: "generation", body: this.#apart(() => this.#body("endgeneration").statements) }];
      case "print": {
        const values = [this.expression()];
        while (this.skipIf("operator", ",")) values.push(this.expression());
        return values.map((value) => ({ type: "output", value }));
      }
      case "break":
      case "continue":
        if (this.#loops === 0) this.fail(`a ${tag} stands outside of a loop`);
        return [{ type: tag }];
      default:
        return this.fail(
          ["include", "import", "from", "extends", "autoescape"].includes(tag)
            ? `{% ${tag} %} has no meaning in a chat template`
            : `there is no tag "${tag}"`,
        );
    }
  }

  #if(): Statement {
    const branches: (readonly [Expression, readonly Statement[]])[] = [];
    this.conditions++;
    let end = "elif";
    while (end === "elif") {
      const test = this.tuple({ withChoice: false });
      const body = this.#body("elif", "else", "endif");
      branches.push([test, body.statements]);
      end = body.end;
    }
    const otherwise = end === "else" ? this.#body("endif").statements : [];
    this.conditions--;
    return { type: "if", branches, otherwise };
  }

  #for(): Statement {
    const target = this.#target("in");
    this.expect("name", "in");
    const sequence = this.tuple({ withChoice: false, ends: "recursive" });
    const test = this.skipIf("name", "if") ? this.expression() : null;
    const isRecursive = this.skipIf("name", "recursive");
    this.#loops++;
    const body = this.#body("endfor", "else");
    this.#loops--;
    const otherwise = body.end === "else" ? this.#body("endfor").statements : [];
    return { type: "for", target, sequence, test, isRecursive, body: body.statements, otherwise };
  }

  #set(): Statement {
    const target = this.#target("=");
    if (this.skipIf("operator", "=")) return { type: "set", target, value: this.tuple() };
    const filter = this.filter(null);
    return { type: "setBlock", target, filter, body: this.#body("endset").statements };
  }

  #with(): Statement {
    const targets: (readonly [Target, Expression])[] = [];
    while (!this.is("block_end")) {
      if (targets.length > 0) this.expect("operator", ",");
      const target = this.#target("=");
      this.expect("operator", "=");
      targets.push([target, this.expression()]);
    }
    return { type: "with", targets, body: this.#body("endwith").statements };
  }

  #signature(): Signature {
    this.expect("operator", "(");
    const names: string[] = [];
    const defaults: Expression[] = [];
    while (!this.is("operator", ")")) {
      if (names.length > 0) this.expect("operator", ",");
      names.push(this.expect("name").value);
      if (this.skipIf("operator", "=")) defaults.push(this.expression());
      else if (defaults.length > 0) this.fail("a parameter without a default follows one that has one");
    }
    this.next();
    return { names, defaults };
  }

  #macro(signature: Signature, end: string): MacroBody {
    const mentioned = new Set<string>();
    this.mentioned.push(mentioned);
    const body = this.#apart(() => this.#body(end).statements);
    this.mentioned.pop();
    return { ...signature, body, mentioned };
  }

  /** Reads a body that is a function of its own: the loops around it are not its loops. */
  #apart<R>(read: () => R): R {
    const loops = this.#loops;
    this.#loops = 0;
    const result = read();
    this.#loops = loops;
    return result;
  }

  /** A name, `name.field` of a namespace, or several in a tuple. */
  #target(end: string): Target {
    const items: Target[] = [];
    let isTuple = false;
    for (;;) {
      if (this.is("name", end) || this.is("operator", end) || this.is("operator", ")") || this.is("block_end")) break;
      items.push(this.#oneTarget());
      if (!this.skipIf("operator", ",")) break;
      isTuple = true;
    }
    const [first] = items;
    if (!first) this.fail("expected a name to assign to");
    return isTuple ? { type: "tuple", items } : (first as Target);
  }

  #oneTarget(): Target {
    if (this.skipIf("operator", "(")) {
      const inner = this.deeper(() => this.#target(")"));
      this.expect("operator", ")");
      return inner;
    }
    const { value: name } = this.expect("name");
    if (["true", "True", "false", "False", "none", "None"].includes(name)) this.fail(`"${name}" cannot be assigned to`);
    if (!this.skipIf("operator", ".")) return { type: "name", name };
    return { type: "field", name, field: this.expect("name").value };
  }
}
