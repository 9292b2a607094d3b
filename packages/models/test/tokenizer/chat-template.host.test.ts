import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { parseLossless, parseRows, Tokenizer, TokenizerError } from "@lowrank/models";
import { sharedDir } from "test-support";
import { describe, expect, test } from "vitest";
import { ChatTemplate } from "../../src/tokenizer/chat-template.js";
import { strftime } from "../../src/tokenizer/template/strftime.js";

const messages = [
  { role: "system", content: " Be brief. " },
  { role: "user", content: "2 + 2?\nAnd 3 + 3?" },
  { role: "assistant", content: "4, 6" },
];
const variables = { messages, bos_token: "<s>", eos_token: "</s>", add_generation_prompt: true };

/** What a template gives, or null where it refuses; any other error fails the test. */
function rendered(template: string | ChatTemplate, given: Readonly<Record<string, unknown>>, now?: () => Date): string | null {
  try {
    return (typeof template === "string" ? new ChatTemplate(template) : template).render(given, now);
  } catch (error) {
    expect(error).toBeInstanceOf(TokenizerError);
    return null;
  }
}

describe("a chat template gives what jinja2 gives", () => {
  // Made by `node scripts/compare-templates.mjs --write` with Python's jinja2; null where that refuses.
  const golden = JSON.parse(readFileSync(new URL("goldens-jinja.json", import.meta.url), "utf8")) as {
    readonly variables: string;
    readonly renderings: readonly (readonly [template: string, text: string | null])[];
  };
  const given = parseLossless(golden.variables) as Readonly<Record<string, unknown>>;
  test.each(golden.renderings)("%s", (template, text) => {
    // 5 March 2026, 09:07:03, as the script has it.
    expect(rendered(template, given, () => new Date(2026, 2, 5, 9, 7, 3))).toBe(text);
  });

  test("a template written with CRLF is one written with LF", () => {
    const text = "{% for m in messages %}\n{{ m.role }}:\n  {% if loop.last %}\nend\n  {% endif %}\n{% endfor %}\n";
    expect(rendered(text.replaceAll("\n", "\r\n"), variables)).toBe(rendered(text, variables));
    expect(rendered(text, variables)).toBe("system:\nuser:\nassistant:\nend\n");
  });

  test("the parts that {% generation %} marks are given with their places in the text", () => {
    const text =
      "{% for m in messages %}<{{ m.role }}>{% if m.role == 'assistant' %}{% generation %}{{ m.content }}🙂</s>{% endgeneration %}{% endif %}{% endfor %}";
    const { text: whole, generation } = new ChatTemplate(text).renderSpans(variables);
    expect(generation.map(([start, end]) => whole.slice(start, end))).toEqual(["4, 6🙂</s>"]);
  });

  const shared = sharedDir("templates");
  const texts = shared === null ? [] : readdirSync(shared).filter((name) => name.endsWith(".jinja"));
  test.skipIf(shared === null).each(texts)("%s of the templates that models ship, in every conversation", (name) => {
    const folder = shared as string;
    const { conversations, special, now, renderings } = parseLossless(readFileSync(join(folder, "cases.json"), "utf8")) as Cases;
    const tokenizer = new Tokenizer(plainTokenizer, special, readFileSync(join(folder, name), "utf8"));
    let renderedCount = 0;
    for (const [
      i,
      { name: _name, messages: turns, add_generation_prompt: addGenerationPrompt, ...conversation },
    ] of conversations.entries()) {
      const { text, error, generation = [] } = renderings[name.replace(".jinja", "")]?.[i] ?? {};
      const render = () =>
        tokenizer.renderChat(turns, { ...conversation, addGenerationPrompt: addGenerationPrompt ?? false, now: new Date(now) });
      if (text === undefined) {
        // Where Python fails on a type, a sensible text is no fault; a template's own refusal is to be heeded.
        if (error?.startsWith("TemplateError")) expect(render).toThrow(TokenizerError);
        continue;
      }
      const got = render();
      expect(got.text).toBe(text);
      const codePoints = (end: number): number => [...text.slice(0, end)].length;
      expect(got.generation.map(([start, end]) => [codePoints(start), codePoints(end)])).toEqual(generation);
      renderedCount++;
    }
    expect(renderedCount + (name === "llava_next.jinja" ? 1 : 0)).toBeGreaterThan(0);
  });

  test("a long conversation is no mistake", () => {
    const long = Array.from({ length: 500 }, (_, i) => ({
      role: i % 2 === 0 ? "user" : "assistant",
      content: `${"word ".repeat(200)}${i}`,
    }));
    const text =
      "{% for m in messages %}{% if (m.role == 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception('no') }}{% endif %}<{{ m['role'] }}>{{ m['content'] | trim }}{{ messages | length }}{{ m.content.split('word') | length }}\n{% endfor %}";
    expect(rendered(text, { messages: long })).toBe(long.map(({ role, content }) => `<${role}>${content.trim()}500201\n`).join(""));
  });
});

