import { setNodeEnvironment } from "./backends/node/environment.js";

setNodeEnvironment();

export * from "./index.js";
export { fileSource, nodeFiles, writeFileAtomic } from "./io/node.js";
