import { setNodeTimedMatch } from "./targeting/node/timed-match.js";

setNodeTimedMatch();

export { adapterOutline, loadAdapter, saveAdapter } from "./files/node.js";
export * from "./index.js";
