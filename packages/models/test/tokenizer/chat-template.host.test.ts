import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { Template } from "@huggingface/jinja";
import { TokenizerError } from "@lowrank/models";
import { sharedDir } from "test-support";
import { describe, expect, test } from "vitest";
import { ChatTemplate } from "../../src/tokenizer/chat-template.js";
import { strftime } from "../../src/tokenizer/strftime.js";

const messages = [
  { role: "system", content: " Be brief. " },
  { role: "user", content: "2 + 2?\nAnd 3 + 3?" },
  { role: "assistant", content: "4, 6" },
];
const variables = { messages, bos_token: "<s>", eos_token: "</s>", add_generation_prompt: true };

/** What the plain interpreter gives, or null where it fails. */
function plain(template: string | Template, given: Readonly<Record<string, unknown>>): string | null {
  try {
    return (typeof template === "string" ? new Template(template) : template).render({ ...given });
  } catch {
    return null;
  }
}

/** What ours gives, or null where it refuses; any other error fails the test. */
function metered(template: string | ChatTemplate, given: Readonly<Record<string, unknown>>): string | null {
  try {
    return (typeof template === "string" ? new ChatTemplate(template) : template).render(given);
  } catch (error) {
    expect(error).toBeInstanceOf(TokenizerError);
    return null;
  }
}

describe("a chat template gives what Jinja's interpreter gives", () => {
  test.each([
    "{% for m in messages if m.role != 'system' %}{{ loop.index }}/{{ loop.length }} {{ m.content | upper }}{% else %}none{% endfor %}",
    "{% set ns = namespace(n=0, all=[]) %}{% for m in messages %}{% set ns.n = ns.n + 1 %}{% set ns.all = ns.all + [m.role] %}{% endfor %}{{ ns.n }} {{ ns.all }}",
    "{% macro show(m, tag='x') %}<{{ tag }}>{{ m.content.strip() }}{{ varargs }}{{ kwargs }}</{{ tag }}>{% endmacro %}{{ show(messages[0], 'a', 1, b=2) }}",
    "{% macro wrap(tag) %}<{{ tag }}>{{ caller(1) }}</{{ tag }}>{% endmacro %}{% call(n) wrap('b') %}{{ n + 1 }}{% endcall %}",
    "{{ messages | tojson }} {{ messages | tojson(indent=2) }} {{ messages | tojson(separators=(',', ':'), sort_keys=true) }}",
    "{{ messages | map(attribute='role') | join(', ') }} {{ messages | selectattr('role', 'equalto', 'user') | list | length }}",
    "{{ messages | rejectattr('role', 'eq', 'user') | map(attribute='content') | list }}",
    "{{ messages[::-1][0].role }} {{ messages[-1]['content'][1:3] }} {{ 'abc'[::2] }} {{ messages[9] is defined }}",
    "{{ 'a b a'.replace('a', 'x', 1) }} {{ 'aXbX' | replace('X', '') }} {{ 'a,b'.split(',') }} {{ ' x '.strip() | length }} {{ 'abc'.upper() }}",
    "{{ {'b': 1, 'a': [2, {}]} | dictsort }} {{ {'b': 1}.items() | list }} {{ {'a': 1}.get('b', 3) }} {{ ['b', 'A'] | sort }} {{ [3, 1] | sort(reverse=true) }}",
    "{{ 'a\nb\n' | indent(2, true) }} {{ 'x' ~ 1 ~ none }} {{ 7 // 2 }} {{ 2 ** 3 }} {{ -3 % 2 }} {{ 1.0 + 2 }} {{ 'a' in 'abc' }} {{ 1 in [1] }}",
    "{% if messages[0].role == 'system' and not tools is defined %}{{ (messages[0].content | trim) if true else '' }}{% elif x %}y{% else %}z{% endif %}",
    "{% for i in range(1, 10, 3) %}{% if i == 7 %}{% break %}{% endif %}{{ i }}{% endfor %}{% for k, v in {'a': 1}.items() %}{{ k }}{{ v }}{% endfor %}",
    "{% filter upper %}a{{ bos_token }}{% endfilter %}{% set t %}b{{ eos_token }}{% endset %}{{ t | length }} {% generation %}c{% endgeneration %}",
    "{% set f = 'abcabc'.replace %}{{ f('b', '-') }} {{ [[1, 2], 'x'] | string }} {{ [1, 2] == [1, 2] }} {{ 'a' == ['a'] }} {{ undefined_name is none }}",
    "{{ messages | join }} {{ 'abc' | join('-') }} {{ 'a' | default('b') }} {{ none_such | default('b', true) }} {{ '5' | int + 1 }} {{ [1, 1, 2] | unique }}",
    "{{ namespace({'a': 1}).a }} {{ loop is defined }} {{ 'Ab' is lower }} {{ [*[1, 2], 3] if false else 1 }}",
  ])("%s", (text) => {
    expect(metered(text, variables)).toBe(plain(text, variables));
  });

  const shared = sharedDir("templates");
  const texts = shared === null ? [] : readdirSync(shared).filter((name) => name.endsWith(".jinja"));
  test.skipIf(shared === null).each(texts)("%s of the templates that models ship, in every conversation", (name) => {
    const folder = shared as string;
    const text = readFileSync(join(folder, name), "utf8");
    const { conversations, special } = JSON.parse(readFileSync(join(folder, "cases.json"), "utf8")) as {
      conversations: readonly Readonly<Record<string, unknown>>[];
      special: Readonly<Record<string, string>>;
    };
    const [theirs, ours] = [new Template(text), new ChatTemplate(text)];
    let renderedCount = 0;
    for (const { name: _name, ...conversation } of conversations) {
      const given = { ...special, ...conversation };
      const expected = plain(theirs, given);
      if (expected !== null) renderedCount++;
      expect(metered(ours, given)).toBe(expected);
    }
    expect(renderedCount).toBeGreaterThan(0);
  });

  test("a long conversation is no mistake", () => {
    const long = Array.from({ length: 500 }, (_, i) => ({
      role: i % 2 === 0 ? "user" : "assistant",
      content: `${"word ".repeat(200)}${i}`,
    }));
    const text =
      "{% for m in messages %}{% if (m.role == 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception('no') }}{% endif %}<{{ m['role'] }}>{{ m['content'] | trim }}{{ messages | length }}{{ m.content.split('word') | length }}\n{% endfor %}";
    expect(metered(text, { messages: long })).toBe(plain(text, { messages: long }));
  });
});