interface Cases {
  readonly now: string;
  readonly special: Readonly<Record<string, string>>;
  readonly conversations: readonly {
    readonly name: string;
    readonly messages: readonly Readonly<Record<string, unknown>>[];
    readonly add_generation_prompt?: boolean;
    readonly tools?: readonly object[];
    readonly documents?: readonly object[];
    readonly variables?: Readonly<Record<string, unknown>>;
  }[];
  readonly renderings: Readonly<
    Record<string, readonly { readonly text?: string; readonly error?: string; readonly generation?: readonly (readonly number[])[] }[]>
  >;
}

/** A tokenizer of a few words, for its templates. */
const plainTokenizer = {
  added_tokens: [],
  normalizer: null,
  pre_tokenizer: null,
  post_processor: null,
  decoder: null,
  model: { type: "WordPiece", unk_token: "<unk>", vocab: { "<unk>": 0, "<s>": 1, "</s>": 2, "<pad>": 3 } },
};

/** Templates that ask for too much, each of which took gigabytes or had no end. */
const endless: readonly (readonly [name: string, text: string])[] = [
  ["ten billion rounds", "{% for i in range(100000) %}{% for j in range(100000) %}x{% endfor %}{% endfor %}"],
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
    "{% set ns = namespace(a=[1], b=[1]) %}{% for i in range(99) %}{% set ns.a = [ns.a, ns.a] %}{% set ns.b = [ns.b, ns.b] %}{% endfor %}{{ ns.a == ns.b }}",
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
  ["the text of a block in every round", `{% for i in range(99999) %}${"t".repeat(200_000)}{% endfor %}`],
];

describe("rendering is bounded", () => {
  const big = "x y".repeat(30_000);
  test.each(endless)("%s is refused within a second of work and little memory", (_, text) => {
    const memory = process.memoryUsage().rss;
    const start = process.cpuUsage();
    expect(() => new ChatTemplate(text).render({ ...variables, big })).toThrow(
      expect.objectContaining({
        name: "TokenizerError",
        message: expect.stringMatching(
          /not rendered to its end: it (takes too many steps|goes more than (500 expressions|300 values) deep)/,
        ),
      }),
    );
    const { user, system } = process.cpuUsage(start);
    // A second, and as much again for the collector's threads, on the slowest of machines.
    expect((user + system) / 1e6).toBeLessThan(5);
    expect(process.memoryUsage().rss - memory).toBeLessThan(500e6);
  });

  test.each([
    ["megabytes", "x".repeat(2 ** 21), /2097152 characters/],
    ["brackets without end", `{{ ${"(".repeat(50_000)}`, /not valid Jinja/],
    ["conditions without end", "{% if a %}".repeat(50_000), /not valid Jinja/],
    ["half a tag", "{{ ", /not valid Jinja/],
    ["a tag that is none", "{% frobnicate %}", /not valid Jinja|cannot be rendered/],
    ["something undefined", "{{ a.b.c + 1 }}", /cannot be rendered with these messages/],
    ["null in the middle", "{{ none.a.b + none }}", /cannot be rendered with these messages/],
    ["a call of what is no function", "{{ messages() }}", /cannot be rendered .*'list' object is not callable/],
    ["a break without a loop", "{% break %}", /not valid Jinja .*outside of a loop/],
    [
      "a refusal",
      "{{ raise_exception('Roles must alternate') }}",
      /^The chat template refuses the messages: Roles must alternate\. Change their roles or their order\.$/,
    ],
    ["a refusal without a reason", "{{ raise_exception(messages) }}", /refuses the messages: it gives no reason\. Change/],
    ["a range of a billion", "{{ range(1000000000) | length }}", /a range of 1000000000 is longer than 100000/],
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
      expect(typeof (rendered(text, { messages: given }) ?? "")).toBe("string");
    },
  );
});

test("strftime writes English names and Python's directives", () => {
  const date = new Date(2026, 6, 5, 15, 7, 9);
  expect(strftime(date, "%A %a %B %b %d %e %F %H %I %j %M %m %p %S %T %Y %y %% %Q % %-d %-m %-I")).toBe(
    "Sunday Sun July Jul 05  5 2026-07-05 15 03 186 07 07 PM 09 15:07:09 2026 26 % %Q % 5 7 3",
  );
});

