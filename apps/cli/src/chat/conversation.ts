import type { ChatMessage, Tokenizer } from "@lowrank/models";
import { UsageError } from "../failure.js";
import type { Flags, Values } from "../flags.js";
import { jsonFile } from "./json-file.js";

/** How a model is asked, of every command that generates. */
export const askingFlags = {
  chat: { type: "switch", help: "ask through the chat template (default where the adapter was trained on conversations)" },
  raw: { type: "switch", help: "go on from the prompt as it is" },
  system: { type: "text", value: "TEXT", help: "with --chat: what the system says first" },
  tools: { type: "text", value: "FILE.json", path: "read", help: "with --chat: a list of the functions that the model may call" },
  message: { type: "texts", value: "ROLE:TEXT", help: "with --chat: a message before the prompt; several in their order" },
  schema: { type: "text", value: "FILE.json", path: "read", help: "hold answers to JSON that fits this JSON schema" },
} as const satisfies Flags;

type Asking = Values<typeof askingFlags>;

/** What every conversation begins with. */
export interface Opening {
  readonly messages: readonly ChatMessage[];
  readonly tools: readonly object[] | null;
}

/** Whether the model is asked through its template: as the flags say, else where the adapter was trained so. Throws UsageError where it has none. */
export function isChat(asking: Asking, tokenizer: Pick<Tokenizer, "chatTemplate">, isTrainedSo: boolean): boolean {
  if (asking.chat && asking.raw) throw new UsageError("--chat and --raw contradict each other. Keep one of them.");
  const wants = asking.chat || asking.system !== undefined || asking.tools !== undefined || (asking.message ?? []).length > 0;
  if (asking.raw && wants) throw new UsageError("--system, --tools and --message are for a chat. Leave out --raw, or these.");
  if (wants && tokenizer.chatTemplate === null)
    throw new UsageError("The model has no chat template, so that it cannot be asked with --chat. Use --raw, or a chat model.");
  return wants || (!asking.raw && isTrainedSo && tokenizer.chatTemplate !== null);
}

/** What the flags put in front of each prompt. Rejects with UsageError where a message has no role, or the tools are not a list. */
export async function openingOf({ system, tools, message = [] }: Asking): Promise<Opening> {
  const messages = message.map((text): ChatMessage => {
    const [, role = "", content = ""] = /^([\w-]+):(.*)$/s.exec(text) ?? [];
    if (role === "") throw new UsageError(`--message is "${text}". Write ROLE:TEXT, as in "user:Hello" or "assistant:Hi".`);
    return { role, content };
  });
  return {
    messages: [...(system === undefined ? [] : [{ role: "system", content: system }]), ...messages],
    tools: tools === undefined ? null : await toolsIn(tools),
  };
}

async function toolsIn(path: string): Promise<readonly object[]> {
  const value = await jsonFile("--tools", path, { remedy: "Write a list of functions with their JSON schemas.", isExact: true });
  if (!Array.isArray(value) || value.some((tool) => typeof tool !== "object" || tool === null))
    throw new UsageError(`--tools ${path} is not a list of objects. Write a list of functions with their JSON schemas.`);
  return value as readonly object[];
}

/** A conversation as the tokens that ask for the assistant's next turn: the template writes the begin token, and no other is added. */
export function askedTokens(tokenizer: Tokenizer, messages: readonly ChatMessage[], tools: readonly object[] | null): number[] {
  const text = tokenizer.applyChatTemplate(messages, { addGenerationPrompt: true, ...(tools && { tools }) });
  return tokenizer.encode(text, { addSpecialTokens: false });
}