/** Templates that ask for too much, each of which took gigabytes or had no end. */
const endless: readonly (readonly [name: string, text: string])[] = [
  ["a range of a billion", "{% for i in range(1000000000) %}x{% endfor %}"],
  ["a range of a billion that nobody looks at", "{{ range(1000000000) | length }}"],
  ["nested loops", "{% for i in range(9999) %}{% for j in range(9999) %}{% for k in range(9999) %}{% endfor %}{% endfor %}{% endfor %}"],
  ["a text doubled", `{% set s = 'ab' %}${"{% set s = s + s %}".repeat(60)}{{ s }}`],
  [
    "a text doubled in a namespace",
    "{% set ns = namespace(s='ab') %}{% for i in range(99) %}{% set ns.s = ns.s ~ ns.s %}{% endfor %}{{ ns.s | length }}",
  ],
  [
    "a list of itself twice, as text",
    "{% set ns = namespace(a=[1]) %}{% for i in range(99) %}{% set ns.a = [ns.a, ns.a] %}{% endfor %}{{ ns.a }}",
  ],
  [
    "a list of itself twice, compared",
    "{% set ns = namespace(a=[1]) %}{% for i in range(99) %}{% set ns.a = [ns.a, ns.a] %}{% endfor %}{{ ns.a == 'x' }}",
  ],
  [
    "a list of itself twice, joined",
    "{% set ns = namespace(a=[1]) %}{% for i in range(99) %}{% set ns.a = [ns.a, ns.a] %}{% endfor %}{{ ns.a | join }}",
  ],
  [
    "a list of itself twice, added to a text",
    "{% set ns = namespace(a=[1]) %}{% for i in range(99) %}{% set ns.a = [ns.a, ns.a] %}{% endfor %}{{ 'x' ~ ns.a }}",
  ],
  [
    "two lists of themselves, added",
    "{% set ns = namespace(a=[1]) %}{% for i in range(99) %}{% set ns.a = [ns.a, ns.a] %}{% endfor %}{{ ns.a ~ ns.a }}",
  ],
  ["a namespace in itself", "{% set ns = namespace(a=1) %}{% set ns.a = ns %}{% set ns.b = ns %}{{ ns }}"],
  ["a macro that calls itself", "{% macro m(n) %}{{ m(n + 1) }}{% endmacro %}{{ m(0) }}"],
  ["a macro that calls itself twice", "{% macro m(n) %}{% if n < 60 %}{{ m(n + 1) }}{{ m(n + 1) }}{% endif %}{% endmacro %}{{ m(0) }}"],
  ["an indent of a billion", "{{ 'a\nb' | indent(1000000000) }}"],
  ["JSON indented by a billion", "{{ messages | tojson(indent=1000000000) }}"],
  [
    "separators that are long",
    "{% set s = 'x' * 1 if false else 'x' %}{% for i in range(20) %}{% set s = s %}{% endfor %}{{ range(90000) | list | tojson(separators=(big, big)) }}",
  ],
  ["long texts put in at each character", "{{ big | replace('', big) }}"],
  ["the same by a method under another name", "{% set f = big.replace %}{{ f('', big) }}"],
  ["elements joined by long texts", "{{ range(100000) | join(big) }}"],
  ["a long text sorted often", "{% set a = [big, big, big] %}{% for i in range(100000) %}{% set b = a | sort %}{% endfor %}"],
  ["a text taken apart in every round", "{% for i in range(100000) %}{% if big[::-1] %}{% endif %}{% endfor %}"],
  ["a method called in every round", "{% set f = big.strip %}{% for i in range(100000) %}{% if f() %}{% endif %}{% endfor %}"],
  ["a text looked through in every round", "{% for i in range(100000) %}{% if 'xyz' in big %}{% endif %}{% endfor %}"],
  ["the text of a block in every round", `{% for i in range(150000) %}${"t".repeat(100_000)}{% endfor %}`],
];

