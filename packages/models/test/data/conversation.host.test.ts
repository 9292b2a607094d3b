import { describe, expect, it } from "vitest";
import { type DataError, encodeRows, type Row, type RowTokenizer } from "../../src/data/index.js";
import { ChatRenderer } from "../../src/tokenizer/chat.js";
import { characters } from "./characters.js";

/** Characters as tokens, with a template. */
function tokenizerWith(template: string): RowTokenizer {
  const renderer = new ChatRenderer({ default: template }, { eos_token: "!" });
  return {
    ...characters,
    specialTokens: ["!"],
    endTokens: ["!"],
    renderChat: (messages, options = {}) => renderer.render(messages, options),
  };
}

const chat = (messages: readonly object[], more: object = {}): Row => ({ kind: "messages", line: 1, messages, ...more }) as Row; // what rows hold
const said = (role: string, content: string | null, more: object = {}): object => ({ role, content, ...more });
const call = (given: unknown): object => ({ tool_calls: [{ type: "function", function: { name: "f", arguments: given } }] });

/** What is learned of a row, turn by turn, and the notes. */
function learned(template: string, row: Row, trainOn?: "last-turn"): { readonly turns: string[]; readonly unused: readonly string[] } {
  const { examples, notes } = encodeRows([row], "x", tokenizerWith(template), { context: 999, ...(trainOn && { trainOn }) });
  const text =
    examples[0]?.labels.map((label) => (label === -100 ? " " : String.fromCharCode(label === 3 ? 0x2022 : label))).join("") ?? "";
  return { turns: text.trim().split(/ {2,}/), unused: notes.unusedFields };
}

const plain = "{% for m in messages %}<{{ m.role[0] }}>{{ m.content }}!{% endfor %}{% if add_generation_prompt %}<a>{% endif %}";
const calling =
  "{% for m in messages %}<{{ m.role[0] }}>{{ m.content }}{% for c in m.tool_calls or [] %}[{{ c.function.arguments | tojson }}]{% endfor %}!{% endfor %}{% if add_generation_prompt %}<a>{% endif %}";

describe("of a conversation", () => {
  const turns = [said("user", "u"), said("assistant", "A"), said("user", "v"), said("assistant", "C")];

  it.each<[string, Row, "last-turn" | undefined, readonly string[]]>([
    ["all turns of the assistant are learned", chat(turns), undefined, ["A!", "C!"]],
    ["the last turn alone, where that is asked for", chat(turns), "last-turn", ["C!"]],
    ["no turn of weight 0", chat(turns, { isSupervised: [true, true, true, false] }), undefined, ["A!"]],
  ])("%s", (_, row, trainOn, expected) => expect(learned(plain, row, trainOn).turns).toEqual(expected));

  it("nothing is learned where no turn is to be", () => {
    const row = chat(turns, { isSupervised: [true, false, true, false] });
    expect(() => learned(plain, row)).toThrow(/nothing to learn from this row/);
  });

  it.each<[string, string, object, string]>([
    ["arguments as a mapping", calling, call({ k: 1 }), '[{"k":_1}]!'],
    ["arguments as JSON, which reach the template as a mapping", calling, call('{"k": 1}'), '[{"k":_1}]!'],
    ["arguments as JSON, where the template writes a text", calling.replace(" | tojson", ""), call('{"k": 1}'), '[{"k":_1}]!'],
    ["a number that JavaScript would change", calling, call('{"k": 1.0}'), '[{"k":_1.0}]!'],
  ])("%s is what transformers would write", (_, template, message, expected) => {
    const row = chat([said("user", "u"), said("assistant", "", message)]);
    expect(learned(template, row).turns.join("_").replaceAll(" ", "_")).toBe(expected);
  });

  it("a content of null beside calls is an empty text where the template cannot do without", () => {
    const row = chat([said("user", "u"), said("assistant", null, call({}))]);
    expect(learned(calling.replace("{{ m.content }}", "{{ m.content + '' }}"), row).turns).toEqual(["[{}]!"]);
  });

  it("a field that the template does not read is named, and one that it reads is not", () => {
    const row = chat([said("user", "u", { name: "n", mood: "m" }), said("assistant", "A")], { tools: [{}], variables: { x: 1, y: 2 } });
    const template = `{% if x %}{{ x }}{% endif %}{% for m in messages %}{{ m.name or '' }}{% endfor %}${plain}`;
    expect(learned(template, row).unused).toEqual(["mood", "tools", "chat_template_kwargs.y"]);
  });

  it("an end token that the template's marks leave out is learned all the same, and counted", () => {
    const marked = plain.replace(
      "{{ m.content }}!",
      "{% if m.role == 'assistant' %}{% generation %}{{ m.content }}{% endgeneration %}{% else %}{{ m.content }}{% endif %}!",
    );
    const { examples, notes } = encodeRows([chat(turns)], "x", tokenizerWith(marked), { context: 99 });
    expect(notes.extendedTurnCount).toBe(2);
    expect(examples[0]?.labels.filter((label) => label !== -100)).toEqual([..."A!C!"].map((c) => c.charCodeAt(0)));
  });

  it.each<[string, Row, "last-turn" | undefined, number]>([
    ["that say nothing", chat([said("user", "u"), said("assistant", " "), said("user", "v"), said("assistant", "")]), undefined, 2],
    ["that are learned", chat([said("user", "u"), said("assistant", ""), said("user", "v"), said("assistant", "C")]), "last-turn", 0],
    [
      "of a weight",
      chat([said("user", "u"), said("assistant", ""), said("assistant", "C")], { isSupervised: [true, false, true] }),
      undefined,
      0,
    ],
    ["that call something", chat([said("user", "u"), said("assistant", null, call({}))]), undefined, 0],
    ["with null calls", chat([said("user", "u"), said("assistant", "", { tool_calls: null }), said("assistant", "A")]), undefined, 1],
  ])("turns %s are counted where they teach to end at once", (_, row, trainOn, count) => {
    const { notes } = encodeRows([row], "x", tokenizerWith(calling), { context: 999, ...(trainOn && { trainOn }) });
    expect(notes.emptyTurnCount).toBe(count);
  });

  it("a refusal of the template names the line", () => {
    const refusing = "{{ raise_exception('roles must alternate') }}";
    const error = ((): DataError => {
      try {
        learned(refusing, chat(turns));
      } catch (found) {
        return found as DataError;
      }
      throw new Error("nothing was thrown");
    })();
    expect([error.name, error.line, error.message]).toEqual(["DataError", 1, expect.stringMatching(/^x:1: .*roles must alternate/)]);
  });
});
