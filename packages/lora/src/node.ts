import { setNodeLinalgThreads } from "./linalg/node/threads.js";
import { setNodeTimedMatch } from "./targeting/node/timed-match.js";

setNodeTimedMatch();
setNodeLinalgThreads();

export { adapterOutline, baseQuantization, loadAdapter, saveAdapter } from "./files/node.js";
export * from "./index.js";
