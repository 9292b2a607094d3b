import type { RowTokenizer } from "../../src/data/index.js";

/** One token a character (its code), 1 in front, 2 at the end; "ab" is one token (3), so that borders can lie inside a token. */
export const characters: RowTokenizer & Required<Pick<RowTokenizer, "encodeWithOffsets">> = {
  encode: (text, options) => characters.encodeWithOffsets(text, options).ids,
  encodeWithOffsets(text, options) {
    const begin = options?.addSpecialTokens === false ? [] : [1];
    const ids = [...begin];
    const offsets: (readonly [number, number])[] = begin.map(() => [0, 0]);
    for (let i = 0; i < text.length; ) {
      const isPair = text[i] === "a" && text[i + 1] === "b";
      const end = i + (isPair ? 2 : 1);
      ids.push(isPair ? 3 : text.charCodeAt(i));
      offsets.push([i, end]);
      i = end;
    }
    return { ids, offsets };
  },
  eosTokenId: 2,
  bosTokenId: 1,
  renderChat: (messages, options) => ({
    text: messages.map((m) => `<${m.role[0]}>${m.content}\n`).join("") + (options?.addGenerationPrompt ? "<a>" : ""),
    generation: [],
  }),
};
