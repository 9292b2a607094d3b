import { appendFile } from "node:fs/promises";
import type { Adapter } from "@lowrank/lora";
import { type ChatMessage, type SchemaConstraint, stringifyLossless, TextGenerator, type Tokenizer } from "@lowrank/models";
import { fileError } from "@lowrank/tensor";
import { type Answer, answered, noteCutJson } from "../chat/answers.js";
import { askedTokens, askingFlags, isChat, type Opening, openingOf } from "../chat/conversation.js";
import { InputLines } from "../chat/lines.js";
import { samplingFlags, samplingOf } from "../chat/sampling.js";
import { heldTo } from "../chat/schema.js";
import { type CommandContext, defineCommand } from "../command.js";
import { UsageError } from "../failure.js";
import type { Flags } from "../flags.js";
import { revisionFlag } from "../hub.js";
import { contextOf } from "../runs.js";
import { adapterFlag, baseFlag, deviceFlag, openAdapter, openModel, openTemplate, quantizeFlag, withDevice } from "../session.js";

const flags = {
  model: baseFlag,
  revision: revisionFlag,
  quantize: quantizeFlag,
  adapter: adapterFlag,
  system: askingFlags.system,
  tools: askingFlags.tools,
  message: askingFlags.message,
  schema: askingFlags.schema,
  "max-new-tokens": { type: "integer", min: 1, help: "at most this many tokens an answer", default: 512 },
  ...samplingFlags,
  device: deviceFlag,
} as const satisfies Flags;

type Context = CommandContext<typeof flags>;

const help = [
  "/reset        begin anew",
  "/system TEXT  begin anew with this system message; without a text, with none",
  "/adapter      answer with the base and with the adapter, one below the other; again: with the adapter alone",
  "/save FILE    add the conversation to a file, as a row for train",
  "/exit         end, as the end of the input does",
];

async function runChat({ values, output, signal }: Context): Promise<number> {
  const opening = await openingOf({ ...values, chat: true, raw: false });
  const held = await heldTo(values.schema);
  return withDevice(values.device, output, async (dev) => {
    const { model, tokenizer } = await openModel(values.model, dev, {
      revision: values.revision,
      quantize: values.quantize,
      adapters: values.adapter === undefined ? [] : [values.adapter],
      output,
      signal,
    });
    const adapter = await openAdapter(model, values.adapter, output, signal);
    if (values.adapter !== undefined) await openTemplate(tokenizer, values.adapter, output, signal);
    isChat({ ...values, chat: true, raw: false }, tokenizer, false);
    const constraint = held(model, tokenizer);
    const generator = new TextGenerator(model);
    try {
      const chat = new Chat({ values, output, signal }, { generator, tokenizer, adapter, opening, constraint });
      output.note("type a message, or /help");
      const lines = new InputLines();
      for (;;) {
        output.part("> ");
        const line = await lines.next();
        if (line === null || line.trim() === "/exit") break;
        if (line.trim() !== "") await chat.hear(line.trim());
      }
      output.say();
      return 0;
    } finally {
      generator.dispose();
    }
  });
}

/** What a conversation is had with. */
interface Partner {
  readonly generator: TextGenerator;
  readonly tokenizer: Tokenizer;
  readonly adapter: Adapter | null;
  readonly opening: Opening;
  readonly constraint: SchemaConstraint | null;
}

class Chat {
  #opening: Opening;
  #messages: ChatMessage[];
  #isBoth = false;

  constructor(
    readonly context: Pick<Context, "values" | "output" | "signal">,
    readonly partner: Partner,
  ) {
    this.#opening = partner.opening;
    this.#messages = [...partner.opening.messages];
  }

  /** A line of the person's: a command, or a message, which is answered. */
  async hear(line: string): Promise<void> {
    const { output } = this.context;
    const [, command, rest = ""] = /^\/(\w+)\s*(.*)$/s.exec(line) ?? [];
    switch (command) {
      case undefined:
        return this.#ask(line);
      case "reset":
        this.#begin(this.#opening);
        return output.note("a new conversation");
      case "system": {
        const others = this.#opening.messages.filter(({ role }) => role !== "system");
        this.#begin({ ...this.#opening, messages: rest === "" ? others : [{ role: "system", content: rest }, ...others] });
        return output.note(rest === "" ? "a new conversation without a system message" : "a new conversation with this system message");
      }
      case "adapter":
        if (!this.partner.adapter) return output.note("there is no adapter: start with --adapter DIR");
        this.#isBoth = !this.#isBoth;
        return output.note(this.#isBoth ? "the base and the adapter answer" : "the adapter answers");
      case "save":
        return this.#save(rest);
      default:
        for (const each of help) output.note(each);
        if (command !== "help") output.note(`there is no /${command}`);
    }
  }

  #begin(opening: Opening): void {
    this.#opening = opening;
    this.#messages = [...opening.messages];
  }

  async #ask(text: string): Promise<void> {
    const { output } = this.context;
    const { adapter } = this.partner;
    const asked = [...this.#messages, { role: "user", content: text }];
    try {
      if (this.#isBoth && adapter) {
        output.say("base:");
        adapter.disable();
        try {
          await this.#answer(asked);
        } finally {
          adapter.enable();
        }
        output.say("adapter:");
      }
      const { text: answer } = await this.#answer(asked);
      this.#messages = [...asked, { role: "assistant", content: answer }];
    } catch (error) {
      // A message that the template or the context does not take leaves the conversation as it was.
      if (!(error instanceof UsageError) && (error as Error).name !== "TokenizerError") throw error;
      output.note(`error: ${(error as Error).message}`);
    }
  }

  async #answer(messages: readonly ChatMessage[]): Promise<Answer> {
    const { values, output, signal } = this.context;
    const { generator, tokenizer, constraint } = this.partner;
    const prompt = askedTokens(tokenizer, messages, this.#opening.tools);
    const room = contextOf(generator.model) - prompt.length;
    if (room < 1)
      throw new UsageError(
        `the conversation has ${prompt.length} tokens, and the context holds ${contextOf(generator.model)}. Begin anew with /reset.`,
      );
    const [answer] = await answered(generator, tokenizer, [prompt], {
      ...samplingOf(values),
      maxNewTokens: Math.min(values["max-new-tokens"], room),
      stopTexts: values.stop ?? [],
      constraint,
      signal,
      onText: (text) => output.part(text),
    });
    output.say();
    if (constraint && answer) noteCutJson([answer], output);
    else if (answer?.end === "length") output.note("(stopped at the length limit)");
    return answer as Answer; // of the one prompt
  }

  async #save(path: string): Promise<void> {
    const { output } = this.context;
    if (path === "") return output.note("name a file: /save FILE");
    const { tools } = this.#opening;
    try {
      await appendFile(path, `${stringifyLossless({ messages: this.#messages, ...(tools && { tools }) })}\n`);
      output.note(`saved in ${path}`);
    } catch (error) {
      const told = fileError(path, "cannot be written", error);
      output.note(`error: ${told instanceof Error ? told.message : String(told)}`);
    }
  }
}

export const chatCommand = defineCommand({
  name: "chat",
  makes: "text",
  summary: "Talk with a model through its chat template, with or without an adapter.",
  flags,
  examples: [
    "lowrank chat --model ./model --adapter run",
    'lowrank chat --model HuggingFaceTB/SmolLM2-135M-Instruct --system "Answer briefly."',
  ],
  run: runChat,
});
