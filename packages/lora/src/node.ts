import { setNodeTimedMatch } from "./targeting/node/timed-match.js";

setNodeTimedMatch();

export * from "./index.js";
export { adapterOutline, loadAdapter, saveAdapter } from "./peft/node.js";