describe("rendering is bounded", () => {
  const big = "x y".repeat(30_000);
  test.each(endless)("%s is refused within a second of work and little memory", (_, text) => {
    const memory = process.memoryUsage().rss;
    const start = process.cpuUsage();
    expect(() => new ChatTemplate(text).render({ ...variables, big })).toThrow(
      expect.objectContaining({
        name: "TokenizerError",
        message: expect.stringMatching(/not rendered to its end: it (takes too many steps|goes more than 500 expressions deep)/),
      }),
    );
    const { user, system } = process.cpuUsage(start);
    // A second, and as much again for the collector's threads, on the slowest of machines.
    expect((user + system) / 1e6).toBeLessThan(5);
    expect(process.memoryUsage().rss - memory).toBeLessThan(500e6);
  });

  test.each([
    ["white space without end", `${" ".repeat(2 ** 19)}x`, /long runs of white space/],
    ["megabytes", "x".repeat(2 ** 21), /2097152 characters/],
    ["brackets without end", `{{ ${"(".repeat(50_000)}`, /not valid Jinja/],
    ["conditions without end", "{% if a %}".repeat(50_000), /not valid Jinja/],
    ["half a tag", "{{ ", /not valid Jinja/],
    ["a tag that is none", "{% frobnicate %}", /not valid Jinja|cannot be rendered/],
    ["something undefined", "{{ a.b.c + 1 }}", /cannot be rendered with these messages/],
    ["null in the middle", "{{ none.a.b + none }}", /cannot be rendered with these messages/],
    ["a call of what is no function", "{{ messages() }}", /cannot be rendered .*Cannot call something that is not a function/],
    ["a break without a loop", "{% break %}", /cannot be rendered/],
    [
      "a refusal",
      "{{ raise_exception('Roles must alternate') }}",
      /^The chat template refuses the messages: Roles must alternate\. Change their roles or their order\.$/,
    ],
    ["a refusal without a reason", "{{ raise_exception(messages) }}", /refuses the messages: it gives no reason\. Change/],
    ["half a number of rounds", "{{ range(0.5) }}", /range\(\) takes one to three whole numbers/],
    ["no number of rounds", "{{ range('a') }}", /range\(\) takes one to three whole numbers/],
    ["JavaScript", "{{ ''.constructor.constructor('return process')().exit() }}", /cannot be rendered/],
  ])("%s is a TokenizerError that says so", (_, text, says) => {
    const attempt = (): string => new ChatTemplate(text).render(variables);
    expect(attempt).toThrow(TokenizerError);
    expect(attempt).toThrow(says);
  });

  test.each([null, undefined, 3, "text", [null], [3], [{}], [{ role: "user" }], [{ role: 1, content: { a: 1 } }]].map((given) => [given]))(
    "messages that are none are a TokenizerError or a text: %j",
    (given) => {
      const text = "{% for m in messages %}{{ m.role }}: {{ m.content | trim }}{% endfor %}";
      expect(typeof (metered(text, { messages: given }) ?? "")).toBe("string");
    },
  );
});

test("strftime writes English names and Python's directives", () => {
  const date = new Date(2026, 6, 5, 15, 7, 9);
  expect(strftime(date, "%A %a %B %b %d %e %F %H %I %j %M %m %p %S %T %Y %y %% %Q %")).toBe(
    "Sunday Sun July Jul 05  5 2026-07-05 15 03 186 07 07 PM 09 15:07:09 2026 26 % %Q %",
  );
});