describe("numbers and fields keep what their JSON text says", () => {
  test.each([
    ["1.0", "1.0"],
    ["12345678901234567890", "12345678901234567890"],
    ["[1, 1.0, 1e3, -0.0, 0.10]", "[1, 1.0, 1000.0, -0.0, 0.1]"],
    ['{"10": 1, "2": {"b": 1.0, "a": 0}}', '{"10": 1, "2": {"b": 1.0, "a": 0}}'],
    ['{"a": "1.0 \\"2\\": \\u00e9", "a": 2.0}', '{"a": 2.0}'],
  ])("%s is %s to tojson", (json, text) => {
    expect(rendered("{{ x | tojson }}", { x: parseLossless(json) })).toBe(text);
  });

  test("what has no such number is what JSON.parse gives, and what is not JSON is its SyntaxError", () => {
    expect(parseLossless('{"a": [1, 2.5, "1.0"], "b": null}')).toEqual({ a: [1, 2.5, "1.0"], b: null });
    expect(() => parseLossless('{"a": 1.0')).toThrow(SyntaxError);
    expect(() => parseLossless(`${"[".repeat(5000)}1.0${"]".repeat(5000)}`)).toThrow(SyntaxError);
  });
});

describe("a conversation is rendered as transformers does", () => {
  const named = {
    default:
      "{{ messages[0].content }}|{{ tools is none }}|{{ documents | length if documents else 0 }}|{{ enable_thinking | default('unset') }}|{{ strftime_now('%d %b %Y') }}",
    tool_use: "{{ tools | map(attribute='name') | join(',') }}",
    rag: "rag",
  };
  const tokenizer = new Tokenizer(plainTokenizer, { bos_token: "<s>" }, named);
  const turns = [{ role: "user", content: "Hi" }];
  const now = new Date(2024, 6, 26);
  test.each([
    ["the default template sees no tools as None", {}, "Hi|True|0|unset|26 Jul 2024"],
    ["variables are names of the template", { variables: { enable_thinking: false } }, "Hi|True|0|False|26 Jul 2024"],
    ["documents reach it", { documents: [{ text: "a" }] }, "Hi|True|1|unset|26 Jul 2024"],
    ["tools choose the template for them", { tools: [{ name: "f" }, { name: "g" }] }, "f,g"],
    ["a name chooses a template", { template: "rag" }, "rag"],
  ])("%s", (_, options, text) => {
    expect(tokenizer.applyChatTemplate(turns, { ...options, now })).toBe(text);
    expect(tokenizer.applyChatTemplate(turns, { ...options, now: () => now })).toBe(text);
  });

  test("a template that is not there is named, with those that are", () => {
    expect(() => tokenizer.applyChatTemplate(turns, { template: "x" })).toThrow(
      /no chat template "x"\. Name one of "default", "tool_use", "rag"\./,
    );
  });

  test("special tokens that the checkpoint has not are undefined, and those that it has are their texts", () => {
    const template = "{{ bos_token }}{{ pad_token is defined }}{{ eos_token }}";
    expect(new Tokenizer(plainTokenizer, { bos_token: { content: "<s>" } }, template).applyChatTemplate(turns)).toBe("<s>False");
  });

  test.each([
    ["thinking", "{{ messages[0].thinking }}", "hm"],
    ["reasoning_content", "{{ messages[0].reasoning_content }}{{ messages[0].thinking }}", "hm"],
  ])("thoughts reach a template that calls them %s", (_, template, text) => {
    const thought = [{ role: "assistant", content: "", reasoning_content: "hm" }];
    expect(new Tokenizer(plainTokenizer, {}, template).applyChatTemplate(thought)).toBe(text);
  });
});

test("rows of a data file reach the template with the numbers that their text has", async () => {
  const line =
    '{"messages":[{"role":"user","content":"Add 2020. and 1.5"},{"role":"assistant","content":"ok \\"1.0\\" \\\\","tool_calls":[{"function":{"name":"f","arguments":{"10":1.0,"2":12345678901234567890}}}],"weight":1.0}]}';
  const [row] = parseRows(line, "rows.jsonl");
  const messages = row?.kind === "messages" ? row.messages : [];
  expect(rendered("{{ messages[1].content }} {{ messages[1].tool_calls[0].function.arguments | tojson }}", { messages })).toBe(
    'ok "1.0" \\ {"10": 1.0, "2": 12345678901234567890}',
  );
});
