// Random rows by a seed: conversations, prompts with completions, texts.

const words =
  "the a dog cat Lily runs, jumped. Why? don't 3.14 1,000 (x) foo_bar() é naïve 世界 🙂 Grüße -- “ok” a=b; <b> \\n # 10% ... I'm 42".split(
    " ",
  );
const glue = [" ", " ", " ", " ", "\n", "  ", "\n\n", "\t"];

/** Numbers from 0 to below n, by a seed. @param {number} seed */
function dice(seed) {
  let state = (seed + 1) * 2654435761;
  return (/** @type {number} */ n) => {
    state = (Math.imul(state ^ (state >>> 15), 2246822519) + 374761393) >>> 0;
    return ((state ^ (state >>> 13)) >>> 0) % n;
  };
}

/** @param {(n: number) => number} roll @param {number} most  words */
function textOf(roll, most) {
  let text = words[roll(words.length)] ?? "";
  for (let i = roll(most); i > 0; i--) text += `${glue[roll(glue.length)]}${words[roll(words.length)]}`;
  const around = roll(12);
  return around === 0 ? ` ${text}` : around === 1 ? `${text}\n` : around === 2 ? `${text} ` : text;
}

const tool = (/** @type {string} */ name) => ({
  type: "function",
  function: { name, description: `To ${name}.`, parameters: { type: "object", properties: { x: { type: "integer" } }, required: ["x"] } },
});

/**
 * Conversations of one to three questions. `has`: what some of them hold besides.
 * @param {number} count
 * @param {number} seed
 * @param {readonly ("system" | "tools" | "thoughts")[]} has
 */
export function conversationRows(count, seed, has) {
  const roll = dice(seed);
  return Array.from({ length: count }, () => {
    /** @type {object[]} */
    const messages = has.includes("system") && roll(3) === 0 ? [{ role: "system", content: textOf(roll, 6) }] : [];
    const isCalling = has.includes("tools") && roll(4) === 0;
    for (let turn = roll(3); turn >= 0; turn--) {
      messages.push({ role: "user", content: textOf(roll, 8) });
      if (isCalling && roll(2) === 0) {
        const call = { id: "call00001", type: "function", function: { name: "look", arguments: { x: roll(100) } } };
        messages.push({ role: "assistant", content: "", tool_calls: [call] });
        messages.push({ role: "tool", content: String(roll(100)), tool_call_id: "call00001", name: "look" });
      }
      const thought = has.includes("thoughts") && roll(4) === 0 ? `<think>\n${textOf(roll, 5).trim()}\n</think>\n\n` : "";
      messages.push({ role: "assistant", content: thought + textOf(roll, 10) });
    }
    return isCalling ? { messages, tools: [tool("look"), tool("add")] } : { messages };
  });
}

/** @param {number} count @param {number} seed */
export function completions(count, seed) {
  const roll = dice(seed + 100);
  return Array.from({ length: count }, () => {
    const [prompt, completion] = [textOf(roll, 8), textOf(roll, 8)];
    return { prompt, completion: roll(2) === 0 ? ` ${completion}` : completion };
  });
}

/** @param {number} count @param {number} seed */
export function texts(count, seed) {
  const roll = dice(seed + 200);
  return Array.from({ length: count }, () => ({ text: textOf(roll, 20) }));
}
